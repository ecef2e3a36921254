"""One evaluation of the Focus cost model: what a site's counts mean, and bytes that several operations share."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from focusc.backends.cost.accounting import Accounting, Quirk
from focusc.backends.cost.arithmetic import Floats, Numbers, ceil
from focusc.backends.cost.decoder import text_rows
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import SITES, Ints, Shape, SiteCounts, TraceCounts, site_counts
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import Ledger

__all__ = ["Run", "Site", "detect", "gather", "stream"]

B = ELEMENT_BYTES


@dataclass(frozen=True)
class Site:
    """What a site's counts mean to an accounting; arrays over layers."""

    counts: SiteCounts
    retained: Ints
    """Retained tokens T, text not included."""
    unique: Ints
    """Mean unique vectors of a slot, rounded down as published; T without similarity."""
    mean: Floats
    """The same mean, exact."""
    packed: Ints
    """The mean rounded up: rows of 32-vectors that a slot holds in DRAM."""
    nonzero: Ints
    """Rows left when zero vectors are gone."""

    @staticmethod
    def of(trace: TraceCounts, name: str, similarity: bool) -> Site:
        """Read a site; without similarity every retained vector is unique."""
        c = site_counts(trace, name)
        t, nonzero = c.retained, (c.length * c.vectors - c.zero) // c.vectors
        if not similarity:
            return Site(c, t, t, t * 1.0, t, nonzero)
        return Site(c, t, c.active // c.vectors, c.active / c.vectors, ceil(c.active, c.vectors), nonzero)


class Run:
    """One evaluation: the sites, the machine and the accounting."""

    def __init__(self, ledger: Ledger, shape: Shape, trace: TraceCounts, hardware: Accelerator,
                 accounting: Accounting, options: Options) -> None:
        self.ledger, self.shape, self.hardware, self.accounting = ledger, shape, hardware, accounting
        self.options, self.m = options, options.rows(hardware)
        self.sites = {name: Site.of(trace, name, options.similarity) for name in SITES}
        self.text = text_rows(shape, accounting)
        self.accumulators = hardware.sic.scatter_accumulators if hardware.sic else 1
        self.merging = hardware.sic is not None and (options.similarity or Quirk.IDLE_SIC_CHARGED in accounting)

    def has(self, quirk: Quirk) -> bool:
        """Whether the accounting has a quirk."""
        return quirk in self.accounting

    def streamed(self, site: Site) -> tuple[Floats, Ints]:
        """Rows that the array streams for one slot of a site, and its row tiles."""
        tiles = ceil(site.retained + self.text, self.m)
        if self.has(Quirk.ROUNDED_ROWS):
            return (site.unique + self.text) // np.maximum(tiles, 1) * tiles * 1.0, tiles
        if self.options.array == "pipelined" and self.detailed(site):
            full = np.array([np.maximum(u, self.hardware.array.rows).sum() for u, _ in self.passes(site)])
            return full / site.counts.vectors, tiles
        return site.mean + self.text, tiles

    def detailed(self, site: Site) -> bool:
        """Whether the trace counts unique vectors by tiles as the run cuts them."""
        counts = site.counts
        return counts.unique is not None and counts.rows_per_tile == self.m and self.options.similarity

    def passes(self, site: Site) -> Iterator[tuple[Ints, Ints]]:
        """(rows streamed [tiles, slots], rows scattered [tiles, 1]) of each layer; text rows are in the last tile."""
        for layer, unique in enumerate(site.counts.unique or ()):
            total = int(site.retained[layer])
            rows = np.minimum(self.m, total - np.arange(0, total, self.m, dtype=np.int64))
            text = np.where(np.arange(len(rows)) == len(rows) - 1, self.text, 0)
            yield unique + text[:, None], (rows + text)[:, None]

    def late(self, site: Site) -> Floats:
        """Cycles by which scatter is longer than its pass, summed over all tiles and slots of a site.

        By tile and slot where the trace has them (text rows are in the last tile), else all are taken to be alike.
        """
        overhead = 0 if self.options.array == "pipelined" else self.hardware.array.overhead_cycles
        if self.detailed(site):
            return np.array([np.maximum(ceil(rows, self.accumulators) - streamed - overhead, 0).sum()
                             for streamed, rows in self.passes(site)], np.float64)
        tiles = ceil(site.retained + self.text, self.m)
        each = np.maximum(tiles, 1)
        scattered = ceil(-(-(site.retained + self.text) // each), self.accumulators)
        gap = scattered - (site.mean + self.text) / each - overhead
        return np.asarray(tiles * site.counts.vectors * np.maximum(gap, 0.0), np.float64)

    def map_bytes(self, site: Site) -> Ints | int:
        """Bytes of a site's similarity maps in DRAM: the count of each tile and slot, two bytes a row and slot."""
        if self.has(Quirk.NO_METADATA) or not self.options.similarity:
            return 0
        rows = site.retained + self.text
        return (4 * ceil(rows, self.m) + 2 * rows) * site.counts.vectors


def stream(run: Run, op: str, packed: Ints, rows: Ints, k: int, n: Ints | int, times: Floats | float, *,
           maps: Numbers = 0, weight_reads: Floats | None = None) -> None:
    """Bytes of a concentrated product: `packed` rows through the array, `rows` scattered, all `times` times."""
    ledger, array, tiles = run.ledger, run.hardware.array, run.hardware.tiles
    columns, cycles = ceil(np.asarray(n), tiles.n), ceil(packed * k * n, array.macs_per_cycle)
    reads = (rows + run.m - 1) // run.m if weight_reads is None else weight_reads
    ledger.touch(op, "activation", read=times * (cycles * array.rows * B), write=times * (packed * k * columns * B))
    ledger.move(op, "activation", read=times * (packed * k * columns * B))
    ledger.touch(op, "weights", read=times * (k * n * reads * B), write=times * (k * n * reads * B))
    ledger.move(op, "weights", read=times * (k * n * reads * B))
    scattered = times * (rows * ceil(k, array.rows) * n * B)
    if run.merging:
        ledger.touch(op, "partial", read=scattered, write=times * (cycles * array.cols * B))
    ledger.touch(op, "output", write=scattered)
    ledger.move(op, "map", read=times * columns * maps)
    # Every column group scatters by the map; one load of it serves those of an n-tile.
    ledger.touch(op, "map", read=times * ceil(np.asarray(n), array.cols) * maps, write=times * columns * maps)


def gather(run: Run, op: str, site: Site, groups: int) -> Numbers:
    """Cycles of the similarity concentrator for a result of `groups` slots: a vector is compared with its block, has
    its norm taken once, and is averaged where it is merged; text only passes."""
    cycles = (run.options.block * site.retained + run.text) * groups
    run.ledger.work(op, "compare", cycles)
    run.ledger.work(op, "norm", (site.retained + run.text) * groups)
    run.ledger.work(op, "average", (site.retained - site.mean) * groups)
    return cycles


def detect(run: Run, op: str, rows: Ints, packed: Ints | Floats, n: Ints | int, groups: Ints | int) -> None:
    """Bytes of the similarity concentrator at the output; the packed result goes to DRAM."""
    ledger = run.ledger
    through = rows * n * B + rows * groups * B
    ledger.touch(op, "output", read=through)
    ledger.touch(op, "layouter", read=7 * through, write=through)
    ledger.touch(op, "map", write=rows * groups * B)
    ledger.touch(op, "table", read=rows * n * B + packed * n * B, write=rows * n * B)
    ledger.move(op, "activation", write=packed * n * B)
