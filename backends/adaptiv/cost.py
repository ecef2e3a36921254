"""Cost of AdapTiV: tokens merged once by sign similarity, output-stationary multiply-accumulate lines (section 2)."""

from __future__ import annotations

import math

import numpy as np

from focusc.backends.cost.accounting import Accounting, Quirk
from focusc.backends.cost.arithmetic import Floats, ceil
from focusc.backends.cost.attention import book_online, causal_share, panel_reads, plan_online, useful_share
from focusc.backends.cost.decoder import count_dense, products, rows_with_text, text_rows, vector_work, write_result
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import Shape, TokenSparsity
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import Ledger

B = ELEMENT_BYTES


class _Lines:
    """The array and what an accounting makes of its sizes."""

    def __init__(self, ledger: Ledger, shape: Shape, rows: float, hardware: Accelerator,
                 accounting: Accounting) -> None:
        self.ledger, self.shape, self.rows, self.hardware, self.accounting = ledger, shape, rows, hardware, accounting
        assert hardware.merger is not None
        self.scan_rate = hardware.merger.elements_per_cycle

    def row_tiles(self, rows: float, size: int) -> float:
        """Row tiles; a fraction of a row rounds down, as published, if rows are fractions."""
        return (rows + size - 1) // size

    def depth(self, k: int) -> int:
        """Cycles that one output takes to sum."""
        padded = self.hardware.tiles.k * ceil(k, self.hardware.tiles.k)
        return int(padded) if Quirk.PADDED_DEPTH in self.accounting else k

    def cycles(self, k: int, n: int) -> float:
        """Cycles of a product of the merged rows."""
        array = self.hardware.array
        return self.depth(k) * int(ceil(n, array.cols)) * self.row_tiles(self.rows, array.rows)

    def scan(self, op: str, k: int, *, cycles: float, bytes_: float) -> None:
        """The merge unit reads an unmerged input of depth k: for every product, or once before the first layer.

        `cycles` and `bytes_`: how many times it is charged for either.
        """
        ledger, length = self.ledger, self.shape.visual_tokens
        where = np.ones(ledger.layers)
        if Quirk.MERGE_EVERY_OP not in self.accounting:
            if op != "q_proj":
                return
            where[1:] = 0
        busy = where * cycles * ceil(length * k, self.scan_rate)
        ledger.run(op, busy, engine="merge")
        moved = where * bytes_ * length * k * B
        ledger.move(op, "activation", read=moved)
        ledger.touch(op, "activation", read=2 * moved, write=moved)

    def book(self, op: str, k: int, n: int, share: float = 1.0, weight_reads: float | None = None) -> None:
        """Bytes of a product, times `share`."""
        tiles, per_cycle = self.hardware.tiles, self.hardware.array.macs_per_cycle
        m = self.rows
        columns, rows, depths = ceil(n, tiles.n), self.row_tiles(m, tiles.m), ceil(k, tiles.k)
        reads = rows if weight_reads is None else weight_reads
        staged = share * (k * columns * rows * per_cycle * B)
        self.ledger.move(op, "activation", read=share * (m * k * columns * B))
        self.ledger.move(op, "weights", read=share * (k * n * reads * B))
        write_result(self.ledger, self.accounting, op, share * (n * m * B))
        self.ledger.touch(op, "activation", read=staged, write=share * (m * k * columns * B))
        self.ledger.touch(op, "weights", read=staged, write=share * (k * n * reads * B))
        self.ledger.touch(op, "output", read=share * (n * m * B), write=share * (n * m * depths * B))


def fill(ledger: Ledger, shape: Shape, trace: TokenSparsity, hardware: Accelerator, accounting: Accounting,
         options: Options) -> None:
    """Charge every operation to the ledger."""
    text, length = text_rows(shape, accounting), rows_with_text(shape, accounting)
    kept = shape.visual_tokens * (1 - trace.tokens)
    rows = (kept if Quirk.FRACTIONAL_ROWS in accounting else float(round(kept))) + text
    lines = _Lines(ledger, shape, rows, hardware, accounting)
    for p in products(shape):
        ledger.run(p.op, lines.cycles(p.k, p.n), macs=rows * p.n * p.k)
        lines.scan(p.op, p.k, cycles=1, bytes_=1)
        lines.book(p.op, p.k, p.n)
    count_dense(ledger, shape, length)
    scores, panels = _attention(lines, length)
    d, h = shape.head_size, shape.heads
    inputs = [p.k * rows * B for p in products(shape)] + [rows * d * h * B + rows * rows * h * B]
    ledger.activation_bytes = float(math.floor(ledger.layers * sum(inputs)))
    whole = np.full(ledger.layers, round(rows), np.int64)
    vector_work(ledger, shape, hardware, accounting, whole, whole, scores, panels)


def _attention(lines: _Lines, length: int) -> tuple[Floats, Floats]:
    """Attention; returns elements of the scores and rows x key panels, as vector work needs them."""
    ledger, shape, hardware, accounting = lines.ledger, lines.shape, lines.hardware, lines.accounting
    d, h, rows, op = shape.head_size, shape.heads, lines.rows, "attention"
    keys = length if Quirk.UNMERGED_KEYS in accounting else round(rows)
    whole = np.full(ledger.layers, round(rows), np.int64)
    macs = 2.0 * h * rows * keys * d
    macs = macs // 2 if Quirk.CAUSAL_HALF in accounting else macs * useful_share(whole, accounting)
    if Quirk.SCORES_IN_DRAM in accounting:
        share = causal_share(whole, hardware.array.rows, hardware.array.cols, accounting)
        # as published, the product with V is charged as a second one with K (equal but for padding)
        values = lines.cycles(d, keys) if Quirk.PADDED_DEPTH in accounting else lines.cycles(keys, d)
        ledger.run(op, (lines.cycles(d, keys) + values) * h * share, macs=macs)
        lines.scan(op, d, cycles=h, bytes_=h / 2)
        lines.scan(op, length, cycles=0, bytes_=h / 2)
        staged = causal_share(whole, hardware.tiles.m, hardware.tiles.n, accounting)
        reads = None
        if Quirk.KV_PER_HEAD not in accounting:
            reads = float(panel_reads(shape, whole[:1], hardware.tiles.m, accounting)[0])
        lines.book(op, d, keys, h * float(staged[0]), reads)
        lines.book(op, keys, d, h * float(staged[0]), reads)
        if Quirk.CAUSAL_HALF not in accounting:
            rest = (1 - staged) * h * rows * d * B
            ledger.move(op, "output", write=rest)
            ledger.touch(op, "output", read=rest)
        return share * rows * keys * h, np.zeros(ledger.layers)
    online = plan_online(shape, hardware, accounting, whole, hardware.tiles.m, row_lanes=hardware.array.rows)
    array, sums = hardware.array, online.sums
    spread = keys / rows  # keys that were not merged away count in full
    scores = online.groups * sums.row_groups / array.rows * lines.depth(d)
    if Quirk.PADDED_DEPTH in accounting:
        values = online.groups * ceil(d, array.cols) * sums.row_panels / array.rows * lines.depth(online.panel)
    else:
        values = online.groups * ceil(d, array.cols) * sums.row_groups / array.rows * array.cols
    ledger.run(op, spread * (scores + values), macs=macs)
    lines.scan(op, d, cycles=h, bytes_=h / 2)
    book_online(ledger, shape, hardware, online, whole, d * B, spread=spread)
    return (spread * online.groups * sums.row_groups * array.cols, spread * online.groups * sums.row_panels)
