"""The ONNX front end: `import_onnx` reads a model into the IR, `op_report` says beforehand what it can read."""

from focusc.frontend.importer import import_onnx
from focusc.frontend.layout import check_layout, parse_layout
from focusc.frontend.report import NodeReport, OpReport, op_report

__all__ = ["NodeReport", "OpReport", "check_layout", "import_onnx", "op_report", "parse_layout"]
