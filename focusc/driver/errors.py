"""The error that everything outside the IR and the ISA raises for bad input; it renders like theirs."""

from __future__ import annotations


class InputError(Exception):
    """Something the user gave is wrong.

    `code` is stable and listed in docs/errors.md, `where` names the file and the place in it, `hint` says what to do.

    The command line prints `render()` and exits with 1; it never shows a traceback for it.
    """

    def __init__(self, code: str, message: str, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint

    def render(self) -> str:
        """The text shown to people: `where: error[code]: message` and the hint on its own line."""
        head = f"{self.where}: " if self.where else ""
        tail = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{head}error[{self.code}]: {self.message}{tail}"

    def __str__(self) -> str:
        return self.render()
