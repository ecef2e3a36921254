"""What a run learns that the program text does not say: unique vectors per slot of each executed `sic`.

Control never depends on data, so these counts are all that timing and energy need besides the program: a run records
them, a file keeps them (`save`, `load`), and `focusc.isa.timing.simulate` replays them without weights.
"""

from __future__ import annotations

import hashlib
import io
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from focusc.isa.arrays import ArraysError, load_npz
from focusc.isa.errors import IsaError
from focusc.isa.files import atomic_write
from focusc.isa.insns.concentrate import Sic
from focusc.isa.insns.stream import LdConc

if TYPE_CHECKING:
    from focusc.isa.program import Program
    from focusc.isa.sequencer import Trace

__all__ = ["SLOT", "DynamicCounts", "program_digest"]

SLOT = 32
"""Columns of one slot of the concentrated format (`ld.conc`: unique vectors of 32)."""
VERSION = 1
_COLUMNS = ("sites", "rows", "linked")
_ARRAYS = ("unique", "unique_size", *_COLUMNS, "partial", "partial_size")


def program_digest(program: Program) -> str:
    """Digest (blake2b-128, hex) of the instruction words: what a recorded trace belongs to."""
    return hashlib.blake2b(np.ascontiguousarray(program.text).tobytes(), digest_size=16).hexdigest()


def _none() -> Any:
    return []


@dataclass
class DynamicCounts:
    """Unique-vector counts in execution order: `unique[i]` int32[slots] of the i-th executed `sic`.

    `sites[i]` is its site number, `rows[i]` the rows of its tile, `linked[i]` how many of them took part (visual rows).
    `partial[i]` int32[slots] is the same for the i-th executed `ld.conc` that loads fewer rows than were concentrated
    together: the unique vectors that its rows refer to. `digest` names the program, once known.
    """

    unique: list[NDArray[np.int32]] = field(default_factory=_none)
    sites: list[int] = field(default_factory=_none)
    rows: list[int] = field(default_factory=_none)
    linked: list[int] = field(default_factory=_none)
    partial: list[NDArray[np.int32]] = field(default_factory=_none)
    digest: str = ""

    def add(self, unique: NDArray[np.int32], site: int, rows: int, linked: int) -> None:
        """Record one executed `sic`."""
        self.unique.append(unique)
        self.sites.append(site)
        self.rows.append(rows)
        self.linked.append(linked)

    def add_partial(self, unique: NDArray[np.int32]) -> None:
        """Record one executed `ld.conc` of fewer rows than the `sic` that wrote its blocks had."""
        self.partial.append(unique)

    def __len__(self) -> int:
        return len(self.unique)

    def flat(self) -> NDArray[np.int32]:
        """All unique counts of `sic`, in order."""
        return _flat(self.unique)

    def check(self, program: Program, trace: Trace) -> None:
        """IsaError(`counts.*`) unless the counts fit the program's expansion.

        Same program (if recorded), as many `sic`, the same tiles and slots, and 1 <= U <= rows: a row is at least
        unique itself.
        """
        self.check_program(program)
        at = np.flatnonzero(trace.op == Sic.opcode)
        if len(at) != len(self):
            self.wrong_order(len(at))
        self.check_part(trace, at, 0)
        part = _flat(self.partial)
        loads = np.flatnonzero(trace.op == LdConc.opcode)
        most = int(trace.fields[loads, list(LdConc.fields).index("rows")].max(initial=0))
        if len(part) and not 1 <= int(part.min()) <= int(part.max()) <= most:
            raise IsaError("counts.unique", f"partial loads have {int(part.min())} to {int(part.max())} unique "
                           f"vectors, expected 1 to {most}")

    def check_program(self, program: Program) -> None:
        """IsaError(`counts.program`) if they were recorded from another program."""
        if self.digest and self.digest != program_digest(program):
            raise IsaError("counts.program", f"recorded from program {self.digest[:12]}, this is "
                           f"{program_digest(program)[:12]}", hint="record the trace again with this binary")

    def wrong_order(self, executed: int) -> NoReturn:
        """Raise IsaError(`counts.order`): the program executes another number of `sic`."""
        raise IsaError("counts.order", f"{len(self)} executions of `sic` were recorded, the program does {executed}",
                       hint="record the trace again with this binary")

    def check_part(self, trace: Trace, at: NDArray[np.int64], first: int) -> None:
        """Check the executions from number `first` on against these commands (`sic`s) of a trace."""
        count = len(at)
        if first + count > len(self):
            self.wrong_order(first + count)
        mine = slice(first, first + count)
        window = trace.tiles[trace.fields[at, 0]] if count else np.zeros((0, 4), np.int64)
        sizes = np.array([len(item) for item in self.unique[mine]], np.int64)
        site = trace.fields[at, list(Sic.fields).index("site")]
        for name, found, expected in (("slots", sizes, -(-window[:, 2] // SLOT)),
                                      ("rows", self.rows[mine], window[:, 1]), ("site", self.sites[mine], site)):
            wrong = np.flatnonzero(np.asarray(found, np.int64) != expected)
            if wrong.size:
                i = int(wrong[0])
                raise IsaError("counts.shape", f"`sic` number {first + i} was recorded with {name} {int(found[i])}, "
                               f"the program has {int(expected[i])}", f"pc {int(trace.pc[at[i]])}")
        flat, limit = _flat(self.unique[mine]), np.repeat(window[:, 1], sizes)
        bad = np.flatnonzero((flat < 1) | (flat > limit))
        if bad.size:
            i = int(bad[0])
            number = first + int(np.searchsorted(np.cumsum(sizes), i, "right"))
            raise IsaError("counts.unique", f"{int(flat[i])} unique vectors of {int(limit[i])} rows, expected 1 to "
                           "the number of rows", f"`sic` number {number}")

    def save(self, path: str | os.PathLike[str], program: Program | None = None) -> None:
        """Write an .npz atomically; with `program`, for use with that program only. IsaError(`file.write`)."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, **self.arrays(program))
        atomic_write(path, buffer.getvalue())

    @staticmethod
    def names() -> tuple[str, ...]:
        """Names of the arrays of a file."""
        return ("focusc_counts", *_ARRAYS, "digest")

    def arrays(self, program: Program | None = None) -> dict[str, Any]:
        """The arrays of a file, by name; other arrays may stand beside them."""
        arrays: dict[str, Any] = {name: np.array(getattr(self, name), np.int32) for name in _COLUMNS}
        arrays["digest"] = np.array(program_digest(program) if program else self.digest)
        for name, parts in (("unique", self.unique), ("partial", self.partial)):
            arrays[name], arrays[name + "_size"] = _flat(parts), np.array([len(item) for item in parts], np.int32)
        return {"focusc_counts": np.int64(VERSION), **arrays}

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DynamicCounts:
        """Read what `save` wrote; IsaError(`counts.format`, `counts.version`) for anything else; never unpickles."""
        where = str(path)
        hint = "record one with `focusc run --record-trace`"
        try:
            data = load_npz(path)
        except ArraysError as error:
            raise IsaError("counts.format", f"not a recorded trace: {error}", where=where, hint=hint) from None
        if "focusc_counts" not in data:
            raise IsaError("counts.format", "not a recorded trace", where=where, hint=hint)
        absent = [name for name in (*_ARRAYS, "digest") if name not in data]
        if absent:
            raise IsaError("counts.format", f"not a recorded trace: the array {absent[0]} is missing", where=where,
                           hint=hint)
        found, digest = data["focusc_counts"], str(data["digest"])
        if found.ndim or found.dtype.kind not in "iu":
            raise IsaError("counts.format", f"focusc_counts is {found.dtype}{list(found.shape)}, expected one whole "
                           "number", where=where)
        if int(found) != VERSION:
            raise IsaError("counts.version", f"trace format {int(found)}, this tool reads {VERSION}", where=where)
        arrays = {name: data[name] for name in _ARRAYS}
        for name, array in arrays.items():
            if array.ndim != 1 or array.dtype != np.int32:
                raise IsaError("counts.format", f"{name} is {array.dtype}{list(array.shape)}, expected int32[n]",
                               where=where)
        lists: dict[str, list[NDArray[np.int32]]] = {}
        for name in ("unique", "partial"):
            size = arrays[name + "_size"].astype(np.int64)
            if int(size.min(initial=0)) < 0 or int(size.sum()) != len(arrays[name]):
                raise IsaError("counts.format", f"{name}: the sizes do not add up to the entries", where=where)
            lists[name] = np.split(arrays[name], np.cumsum(size)[:-1]) if len(size) else []
        columns = {name: arrays[name].tolist() for name in _COLUMNS}
        if any(len(column) != len(lists["unique"]) for column in columns.values()):
            raise IsaError("counts.format", "the columns have different lengths", where=where)
        return cls(lists["unique"], columns["sites"], columns["rows"], columns["linked"], lists["partial"], digest)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"unique": [item.tolist() for item in self.unique], "sites": list(self.sites), "rows": list(self.rows),
                "linked": list(self.linked), "partial": [item.tolist() for item in self.partial], "digest": self.digest}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> DynamicCounts:
        """Inverse of `to_dict`; IsaError for data that is not a recorded trace."""
        try:
            unique = [np.asarray(item, np.int32) for item in data["unique"]]
            partial = [np.asarray(item, np.int32) for item in data.get("partial", ())]
            columns: list[Sequence[int]] = [data[name] for name in _COLUMNS]
            sites, rows, linked = ([int(v) for v in column] for column in columns)
        except (KeyError, TypeError, ValueError) as error:
            raise IsaError("counts.format", f"not a recorded trace of unique counts: {error}") from None
        if not len(unique) == len(sites) == len(rows) == len(linked):
            raise IsaError("counts.format", "the columns of the recorded trace have different lengths")
        return cls(unique, sites, rows, linked, partial, str(data.get("digest", "")))


def _flat(parts: Sequence[NDArray[np.int32]]) -> NDArray[np.int32]:
    return np.concatenate(parts).astype(np.int32) if parts else np.zeros(0, np.int32)
