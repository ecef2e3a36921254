"""Windows of buffers with any number of axes, each a fixed distance in elements apart, and how to cut one into tiles.

Slices, concatenations, repetitions, margins and transpositions all are the movement of one such window to another:
what differs is only how the two windows follow from the op.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

from focusc.backends.lower.context import Lowering
from focusc.backends.lower.emit import Ix
from focusc.backends.lower.views import View
from focusc.backends.mapping import Rows, even
from focusc.ir import Value


@dataclass(frozen=True)
class Strided:
    """Elements of a buffer: the first one's number, and for each axis its extent and the distance of neighbours."""

    buffer: Value
    start: int
    dims: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: str = "f16"

    @staticmethod
    def of(view: View, shape: Sequence[int]) -> Strided:
        """A window as a tensor of this shape, whose last axis is the window's columns unless it is one run."""
        strides: list[int] = []
        step = 1
        for axis in reversed(range(len(shape))):
            strides.append(step)
            step = view.pitch if axis == len(shape) - 1 and not view.contiguous else step * shape[axis]
        return Strided(view.buffer, view.offset, tuple(shape), tuple(reversed(strides)), view.dtype)

    def part(self, axis: int, first: int, count: int, step: int = 1) -> Strided:
        """`count` indices of an axis from `first` on, every `step`-th."""
        dims, strides = list(self.dims), list(self.strides)
        start = self.start + first * strides[axis]
        dims[axis], strides[axis] = count, strides[axis] * step
        return replace(self, start=start, dims=tuple(dims), strides=tuple(strides))

    def permuted(self, order: Sequence[int]) -> Strided:
        """Axis i is axis order[i]."""
        return replace(
            self, dims=tuple(self.dims[a] for a in order), strides=tuple(self.strides[a] for a in order)
        )

    def split(self, axis: int, inner: int) -> Strided:
        """An axis as two, the second of `inner` indices."""
        outer, step = self.dims[axis] // inner, self.strides[axis]
        dims = (*self.dims[:axis], outer, inner, *self.dims[axis + 1 :])
        strides = (*self.strides[:axis], step * inner, step, *self.strides[axis + 1 :])
        return replace(self, dims=dims, strides=strides)

    def broadcast(self, shape: Sequence[int]) -> Strided:
        """Repeated over a shape as numpy broadcasts."""
        missing = len(shape) - len(self.dims)
        strides = tuple(
            0 if own == 1 and wanted != 1 else step
            for wanted, own, step in zip(shape[missing:], self.dims, self.strides, strict=True)
        )
        return replace(self, dims=tuple(shape), strides=(*(0,) * missing, *strides))

    def at(self, indices: dict[int, Ix]) -> Ix:
        """Number of the element at these indices, 0 on all other axes."""
        where = Ix.of(self.start)
        for axis, index in indices.items():
            where = where + index * self.strides[axis]
        return where

    def bytes(self, low: Lowering) -> Strided:
        """The same window of the buffer's bytes, with the bytes of an element as a last axis: whole numbers move so,
        since a tile of f32 does not hold them exactly."""
        rows, cols = low.buffer_shape(self.buffer)
        alias = low.emit.op("tile.view", self.buffer, shape=(rows, cols * 4), offset=0, dtype="i8")
        steps = tuple(4 * step for step in self.strides)
        return Strided(alias, 4 * self.start, (*self.dims, 4), (*steps, 1), "i8")


def simplified(*sides: Strided) -> tuple[Strided, ...]:
    """Windows of one shape with the fewest axes: those of one index go, neighbours that are one run in all of them
    join. At least one axis stays."""
    dims = sides[0].dims
    kept: list[tuple[int, list[int]]] = []  # extent, stride in each window
    for axis, extent in enumerate(dims):
        steps = [side.strides[axis] for side in sides]
        if extent == 1:
            continue
        if kept and all(outer == inner * extent for outer, inner in zip(kept[-1][1], steps, strict=True)):
            kept[-1] = (kept[-1][0] * extent, steps)
        else:
            kept.append((extent, steps))
    kept = kept or [(1, [1] * len(sides))]
    extents = tuple(extent for extent, _ in kept)
    return tuple(
        replace(side, dims=extents, strides=tuple(steps[i] for _, steps in kept)) for i, side in enumerate(sides)
    )


STRIDE_MOST = 1 << 23
"""Elements between the rows of a tile; what is farther apart is walked by a loop."""


@dataclass(frozen=True)
class Cut:
    """How a window is cut into tiles: the axes of a tile's rows and columns (None: one row, one column), how many of
    each, and the axes that loops walk, outermost first."""

    row: int | None
    col: int | None
    rows: Rows
    cols: int
    loops: tuple[int, ...]


def cut(
    low: Lowering, dims: Sequence[int], row: int | None, col: int | None, *, tiles: int = 1, least: int = 32
) -> Cut | None:
    """The largest tiles of which `tiles` fit twice in the output buffer, or once; None if one row of `least` columns
    does not."""
    height, width = dims[row] if row is not None else 1, dims[col] if col is not None else 1
    slot = min(least, width)
    for copies in (2, 1):
        room = low.tiling.obuf // (4 * tiles * copies)
        fit = min(height, low.tiling.m, room // slot)
        if fit:
            rows = even(height, fit)
            cols = min(width, room // rows.most)
            cols = cols if cols == width else cols // slot * slot
            loops = tuple(axis for axis in range(len(dims)) if axis not in (row, col))
            return Cut(row, col, rows, cols, loops)
    return None


def longest(dims: Sequence[int], axes: Sequence[int]) -> int | None:
    """The longest of some axes, the last one in a tie; None of none."""
    return max(axes, key=lambda axis: (dims[axis], axis), default=None)


def near(side: Strided, axis: int) -> bool:
    """Whether neighbours along an axis can be the rows of one tile."""
    return 0 <= side.strides[axis] < STRIDE_MOST


def divisor(size: int, most: int) -> int:
    """The largest divisor of `size` up to `most`."""
    return next(d for d in range(min(size, most), 0, -1) if size % d == 0)


def elements(side: Strided) -> int:
    """Number of elements of a window."""
    return math.prod(side.dims)
