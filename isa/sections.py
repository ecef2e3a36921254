"""Contents of a container's structured sections: canonical JSON out, strictly validated JSON in."""

# pyright: reportUnknownArgumentType=false, reportUnknownMemberType=false, reportUnknownVariableType=false
from __future__ import annotations

import json
import re
from typing import Any, NoReturn

from focusc.isa.errors import FormatError, IsaError
from focusc.isa.program import DebugEntry, Symbol

__all__ = ["SECTIONS", "pack_json", "read_absent", "read_debug", "read_external", "read_object", "read_symbols"]

SECTIONS = ("text", "symbols", "hardware", "plan", "debug", "debugindex", "meta", "const")
"""Sections that this version knows."""
_MAX_DRAM = 1 << 48


def pack_json(value: Any) -> bytes:
    """Canonical JSON: sorted keys, no spaces, ASCII. IsaError for what JSON cannot hold (NaN included)."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False).encode("ascii")
    except (TypeError, ValueError, RecursionError) as error:
        raise IsaError("container.json", f"metadata cannot be written as JSON: {error}") from None


def _fail(section: str, message: str) -> NoReturn:
    raise FormatError("container.content", message, section=section)


def _refuse(text: str) -> NoReturn:
    raise ValueError(f"{text} is not JSON")


def _read(data: memoryview, section: str) -> Any:
    try:
        return json.loads(bytes(data), parse_constant=_refuse)
    except (ValueError, RecursionError, MemoryError) as error:
        _fail(section, f"not valid JSON: {str(error) or type(error).__name__}")


def read_object(data: memoryview, section: str) -> dict[str, Any]:
    """A JSON object."""
    value = _read(data, section)
    if not isinstance(value, dict):
        _fail(section, f"holds a JSON {type(value).__name__}, expected an object")
    return value


def _integer(value: Any, section: str, what: str, limit: int = _MAX_DRAM) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= limit:
        _fail(section, f"{what} is {str(value)[:40]}, expected an integer in 0..{limit}")
    return value


def _string(value: Any, section: str, what: str) -> str:
    if not isinstance(value, str):
        _fail(section, f"{what} is {str(value)[:40]}, expected text")
    return value


def read_symbols(data: memoryview) -> tuple[list[Symbol], int]:
    """Symbols and the arena's size."""
    value = read_object(data, "symbols")
    rows = value.get("symbols")
    if set(value) != {"arena_bytes", "symbols"} or not isinstance(rows, list):
        _fail("symbols", "expected the keys arena_bytes and symbols (a list)")
    out: list[Symbol] = []
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 5 or not isinstance(row[3], list):
            _fail("symbols", f"symbol {number} is not [name, kind, dtype, shape, address]")
        name, kind, dtype = (_string(item, "symbols", f"symbol {number}") for item in row[:3])
        if len(row[3]) > 16:
            _fail("symbols", f"symbol {name}: {len(row[3])} dimensions")
        shape = tuple(_integer(n, "symbols", f"extent of {name}") for n in row[3])
        try:
            out.append(Symbol(name, kind, dtype, shape, _integer(row[4], "symbols", f"address of {name}")))
        except IsaError as error:
            _fail("symbols", error.message)
    return out, _integer(value["arena_bytes"], "symbols", "arena_bytes")


def read_debug(data: memoryview) -> list[DebugEntry]:
    """The debug table."""
    rows = _read(data, "debug")
    if not isinstance(rows, list):
        _fail("debug", "expected a list of entries")
    out: list[DebugEntry] = []
    for number, row in enumerate(rows):
        if not isinstance(row, list) or len(row) != 4 or not all(isinstance(item, str) for item in row):
            _fail("debug", f"entry {number} is not four texts")
        out.append(DebugEntry(*row))
    return out


def read_absent(data: memoryview) -> int:
    """Bytes of constants whose values are not in the container."""
    value = read_object(data, "const")
    if set(value) != {"bytes"}:
        _fail("const", "expected the key bytes")
    return _integer(value["bytes"], "const", "bytes")


def read_external(data: memoryview) -> tuple[str, int, str]:
    """Name, bytes and digest of external constants; the name must stay beside the container."""
    value = read_object(data, "const")
    if set(value) != {"bytes", "digest", "file"}:
        _fail("const", "expected the keys bytes, digest and file")
    name = _string(value["file"], "const", "file")
    if not name or name in (".", "..") or re.search(r"[/\\\0:]", name):
        _fail("const", f"external file {name[:60]!r} is not a plain file name")
    return name, _integer(value["bytes"], "const", "bytes"), _string(value["digest"], "const", "digest")
