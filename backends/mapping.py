"""Mapping search of a GEMM: which tile of the output buffer costs the least.

The loop order is m-tiles around n-tiles, so with m rows and n columns a tile the activation is read ceil(N/n) times and
the weights ceil(M/m) times. Candidates are scored by a closed form of the pipelined machine with dense rows: array
passes against DRAM transfers, plus the draining of a tile (vector work, store or SIC) where there is no room for a
second one to overlap.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from focusc.backends.options import Tiling
from focusc.isa.machine import Machine

ELEMENT = 2  # bytes of an f16 element in DRAM
ACCUMULATOR = 4  # bytes of an f32 accumulator


@dataclass(frozen=True)
class Rows:
    """A partition of `total` rows: `first`, then `step` each."""

    total: int
    first: int
    step: int

    @property
    def most(self) -> int:
        """Rows of the largest piece."""
        return min(self.total, max(self.first, self.step if self.total > self.first else 0))

    @property
    def pieces(self) -> int:
        """Number of pieces."""
        return 1 + max(0, -(-(self.total - self.first) // self.step))

    @property
    def sizes(self) -> list[tuple[int, int]]:
        """(rows, how many pieces of them): the first, whole ones, the last."""
        first = min(self.first, self.total)
        whole, rest = divmod(self.total - first, self.step)
        return [(size, count) for size, count in ((first, 1), (self.step, whole), (rest, 1)) if size and count]


def even(total: int, most: int) -> Rows:
    """As few pieces of at most `most` rows as possible, of nearly the same size."""
    step = -(-total // -(-total // max(1, min(most, total))))
    return Rows(total, step, step)


@dataclass(frozen=True)
class Gemm:
    """One product and its epilogue.

    `rows`, `k` and `columns` are the matrix sizes of each of `products` products of the same activation; `live`
    accumulator tiles are needed at once; n-tiles are multiples of `multiple`; `window`: candidates that SIC compares
    the result with, 0 if it is stored as it is; `fixed`: the partition of the rows, if it is given.
    """

    rows: int
    k: int
    columns: int
    products: int = 1
    live: int = 1
    multiple: int = 32
    window: int = 0
    fixed: Rows | None = None


@dataclass(frozen=True)
class Choice:
    """A mapping: partition of the rows, columns of an n-tile, estimated cycles and DRAM bytes."""

    rows: Rows
    n: int
    cycles: float
    bytes: int


def candidates(gemm: Gemm, tiling: Tiling) -> Iterator[tuple[Rows, int, bool]]:
    """(rows, n, whether two tiles fit at once) of everything that fits the output buffer."""
    widest = -(-gemm.columns // gemm.multiple) * gemm.multiple
    for n in range(gemm.multiple, min(tiling.n, widest) + 1, gemm.multiple):
        for copies in (2, 1):
            fit = tiling.obuf // (ACCUMULATOR * n * gemm.live * copies)
            if gemm.fixed is not None:
                if gemm.fixed.most <= fit:
                    yield gemm.fixed, n, copies == 2
            elif fit:
                yield even(gemm.rows, min(fit, tiling.m)), n, copies == 2


def score(gemm: Gemm, rows: Rows, n: int, double: bool, machine: Machine) -> Choice:
    """Estimated cycles and DRAM bytes of one candidate."""
    tiles = -(-gemm.columns // n)
    read = gemm.products * (tiles * gemm.rows * gemm.k + rows.pieces * gemm.k * gemm.columns)
    moved = ELEMENT * (read + gemm.rows * gemm.columns)
    last = gemm.columns - (tiles - 1) * n
    cycles = sum(
        count * times * _step(gemm, height, width, double, machine)
        for height, count in rows.sizes
        for width, times in ((n, tiles - 1), (last, 1))
        if times
    )
    return Choice(rows, n, max(cycles, moved / machine.bytes_per_cycle), moved)


def _step(gemm: Gemm, rows: int, cols: int, double: bool, machine: Machine) -> float:
    """Cycles of one tile: its products, and its way out where nothing else can be computed meanwhile."""
    passes = gemm.products * -(-gemm.k // machine.array.rows) * -(-cols // machine.array.cols)
    compute = passes * max(rows, machine.array.rows)
    vector = rows * cols * gemm.live / machine.sfu.mul
    if gemm.window:
        out = rows * -(-cols // machine.sic.lanes) * gemm.window * machine.sic.compare_cycles_per_candidate
    else:
        out = rows * cols * ELEMENT / machine.bytes_per_cycle
    drain = vector + out
    return max(compute, drain) if double else compute + drain


def search(gemm: Gemm, tiling: Tiling) -> Choice | None:
    """The best mapping: fewest cycles, within 2 % of them the fewest bytes; None if nothing fits."""
    found = [score(gemm, rows, n, double, tiling.machine) for rows, n, double in candidates(gemm, tiling)]
    if not found:
        return None
    best = min(c.cycles for c in found)
    return min((c for c in found if c.cycles <= 1.02 * best), key=lambda c: (c.bytes, c.cycles, -c.n))
