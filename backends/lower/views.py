"""Where values live: each nn-level value is a window of a DRAM buffer, and the windows decide who writes where.

Reshapes, row and column slices and row-wise concatenations move no bytes: they are windows of their producers' buffers,
or their producers write straight into the consumer's buffer. Only what has no such form becomes a copy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from focusc.ir import ConcentratedType, TensorType, TokensType, Type, Value


@dataclass(frozen=True)
class View:
    """`rows` x `cols` elements at (row, col) of a row-major buffer with `pitch` columns."""

    buffer: Value
    row: int
    col: int
    rows: int
    cols: int
    pitch: int
    dtype: str = "f16"

    @property
    def contiguous(self) -> bool:
        """Whether the elements are one run of bytes."""
        return self.rows == 1 or (self.col == 0 and self.cols == self.pitch)

    @property
    def offset(self) -> int:
        """Elements from the buffer's start."""
        return self.row * self.pitch + self.col

    def rows_from(self, start: int, rows: int) -> View:
        """A run of rows."""
        return replace(self, row=self.row + start, rows=rows)

    def cols_from(self, start: int, cols: int) -> View:
        """A run of columns."""
        return replace(self, col=self.col + start, cols=cols)


@dataclass(frozen=True)
class ConcView:
    """A concentrated buffer: m-tiles of which the first has `first` rows and the others `m`."""

    buffer: Value
    rows: int
    cols: int
    first: int
    m: int

    @property
    def slots(self) -> int:
        """Slots of 32 a row."""
        return -(-self.cols // 32)

    def tile_of(self, row: int) -> tuple[int, int]:
        """(m-tile number, first row of that tile) of a sequence row."""
        if row < self.first:
            return 0, 0
        tile = (row - self.first) // self.m
        return tile + 1, self.first + tile * self.m

    def pieces(self, start: int, stop: int) -> list[tuple[int, int, int, int]]:
        """[start, stop) cut at tile boundaries: (tile, first row within the tile, sequence row, rows)."""
        out: list[tuple[int, int, int, int]] = []
        while start < stop:
            tile, base = self.tile_of(start)
            end = min(stop, base + (self.first if tile == 0 else self.m))
            out.append((tile, start - base, start, end - start))
            start = end
        return out


def matrix_shape(type_: Type) -> tuple[int, int]:
    """(rows, cols) of a value: the last axis is the columns, everything before it the rows."""
    if isinstance(type_, TokensType):
        return 1, type_.count
    if not isinstance(type_, TensorType | ConcentratedType):
        raise TypeError(f"{type_} has no matrix shape")
    if not type_.shape:
        return 1, 1
    return math.prod(type_.shape[:-1]), type_.shape[-1]


def first_rows(total: int, m: int, visual: tuple[int, int] | None) -> int:
    """Rows of the first m-tile of a sequence of `total` rows, such that no tile holds rows of two SIC tiles.

    SIC cuts the retained *visual* rows every m. If everything up to the end of the visual span fits one tile it is one
    tile; else a tile starts at the span, and the text before it is cut so that whole tiles of m end there.
    `visual` is (start, current length); None means there is nothing to align.
    """
    if visual is None or visual[0] == 0 or visual[0] + visual[1] <= m:
        return min(total, m)
    return visual[0] % m or m
