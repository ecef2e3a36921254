"""Static facts about a trace that timing needs: who consumes which load, which tile windows overlap.

Everything here follows from the trace alone; no cycle is known yet.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import IsaError

__all__ = ["Windows", "match_stream", "windows"]

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
