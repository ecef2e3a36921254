"""How the front end says no: every refusal names the node, what was found, what was expected and what to do."""

from __future__ import annotations

from focusc.ir.diagnostics import CompileError, Diagnostic, Loc


class Unsupported(Exception):
    """Raised by an import rule: this node, as it stands in the graph, cannot be imported.

    `constraint` is what must hold, `found` the value that breaks it, `hint` what the user can do. The importer adds
    the node's location and goes on with the next node, so that one run reports all of them.
    """

    def __init__(self, constraint: str, found: str, *, hint: str = "", code: str = "onnx.unsupported") -> None:
        super().__init__(constraint)
        self.code, self.constraint, self.found, self.hint = code, constraint, found, hint

    def diagnostic(self, subject: str, loc: Loc) -> Diagnostic:
        """The refusal as a diagnostic; `subject` names the node or op type."""
        return Diagnostic(self.code, f"{subject}: found {self.found}; expected {self.constraint}", loc, hint=self.hint)


def bad_model(code: str, message: str, *, file: str = "", node: str = "", hint: str = "") -> CompileError:
    """A `CompileError` about the model as a whole, or about one named part of it; raised by the caller."""
    return CompileError(Diagnostic(code, message, Loc(file=file, node=node), hint=hint))
