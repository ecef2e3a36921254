"""Runs of vector commands that one compiled loop executes.

A softmax is ten commands on the same rows. One by one each of them reads and writes its tile in the second-level cache
and takes its turn in the interpreter. Row i of what they write depends on row i of what they read, so a block of rows
can go through all of them before the next block does. Each step is the same operation on the same numbers as the
`execute` of its instruction, so results do not change, but for the sign and payload of a NaN (a test compares them).
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.emulator.exponential import exps_in_place, exps_rows
from focusc.isa.emulator.kernels import hide, larger, row_max, row_sum
from focusc.isa.fields import f32_value
from focusc.isa.insns import BY_MNEMONIC, INSNS
from focusc.isa.insns.vector_masks import MASKED

__all__ = ["Steps", "execute", "runs"]


class Steps(NamedTuple):
    """One run: the commands first .. last - 1 of a chunk of the trace."""

    first: int
    last: int
    rows: int
    block: int
    """Rows that go through all steps together."""
    steps: NDArray[np.int64]
    """[commands, `_WIDTH`]"""
    values: NDArray[np.float32]
    """[commands]: the immediate of each."""


_SHORTEST: Final = 2
_BLOCK_BYTES: Final = 1 << 13
"""Of a block's widest tile: with its other tiles it fits the first-level cache."""
_SCALE, _MULTIPLY, _COPY, _HIDE, _MAX, _SUM, _EXPS = range(7)
_STEPS: Final = {BY_MNEMONIC[name].opcode: step for name, step in (
    ("v.muli", _SCALE), ("v.mul", _MULTIPLY), ("v.copy", _COPY), ("v.mask", _HIDE), ("v.rmax", _MAX), ("v.rsum", _SUM),
    ("v.exps", _EXPS))}
_TILES: Final = {code: [i for i, item in enumerate(INSNS[code].fields.values()) if item.kind == "tile"]
                 for code in _STEPS}
_WIDTH: Final = 12
"""step, first element, pitch and columns of d, of a, of b; then its own: accumulate, or first hidden column, window."""
Window = tuple[int, ...]


def _end(tile: Window) -> int:
    off, rows, cols, pitch = tile
    return off + 4 * ((rows - 1) * pitch + cols)


def _row_by_row(tile: Window, others: set[Window]) -> bool:
    """Whether no row of a window shares bytes with another row of the others."""
    off, rows, _, pitch = tile
    end = _end(tile)
    return all(end <= other[0] or _end(other) <= off or (other[0], other[1], other[3]) == (off, rows, pitch)
               for other in others)


def _step(op: int, row: list[int], tiles: list[Window], rows: int) -> tuple[list[int], float] | None:
    """One command as a step; None if it is not one, or if it is for its `execute` to refuse."""
    step = _STEPS[op]
    d, a, b = (*tiles, *tiles[:1] * 2)[:3]
    if any(tile[1] != rows for tile in tiles):
        return None
    own, value = [0, 0], 0.0
    if step in (_MAX, _SUM):
        if d[2] != 1 or (step == _SUM and a[2] > 128):
            return None
        own[0] = row[2]
    elif a[2] != d[2] or (len(tiles) > 2 and b[2] not in (1, d[2])):
        return None
    elif step == _MULTIPLY and a != d and b[0] == d[0]:
        if b != d:
            return None
        a, b = b, a
    elif step == _SCALE:
        value = f32_value(row[2])
    elif step == _HIDE:
        if row[3]:
            return None
        own, value = [row[1] - row[2] + 1, row[4]], MASKED
    places = [number for off, _, cols, pitch in (d, a, b) for number in (off >> 2, pitch, cols)]
    return [step, *places, *own], value


def runs(ops: list[int], rows: list[list[int]], tiles: list[list[int]], limit: int) -> list[Steps]:
    """The runs in a chunk of the trace, in order; windows end within `limit` bytes."""
    found: list[Steps] = []
    windows = [tuple(tile) for tile in tiles]
    i, count = 0, len(ops)
    while i < count:
        if ops[i] not in _STEPS:
            i += 1
            continue
        first, height = i, -1
        steps: list[list[int]] = []
        values: list[float] = []
        touched: set[Window] = set()
        while i < count and ops[i] in _STEPS:
            row = rows[i]
            places = [row[column] for column in _TILES[ops[i]]]
            if min(places) < 0:
                break
            own = [windows[place] for place in places]
            height = own[0][1] if height < 0 else height
            fresh = [tile for tile in own if tile not in touched]
            if any(_end(tile) > limit or not _row_by_row(tile, touched | set(fresh)) for tile in fresh):
                break
            step = _step(ops[i], row, own, height)
            if step is None:
                break
            touched.update(fresh)
            steps.append(step[0])
            values.append(step[1])
            i += 1
        if len(steps) >= _SHORTEST:
            block = max(_BLOCK_BYTES // (4 * max(tile[2] for tile in touched)), 1)
            found.append(Steps(first, i, height, block, np.array(steps, np.int64), np.array(values, np.float32)))
        i = max(i, first + 1)
    return found


# All windows lie in one buffer, and a loop over rows that may overlap is not vectorised: a row is copied to where it is
# to be, if it is not there, and changed in place.


@nb.njit(cache=True, nogil=True)
def _copy(buffer: Any, a: int, ap: int, d: int, dp: int, rows: int, cols: int) -> None:
    if a == d and ap == dp:
        return
    for i in range(rows):
        x, out = buffer[a + i * ap:a + i * ap + cols], buffer[d + i * dp:d + i * dp + cols]
        for j in range(cols):
            out[j] = x[j]


@nb.njit(cache=True, nogil=True)
def _scale(buffer: Any, d: int, dp: int, rows: int, cols: int, factor: Any) -> None:
    for i in range(rows):
        out = buffer[d + i * dp:d + i * dp + cols]
        for j in range(cols):
            out[j] *= factor


@nb.njit(cache=True, nogil=True)
def _multiply(buffer: Any, d: int, dp: int, b: int, bp: int, wide: int, rows: int, cols: int) -> None:
    for i in range(rows):
        out = buffer[d + i * dp:d + i * dp + cols]
        if wide == 1:
            factor = buffer[b + i * bp]
            for j in range(cols):
                out[j] *= factor
        else:
            y = buffer[b + i * bp:b + i * bp + cols]
            for j in range(cols):
                out[j] *= y[j]


@nb.njit(cache=True, nogil=True)
def execute(steps: Any, values: Any, rows: int, block: int, buffer: Any) -> None:
    """Take `rows` rows of the output buffer through all steps, `block` of them at a time."""
    found = np.empty(block, np.float32)
    for start in range(0, rows, block):
        high = min(block, rows - start)
        for k in range(len(steps)):
            step, dp, cols, ap, wide, bp = (
                steps[k, 0], steps[k, 2], steps[k, 3], steps[k, 5], steps[k, 6], steps[k, 8])
            d, a, b = steps[k, 1] + start * dp, steps[k, 4] + start * ap, steps[k, 7] + start * bp
            if step == _EXPS:
                if a == d and ap == dp:
                    exps_in_place(buffer, d, dp, buffer, b, bp, steps[k, 9], high, cols)
                else:
                    exps_rows(buffer, a, ap, buffer, b, bp, steps[k, 9], buffer, d, dp, high, cols)
            elif step == _HIDE:
                hide(buffer, d, dp, high, cols, steps[k, 10] + start, steps[k, 11], values[k])
            elif step == _MAX:
                row_max(buffer, a, ap, high, wide, found)
                if steps[k, 10]:
                    larger(found, buffer, d, dp, high)
                else:
                    for i in range(high):
                        buffer[d + i * dp] = found[i]
            elif step == _SUM:
                row_sum(buffer, a, ap, high, wide, found)
                for i in range(high):
                    buffer[d + i * dp] = buffer[d + i * dp] + found[i] if steps[k, 10] else found[i]
            else:
                _copy(buffer, a, ap, d, dp, high, cols)
                if step == _SCALE:
                    _scale(buffer, d, dp, high, cols, values[k])
                elif step == _MULTIPLY:
                    _multiply(buffer, d, dp, b, bp, steps[k, 9], high, cols)
