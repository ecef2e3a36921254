"""Static facts about a trace that timing needs: who consumes which load, which tile windows overlap, unique counts.

Everything here follows from the trace and the recorded counts alone; no cycle is known yet.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import SLOT, DynamicCounts
from focusc.isa.errors import IsaError
from focusc.isa.insns import LdConc, Sic
from focusc.isa.program import conc_block
from focusc.isa.sequencer import Trace

__all__ = ["Windows", "match_stream", "resolve_unique", "windows"]

Ints = NDArray[np.int64]
compiled: Final[Any] = nb.njit(cache=True)


class Windows(NamedTuple):
    """Distinct tile windows and, for each (CSR), the windows that share at least one byte with it, itself included."""

    of: NDArray[np.int32]
    """Window of each row of `Trace.tiles`."""
    start: Ints
    others: NDArray[np.int32]
    elements: Ints
    """Rows x columns of each window."""


def _codes(columns: Ints) -> tuple[Ints, Ints]:
    """Distinct rows of [n, 4] as (representative row of each, code of each row), by pairing two columns at a time."""
    def pair(a: Ints, b: Ints) -> Ints:
        span = int(b.max(initial=0)) + 1
        return np.unique(a * span + b, return_inverse=True)[1].astype(np.int64)

    narrow = [np.unique(columns[:, j], return_inverse=True)[1].astype(np.int64) for j in range(4)]
    code = pair(pair(narrow[0], narrow[1]), pair(narrow[2], narrow[3]))
    _, first, inverse = np.unique(code, return_index=True, return_inverse=True)
    return first.astype(np.int64), inverse.astype(np.int64)


def windows(tiles: Ints) -> Windows:
    """Distinct windows of a tile table [m, 4] (byte offset, rows, cols, pitch of f32) and their overlaps, exactly.

    Two windows of equal pitch overlap where their row and column ranges do (a window at the side of another in one
    wide tile does not); of unequal pitch if their byte ranges do, which errs on the side of waiting.
    """
    first, inverse = _codes(tiles)
    table = tiles[first]
    start, others = _overlaps(table[:, 0] // 4, *(np.ascontiguousarray(table[:, j]) for j in (1, 2, 3)))
    return Windows(inverse.astype(np.int32), start, others, table[:, 1] * table[:, 2])


@compiled
def _overlaps(off: Ints, rows: Ints, cols: Ints, pitch: Ints) -> Any:
    """CSR lists of overlapping windows; offsets in elements."""
    count = len(off)
    order = np.argsort(off)
    end = off + (rows - 1) * pitch + cols
    start = np.zeros(count + 1, np.int64)
    others = np.empty(0, np.int32)
    cursor = start[:count].copy()
    for fill in range(2):
        if fill:
            for i in range(count):
                start[i + 1] += start[i]
            others = np.empty(start[count], np.int32)
            cursor = start[:count].copy()
        for x in range(count):
            i = order[x]
            for y in range(x, count):
                j = order[y]
                if off[j] >= end[i]:
                    break
                hit = True
                if i != j and pitch[i] == pitch[j]:
                    down, right = divmod(off[j] - off[i], pitch[i])
                    hit = (down < rows[i] and right < cols[i]) or (
                        down + 1 < rows[i] and right + cols[j] > pitch[i] and cols[i] > 0)
                if not hit:
                    continue
                if fill:
                    others[cursor[i]] = j
                    cursor[i] += 1
                    if i != j:
                        others[cursor[j]] = i
                        cursor[j] += 1
                else:
                    start[i + 1] += 1
                    if i != j:
                        start[j + 1] += 1
    return start, others


def match_stream(pushes: Ints, pops: Ints, pcs: NDArray[np.int32], what: str) -> None:
    """IsaError unless the i-th pop comes after the i-th push; both are command numbers in order."""
    if len(pops) > len(pushes):
        at = int(pops[len(pushes)])
        raise IsaError("timing.stream", f"takes from the {what} stream, but only {len(pushes)} loads were issued",
                       f"command {at} (pc {int(pcs[at])})")
    early = np.flatnonzero(pushes[:len(pops)] >= pops)
    if early.size:
        at = int(pops[early[0]])
        raise IsaError("timing.stream", f"takes from the {what} stream before the load that would feed it is issued",
                       f"command {at} (pc {int(pcs[at])})")


def resolve_unique(trace: Trace, counts: DynamicCounts | None) -> tuple[NDArray[np.int32], Ints, Ints]:
    """Unique vectors of every slot of every executed `sic` and `ld.conc`.

    Returns (flat counts, command numbers, offset of each command's first slot). Loads find the count that the last
    `sic` left in a block by the block's address, or in the recorded partial loads where they load fewer rows.
    Raises IsaError if counts are needed and absent, or a block was never written.
    """
    ops = np.flatnonzero((trace.op == Sic.opcode) | (trace.op == LdConc.opcode))
    if not ops.size:
        return np.zeros(0, np.int32), ops.astype(np.int64), np.zeros(0, np.int64)
    if counts is None:
        raise IsaError("timing.counts", "the program concentrates (`sic`), so its timing depends on unique counts",
                       hint="run it, or give a recorded trace")
    load = trace.op[ops] == LdConc.opcode
    sic_fields, load_fields = list(Sic.fields), list(LdConc.fields)

    def column(name: str) -> Ints:
        return np.where(load, trace.fields[ops, load_fields.index(name)], trace.fields[ops, sic_fields.index(name)])

    window = trace.tiles[np.where(load, 0, trace.fields[ops, 0])]
    rows = np.where(load, trace.fields[ops, load_fields.index("rows")], window[:, 1])
    slots = np.where(load, trace.fields[ops, load_fields.index("slots")], -(-window[:, 2] // SLOT))
    address, cap = column("addr"), column("cap")
    block = conc_block(cap)
    sics = ~load
    written = np.repeat(address[sics], slots[sics]) + np.repeat(block[sics], slots[sics]) * _ramp(slots[sics])
    known = np.unique(written)
    offsets = np.concatenate(([0], np.cumsum(slots)))
    part_size = np.array([len(item) for item in counts.partial], np.int64)
    part_start = np.concatenate(([0], np.cumsum(part_size)))
    part_flat = np.concatenate(counts.partial) if counts.partial else np.zeros(0, np.int32)
    flat = np.empty(int(offsets[-1]), np.int32)
    bad, used = _resolve(load, address, block, slots, rows, known, counts.flat(), part_start,
                         part_flat.astype(np.int32), flat)
    if bad >= 0:
        at = int(ops[bad])
        raise IsaError("timing.counts", "a concentrated load reads a block of unknown count: no `sic` wrote "
                       "it, or a load of fewer rows was not recorded", f"command {at} (pc {int(trace.pc[at])})",
                       hint="record the trace again with this binary")
    if used != len(counts.partial):
        raise IsaError("timing.counts", f"{len(counts.partial)} partial loads were recorded, the program does {used}")
    return flat, ops.astype(np.int64), offsets[:-1].astype(np.int64)


def _ramp(lengths: Ints) -> Ints:
    """0..n-1 for each n of `lengths`, concatenated."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)


@compiled
def _resolve(load: Any, address: Any, block: Any, slots: Any, rows: Any, known: Any, sic_unique: Any,
             part_start: Any, part_unique: Any, flat: Any) -> tuple[int, int]:
    """Fill `flat`; returns (index of the first unresolvable command or -1, partial loads used)."""
    last = np.zeros(len(known), np.int32)
    height = np.zeros(len(known), np.int64)
    out, taken, part = 0, 0, 0
    for i in range(len(load)):
        at = -1
        first = out
        fewer = False
        for j in range(slots[i]):
            where = address[i] + j * block[i]
            if at >= 0 and at + 1 < len(known) and known[at + 1] == where:
                at += 1
            else:
                at = np.searchsorted(known, where)
                if at == len(known) or known[at] != where:
                    return i, part
            if load[i]:
                if last[at] == 0 or rows[i] > height[at]:
                    return i, part  # never written, or written with fewer rows
                fewer = fewer or rows[i] < height[at]
                flat[out] = last[at]
            else:
                last[at] = sic_unique[taken]
                height[at] = rows[i]
                flat[out] = sic_unique[taken]
                taken += 1
            out += 1
        if fewer:
            if part + 1 >= len(part_start) or part_start[part + 1] - part_start[part] != slots[i]:
                return i, part
            for j in range(slots[i]):
                flat[first + j] = part_unique[part_start[part] + j]
            part += 1
    return -1, part
