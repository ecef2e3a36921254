"""How attention cuts its query rows and keys: a choice from sizes alone, before anything is emitted."""

from __future__ import annotations

from dataclasses import dataclass

from focusc.backends.lower.masks import Band
from focusc.backends.mapping import ACCUMULATOR, Rows, even
from focusc.backends.options import Tiling

__all__ = ["PITCH", "VECTORS", "Room", "Tiles"]

PITCH = 16
"""Columns of a tile of several heads are a multiple of this: the window of one head's rows starts at a multiple of 64
bytes."""
VECTORS = 5  # f32 words a row: m, m', l, exp(m - m'), and a copy


@dataclass(frozen=True)
class Tiles:
    """How the query rows are cut: `rows` into m-tiles, each into blocks of `sub` rows; `keys` is a key block.

    `direct` says that a block is a whole m-tile that goes straight through SIC, `once` that one block holds all keys of
    a tile, so that no maximum and sum run along.
    """

    rows: Rows
    sub: int
    keys: int
    direct: bool
    once: bool


@dataclass(frozen=True)
class Room:
    """What has to fit the output buffer: `planes` tiles of the scores of rows and keys in `band`, and a result of
    `wide` columns."""

    tiling: Tiling
    wide: int
    planes: int
    band: Band

    @property
    def widest(self) -> int:
        """Keys of the largest block."""
        return min(self.tiling.n, -(-self.band.keys // 32) * 32)

    def row_bytes(self, block: int, copies: int = 1) -> int:
        """Bytes that one query row needs beside `copies` blocks of keys."""
        return ACCUMULATOR * (copies * self.planes * block + self.wide + VECTORS)

    def choose(self, given: Rows | None, gathered: Rows | None) -> Tiles | None:
        """Straight through SIC if whole m-tiles fit beside some block of keys; else as many rows as fit with a full
        one. None if not one row fits.

        `given` is the partition of a concentrated query, `gathered` that of a concentrated result.
        """
        band, obuf = self.band, self.tiling.obuf
        if gathered is not None and given in (None, gathered) and self._narrow(gathered.most):
            for copies in (2, 1):
                for block in range(self.widest, 0, -32):
                    if gathered.most * self.row_bytes(block, copies) <= obuf:
                        return Tiles(gathered, gathered.most, block, True, band.reach(gathered.most) <= block)
        most, block = self.fitting(self.widest)
        if most < 1:
            return None
        rows = given or even(band.rows, most)
        sub = rows.most if given is None else even(given.most, most).step
        return Tiles(rows, sub, block, False, band.reach(sub) <= block)

    def stack(self, group: int, causal: bool, alone: Tiles) -> Tiles | None:
        """The tiles of query rows if all `group` heads of a key/value head go in one tile.

        None if they would visit no fewer keys than tiles of one head (`alone`) do: with a causal mask, as many tiles
        are fewer keys, since a tile spans fewer rows.
        """
        band, widest = self.band, self.widest
        if band.keys <= widest and band.keys % PITCH:  # one block of all keys would give tiles of that pitch
            widest = (band.keys - 1) // 32 * 32
        if not widest:
            return None
        most, block = self.fitting(widest)
        if most < group:
            return None
        rows = even(band.rows, most // group)
        most = group * alone.rows.pieces
        gains = rows.pieces < most or (rows.pieces == most and causal)
        reach = band.reach(rows.most)
        return Tiles(rows, rows.most, block, False, reach <= block and reach % PITCH == 0) if gains else None

    def fitting(self, widest: int) -> tuple[int, int]:
        """(most rows of a tile, keys of a block): blocks of `widest` keys, double-buffered, if enough rows fit
        beside."""
        most, block = 0, widest
        for copies, block in ((2, widest), *((1, n) for n in range(widest, 0, -32))):
            most = min(self.tiling.obuf // self.row_bytes(block, copies), self.tiling.m)
            if most >= self.tiling.machine.array.rows:  # fewer rows leave the array idle while weights are loaded
                break
        return min(most, self._few_rows()), block

    def _few_rows(self) -> int:
        """Most rows of a tile under a window: it visits the window and as many keys as it has rows, so few rows are
        little waste, and four times the array's are enough to hide the loading of weights."""
        return max(4 * self.tiling.machine.array.rows, self.band.width // 4) if self.band.width else self.tiling.m

    def _narrow(self, rows: int) -> bool:
        """Whether a tile of that many rows visits few keys more than a tile of the best size would."""
        return 4 * self.band.reach(rows) <= 5 * self.band.reach(min(rows, self._few_rows()))
