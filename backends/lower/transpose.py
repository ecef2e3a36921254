"""Transposition of stored values, from DRAM to DRAM.

Axes of one element go, axes that stay neighbours become one. If the last axis stays last, runs of elements move: a tile
is loaded and stored with the two strides of its row axis. If it does not, elements change places inside a tile. That
is work for the array: the identity matrix times a panel loaded transposed, sums of 1 * x and 0 * y, exact for finite
values.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass

import numpy as np

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.data import copy
from focusc.backends.lower.emit import Ix
from focusc.backends.lower.views import View
from focusc.ir import Op, TensorType, Value
from focusc.ir.diagnostics import fail

IDENTITY = "identity"
"""Name of the constant with the identity matrix, array rows square."""


@dataclass(frozen=True)
class Permutation:
    """Axes `dims` of the source, in order; axis i of the result is axis order[i]."""

    dims: tuple[int, ...]
    order: tuple[int, ...]

    @staticmethod
    def of(shape: Sequence[int], perm: Sequence[int]) -> Permutation:
        """The same movement of elements with the fewest axes; one or none if nothing moves."""
        runs: list[list[int]] = []
        for axis in (a for a in perm if shape[a] != 1):
            if runs and all(shape[between] == 1 for between in range(runs[-1][-1] + 1, axis)) and axis > runs[-1][-1]:
                runs[-1].append(axis)
            else:
                runs.append([axis])
        sources = sorted(runs)
        dims = tuple(math.prod(shape[axis] for axis in run) for run in sources)
        return Permutation(dims, tuple(sources.index(run) for run in runs))

    @property
    def moved(self) -> tuple[int, ...]:
        """The result's axes."""
        return tuple(self.dims[axis] for axis in self.order)


@dataclass(frozen=True)
class Side:
    """Source or result: a contiguous window, and for each source axis the distance of neighbours in elements."""

    view: View
    strides: tuple[int, ...]

    @staticmethod
    def of(view: View, dims: Sequence[int], axes: Sequence[int]) -> Side:
        """`dims` lie row-major; the j-th of them is source axis axes[j]."""
        steps = {axis: math.prod(dims[j + 1 :]) for j, axis in enumerate(axes)}
        return Side(view, tuple(steps[axis] for axis in range(len(dims))))

    def rows_along(self, low: Lowering, axis: int) -> View:
        """The elements as a matrix whose neighbouring rows are neighbours along an axis."""
        pitch, size = self.strides[axis], self.view.rows * self.view.cols
        found = low.reshaped(self.view, size // pitch, pitch)
        assert found is not None
        return found

    def place(self, axis: int, at: dict[int, Ix]) -> tuple[Ix, Ix]:
        """(row, column) in `rows_along(axis)` of the element at these indices."""
        pitch, row, col = self.strides[axis], Ix.of(0), Ix.of(0)
        for other, index in at.items():
            step = self.strides[other]
            if step >= pitch:
                row = row + index * (step // pitch)
            else:
                col = col + index * step
        return row, col


@handles("tensor.transpose")
def transpose(low: Lowering, op: Op) -> None:
    """Axis i of the result is axis perm[i] of x: a window if no element moves, else one pass over the elements."""
    x, result = op.operands[0], op.results[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    view, p = low.view(x), Permutation.of(x.type.shape, op.attrs["perm"])
    rows, cols = math.prod(result.type.shape[:-1]), result.type.shape[-1] if result.type.shape else 1
    if len(p.dims) > 1 and view.dtype != "f16":
        raise fail(
            "lower.transpose",
            f"transposition of {x.type}: {view.dtype} values do not pass through tiles; expected f32 or f16",
            op.loc,
            hint="transpose it on the host, or after nn.embed",
        )
    if not view.contiguous:
        dense = low.allocate(view.rows, view.cols, x.name)
        copy(low, op, view, dense)
        view = dense
    if len(p.dims) <= 1:
        found = low.reshaped(view, rows, cols)
        assert found is not None
        low.at[result] = found
        return
    inner = p.order[-1] == len(p.dims) - 1
    low.kernel(op, *(("act", "store") if inner else ("act", "wgt", "store")))
    sink = low.sink(result, direct=False).view
    assert isinstance(sink, View)
    source, target = Side.of(view, p.dims, range(len(p.dims))), Side.of(sink, p.moved, p.order)
    (_move_runs if inner else _turn_tiles)(low, p, source, target)


def _move_runs(low: Lowering, p: Permutation, source: Side, target: Side) -> None:
    """The last axis stays: tiles of the longest other axis by columns of the last."""
    e, last = low.emit, len(p.dims) - 1
    axis = max(range(last), key=lambda a: p.dims[a])
    rows = low.rows_of(p.dims[axis])
    cols = low.columns(rows.most, 1, p.dims[last])
    a, b = source.rows_along(low, axis), target.rows_along(low, axis)
    with ExitStack() as nest:
        at = {i: nest.enter_context(e.loop(p.dims[i], 1)).off for i in p.order if i not in (axis, last)}
        r = nest.enter_context(e.loop(rows.total, rows.step, first=rows.first))
        c = nest.enter_context(e.loop(p.dims[last], cols))
        at |= {axis: r.off, last: c.off}
        tile = e.to_tile(e.load(a.buffer, *_shifted(a, source.place(axis, at)), r.len, c.len))
        e.store(tile, b.buffer, *_shifted(b, target.place(axis, at)))


def _turn_tiles(low: Lowering, p: Permutation, source: Side, target: Side) -> None:
    """The source's last axis becomes the rows of tiles, the result's last axis their columns."""
    e, last, axis = low.emit, len(p.dims) - 1, p.order[-1]
    side = low.tiling.machine.array.rows
    one = _identity(low, side)
    a, b = source.rows_along(low, axis), target.rows_along(low, last)
    with ExitStack() as nest:
        at = {i: nest.enter_context(e.loop(p.dims[i], 1)).off for i in p.order if i not in (axis, last)}
        r = nest.enter_context(e.loop(p.dims[last], side))
        c = nest.enter_context(e.loop(p.dims[axis], low.tiling.n))
        at |= {last: r.off, axis: c.off}
        row, col = _shifted(a, source.place(axis, at))
        unit = e.load(one, 0, 0, r.len, r.len)
        tile = e.mma(unit, e.load_weight(a.buffer, row, col, r.len, c.len, trans=True))
        e.store(tile, b.buffer, *_shifted(b, target.place(last, at)))


def _shifted(view: View, place: tuple[Ix, Ix]) -> tuple[Ix, Ix]:
    return place[0] + view.row, place[1] + view.col


def _identity(low: Lowering, side: int) -> Value:
    """The buffer of the identity matrix, one for all transpositions of a module."""
    if IDENTITY not in low.shared:
        with low.emit.outside():
            low.shared[IDENTITY] = low.bind(low.emit.b.constant(np.eye(side, dtype=np.float32), name=IDENTITY)).buffer
    return low.shared[IDENTITY]
