"""The ONNX front end: `import_onnx` reads a model into the IR, `op_report` says beforehand what it can read."""

from focusc.frontend.importer import import_onnx
from focusc.frontend.report import NodeReport, OpReport, op_report

__all__ = ["NodeReport", "OpReport", "import_onnx", "op_report"]
