"""Attention and token selection of the Focus cost model."""

from __future__ import annotations

import numpy as np

from focusc.backends.cost.accounting import Quirk
from focusc.backends.cost.arithmetic import Floats, array_cycles, ceil
from focusc.backends.cost.attention import (
    book_online,
    book_squares,
    causal_share,
    panel_reads,
    plan_online,
    useful_share,
)
from focusc.backends.cost.decoder import SOFTMAX, vector_cycles
from focusc.backends.cost.hardware import ELEMENT_BYTES
from focusc.backends.cost.interface import VECTOR, Ints
from focusc.backends.focus.cost_run import Run, Site, detect, gather, stream

__all__ = ["attention", "select"]

B = ELEMENT_BYTES
OP = "attention"


def attention(run: Run) -> tuple[Floats, Floats]:
    """Concentrated queries, dense scores; returns score elements and rows x panels for the vector work."""
    query = run.sites["query"]
    rows = query.retained + run.text
    _macs(run, query, rows)
    if run.has(Quirk.SCORES_IN_DRAM):
        share = causal_share(rows, run.m, run.hardware.array.cols, run.accounting)
        _square_cycles(run, query, rows, share)
        _square_bytes(run, query, rows, share)
        return share * rows * rows * run.shape.heads, np.zeros(run.ledger.layers)
    return _online(run, query, rows)


def _macs(run: Run, query: Site, rows: Ints) -> None:
    d, h = run.shape.head_size, run.shape.heads
    if run.has(Quirk.CAUSAL_HALF):
        done = (query.unique + run.text) * rows * (d * h) // 2 + rows * rows * (d * h) // 2
    else:
        done = (query.mean + run.text + rows) * rows * (d * h) * useful_share(rows, run.accounting)
    run.ledger.run(OP, 0, macs=done)


def _square_cycles(run: Run, query: Site, rows: Ints, share: Floats) -> None:
    """Array and scatter with whole score matrices: every pass sees all keys, times the causal share."""
    array, d, h, m = run.hardware.array, run.shape.head_size, run.shape.heads, run.m
    keys, tiles = ceil(rows, array.cols) * ceil(d, array.rows), ceil(rows, m)
    unique, full = query.unique + run.text, query.mean + run.text
    packed = ceil(unique, m) if run.has(Quirk.QUERY_TILES_BY_UNIQUE) else tiles
    if run.has(Quirk.ROUNDED_ROWS):
        each, values = unique // np.maximum(packed, 1) * packed, rows // np.maximum(tiles, 1) * tiles
    else:
        each, values = full, rows
    qk = array_cycles(array, each, packed, run.options.array) * keys
    sv = array_cycles(array, values, tiles, run.options.array) * keys
    compute = np.asarray((qk + sv) * share * h)
    run.ledger.run(OP, compute)
    if not run.merging:
        return
    if run.has(Quirk.SCATTER_ALL_KEYS):
        groups, part = ceil(run.shape.visual_tokens + run.text, array.cols), np.float64(1.0)
    else:
        groups, part = ceil(rows, array.cols), share
    scatter = np.ceil(part * ceil((query.nonzero + run.text) * ceil(d * h, VECTOR) * groups, run.accumulators))
    run.ledger.work(OP, "scatter", scatter)
    if run.has(Quirk.STALLS_PER_OP):
        run.ledger.stall(OP, "scatter", scatter - compute)
    else:
        run.ledger.stall(OP, "scatter", run.late(query) * groups * part)


def _square_bytes(run: Run, query: Site, rows: Ints, share: Floats) -> None:
    """Bytes as published: the product with K of each slice, detection of its result, and the product with V."""
    shape, d = run.shape, run.shape.head_size
    length = shape.visual_tokens + run.text
    pruned = query.counts.length - query.retained
    if run.has(Quirk.NEGATIVE_TOKENS):
        tokens = query.counts.slots - pruned + run.text
        packed = tokens if not run.options.similarity else query.packed + run.text
    else:
        tokens, packed = rows, query.packed + run.text
    slices = query.counts.slices if run.has(Quirk.QK_CHARGED_ONCE) else shape.heads
    reads = None
    if not run.has(Quirk.KV_PER_HEAD):
        reads = panel_reads(shape, rows, run.m, run.accounting)
    maps = run.map_bytes(query)
    stream(run, OP, packed, tokens, d, rows, slices * share, weight_reads=reads, maps=np.asarray(maps) / shape.heads)
    if run.merging and run.has(Quirk.SCORES_CONCENTRATED):
        groups = int(ceil(length, run.hardware.array.cols))
        for _ in range(slices):
            detect(run, OP, tokens, packed, length, groups)
    else:
        scores = share * rows * rows * (slices * B)
        run.ledger.move(OP, "output", write=scores)
        run.ledger.touch(OP, "output", read=scores)
    book_squares(run.ledger, shape, rows, share, (run.m, run.hardware.tiles.n), run.hardware, run.accounting,
                 scores=False)


def _online(run: Run, query: Site, rows: Ints) -> tuple[Floats, Floats]:
    """Online softmax: row blocks stream their share of the unique vectors, results go out as `o_proj` reads them."""
    shape, hardware, array = run.shape, run.hardware, run.hardware.array
    online = plan_online(shape, hardware, run.accounting, rows, run.m)
    sums, groups = online.sums, online.groups
    depth = int(ceil(shape.head_size, array.rows))
    unique = (query.mean + run.text) / np.maximum(rows, 1)
    passes = sums.key_groups
    qk = array_cycles(array, unique * sums.row_groups, passes, run.options.array) * (groups * depth)
    sv = array_cycles(array, sums.row_groups, passes, run.options.array) * (groups * depth)
    run.ledger.run(OP, qk + sv)
    maps = np.asarray(run.map_bytes(query)) / np.maximum(rows, 1) / shape.heads
    if run.merging:
        scatter = sums.row_groups / run.accumulators * (groups * depth)
        run.ledger.work(OP, "scatter", scatter)
        run.ledger.stall(OP, "scatter", scatter - qk)
        scattered = sums.row_groups * (groups * depth * array.cols * B)
        run.ledger.touch(OP, "partial", read=scattered, write=unique * scattered)
        run.ledger.touch(OP, "map", read=groups * sums.row_groups * maps, write=groups * sums.row_panels * maps)
        out, width = run.sites["o_proj"], shape.heads * shape.head_size
        slots = int(ceil(width, array.cols))
        run.ledger.stall(OP, "gather", gather(run, OP, out, slots) - qk - sv)
        detect(run, OP, rows, out.packed + run.text, width, slots)
        run.ledger.move(OP, "map", write=run.map_bytes(out))
    book_online(run.ledger, shape, hardware, online, rows, unique * shape.head_size * B, streams=unique, maps=maps,
                stored=not run.merging)
    return groups * sums.row_groups * array.cols, groups * sums.row_panels


def select(run: Run, before: Ints, after: Ints) -> None:
    """Importance of the tokens, top-k and compaction in layers that prune.

    The scores of the query rows (all text is taken to ask) are made twice: once for the softmax, once to fold its
    weights, which costs less than to keep them. The sorter takes an entry a cycle after the last score.
    """
    sec = run.hardware.sec
    if run.has(Quirk.SEC_FREE) or sec is None:
        return
    shape, hardware, ledger, op = run.shape, run.hardware, run.ledger, "select"
    array, d, h = hardware.array, shape.head_size, shape.heads
    prunes = (after < before) * 1.0
    asks = shape.text_tokens
    keys = ceil(before, array.cols)
    compute = prunes * 2 * h * array_cycles(array, asks, ceil(asks, run.m), run.options.array) * (
        keys * int(ceil(d, array.rows)))
    ledger.run(op, compute)
    vector = prunes * vector_cycles(ledger, hardware, op, prunes * 2 * asks * before * h, SOFTMAX)
    fold = prunes * asks * h * ceil(before, sec.max_units)
    ledger.work(op, "fold", fold)
    ledger.stall(op, "vector", vector - compute)
    ledger.stall(op, "select", fold - np.maximum(compute, vector))
    ledger.stall(op, "select", prunes * before / sec.topk_entries_per_cycle)
    ledger.move(op, "weights", read=prunes * 2 * before * d * shape.kv_heads * B)
    ledger.move(op, "activation", read=prunes * 2 * asks * h * d * B)
    moved = prunes * after * shape.width * B
    ledger.move(op, "residual", read=moved, write=moved)
    streamed, scores = prunes * 2 * asks * h * keys * int(ceil(d, array.rows)), prunes * 2 * asks * h * before
    ledger.touch(op, "activation", read=streamed * array.rows * B + moved, write=prunes * 2 * asks * h * d * B + moved)
    ledger.touch(op, "weights", read=prunes * 2 * before * d * shape.kv_heads * B,
                 write=prunes * 2 * before * d * shape.kv_heads * B)
    ledger.touch(op, "output", read=scores * B + moved, write=streamed * array.cols * B + moved)
