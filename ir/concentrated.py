"""Run-time value of a ConcentratedType: which vectors are unique, who shares them, and the dense reconstruction."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np

from focusc.ir.diagnostics import fail


class Concentrated:
    """Rows cut into slots of `vector` columns; per slot, rows of one group share one vector, their mean.

    `tiles` are the row ranges [start, stop) of the m-tiles, in order and without gaps; `root[row, slot]` is the row
    that stands for `row` in that slot (itself for text rows and for rows without a match), in the same tile;
    `values[row]` is the reconstruction: every vector already replaced by its group's mean. `linked[row, slot]` tells
    which vectors linked to another; by default those that are not roots.
    """

    def __init__(
        self,
        shape: Sequence[int],
        tiles: Sequence[tuple[int, int]],
        root: np.ndarray,
        values: np.ndarray,
        vector: int = 32,
        linked: np.ndarray | None = None,
    ) -> None:
        self.shape: tuple[int, ...] = tuple(shape)
        self.tiles: list[tuple[int, int]] = [(int(a), int(b)) for a, b in tiles]
        self.vector = vector
        self.values = values.reshape(-1, self.shape[-1])
        self.root = root
        self._linked = linked
        rows, cols = self.values.shape
        slots = -(-cols // vector)
        if root.shape != (rows, slots):
            raise fail("run.concentrated", f"root is {list(root.shape)}, expected {[rows, slots]}")
        if [a for a, _ in self.tiles] != [0, *(b for _, b in self.tiles[:-1])] or self.tiles[-1][1] != rows:
            raise fail("run.concentrated", f"tiles {self.tiles} do not cover rows 0 to {rows} in order")

    @property
    def dtype(self) -> np.dtype:
        """Element type of the vectors."""
        return self.values.dtype

    @property
    def slots(self) -> int:
        """Vectors per row."""
        return self.root.shape[1]

    @cached_property
    def is_root(self) -> np.ndarray:
        """bool [rows, slots]: the row stands for itself."""
        return self.root == np.arange(len(self.root), dtype=self.root.dtype)[:, None]

    @cached_property
    def _number(self) -> np.ndarray:
        """i64 [rows + 1, slots]: roots above each row; differences count roots in a range."""
        total = np.zeros((len(self.root) + 1, self.slots), np.int64)
        np.cumsum(self.is_root, axis=0, out=total[1:])
        return total

    @cached_property
    def counts(self) -> np.ndarray:
        """i64 [tiles, slots]: unique vectors."""
        stops = np.array([b for _, b in self.tiles])
        starts = np.array([a for a, _ in self.tiles])
        return self._number[stops] - self._number[starts]

    @cached_property
    def executed(self) -> np.ndarray:
        """i64 [tiles, slots]: rows that a GEMM computes, one for each vector that linked to no other. More groups than
        that exist only where the published chase cut a chain; its cost does not count them."""
        if self._linked is None:
            return self.counts
        return np.stack([(b - a) - np.count_nonzero(self._linked[a:b], axis=0) for a, b in self.tiles])

    def map(self, tile: int, slot: int) -> np.ndarray:
        """u16 [rows of tile]: number of each row's unique vector; roots are numbered in row order."""
        start, stop = self.tiles[tile]
        number = self._number[self.root[start:stop, slot], slot] - self._number[start, slot]
        return number.astype(np.uint16)

    def packed(self, tile: int, slot: int) -> np.ndarray:
        """[unique, vector] unique vectors of a slot, the last slot zero-padded to the full width."""
        start, stop = self.tiles[tile]
        left = slot * self.vector
        found = self.values[start:stop, left : left + self.vector][self.is_root[start:stop, slot]]
        if found.shape[1] < self.vector:
            found = np.pad(found, ((0, 0), (0, self.vector - found.shape[1])))
        return found

    def dense(self) -> np.ndarray:
        """The reconstruction, of `shape`."""
        return self.values.reshape(self.shape)

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        found = self.dense()
        return found if dtype is None else found.astype(dtype)


def dense(value: np.ndarray | Concentrated) -> np.ndarray:
    """The value as an array; a concentrated one is reconstructed (cached)."""
    return value.dense() if isinstance(value, Concentrated) else value
