"""Trace files: an `.npz` of named arrays, versioned and checked; docs/traces.md describes every array.

A file holds the tables of a `Trace`, or the counts of one run in order of execution (`DynamicCounts`), or both, as
`focusc run --record-trace` writes it: then its program is timed from the exact counts, any other from the tables.
"""

from __future__ import annotations

import io
import json
import os
from dataclasses import dataclass
from typing import Any

import numpy as np

from focusc.backends.trace import Trace
from focusc.ir.diagnostics import Loc, fail
from focusc.isa.arrays import ArraysError, load_npz
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.files import atomic_write
from focusc.isa.program import Program

__all__ = ["VERSION", "Recording", "load", "read_arrays", "save"]

VERSION = 1
_TABLES = {"heads": 1, "slots": 1, "retained": 2, "zero": 2, "similar": 2}
_FLAT = {"tile_unique": "unique", "links": "links"}
_HINT = "make one with `focusc run --record-trace` or `focusc trace synth`"


@dataclass(frozen=True)
class Recording:
    """What a trace file holds: tables by site, the counts of one run, or both."""

    trace: Trace | None
    counts: DynamicCounts | None


def save(path: str | os.PathLike[str], trace: Trace | None, counts: DynamicCounts | None = None,
         program: Program | None = None) -> None:
    """Write a trace file atomically; `counts` are those of `program`. IsaError `file.write` if it cannot be written."""
    arrays: dict[str, Any] = {} if counts is None else counts.arrays(program)
    if trace is not None:
        arrays |= {
            "focusc_trace": np.int64(VERSION),
            "workload": np.array(trace.workload),
            "source": np.array(json.dumps(dict(trace.source), sort_keys=True)),
            "tokens": np.int64(trace.tokens),
            "m": np.int64(trace.m),
            **{name: getattr(trace, name) for name in _TABLES},
        }
        arrays |= {name: value for name, field in _FLAT.items() if (value := getattr(trace, field)) is not None}
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    atomic_write(path, buffer.getbuffer())


def load(path: str | os.PathLike[str]) -> Recording:
    """Read a trace file. CompileError `trace.*` or IsaError `counts.*` for anything that is not exactly right."""
    where = os.fspath(path)
    arrays = read_arrays(path)
    counts = DynamicCounts.load(path) if "focusc_counts" in arrays else None
    if "focusc_trace" not in arrays:
        if counts is None:
            raise fail("trace.format", "not a trace: the array focusc_trace is missing", Loc(where), hint=_HINT)
        return Recording(None, counts)
    version = _number(arrays, "focusc_trace", where)
    if version != VERSION:
        raise fail("trace.version", f"trace format {version}, this tool reads {VERSION}", Loc(where))
    known = {"focusc_trace", "workload", "source", "tokens", "m", *_TABLES, *_FLAT, *DynamicCounts.names()}
    strange = sorted(set(arrays) - known)
    if strange:
        raise fail("trace.format", f"{strange[0]}: not an array of a trace", Loc(where),
                   hint="there are " + ", ".join(sorted(known)))
    tables: dict[str, Any] = {}
    for name, rank in _TABLES.items():
        found = _array(arrays, name, where)
        if found.ndim != rank or found.dtype.kind not in "iu":
            raise fail("trace.shape", f"{name}: found {found.dtype}{list(found.shape)}, expected whole numbers with "
                       f"{rank} ax{'is' if rank == 1 else 'es'}", Loc(where))
        tables[name] = found.astype(np.int64)
    for name, field in _FLAT.items():
        if name in arrays:
            tables[field] = arrays[name]
    return Recording(Trace(
        workload=_text(arrays, "workload", where), tokens=_number(arrays, "tokens", where),
        m=_number(arrays, "m", where), source=_source(arrays, where), where=where, **tables), counts)


def read_arrays(path: str | os.PathLike[str]) -> dict[str, np.ndarray]:
    """All arrays of an `.npz`; nothing is unpickled. CompileError `trace.format` if it is not one."""
    where = os.fspath(path)
    try:
        return load_npz(path)
    except ArraysError as error:
        raise fail("trace.format", f"not a trace: {error}", Loc(where), hint=_HINT) from None


def _array(arrays: dict[str, np.ndarray], name: str, where: str) -> np.ndarray:
    if name not in arrays:
        raise fail("trace.format", f"{name}: the array is missing", Loc(where))
    return arrays[name]


def _number(arrays: dict[str, np.ndarray], name: str, where: str) -> int:
    found = _array(arrays, name, where)
    if found.ndim or found.dtype.kind not in "iu":
        raise fail("trace.shape", f"{name}: found {found.dtype}{list(found.shape)}, expected one whole number",
                   Loc(where))
    return int(found)


def _text(arrays: dict[str, np.ndarray], name: str, where: str) -> str:
    found = _array(arrays, name, where)
    if found.ndim or found.dtype.kind != "U":
        raise fail("trace.shape", f"{name}: found {found.dtype}{list(found.shape)}, expected one text", Loc(where))
    return str(found)


def _source(arrays: dict[str, np.ndarray], where: str) -> dict[str, Any]:
    try:
        found = json.loads(_text(arrays, "source", where))
    except ValueError as error:
        raise fail("trace.format", f"source: not JSON: {error}", Loc(where)) from None
    if not isinstance(found, dict):
        raise fail("trace.format", f"source: found a JSON {type(found).__name__}, expected an object", Loc(where))
    return found
