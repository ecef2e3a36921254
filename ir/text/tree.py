"""Syntax of the text format: lark builds these light nodes directly, without a parse tree in between."""

from __future__ import annotations

from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, cast

from lark import Lark, Token, Transformer
from lark.exceptions import UnexpectedCharacters, UnexpectedEOF, UnexpectedInput, UnexpectedToken, VisitError

from focusc.ir.diagnostics import CompileError, Diagnostic, Loc
from focusc.ir.resource import Resource
from focusc.ir.text.literals import parse_absent, parse_dense, parse_int, parse_string

MAX_NESTING = 64
"""Deepest nesting of braces, brackets and parentheses."""

MAX_CHARACTERS = 1 << 28
"""Largest text."""


class ParamNode(NamedTuple):
    """`%name: type`."""

    name: Token
    type: Token


class OpNode(NamedTuple):
    """One op as written."""

    results: list[Token]
    name: Token
    args: list[Token | None]
    attrs: dict[str, Any]
    regions: list[RegionNode]
    types: list[Token] | None
    loc: tuple[str, str]


class RegionNode(NamedTuple):
    """One nested block as written."""

    params: list[ParamNode]
    ops: list[OpNode]


class ModuleNode(NamedTuple):
    """A whole text."""

    name: Token
    params: list[ParamNode]
    outputs: list[str]
    attrs: dict[str, Any]
    ops: list[OpNode]


class Named(NamedTuple):
    """`resource<"name">`, to be looked up."""

    token: Token
    name: str


class _Located(Exception):
    """A CompileError in a token; its position is filled in where the source text is known."""

    def __init__(self, error: CompileError, token: Token) -> None:
        super().__init__()
        self.error, self.token = error, token


def _read(parse: Any, token: Token, text: str | None = None) -> Any:
    try:
        return parse(str(token) if text is None else text)
    except CompileError as e:
        raise _Located(e, token) from None


class _Builder(Transformer[Token, ModuleNode]):
    """Rule callbacks; lark calls them bottom-up while it parses."""

    def start(self, c: list[Any]) -> ModuleNode:
        name, params, outputs, attrs, *ops = c
        _read(parse_string, name)
        return ModuleNode(name, params or [], outputs or [], attrs or {}, ops)

    def params(self, c: list[Any]) -> list[Any]:
        return c

    def param(self, c: list[Any]) -> ParamNode:
        return ParamNode(c[0], c[1])

    def strings(self, c: list[Any]) -> list[str]:
        return [_read(parse_string, t) for t in c]

    def op(self, c: list[Any]) -> OpNode:
        results, name, args, attrs, *regions, types, loc = c
        return OpNode(results or [], name, args or [], attrs or {}, regions, types, loc or ("", ""))

    def results(self, c: list[Any]) -> list[Any]:
        return c

    args = params

    def value(self, c: list[Any]) -> Token:
        return c[0]

    def absent(self, c: list[Any]) -> None:
        return None

    def region(self, c: list[Any]) -> RegionNode:
        return RegionNode(c[0] or [], c[1:])

    def one_type(self, c: list[Any]) -> list[Any]:
        return c

    def many_types(self, c: list[Any]) -> list[Any]:
        return [t for t in c if t is not None]

    def loc(self, c: list[Any]) -> tuple[str, str]:
        return _read(parse_string, c[0]), _read(parse_string, c[1]) if c[1] is not None else ""

    def attrs(self, c: list[Any]) -> dict[str, Any]:
        found: dict[str, Any] = {}
        for token, key, value in (e for e in c if e is not None):
            if key in found:
                raise _Located(CompileError(Diagnostic("parse.attribute", f"{key} is given twice")), token)
            found[key] = value
        return found

    def entry(self, c: list[Any]) -> tuple[Token, str, Any]:
        key = c[0]
        return key, (_read(parse_string, key) if key.startswith('"') else str(key)), c[1]

    def integer(self, c: list[Any]) -> int:
        return _read(parse_int, c[0])

    def floating(self, c: list[Any]) -> float:
        return float(c[0])

    def text(self, c: list[Any]) -> str:
        return _read(parse_string, c[0])

    def true(self, c: list[Any]) -> bool:
        return True

    def false(self, c: list[Any]) -> bool:
        return False

    def dense(self, c: list[Any]) -> Resource:
        return _read(parse_dense, c[0])

    def resource(self, c: list[Any]) -> Named:
        return Named(c[0], _read(parse_string, c[0], str(c[0])[len("resource<") : -1]))

    def absent_resource(self, c: list[Any]) -> Resource:
        return _read(parse_absent, c[0])

    def items(self, c: list[Any]) -> tuple[Any, ...]:
        return tuple(v for v in c if v is not None)


class _Nesting:
    """Refuses text nested deeper than MAX_NESTING, before any recursive code sees it."""

    always_accept = ()

    def process(self, stream: Iterator[Token]) -> Iterator[Token]:
        depth = 0
        for token in stream:
            if token.type in ("LBRACE", "LSQB", "LPAR"):
                depth += 1
                if depth > MAX_NESTING:
                    raise _Located(
                        CompileError(Diagnostic("parse.nesting", f"brackets are nested more than {MAX_NESTING} deep")),
                        token,
                    )
            elif token.type in ("RBRACE", "RSQB", "RPAR"):
                depth -= 1
            yield token


def grammar() -> str:
    """The grammar's text."""
    return Path(__file__).with_name("focus.lark").read_text(encoding="utf-8")


@lru_cache(maxsize=1)
def _parser() -> Lark:
    return Lark(
        grammar(),
        parser="lalr",
        transformer=_Builder(),
        postlex=_Nesting(),  # type: ignore[arg-type]
        maybe_placeholders=True,
    )


_SHOWN = {
    "VALUE": "a value like %3",
    "NAME": "a name",
    "STRING": "a string",
    "TYPE": "a type like tensor<2xf32>",
    "INT": "an integer",
    "FLOAT": "a float",
    "DENSE": "dense<...>",
    "RESOURCE": 'resource<"...">',
    "ABSENT": 'absent<..., "...">',
    "LBRACE": "'{'",
    "RBRACE": "'}'",
    "LPAR": "'('",
    "RPAR": "')'",
    "LSQB": "'['",
    "RSQB": "']'",
    "COMMA": "','",
    "COLON": "':'",
    "EQUAL": "'='",
    "CIRCUMFLEX": "'^'",
    "MODULE": "'module'",
    "LOC": "'loc'",
    "TRUE": "'true'",
    "FALSE": "'false'",
    "$END": "the end of the text",
}


def syntax(text: str, file: str) -> ModuleNode:
    """The text as nodes; CompileError with position, caret and expected tokens if it does not follow the grammar."""
    if len(text) > MAX_CHARACTERS:
        raise CompileError(
            Diagnostic("parse.size", f"the text has {len(text)} characters, the limit is {MAX_CHARACTERS}", Loc(file))
        )
    try:
        return _parser().parse(text)  # type: ignore[return-value]
    except VisitError as e:
        cause = e.orig_exc
        if isinstance(cause, _Located):
            raise located(cause.error, cause.token, text, file) from None
        raise
    except _Located as e:
        raise located(e.error, e.token, text, file) from None
    except UnexpectedInput as e:
        raise CompileError(_unexpected(e, text, file)) from None


def located(error: CompileError, token: Token, text: str, file: str) -> CompileError:
    """The error at the place of a token."""
    line, col = token.line or 0, token.column or 0
    return error.at(Loc(file or "<text>", line, col), excerpt=line_of(text, token.start_pos or 0))


def line_of(text: str, position: int) -> str:
    """The line of `text` that holds the character at `position`."""
    start = text.rfind("\n", 0, position) + 1
    end = text.find("\n", position)
    return text[start : end if end >= 0 else len(text)]


def _unexpected(e: UnexpectedInput, text: str, file: str) -> Diagnostic:
    token = cast("Token | None", getattr(e, "token", None))  # lark's classes leave it without a type
    if isinstance(e, UnexpectedEOF) or (token is not None and token.type == "$END"):
        line, position = text.count("\n") + 1, len(text)
        col = position - (text.rfind("\n") + 1) + 1
        what = "the text ends"
    else:
        line, col, position = e.line, e.column, e.pos_in_stream or 0
        what = f"found {str(token)[:40]!r}" if token is not None else f"found {text[position]!r}"
    names: set[str] = set()
    if isinstance(e, UnexpectedToken):
        names = set(e.accepts or e.expected or ())
    elif isinstance(e, UnexpectedCharacters):
        names = set(e.allowed or ())
    shown = sorted(_SHOWN.get(n, "'_'" if n.startswith("__ANON") or n == "UNDERSCORE" else n) for n in names)
    shown = [s for s in shown if s not in ("COMMENT", "IGNORE")]
    expected = f", expected {', '.join(shown[:10])}" if shown else ""
    return Diagnostic(
        "parse.syntax",
        what + expected,
        Loc(file or "<text>", line, col),
        excerpt=line_of(text, min(position, len(text))),
    )
