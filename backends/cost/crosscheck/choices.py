"""What a program has to do, from shapes, trace and the compiler's choices of tiles; nothing that it counted is read.

The choices are asked for again: the mapping search for linear layers, the tiles of attention. Passes, rows and bytes
follow from them by counting the tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from math import lcm

import numpy as np

from focusc.backends.cost.decoder import Product
from focusc.backends.cost.hardware import Accelerator
from focusc.backends.cost.interface import VECTOR, Ints, TraceCounts
from focusc.backends.lower.attention_tiles import Room, Tiles
from focusc.backends.lower.elementwise import rope_rows
from focusc.backends.lower.masks import Band
from focusc.backends.lower.views import first_rows
from focusc.backends.mapping import Choice, Gemm, Rows, search
from focusc.backends.options import Tiling
from focusc.backends.trace import IR_SITE
from focusc.backends.workload import Workload
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.machine import Machine
from focusc.isa.site_counts import SiteCounts, distinct

__all__ = ["Blocks", "Choices"]

_GATED = ("gate_proj", "up_proj")
_TURNED = ("q_proj", "k_proj")
_QUERY = "query"


@dataclass(frozen=True)
class Blocks:
    """What the blocks of attention take, over all heads of a layer: `score_rows` and `value_rows` streamed, the passes
    of each product, MACs of the scores, (row, key) pairs of the tiles and how many of them the mask leaves (`seen`),
    query rows loaded, once for every key block (`taken`), their vectors (0 if queries are not concentrated), keys read,
    once for every row block, and bytes of the lists of row numbers."""

    score_rows: float = 0.0
    value_rows: float = 0.0
    score_passes: float = 0.0
    value_passes: float = 0.0
    score_macs: float = 0.0
    pairs: float = 0.0
    seen: float = 0.0
    taken: float = 0.0
    vectors: float = 0.0
    keys: float = 0.0
    lists: float = 0.0

    @property
    def useful(self) -> float:
        """Share of the pairs that the mask leaves."""
        return self.seen / self.pairs


class Choices:
    """The compiler's choices for a workload; `block`: vectors that SIC compares. `counts` are None unless it merges."""

    def __init__(self, workload: Workload, trace: TraceCounts | None, counts: DynamicCounts | SiteCounts | None,
                 hardware: Accelerator, machine: Machine, block: int) -> None:
        self.workload, self.trace, self.counts = workload, trace, counts
        self.machine, self.merging, self.block = machine, counts is not None, block
        self.tiling = Tiling(machine, hardware.tiles.m, hardware.tiles.n)
        self._mapped: dict[tuple[str, int], tuple[Choice, bool]] = {}

    def concentrated(self, rows: int) -> Rows | None:
        """The partition of concentrated rows; None if similar vectors are not merged."""
        if not self.merging:
            return None
        visual = self.workload.text_before, rows - self.workload.text_tokens
        return Rows(rows, first_rows(rows, self.tiling.m, visual), self.tiling.m)

    def mapping(self, p: Product, rows: int) -> Choice:
        """The tile of a linear layer."""
        return self._found(p, rows)[0]

    def turned_apart(self, p: Product, rows: int) -> bool:
        """Whether the rotary embedding of a product, if it has one, is a kernel of its own."""
        return p.op in _TURNED and not self._found(p, rows)[1]

    def turned_direct(self, rows: int) -> bool:
        """Whether an embedding apart sends its queries straight through SIC: only if whole m-tiles fit."""
        cut = self.concentrated(rows)
        return cut is not None and cut.most <= rope_rows(self.tiling, self.workload.head_size)

    def _found(self, p: Product, rows: int) -> tuple[Choice, bool]:
        """(tile of a linear layer, whether heads are turned in it): if they and a copy fit an n-tile."""
        if (p.op, rows) not in self._mapped:
            turned = p.op in _TURNED and self.workload.head_size <= self.tiling.n
            found = self._search(p, rows, True) if turned else None
            turned = found is not None
            found = found or self._search(p, rows, False)
            assert found is not None, "the workload was compiled, so some tile fits"
            self._mapped[p.op, rows] = found, turned
        return self._mapped[p.op, rows]

    def _search(self, p: Product, rows: int, turned: bool) -> Choice | None:
        """The mapping: gate and up are one kernel, and their result and turned queries go through SIC."""
        both = 2 if p.op in _GATED else 1
        gathered = self.merging and (p.op in _GATED or (p.op == "q_proj" and turned))
        multiple = lcm(VECTOR, self.workload.head_size) if turned else VECTOR
        return search(Gemm(rows, p.k, p.n, both, both + turned, multiple, self.block if gathered else 0,
                           self.concentrated(rows)), self.tiling)

    def attention(self, rows: int) -> tuple[Tiles, int]:
        """(tiles of attention, heads in a tile)."""
        w, band = self.workload, Band(rows, rows, 0, 0)
        room, cut = Room(self.tiling, w.head_size, 1, band), self.concentrated(rows)
        alone = room.choose(cut, cut)
        assert alone is not None, "the workload was compiled, so some tile fits"
        group = w.heads // w.kv_heads
        stacked = room.stack(group, True, alone) if cut is None and group > 1 and not alone.direct else None
        return (stacked, group) if stacked is not None else (alone, 1)

    def blocks(self, layer: int, rows: int) -> Blocks:
        """Count what the blocks of a layer's attention take."""
        w, (t, stacked) = self.workload, self.attention(rows)
        array, depth = self.machine.array, -(-w.head_size // self.machine.array.rows)
        tiles = w.heads // stacked
        panels = [min(step, w.head_size - at) for step in (self._panel(),) for at in range(0, w.head_size, step)]
        total = np.zeros(11)
        for start, count, vectors in self._row_blocks(layer, rows, t):
            visited = rows if t.once else start + count
            whole, rest = divmod(visited, rows if t.once else t.keys)
            sizes = [(rows if t.once else t.keys, whole), (rest, 1 if rest else 0)]
            height = count * stacked
            across = sum(times * -(-keys // array.cols) for keys, times in sizes)
            deep = sum(times * -(-keys // array.rows) for keys, times in sizes)
            wide = sum(-(-columns // array.cols) for columns in panels)
            loads = sum(times for _, times in sizes)
            streamed = tiles * height * depth if vectors is None else vectors
            total += (across * streamed, tiles * height * deep * wide, tiles * across * depth, tiles * deep * wide,
                      visited * (tiles * height * w.head_size if vectors is None else vectors * VECTOR),
                      tiles * height * visited, w.heads * (count * start + count * (count + 1) / 2),
                      tiles * height * loads, (vectors or 0.0) * loads, tiles * visited,
                      4 * tiles * height * loads * (stacked > 1))
        return Blocks(*total.tolist())

    def _panel(self) -> int:
        """Columns of a panel of a value head."""
        slots = -(-self.workload.head_size // VECTOR)
        return VECTOR * -(-slots // -(-slots // (self.tiling.n // VECTOR)))

    def _row_blocks(self, layer: int, rows: int, t: Tiles) -> Iterator[tuple[int, int, float | None]]:
        """(first row, rows, unique vectors of all heads, None if dense) of each row block."""
        start, visual = 0, self.workload.text_before
        stop = visual + rows - self.workload.text_tokens
        for piece in range(t.rows.pieces):
            end = min(rows, start + (t.rows.first if piece == 0 else t.rows.step))
            low, high = np.clip([visual, stop], start, end).tolist()  # the tile's visual rows
            for row in range(start, end, t.sub):
                count = min(t.sub, end - row)
                first, last = np.clip([low, high], row, row + count).tolist()
                vectors = None
                if self.merging:
                    unique = self._unique(layer, (low - visual, high - visual), (first - visual, last - visual))
                    slots = self.workload.heads * self.workload.head_size // VECTOR
                    vectors = float(unique.sum() + slots * (count - (last - first)))
                yield row, count, vectors
            start = end

    def _unique(self, layer: int, tile: tuple[int, int], block: tuple[int, int]) -> Ints:
        """Vectors, by slot, that the retained tokens of a block refer to: of a whole m-tile as the trace counts them,
        of a part by its links, or if it has none by the estimate that the timing takes."""
        taken, rows = block[1] - block[0], tile[1] - tile[0]
        if not taken:
            return np.zeros(1, np.int64)
        assert self.trace is not None
        unique = np.asarray(self.trace.unique_of(layer, _QUERY)[tile[0] // self.tiling.m], np.int64)
        if taken == rows:
            return unique
        if isinstance(self.counts, SiteCounts) and self.counts.exact is not None:
            sites = self.counts.sites
            number = next(i for i, of in enumerate(zip(sites.layer, sites.site, strict=True))
                          if of == (layer, IR_SITE[_QUERY]))
            return np.asarray(self.counts.exact(number, *block), np.int64)
        return distinct(unique, np.full_like(unique, rows), np.full_like(unique, taken))
