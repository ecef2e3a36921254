"""The error of everything that exports."""

from __future__ import annotations

__all__ = ["ExportError"]


class ExportError(ValueError):
    """A model that cannot be exported, or whose ONNX form does not agree with torch.

    `code` is stable and listed in docs/errors.md, `where` names the file or the line of model code.
    """

    def __init__(self, message: str, *, code: str = "export.model", where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code, self.where, self.hint = code, where, hint
