"""Causal attention in two ways: with the score matrix in DRAM as published, or with online softmax."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from focusc.backends.cost.accounting import Accounting, Quirk
from focusc.backends.cost.arithmetic import Causal, Floats, causal, ceil
from focusc.backends.cost.decoder import book_gemm
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import Ints, Shape
from focusc.backends.cost.result import Ledger

__all__ = ["Online", "book_online", "book_squares", "causal_share", "panel_reads", "plan_online", "useful_share"]

B = ELEMENT_BYTES
ACCUMULATOR = 4  # bytes of an f32 accumulator
ROW_WORDS = 5  # f32 words a query row keeps: m, m', l, exp(m - m'), and a copy


def useful_share(tokens: Ints, accounting: Accounting) -> Floats:
    """Share of the square of scores that counts as useful: a half, or exactly what the mask leaves."""
    if Quirk.CAUSAL_HALF in accounting:
        return np.full(tokens.shape, 0.5)
    return np.asarray((tokens + 1) / (2.0 * np.maximum(tokens, 1)), np.float64)


def causal_share(tokens: Ints, rows: int, columns: int, accounting: Accounting) -> Floats:
    """Share of the square of scores that row tiles of `rows` rows compute: a half, or up to each tile's last row."""
    if Quirk.CAUSAL_HALF in accounting:
        return np.full(tokens.shape, 0.5)
    square = causal(tokens, rows, columns, columns)
    return np.asarray(square.row_groups / np.maximum(tokens * ceil(tokens, columns), 1), np.float64)


def panel_reads(shape: Shape, tokens: Ints, rows: int, accounting: Accounting) -> Floats:
    """How often K (or V) is read for one query head: once a row tile, or once a tile of its group's stacked rows."""
    if Quirk.KV_PER_HEAD in accounting:
        return ceil(tokens, rows) * 1.0
    group = shape.heads // shape.kv_heads
    return np.asarray(ceil(tokens * group, rows) / group, np.float64)


def book_squares(ledger: Ledger, shape: Shape, tokens: Ints, share: Floats, tiles: tuple[int, int],
                 hardware: Accelerator, accounting: Accounting, *, scores: bool = True) -> None:
    """Bytes of Q K^T (`scores`) and of scores times V, both through DRAM (cost_model section 1)."""
    d, every = shape.head_size, share * shape.heads
    reads = panel_reads(shape, tokens, tiles[0], accounting)
    if scores:
        book_gemm(ledger, accounting, "attention", tokens, d, tokens, every, tiles, hardware.array, weight_reads=reads)
    book_gemm(ledger, accounting, "attention", tokens, tokens, d, every, tiles, hardware.array, weight_reads=reads)
    if Quirk.CAUSAL_HALF not in accounting:
        rest = (1 - share) * shape.heads * tokens * d * B
        ledger.move("attention", "output", write=rest)
        ledger.touch("attention", "output", read=rest)


@dataclass(frozen=True)
class Online:
    """A plan of attention with online softmax: `stacked` heads a block, in `groups` groups, key panels of `panel`."""

    stacked: int
    groups: int
    panel: int
    sums: Causal


def plan_online(shape: Shape, hardware: Accelerator, accounting: Accounting, tokens: Ints, m: int,
                row_lanes: int = 1) -> Online:
    """Row blocks that fit the output buffer beside the scores of one panel (twice), the result and the row sums.

    The panel is the one with the least traffic: a query row is read once a panel, keys and values once a block.
    """
    stacked = 1 if Quirk.KV_PER_HEAD in accounting else shape.heads // shape.kv_heads
    room, d, cols = hardware.buffers["output"].bytes, shape.head_size, hardware.array.cols
    best = (np.inf, cols, 1)
    for panel in range(cols, max(hardware.tiles.n, cols) + 1, cols):
        rows = min(room // (ACCUMULATOR * (2 * panel + d + ROW_WORDS)), m)
        if rows >= stacked:
            best = min(best, (1 / panel + 2 / rows, panel, max(rows // row_lanes * row_lanes, 1)))
    _, panel, rows = best
    sums = causal(tokens, max(1, rows // stacked), cols, panel, half=Quirk.CAUSAL_HALF in accounting, stacked=stacked,
                  row_lanes=row_lanes)
    return Online(stacked, shape.heads // stacked, panel, sums)


def book_online(ledger: Ledger, shape: Shape, hardware: Accelerator, online: Online, tokens: Ints,
                query_bytes: Floats | float, spread: float = 1.0, streams: Floats | float = 1.0,
                maps: Floats | float = 0.0, stored: bool = True) -> None:
    """Bytes of attention with online softmax.

    `query_bytes` and `maps`: of one query row of one head; `spread`: keys to a query, where they are not as many;
    `streams`: vectors of a query row that the array streams, where similar ones are merged; `stored`: whether the
    result goes to DRAM as it is.
    """
    d, array, sums, op = shape.head_size, hardware.array, online.sums, "attention"
    groups = online.groups * spread
    queries = groups * sums.row_panels * query_bytes
    panels = 2 * groups * sums.keys * d * B
    scores = groups * sums.row_groups * array.cols * B
    result = tokens * d * shape.heads * B * 1.0
    ledger.move(op, "activation", read=queries)
    ledger.move(op, "weights", read=panels)
    if stored:
        ledger.move(op, "output", write=result)
        ledger.touch(op, "output", read=result)
    ledger.move(op, "map", read=groups * sums.row_panels * maps)
    streamed = groups * sums.row_groups * ceil(d, array.rows) * array.rows * B
    ledger.touch(op, "activation", read=(1 + streams) * streamed, write=queries + scores)
    ledger.touch(op, "weights", read=panels, write=panels)
    ledger.touch(op, "output", read=scores, write=2 * streamed * array.cols / array.rows)
