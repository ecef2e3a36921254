"""Contents of a container's structured sections: canonical JSON out, strictly validated JSON in."""

from __future__ import annotations

import json
import math
import re
from typing import Any, NoReturn, cast

from focusc.isa.errors import FormatError, IsaError
from focusc.isa.host import MAX_SEGMENTS, HostNode, HostSegment
from focusc.isa.program import DebugEntry, Symbol

__all__ = ["SECTIONS", "check_meta", "check_plan", "host_row", "pack_json", "parse_json", "read_absent", "read_debug",
           "read_external", "read_host", "read_object", "read_symbols", "segment_of"]

SECTIONS = ("text", "symbols", "hardware", "plan", "debug", "debugindex", "meta", "host", "hostmodels", "const")
"""Sections that this version knows."""
_MAX_DRAM = 1 << 48
_MAX_MACS = 1 << 62
_NODE = ("op", "node", "path", "code", "message", "hint")
_SITE = ("tokens", "retained", "slots")
_PLACE = ("rows", "visual_start", "m", "first", "address", "cap")
_BUFFER = ("offset", "bytes", "from", "to")


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


def _finite(text: str) -> float:
    value = float(text)
    return value if math.isfinite(value) else _refuse(text)


def parse_json(text: str | bytes) -> Any:
    """JSON with finite numbers only. ValueError (also its subclasses) or RecursionError for anything else."""
    return json.loads(text, parse_constant=_refuse, parse_float=_finite)


def _read(data: memoryview, section: str) -> Any:
    try:
        return parse_json(bytes(data))
    except (ValueError, RecursionError, MemoryError) as error:
        _fail(section, f"not valid JSON: {str(error) or type(error).__name__}")


def read_object(data: memoryview, section: str) -> dict[str, Any]:
    """A JSON object."""
    value = _read(data, section)
    if not isinstance(value, dict):
        _fail(section, f"holds a JSON {type(value).__name__}, expected an object")
    return cast("dict[str, Any]", value)


def _shown(value: Any) -> str:
    """A value as it stands in the file, cut short."""
    return "an object" if isinstance(value, dict) else "a list" if isinstance(value, list) else json.dumps(value)[:40]


def _integer(value: Any, section: str, what: str, limit: int = _MAX_DRAM, least: int = 0) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= limit:
        _fail(section, f"{what} is {str(value)[:40]}, expected an integer in {least}..{limit}")
    return value


def _string(value: Any, section: str, what: str) -> str:
    if not isinstance(value, str):
        _fail(section, f"{what} is {str(value)[:40]}, expected text")
    return value


def _rows(table: dict[str, Any], key: str, section: str, needed: tuple[str, ...]) -> list[dict[str, Any]]:
    """The list of objects at `key` ([] if absent), each with the fields that are `needed`."""
    rows = table.get(key, [])
    if not isinstance(rows, list):
        _fail(section, f"{key} is {_shown(rows)}, expected a list of objects")
    found = cast("list[Any]", rows)
    for number, row in enumerate(found):
        if not isinstance(row, dict):
            _fail(section, f"{key}[{number}] is {_shown(row)}, expected an object")
        absent = [name for name in needed if name not in row]
        if absent:
            _fail(section, f"{key}[{number}] has no field {absent[0]}")
    return found


def check_meta(meta: dict[str, Any]) -> None:
    """FormatError unless every known field of the section `meta` has its type; fields of others are left alone.

    `sites`: the site table, see `focusc.isa.site_counts.KEYS`; where its blocks lie may be left out. `nodes`: what the
    statistics say of each source node. `model` and `concentrate`: texts. `layout`: an object. `unused_inputs`: names of
    the model's inputs that the program does without.
    """
    for key in ("model", "concentrate"):
        if key in meta:
            _string(meta[key], "meta", key)
    if not isinstance(meta.get("layout", {}), dict):
        _fail("meta", f"layout is {_shown(meta['layout'])}, expected an object")
    unused = meta.get("unused_inputs", [])
    if not isinstance(unused, list):
        _fail("meta", f"unused_inputs is {_shown(unused)}, expected a list of texts")
    for number, name in enumerate(cast("list[Any]", unused)):
        _string(name, "meta", f"unused_inputs[{number}]")
    for number, row in enumerate(_rows(meta, "sites", "meta", ("layer", "site", *_SITE))):
        _string(row["site"], "meta", f"sites[{number}].site")
        for key in ("layer", *_SITE, *_PLACE):
            if key in row:
                # a table without tiles or slots would be walked without end
                _integer(row[key], "meta", f"sites[{number}].{key}", least=int(key in ("m", "slots")))
    for number, row in enumerate(_rows(meta, "nodes", "meta", ())):
        for key in ("op", "node", "path", "region"):
            if key in row:
                _string(row[key], "meta", f"nodes[{number}].{key}")
        _integer(row.get("macs_dense", 0), "meta", f"nodes[{number}].macs_dense", _MAX_MACS)
        useful = row.get("useful", 1)
        if not isinstance(useful, (int, float)) or isinstance(useful, bool) or not 0 <= useful <= 1:
            _fail("meta", f"nodes[{number}].useful is {_shown(useful)}, expected a number in 0..1")


def check_plan(plan: dict[str, Any]) -> None:
    """FormatError unless `buffers` of the section `plan`, if it is there, lists where each buffer lies and when."""
    for number, row in enumerate(_rows(plan, "buffers", "plan", ("name", *_BUFFER))):
        _string(row["name"], "plan", f"buffers[{number}].name")
        for key in _BUFFER:
            _integer(row[key], "plan", f"buffers[{number}].{key}")


def _lists(rows: Any, length: int) -> list[list[Any] | None]:
    """The rows that are lists of that length; None in place of any other."""
    return [row if isinstance(row, list) and len(cast("list[Any]", row)) == length else None for row in rows]


def read_symbols(data: memoryview) -> tuple[list[Symbol], int]:
    """Symbols and the arena's size."""
    value = read_object(data, "symbols")
    rows = value.get("symbols")
    if set(value) != {"arena_bytes", "symbols"} or not isinstance(rows, list):
        _fail("symbols", "expected the keys arena_bytes and symbols (a list)")
    out = [_symbol(row, "symbols", f"symbol {number}") for number, row in enumerate(_lists(rows, 5))]
    return out, _integer(value["arena_bytes"], "symbols", "arena_bytes")


def _symbol(row: list[Any] | None, section: str, what: str) -> Symbol:
    if row is None or not isinstance(row[3], list):
        _fail(section, f"{what} is not [name, kind, dtype, shape, address]")
    name, kind, dtype = (_string(item, section, what) for item in row[:3])
    extents = cast("list[Any]", row[3])
    if len(extents) > 16:
        _fail(section, f"symbol {name}: {len(extents)} dimensions")
    shape = tuple(_integer(n, section, f"extent of {name}") for n in extents)
    try:
        return Symbol(name, kind, dtype, shape, _integer(row[4], section, f"address of {name}"))
    except IsaError as error:
        _fail(section, error.message)


def host_row(segment: HostSegment) -> dict[str, Any]:
    """A host segment as JSON, without its model: `inputs`, `outputs` (as symbols), `nodes`."""

    def tensors(symbols: tuple[Symbol, ...]) -> list[list[Any]]:
        return [[s.name, s.kind, s.dtype, list(s.shape), s.address] for s in symbols]

    nodes = [{**{key: getattr(node, key) for key in _NODE}, "macs": node.macs} for node in segment.nodes]
    return {"inputs": tensors(segment.inputs), "outputs": tensors(segment.outputs), "nodes": nodes}


def segment_of(row: Any, number: int, model: bytes) -> HostSegment:
    """The segment of a JSON object as `host_row` makes it. FormatError for anything else."""
    what = f"host segment {number}"
    table = cast("dict[str, Any]", row) if isinstance(row, dict) else {}
    if set(table) != {"inputs", "outputs", "nodes"}:
        _fail("host", f"{what} is not an object with inputs, outputs and nodes")
    tensors: dict[str, tuple[Symbol, ...]] = {}
    for kind in ("inputs", "outputs"):
        if not isinstance(table[kind], list):
            _fail("host", f"{kind} of {what} is {_shown(table[kind])}, expected a list")
        listed = _lists(table[kind], 5)
        tensors[kind] = tuple(_symbol(item, "host", f"{kind[:-1]} {i} of {what}") for i, item in enumerate(listed))
        for symbol in tensors[kind]:
            if symbol.kind != kind[:-1]:
                _fail("host", f"{symbol.name} of {what} is of kind {symbol.kind}, expected {kind[:-1]}")
    nodes: list[HostNode] = []
    for i, item in enumerate(_rows(table, "nodes", "host", (*_NODE, "macs"))):
        texts = [_string(item[key], "host", f"nodes[{i}].{key} of {what}") for key in _NODE]
        nodes.append(HostNode(*texts, macs=_integer(item["macs"], "host", f"nodes[{i}].macs of {what}", _MAX_MACS)))
    return HostSegment(tensors["inputs"], tensors["outputs"], tuple(nodes), model)


def read_host(data: memoryview, models: memoryview) -> list[HostSegment]:
    """The host segments of the section `host`, with their parts of the section `hostmodels`, which follow each other.

    FormatError unless every byte of the models belongs to exactly one segment. No model is looked into.
    """
    value = read_object(data, "host")
    if set(value) != {"segments", "bytes"} or not all(isinstance(found, list) for found in value.values()):
        _fail("host", "expected the keys segments and bytes, both lists")
    rows, sizes = cast("list[Any]", value["segments"]), cast("list[Any]", value["bytes"])
    if len(rows) != len(sizes) or len(rows) > MAX_SEGMENTS:
        _fail("host", f"{len(rows)} segments with {len(sizes)} models, expected one each and at most {MAX_SEGMENTS}")
    lengths = [_integer(size, "host", f"bytes of model {number}") for number, size in enumerate(sizes)]
    if sum(lengths) != len(models):
        _fail("host", f"the models have {sum(lengths)} bytes, section hostmodels has {len(models)}")
    out: list[HostSegment] = []
    start = 0
    for number, (row, size) in enumerate(zip(rows, lengths, strict=True)):
        out.append(segment_of(row, number, bytes(models[start:start + size])))
        start += size
    return out


def read_debug(data: memoryview) -> list[DebugEntry]:
    """The debug table."""
    rows = _read(data, "debug")
    if not isinstance(rows, list):
        _fail("debug", "expected a list of entries")
    out: list[DebugEntry] = []
    for number, row in enumerate(_lists(rows, 4)):
        if row is None or not all(isinstance(item, str) for item in row):
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
