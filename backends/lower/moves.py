"""Movement of values from DRAM to DRAM, through tiles: one loop nest, whatever op it is for.

If some axis has neighbouring elements on both sides, runs along it move: a tile is loaded with the row distance of the
source and stored with that of the target. If each side has such an axis, but not the same one, elements change places
inside a tile; that is work for the array: the identity matrix times a panel loaded transposed, sums of 1 * x and 0 * y,
exact for finite values. Else, and where infinities may be among the values (0 * inf is NaN), the runs are single
elements.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

import numpy as np

from focusc.backends.lower.context import Lowering
from focusc.backends.lower.emit import Ix
from focusc.backends.lower.infinite import LARGEST, may_be_infinite
from focusc.backends.lower.strided import Cut, Strided, cut, divisor, elements, longest, near, simplified
from focusc.backends.lower.views import View
from focusc.ir import Op, Value
from focusc.ir.diagnostics import fail

TOGETHER = 8
"""Most movements in one kernel: each names a tile."""
IDENTITY = "identity"
"""Name of the constant with the identity matrix, array rows square."""


def copy(low: Lowering, op: Op, source: View, target: View) -> None:
    """Copy one window to another of as many rows and columns, as a kernel of `op`."""
    shape = (source.rows, source.cols)
    move(low, op, [(Strided.of(source, shape), Strided.of(target, shape))])


def move(low: Lowering, op: Op, pairs: Sequence[tuple[Strided, Strided]]) -> None:
    """Copy each source to its target, of the same dims, as kernels of `op`; the targets do not meet. Nothing if there
    are no pairs."""
    sides = [_settled(low, *pair) for pair in pairs if 0 not in pair[0].dims]
    turns = [_turning(*pair) for pair in sides]
    if any(turns) and any(v is not None and may_be_infinite(v, low.infinite) for v in op.operands):
        turns = [None] * len(sides)
    for number, (turn, (source, target)) in enumerate(zip(turns, sides, strict=True)):
        if number % TOGETHER == 0:
            some = any(turns[number : number + TOGETHER])
            low.kernel(op, *(("act", "wgt", "store") if some else ("act", "store")))
        if turn is not None:
            _turn(low, op, source, target, *turn)
        else:
            _runs(low, op, source, target)


def fill(low: Lowering, op: Op, targets: Sequence[Strided], value: float) -> None:
    """Write one value everywhere in some windows, as part of the kernel that is open. A finite one stays so in f16."""
    for target in targets:
        if 0 in target.dims:
            continue
        (side,) = simplified(target)
        side = _wide(side)[0]
        col = next((a for a, step in enumerate(side.strides) if step == 1), None)
        row = longest(side.dims, [a for a in range(len(side.dims)) if a != col and near(side, a)])
        c = _cut(low, op, side.dims, row, col)
        with walk(low, side.dims, c) as at:
            tile = low.emit.fill(at.rows, at.cols, saturated(value, side.dtype))
            low.emit.store_strided(tile, side.buffer, side.at(at.indices), _pitch(side, row))


def saturated(number: float, dtype: str) -> float:
    """A number as it is filled in to be stored: f16 would make an infinity of a finite one beyond its range."""
    return max(-LARGEST, min(number, LARGEST)) if dtype == "f16" and math.isfinite(number) else number


def _settled(low: Lowering, source: Strided, target: Strided) -> tuple[Strided, Strided]:
    """A pair ready to move: whole numbers as bytes, the fewest axes, one long run as rows and columns."""
    if source.dtype == "i32":
        source, target = source.bytes(low), target.bytes(low)
    source, target = simplified(source, target)
    return _wide(source, target)  # type: ignore[return-value]


def _wide(*sides: Strided) -> tuple[Strided, ...]:
    """A single run cut into rows, so that the vector unit sees more than one."""
    if len(sides[0].dims) == 1 and all(side.strides == (1,) for side in sides):
        inner = divisor(sides[0].dims[0], 128)
        if 32 <= inner < sides[0].dims[0]:
            return tuple(side.split(0, inner) for side in sides)
    return sides


def _turning(source: Strided, target: Strided) -> tuple[int, int] | None:
    """(axis of neighbours in the source, in the target) if they differ and elements must change places."""
    mine, yours = (
        [a for a, step in enumerate(side.strides) if step == 1 and side.dims[a] > 1] for side in (source, target)
    )
    if set(mine) & set(yours) or not mine or not yours:
        return None
    (a, b) = mine[0], yours[0]
    possible = near(source, b) and source.strides[b] > 0 and near(target, a) and target.strides[a] > 0
    return (a, b) if possible and source.dtype == "f16" else None


def _runs(low: Lowering, op: Op, source: Strided, target: Strided) -> None:
    """Tiles of runs along an axis that has neighbours on both sides, or of single elements."""
    axes = range(len(source.dims))
    both = [a for a in axes if source.strides[a] == target.strides[a] == 1]
    col = longest(source.dims, both)
    spread = col is None and any(target.strides[a] == 1 and source.strides[a] == 0 for a in axes)
    if spread:  # one element becomes a run
        col = next(a for a in axes if target.strides[a] == 1 and source.strides[a] == 0)
    rows = [a for a in axes if a != col and near(source, a) and near(target, a)]
    fresh = [a for a in rows if source.strides[a]]
    row = longest(source.dims, fresh if any(source.dims[a] >= 8 for a in fresh) else rows)
    c = _cut(low, op, source.dims, row, col)
    hoisted = row is None or source.strides[row] != 0
    repeats = tuple(a for a in c.loops if source.strides[a] == 0) if hoisted else ()
    outer = Cut(c.row, c.col, c.rows, c.cols, tuple(a for a in c.loops if a not in repeats))
    e = low.emit
    with walk(low, source.dims, outer) as at, ExitStack() as inner:
        first, pitch = source.at(at.indices), _pitch(source, row)
        if spread:
            one = e.load_strided(source.buffer, first, at.rows, 1, pitch)
            tile = e.binary("add", e.fill(at.rows, at.cols, 0.0), one)
        else:
            tile = e.to_tile(e.load_strided(source.buffer, first, at.rows, at.cols, pitch))
        for axis in repeats:
            at.indices[axis] = inner.enter_context(e.loop(source.dims[axis], 1)).off
        e.store_strided(tile, target.buffer, target.at(at.indices), _pitch(target, row))


def _turn(low: Lowering, op: Op, source: Strided, target: Strided, a: int, b: int) -> None:
    """Tiles with rows along `a`, whose elements are neighbours in the source, and columns along `b`, whose elements are
    neighbours in the target."""
    e, side = low.emit, low.tiling.machine.array.rows
    one = _identity(low, side)
    whole, rest = divmod(source.dims[a], side)
    low.account_moved(op, (whole * side**2 + rest**2) * (elements(source) // source.dims[a]))
    with ExitStack() as nest:
        loops = [i for i in range(len(source.dims)) if i not in (a, b)]
        at = {i: nest.enter_context(e.loop(source.dims[i], 1)).off for i in loops}
        r = nest.enter_context(e.loop(source.dims[a], side))
        c = nest.enter_context(e.loop(source.dims[b], low.tiling.n))
        at |= {a: r.off, b: c.off}
        unit = e.load(one, 0, 0, r.len, r.len)
        panel = e.load_weight_strided(source.buffer, source.at(at), r.len, c.len, source.strides[b], trans=True)
        e.store_strided(e.mma(unit, panel), target.buffer, target.at(at), target.strides[a])


class Place:
    """Where a loop nest is: the index on each axis that it walks, and the axes and extents of the tile there."""

    def __init__(self, indices: dict[int, Ix], row: int | None, col: int | None) -> None:
        self.indices, self.row, self.col = indices, row, col
        self.rows = self.cols = Ix.of(1)


@contextmanager
def walk(low: Lowering, dims: Sequence[int], c: Cut) -> Iterator[Place]:
    """The loops over all tiles of a cut; an axis of one index has none."""
    e = low.emit
    with ExitStack() as nest:
        at = {axis: nest.enter_context(e.loop(dims[axis], 1)).off for axis in c.loops}
        place = Place(at, c.row, c.col)
        if c.row is not None:
            r = nest.enter_context(e.loop(c.rows.total, c.rows.step, first=c.rows.first))
            at[c.row], place.rows = r.off, r.len
        if c.col is not None:
            k = nest.enter_context(e.loop(dims[c.col], c.cols))
            at[c.col], place.cols = k.off, k.len
        yield place


def _pitch(side: Strided, row: int | None) -> int:
    return side.strides[row] if row is not None else 0


def _cut(low: Lowering, op: Op, dims: Sequence[int], row: int | None, col: int | None) -> Cut:
    found = cut(low, dims, row, col)
    if found is None:
        raise fail("tile.obuf", f"one row of 32 f32 does not fit the output buffer of {low.tiling.obuf} bytes", op.loc)
    return found


def _identity(low: Lowering, side: int) -> Value:
    """The buffer of the identity matrix, one for all transpositions of a module."""
    return low.constant(IDENTITY, np.eye(side, dtype=np.float32)).buffer
