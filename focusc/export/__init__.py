"""Models from torch into ONNX, and the token layout that travels with them.

`layout` is torch-free; `onnx_export` imports torch when a model is exported.
"""

from __future__ import annotations

from .layout import Layout
from .onnx_export import Exportable, ExportError, ExportReport, available, export

__all__ = ["ExportError", "ExportReport", "Exportable", "Layout", "available", "export"]
