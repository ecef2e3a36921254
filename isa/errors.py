"""Errors of the instruction set: one clear message each, never a traceback for bad input."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["AsmError", "Fault", "FormatError", "IsaError", "printable", "suggest"]


def printable(text: str) -> str:
    """A name from a file as it can be shown on one line: control characters, as a terminal obeys them, are escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def suggest(name: str, known: Iterable[str], listed: str = "") -> str:
    """Hint for a `name` that is not among `known`: what is spelt nearly like it, then all of `known` behind `listed`.

    `listed` "" leaves the list out; the hint is "" if nothing is near then. (`ir` has the same, for it knows no `isa`.)
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, 3)
    parts = [f"did you mean {', '.join(near)}?"] if near else []
    return " ".join([*parts, f"{listed} {', '.join(names) or 'none'}"] if listed else parts)


class IsaError(Exception):
    """A wrong instruction, program, container, assembly text or execution.

    `code` is stable (`area.what`); `where` says where in the user's terms; `hint` is an action, or empty.
    """

    def __init__(self, code: str, message: str, where: str = "", hint: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.where = where
        self.hint = hint

    def render(self) -> str:
        """Text for the terminal: `where: error[code]: message` and the hint on its own line."""
        head = f"{self.where}: " if self.where else ""
        tail = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{head}error[{self.code}]: {self.message}{tail}"

    def __str__(self) -> str:
        return self.render()


class FormatError(IsaError):
    """A container that is damaged, truncated, too new, or not a container; `section` and `offset` say where."""

    def __init__(self, code: str, message: str, *, section: str = "", offset: int = -1, file: str = "",
                 hint: str = "") -> None:
        parts = [file] if file else []
        if section:
            parts.append(f"section {section}")
        if offset >= 0:
            parts.append(f"offset {offset:#x}")
        super().__init__(code, message, where=", ".join(parts), hint=hint)
        self.section = section
        self.offset = offset


class AsmError(IsaError):
    """Assembly text that cannot be assembled; `line` and `col` count from 1."""

    def __init__(self, code: str, message: str, *, line: int = 0, col: int = 0, source: str = "", width: int = 1,
                 file: str = "<fasm>", hint: str = "") -> None:
        where = f"{file}:{line}:{col}" if line else file
        super().__init__(code, message, where=where, hint=hint)
        self.line = line
        self.col = col
        self.caret = ""
        if source and line:
            # Long source lines (hex data) are cut around the column, so that the message stays readable.
            start = max(0, col - 60)
            text = source[start:start + 110].replace("\t", " ")
            room = max(1, min(width, len(text) - (col - 1 - start)))
            self.caret = f"{line:5d} | {text}\n      | {' ' * (col - 1 - start)}{'^' * room}"

    def render(self) -> str:
        head = f"{self.where}: error[{self.code}]: {self.message}"
        caret = f"\n{self.caret}" if self.caret else ""
        tail = f"\n  hint: {self.hint}" if self.hint else ""
        return head + caret + tail


class Fault(IsaError):
    """A command that cannot be executed; `pc`, `insn` (text) and `node` (source node) are filled by the emulator."""

    def __init__(self, code: str, message: str, *, pc: int = -1, insn: str = "", node: str = "",
                 hint: str = "") -> None:
        super().__init__(code, message, hint=hint)
        self.pc = pc
        self.insn = insn
        self.node = node
        self.where = self._where()

    def _where(self) -> str:
        if self.pc < 0:
            return ""
        return f"pc {self.pc}: {self.insn}" if self.insn else f"pc {self.pc}"

    def at(self, pc: int, insn: str, node: str = "") -> Fault:
        """The same fault, located; an inner location already present is kept."""
        if self.pc < 0:
            self.pc, self.insn, self.node = pc, insn, node
            self.where = self._where()
        return self

    def render(self) -> str:
        head = f"{self.where}: " if self.where else ""
        source = f"\n  from: {self.node}" if self.node else ""
        tail = f"\n  hint: {self.hint}" if self.hint else ""
        return f"{head}error[{self.code}]: {self.message}{source}{tail}"
