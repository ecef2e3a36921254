"""Locations, diagnostics and the one exception that bad input raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from dataclasses import dataclass, replace

LIMIT = 20
"""Most diagnostics that one error carries; a longer list hides the first cause."""


def printable(text: str) -> str:
    """A name from a file as it can be shown on one line: control characters, as a terminal obeys them, are escaped."""
    return text if text.isprintable() else "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def suggest(name: str, known: Iterable[str], listed: str = "") -> str:
    """Hint for a `name` that is not among `known`: what is spelt nearly like it, then all of `known` behind `listed`.

    `listed` "" leaves the list out; the hint is "" if nothing is near then. (`isa` has the same, for it knows no `ir`.)
    """
    names = list(known)
    near = difflib.get_close_matches(name, names, 3)
    parts = [f"did you mean {', '.join(near)}?"] if near else []
    return " ".join([*parts, f"{listed} {', '.join(names) or 'none'}"] if listed else parts)


@dataclass(frozen=True, slots=True)
class Loc:
    """Where something came from: a text position, an ONNX node and the torch module path of that node."""

    file: str = ""
    line: int = 0
    col: int = 0
    node: str = ""
    module_path: str = ""

    @property
    def known(self) -> bool:
        """True if any part of the location is known."""
        return bool(self.file or self.line or self.node or self.module_path)

    def position(self) -> str:
        """`file:line:col`, as far as known."""
        if not self.line:
            return self.file
        return f"{self.file or '<text>'}:{self.line}:{self.col}"

    def origin(self) -> str:
        """The model's own words for the place: module path, ONNX node, or both."""
        both = self.module_path and self.node
        return printable(f"{self.module_path} ({self.node})" if both else self.module_path or self.node)


UNKNOWN = Loc()


@dataclass(frozen=True, slots=True)
class Diagnostic:
    """One finding: `code` is stable (`area.what`), `message` says what is and what was expected."""

    code: str
    message: str
    loc: Loc = UNKNOWN
    notes: tuple[tuple[Loc, str], ...] = ()
    hint: str = ""
    excerpt: str = ""
    """The source line that `loc` points into, if it came from text."""

    def render(self, kind: str = "error") -> str:
        """The message as shown to a user; several lines, no trailing newline. `kind` says what it is a message of."""
        position = self.loc.position()
        lines = [f"{position + ': ' if position else ''}{kind}[{self.code}]: {self.message}"]
        if self.excerpt and self.loc.line:
            lines += _caret(self.excerpt, self.loc)
        if origin := self.loc.origin():
            lines.append(f"  from: {origin}")
        for where, text in self.notes:
            place = where.position() or where.origin()
            lines.append(f"  note: {place + ': ' if place else ''}{text}")
        if self.hint:
            lines.append(f"  hint: {self.hint}")
        return "\n".join(lines)


def _caret(excerpt: str, loc: Loc) -> list[str]:
    """The source line with a caret under `loc.col`, cut to a window so that a long line stays readable."""
    col = max(loc.col, 1)
    start = max(0, col - 80)
    text = excerpt[start : start + 120].replace("\t", " ")
    label = str(loc.line)
    return [f"  {label} | {text}", f"  {' ' * len(label)} | {' ' * (col - 1 - start)}^"]


class CompileError(Exception):
    """Bad input, in one or more diagnostics."""

    def __init__(self, diagnostics: Diagnostic | Iterable[Diagnostic]) -> None:
        found = (diagnostics,) if isinstance(diagnostics, Diagnostic) else tuple(diagnostics)
        self.diagnostics: tuple[Diagnostic, ...] = found[:LIMIT]
        super().__init__(self.render())

    def render(self) -> str:
        """All diagnostics as text."""
        return "\n".join(d.render() for d in self.diagnostics)

    def at(self, loc: Loc, prefix: str = "", excerpt: str = "") -> CompileError:
        """The same error with `loc` and `prefix` filled in where a diagnostic does not have its own location."""
        return CompileError(
            d if d.loc.known else replace(d, loc=loc, message=prefix + d.message, excerpt=d.excerpt or excerpt)
            for d in self.diagnostics
        )


class InferError(CompileError):
    """Raised by `infer` and `evaluate`: operands or attributes that do not fit. The caller adds the location."""

    def __init__(self, message: str, *, code: str = "type.operands", hint: str = "") -> None:
        super().__init__(Diagnostic(code, message, hint=hint))


def fail(code: str, message: str, loc: Loc = UNKNOWN, *, hint: str = "") -> CompileError:
    """A `CompileError` with one diagnostic, to be raised by the caller."""
    return CompileError(Diagnostic(code, message, loc, hint=hint))
