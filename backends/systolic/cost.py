"""Cost of the dense prefill on the weight-stationary array (cost_model section 1)."""

from __future__ import annotations

import numpy as np

from focusc.backends.cost.accounting import Accounting, Quirk
from focusc.backends.cost.arithmetic import array_cycles, ceil
from focusc.backends.cost.attention import book_online, book_squares, causal_share, plan_online, useful_share
from focusc.backends.cost.decoder import book_gemm, count_dense, products, rows_with_text, vector_work
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import Shape
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import Ledger

B = ELEMENT_BYTES


def fill(ledger: Ledger, shape: Shape, trace: None, hardware: Accelerator, accounting: Accounting,
         options: Options) -> None:
    """Charge every operation to the ledger; there is no trace."""
    array, m, n = hardware.array, options.rows(hardware), hardware.tiles.n
    length = rows_with_text(shape, accounting)
    rows = np.full(ledger.layers, length, np.int64)
    tiles = ceil(rows, m)
    streamed = tiles * ceil(length, int(tiles[0])) if Quirk.ROUNDED_ROWS in accounting else rows
    per_group = array_cycles(array, streamed, tiles, options.array)
    counted = Quirk.DENSE_MACS not in accounting
    for p in products(shape):
        cycles = per_group * ceil(p.n, array.cols) * ceil(p.k, array.rows)
        ledger.run(p.op, cycles, macs=counted * length * p.n * p.k)
        book_gemm(ledger, accounting, p.op, rows, p.k, p.n, 1.0, (m, n), array)
    if counted:
        count_dense(ledger, shape, length)
    d, h = shape.head_size, shape.heads
    macs = counted * useful_share(rows, accounting) * (2.0 * length * length * d * h)
    if Quirk.SCORES_IN_DRAM in accounting:
        share = causal_share(rows, m, array.cols, accounting)
        keys = per_group * ceil(length, array.cols) * ceil(d, array.rows)
        values = keys if Quirk.SV_AS_QK in accounting else per_group * ceil(d, array.cols) * ceil(length, array.rows)
        ledger.run("attention", (keys + values) * share * h, macs=macs)
        book_squares(ledger, shape, rows, share, (m, n), hardware, accounting)
        scores, panels = share * rows * rows * h, np.zeros(ledger.layers)
    else:
        online = plan_online(shape, hardware, accounting, rows, m)
        sums, depth = online.sums, ceil(d, array.rows)
        once = array_cycles(array, sums.row_groups, sums.key_groups, options.array)
        ledger.run("attention", 2 * online.groups * depth * once, macs=macs)
        book_online(ledger, shape, hardware, online, rows, d * B)
        scores, panels = online.groups * sums.row_groups * array.cols, online.groups * sums.row_panels
    ledger.activation_bytes = ledger.layers * (sum(length * p.k * B for p in products(shape))
                                               + length * d * h * B + length * length * h * B)
    vector_work(ledger, shape, hardware, accounting, rows, rows, scores, panels)
