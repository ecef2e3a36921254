"""The data-dependent numbers of one execution: how many unique vectors each concentrated slot had.

Control never depends on data, so these counts are all that timing and energy need besides the program: a run records
them (`CountsBuilder`), a file keeps them (`save`/`load`), and `focusc.isa.timing.simulate` replays them without weights.
"""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import IsaError
from focusc.isa.insns import LdConc, Sic
from focusc.isa.program import Program
from focusc.isa.sequencer import Trace

__all__ = ["SLOT", "CountsBuilder", "DynamicCounts", "program_digest"]

SLOT = 32
"""Columns of one slot of the concentrated format (`ld.conc`: unique vectors of 32)."""
VERSION = 1
_KEYS = ("sic_pc", "sic_unique", "part_pc", "part_unique")


def program_digest(program: Program) -> str:
    """Digest (blake2b-128, hex) of the instruction words: what a recorded trace belongs to."""
    return hashlib.blake2b(np.ascontiguousarray(program.text).tobytes(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class DynamicCounts:
    """Unique vectors, in execution order, int32.

    `sic_pc[i]` is the instruction of the i-th executed `sic`; `sic_unique` holds its slots' counts, one after the other.
    `part_*` do the same for each `ld.conc` that loads fewer rows than were concentrated together, whose count cannot be
    looked up from the `sic` that wrote the block.
    """

    digest: str
    sic_pc: NDArray[np.int32]
    sic_unique: NDArray[np.int32]
    part_pc: NDArray[np.int32]
    part_unique: NDArray[np.int32]

    def check(self, program: Program, trace: Trace) -> None:
        """IsaError(`counts.*`) unless the counts fit the program's expansion: same commands, slots, 1 <= U <= rows."""
        if self.digest != program_digest(program):
            raise IsaError("counts.program", f"recorded from program {self.digest[:12]}, this is "
                           f"{program_digest(program)[:12]}", hint="record the trace again with this binary")
        rows = np.flatnonzero(trace.op == Sic.opcode)
        if not np.array_equal(trace.pc[rows], self.sic_pc):
            raise IsaError("counts.order", f"{len(self.sic_pc)} recorded `sic` executions do not match the program's "
                           f"{len(rows)}: number or order differ")
        window = trace.tiles[trace.fields[rows, 0]]
        slots = -(-window[:, 2] // SLOT)
        self._fits(self.sic_unique, slots, window[:, 1], "sic")
        loads = np.flatnonzero(trace.op == LdConc.opcode)
        columns = list(LdConc.fields)
        if len(self.part_pc):
            allowed = set(trace.pc[loads].tolist())
            if not allowed.issuperset(self.part_pc.tolist()):
                raise IsaError("counts.order", "recorded partial loads are not `ld.conc` instructions of this program")
        if int(np.asarray(self.part_unique).min(initial=1)) < 1:
            raise IsaError("counts.unique", "a partial load has no unique vectors; every row is at least unique itself")
        largest = int(trace.fields[loads, columns.index("rows")].max(initial=0))
        if int(np.asarray(self.part_unique).max(initial=0)) > largest:
            raise IsaError("counts.unique", f"a partial load has more unique vectors than any load has rows ({largest})")

    @staticmethod
    def _fits(unique: NDArray[np.int32], slots: NDArray[np.int64], rows: NDArray[np.int64], what: str) -> None:
        if len(unique) != int(slots.sum()):
            raise IsaError("counts.shape", f"{len(unique)} unique counts for {int(slots.sum())} slots of `{what}`")
        limit = np.repeat(rows, slots)
        bad = np.flatnonzero((unique < 1) | (unique > limit))
        if bad.size:
            first = int(bad[0])
            raise IsaError("counts.unique", f"slot {first}: {int(unique[first])} unique vectors of {int(limit[first])} "
                           "rows, expected 1 to the number of rows")

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write an .npz (version, digest, four arrays) atomically."""
        target = Path(path)
        buffer = io.BytesIO()
        arrays = {name: getattr(self, name) for name in _KEYS}
        np.savez_compressed(buffer, focusc_counts=np.int64(VERSION), digest=np.array(self.digest), **arrays)
        partial = target.with_name(target.name + f".{os.getpid()}.tmp")
        try:
            partial.write_bytes(buffer.getvalue())
            os.replace(partial, target)
        except OSError as error:
            partial.unlink(missing_ok=True)
            raise IsaError("counts.write", f"cannot write: {error.strerror or error}", where=str(target)) from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> DynamicCounts:
        """Read what `save` wrote; IsaError(`counts.format`) for anything else. Nothing is unpickled."""
        where = str(path)
        try:
            with np.load(path, allow_pickle=False) as data:
                if "focusc_counts" not in data:
                    raise IsaError("counts.format", "an .npz, but not a recorded trace", where=where,
                                   hint="record one with `focusc run --record-trace`")
                version = int(data["focusc_counts"])
                if version != VERSION:
                    raise IsaError("counts.version", f"trace format {version}, this tool reads {VERSION}", where=where)
                missing = [name for name in (*_KEYS, "digest") if name not in data]
                if missing:
                    raise IsaError("counts.format", f"lacks {', '.join(missing)}", where=where)
                arrays = {name: data[name] for name in _KEYS}
                digest = str(data["digest"])
        except (OSError, ValueError, KeyError, EOFError, TypeError, zipfile.BadZipFile, NotImplementedError) as error:
            raise IsaError("counts.format", f"not a recorded trace: {error}", where=where) from None
        for name, array in arrays.items():
            if array.ndim != 1 or array.dtype != np.int32:
                raise IsaError("counts.format", f"{name} is {array.dtype}{list(array.shape)}, expected int32[n]",
                               where=where)
        return cls(digest, **arrays)


class CountsBuilder:
    """Collects counts during an execution, in order."""

    def __init__(self, program: Program) -> None:
        self._digest = program_digest(program)
        self._sic_pc: list[int] = []
        self._part_pc: list[int] = []
        self._sic: list[NDArray[np.int32]] = []
        self._part: list[NDArray[np.int32]] = []

    def sic(self, pc: int, unique: NDArray[np.int32]) -> None:
        """One executed `sic`: unique vectors of each slot."""
        self._sic_pc.append(pc)
        self._sic.append(np.asarray(unique, np.int32))

    def partial(self, pc: int, unique: NDArray[np.int32]) -> None:
        """One executed `ld.conc` of fewer rows than its blocks hold: unique vectors of each slot among those rows."""
        self._part_pc.append(pc)
        self._part.append(np.asarray(unique, np.int32))

    def build(self) -> DynamicCounts:
        """The counts so far."""
        def flat(parts: list[NDArray[np.int32]]) -> NDArray[np.int32]:
            return np.concatenate(parts) if parts else np.zeros(0, np.int32)

        return DynamicCounts(self._digest, np.array(self._sic_pc, np.int32), flat(self._sic),
                             np.array(self._part_pc, np.int32), flat(self._part))
