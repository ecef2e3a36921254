"""Reading types, strings and inline constants from text. Errors carry no location; the reader adds it."""

from __future__ import annotations

import json
import re
from functools import lru_cache

import numpy as np

from focusc.ir.diagnostics import fail
from focusc.ir.resource import Resource
from focusc.ir.types import (
    DTYPES,
    BufferType,
    ConcentratedType,
    IndexType,
    StreamType,
    TensorType,
    TileType,
    TokensType,
    Type,
)

_DIMS = r"((?:\d{1,18}x)*)([a-z]+\d*)"
_NUMBER = r"(\d{1,18})"
_FORMS: dict[str, tuple[re.Pattern[str], str]] = {
    "tensor": (re.compile(_DIMS), "tensor<2x3xf32>"),
    "conc": (re.compile(rf"{_DIMS}\s*,\s*v{_NUMBER}\s*,\s*m{_NUMBER}"), "conc<310x192xf32, v32, m1024>"),
    "tokens": (re.compile(rf"{_NUMBER}\s+of\s+{_NUMBER}"), "tokens<58 of 310>"),
    "buffer": (re.compile(rf"{_DIMS}\s*,\s*(\w+)"), "buffer<310x192xf16, rows>"),
    "stream": (re.compile(rf"{_NUMBER}x{_NUMBER}\s*,\s*(\w+)"), "stream<310x192, dense>"),
    "tile": (re.compile(rf"{_NUMBER}x{_NUMBER}"), "tile<310x96>"),
}


def _shape(text: str) -> tuple[int, ...]:
    return tuple(int(d) for d in text.split("x")[:-1])


@lru_cache(maxsize=4096)
def parse_type(text: str) -> Type:
    """The type that `text` names; CompileError if there is none."""
    text = text.strip()
    if text == "index":
        return IndexType()
    kind, _, rest = text.partition("<")
    if kind not in _FORMS or not rest.endswith(">"):
        raise fail("parse.type", f"{text!r} is not a type; known: index, {', '.join(_FORMS)}")
    pattern, example = _FORMS[kind]
    found = pattern.fullmatch(rest[:-1].strip())
    if found is None:
        raise fail("parse.type", f"type {text!r} is malformed, expected a form like {example}")
    part = found.groups()
    match kind:
        case "tensor":
            return TensorType(_shape(part[0]), part[1])
        case "conc":
            return ConcentratedType(_shape(part[0]), part[1], int(part[2]), int(part[3]))
        case "tokens":
            return TokensType(int(part[0]), int(part[1]))
        case "buffer":
            return BufferType(_shape(part[0]), part[1], part[2])
        case "stream":
            return StreamType(int(part[0]), int(part[1]), part[2])
        case _:
            return TileType(int(part[0]), int(part[1]))


def parse_string(text: str) -> str:
    """A JSON string literal."""
    try:
        return json.loads(text)
    except ValueError:
        raise fail("parse.string", f"string {text[:60]} has an escape or character that JSON does not allow") from None


def parse_int(text: str) -> int:
    """An integer of at most 64 bits."""
    if len(text) > 20 or not -(1 << 63) <= int(text) < 1 << 64:
        raise fail("parse.int", f"integer {text[:24]} does not fit 64 bits")
    return int(text)


_ABSENT = re.compile(rf"{_DIMS}\s*,\s*(\".*\")")


def parse_absent(text: str) -> Resource:
    """`absent<2x3xf32, "name">`: a constant without values."""
    found = _ABSENT.fullmatch(text[len("absent<") : -1].strip())
    if found is None:
        raise fail(
            "parse.absent", f"constant {text[:60]!r} is malformed, expected a form like absent<2x3xf32, \"name\">"
        )
    type_ = TensorType(_shape(found[1]), found[2])
    return Resource.without_values(parse_string(found[3]), type_.shape, type_.dtype)


_DENSE = re.compile(rf"{_DIMS}\s*,\s*\[(.*)\]")


def parse_dense(text: str) -> Resource:
    """`dense<2xf32, [1.0, 2.0]>`: all elements, row-major."""
    found = _DENSE.fullmatch(text[len("dense<") : -1].strip())
    if found is None:
        raise fail("parse.dense", f"constant {text[:60]!r} is malformed, expected a form like dense<2xf32, [1.0, 2.0]>")
    type_ = TensorType(_shape(found[1]), found[2])
    items = [t.strip() for t in found[3].split(",")] if found[3].strip() else []
    if len(items) != type_.size:
        raise fail("parse.dense", f"constant of type {type_} lists {len(items)} elements, expected {type_.size}")
    try:
        values = [_element(t, type_.dtype) for t in items]
        array = np.array(values, dtype=np.float64 if type_.dtype[0] == "f" else None if values else np.int64)
        if type_.dtype[0] in "iu" and values:
            info = np.iinfo(DTYPES[type_.dtype])
            if min(values) < info.min or max(values) > info.max:
                raise ValueError
        with np.errstate(over="ignore"):
            return Resource("", array.astype(DTYPES[type_.dtype]).reshape(type_.shape))
    except (ValueError, OverflowError):
        raise fail("parse.dense", f"an element of {text[:60]!r} is not a number of type {type_.dtype}") from None


def _element(text: str, dtype: str) -> float | int | bool:
    if dtype == "bool":
        if text not in ("true", "false"):
            raise ValueError
        return text == "true"
    if dtype[0] == "f":
        return float(text)
    if len(text) > 20:
        raise ValueError
    return int(text)
