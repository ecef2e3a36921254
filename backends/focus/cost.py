"""Cost of Focus from the counts of a trace, and of its semantic concentrator alone (cost_model section 4)."""

from __future__ import annotations

import numpy as np

from focusc.backends.cost.accounting import Accounting, Quirk
from focusc.backends.cost.arithmetic import Floats, Numbers, array_cycles, ceil
from focusc.backends.cost.decoder import (
    ADDED,
    Product,
    count_dense,
    products,
    rows_with_text,
    vector_work,
    write_result,
)
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import Ints, Shape, TraceCounts
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import Ledger
from focusc.backends.focus.cost_attention import attention, select
from focusc.backends.focus.cost_run import Run, detect, gather, stream

__all__ = ["fill"]

B = ELEMENT_BYTES
VALUES = ("k_proj", "v_proj")


def fill(ledger: Ledger, shape: Shape, trace: TraceCounts, hardware: Accelerator, accounting: Accounting,
         options: Options) -> None:
    """Charge every operation to the ledger."""
    run = Run(ledger, shape, trace, hardware, accounting, options)
    for p in products(shape):
        _cycles(run, p)
        _bytes(run, p)
    count_dense(ledger, shape, rows_with_text(shape, accounting))
    scores, panels = attention(run)
    before, after = (run.sites[name].retained + run.text for name in ("q_proj", "gate_proj"))
    select(run, before, after)
    _published_counters(run)
    alone = 0.0 if run.has(Quirk.NO_VECTOR_WORK) else _normalised(run)
    vector_work(ledger, shape, hardware, accounting, before, after, scores, panels, alone)


def _cycles(run: Run, p: Product) -> None:
    """Array, scatter and gather of a linear layer."""
    array, ledger, site = run.hardware.array, run.ledger, run.sites[p.site]
    depth, groups = int(ceil(p.k, array.rows)), int(ceil(p.n, array.cols))
    rows, tiles = run.streamed(site)
    compute = array_cycles(array, rows, tiles, run.options.array) * (groups * depth)
    done = (site.unique if run.has(Quirk.ROUNDED_ROWS) else site.mean) + run.text
    compute = np.where(done > 0, compute, 0.0)
    ledger.run(p.op, compute, macs=done * (p.n * p.k))
    if not run.merging:
        return
    scatter = ceil((site.nonzero + run.text) * (depth * groups), run.accumulators)
    ledger.work(p.op, "scatter", scatter)
    if run.has(Quirk.STALLS_PER_OP):
        late = np.maximum(scatter - compute, 0)
    else:
        late = run.late(site) * groups
    ledger.stall(p.op, "scatter", late)
    if not _gathers(run, p.op):
        return
    wide = int(ceil(run.hardware.tiles.n, array.cols))
    if run.has(Quirk.GATHER_WHOLE_TILES):
        cycles = run.options.block * run.m * wide * tiles * ceil(p.n, run.hardware.tiles.n)
    else:
        cycles = gather(run, p.op, run.sites[p.feeds] if p.feeds else site, groups)
    ledger.stall(p.op, "gather", cycles - compute - late)
    last = run.m if run.has(Quirk.TAIL_PER_OP) else site.retained - (ceil(site.retained, run.m) - 1) * run.m
    ledger.stall(p.op, "tail", run.options.block * last * wide * np.ones(ledger.layers))


def _bytes(run: Run, p: Product) -> None:
    """Bytes of a linear layer: packed vectors in, results through partial sums, detection on the way out."""
    ledger, array, site, op = run.ledger, run.hardware.array, run.sites[p.site], p.op
    rows, packed = site.retained + run.text, site.packed + run.text
    stream(run, op, packed, rows, p.k, p.n, 1.0, maps=run.map_bytes(site))
    if not _gathers(run, op):
        ledger.touch(op, "output", read=rows * p.n * B)
        if not (run.merging and op in (*ADDED, "gate_proj")):
            write_result(ledger, run.accounting, op, rows * p.n * B)
        return
    written: Ints | Floats = packed
    if p.feeds and not run.has(Quirk.OUTPUT_BY_INPUT):
        written, maps = _written(run, p)
        ledger.move(op, "map", write=maps)
    detect(run, op, rows, written, p.n, int(ceil(p.n, array.cols)))


def _gathers(run: Run, op: str) -> bool:
    """Whether an operation's result passes the similarity concentrator on its way out; gate and up have one result."""
    if not run.merging or (op in VALUES and not run.has(Quirk.GATHER_KV)):
        return False
    if op == "gate_proj" and not run.has(Quirk.OUTPUT_BY_INPUT):
        return False
    return run.has(Quirk.NO_VECTOR_WORK) or op not in ADDED


def _normalised(run: Run) -> Numbers:
    """The inputs of `q_proj` and `gate_proj`, concentrated behind their normalisations; returns the gather's cycles."""
    if not run.merging:
        return 0.0
    groups, cycles = int(ceil(run.shape.width, run.hardware.array.cols)), np.zeros(run.ledger.layers)
    for name in ("q_proj", "gate_proj"):
        site = run.sites[name]
        cycles = cycles + gather(run, "norm", site, groups)
        detect(run, "norm", site.retained + run.text, site.packed + run.text, run.shape.width, groups)
        run.ledger.move("norm", "map", write=run.map_bytes(site))
    return cycles


def _written(run: Run, p: Product) -> tuple[Floats, Floats]:
    """(packed rows, map bytes) of a result, as the site that it feeds has them.

    The last layer's result feeds nothing and is written as it is.
    """
    site = run.sites[p.feeds]
    packed = 1.0 * (site.packed + run.text)
    maps = 1.0 * np.broadcast_to(run.map_bytes(site), packed.shape)
    if p.op == "down_proj":
        packed = np.append(packed[1:], run.sites["down_proj"].retained[-1] + run.text)
        maps = np.append(maps[1:], 0.0)
    return packed, maps


def _published_counters(run: Run) -> None:
    """The activation counter, which ignores SEC-only, and the mean compression ratio (float32) of the tables."""
    shape, ratios, total = run.shape, [], 0
    for p in products(shape):
        site = run.sites[p.site]
        total += int((site.counts.active // site.counts.slots).sum()) * p.k * B
        ratios.append((site.retained / np.maximum(site.unique, 1))[site.unique > 0])
    query = run.sites["query"]
    unique = query.counts.active // query.counts.vectors
    total += int((unique * (shape.heads * shape.head_size) * B + query.retained**2 * (shape.heads * B)).sum())
    ratios.append((query.retained / np.maximum(query.unique, 1))[query.unique > 0])
    run.ledger.activation_bytes = float(total)
    if (found := np.concatenate(ratios)).size:
        run.ledger.compression_ratio = float(found.astype(np.float32).mean())
