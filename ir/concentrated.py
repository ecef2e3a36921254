"""The run-time value of `conc<...>`: rows of which some 32-vectors stand for groups of similar ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]


@dataclass(frozen=True, slots=True)
class Concentrated:
    """What the similarity concentrator hands to a GEMM.

    rows float [..., T, D]: the reconstruction, every vector replaced by its group's mean. map i64 [T, slots]: for each
    vector, the number of its unique vector within its m-tile; text rows are unique vectors of their own. starts i64
    [tiles]: first row of each m-tile. counts i64 [tiles, slots]: unique vectors. linked i64 [tiles, slots]: vectors that
    linked to another; tile rows - linked is what a GEMM executes (= counts, unless a chain was cut short).
    """

    rows: Array
    map: Array
    starts: Array
    counts: Array
    linked: Array
    vector: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the reconstruction."""
        return self.rows.shape

    @property
    def tile_rows(self) -> Array:
        """Rows of each m-tile, i64 [tiles]."""
        return np.diff(np.append(self.starts, self.rows.shape[-2]))

    @property
    def executed(self) -> Array:
        """Rows that a GEMM computes, i64 [tiles, slots]: those whose vector linked to no other."""
        return self.tile_rows[:, None] - self.linked

    def dense(self) -> Array:
        """The reconstruction, [..., T, D]."""
        return self.rows

    def packed(self, tile: int, slot: int) -> Array:
        """The unique vectors of one tile and slot, [counts, vector], the last slot padded with zeros."""
        first = int(self.starts[tile])
        rows = self.rows.reshape(-1, self.rows.shape[-1])[first:first + int(self.tile_rows[tile])]
        part = rows[:, slot * self.vector:(slot + 1) * self.vector]
        out = np.zeros((int(self.counts[tile, slot]), self.vector), rows.dtype)
        out[self.map[first:first + len(rows), slot], :part.shape[1]] = part
        return out

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> Array:
        """The reconstruction, so that numpy functions take a concentrated value where they take an array."""
        return np.array(self.rows, dtype=dtype, copy=bool(copy)) if dtype or copy else self.rows
