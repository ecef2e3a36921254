"""Whole kernels of every operation: cycles, and DRAM bytes that do not feed the array."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from focusc.backends.cost.arithmetic import ceil
from focusc.backends.cost.crosscheck.comparison import Comparison
from focusc.backends.cost.crosscheck.program import GATED, label
from focusc.backends.cost.crosscheck.sides import B, Sides
from focusc.backends.cost.decoder import ADDED, NORM
from focusc.backends.cost.result import OPS

__all__ = ["cycles", "other_reads", "rotary_tables", "vector_operands", "written"]


def other_reads(s: Sides, layer: int, op: str) -> Iterator[Comparison]:
    """Residual stream, rotary tables, biases and gains, results that are read to be turned or concentrated."""
    whole, w, apart = s.executed.whole(layer, op), s.workload, s.apart(layer, op)
    causes = {"vector operands": vector_operands(s, layer, op)}
    if op in ("q_proj", "k_proj"):
        causes["rotary tables"] = rotary_tables(s, layer, op)
    dense = float(s.rows(op, layer) * s.width(op) * B)
    if "rotary" in apart:
        causes["rotary apart"] = dense
    if "gather" in apart:
        causes["concentration apart"] = dense
    if op == "norm" and s.merging:
        causes["two passes"] = float(s.before[layer] + s.after[layer]) * w.width * B
    if "compact" in apart:
        causes["row list"] = 4.0 * s.after[layer] * float(ceil(w.width, _LISTED))
    tables = apart.count("tables")
    if tables:
        causes["rotary tables"] = tables * s.table(layer)
        causes["row list"] = causes.get("row list", 0.0) + 4.0 * tables * s.before[layer]
    model = s.read(layer, op, "residual")
    yield Comparison(label(op), "DRAM read, other", whole.other, model, causes)


_LISTED = 1024
"""Columns of a tile of rows that are loaded by number."""


def vector_operands(s: Sides, layer: int, op: str) -> float:
    """Bytes of biases and gains: a row for every row tile."""
    w = s.workload
    if op in ("q_proj", "k_proj", "v_proj") and w.qkv_bias:
        return s.row_tiles(layer, s.products[op]) * s.width(op) * B
    if op != "norm":
        return 0.0
    both = int(s.before[layer]), int(s.after[layer])
    if not s.merging:
        return sum(s.norm_tiles(rows) for rows in both) * w.width * B
    return sum(s.row_tiles(layer, s.products[op]) for op in ("q_proj", "gate_proj")) * w.width * B


def rotary_tables(s: Sides, layer: int, op: str) -> float:
    """Bytes of cosine and sine: rows of one head, for every head or for every n-tile."""
    w, p = s.workload, s.products[op]
    tiles = p.n / w.head_size if "rotary" in s.apart(layer, op) else s.column_tiles(layer, p)
    return 2.0 * s.rows(op, layer) * w.head_size * B * tiles


def written(s: Sides, layer: int, op: str) -> Iterator[Comparison]:
    """Results, maps and lists."""
    whole, apart, causes = s.executed.whole(layer, op), s.apart(layer, op), dict[str, float]()
    dense = float(s.rows(op, layer) * s.width(op) * B)
    for kind, name in (("rotary", "rotary apart"), ("gather", "concentration apart")):
        if kind in apart:
            causes[name] = dense
    if "compact" in apart:
        causes["row list"] = 4.0 * float(2 * s.after[layer] - s.workload.text_tokens)
    if "tables" in apart:
        causes["rotary tables"] = apart.count("tables") * s.table(layer)
    yield Comparison(label(op), "DRAM written", whole.written, s.write(layer, op), causes)


def cycles(s: Sides, layer: int, op: str, array: dict[str, float]) -> Iterator[Comparison]:
    """All cycles, waiting included; `array` are the causes of array cycles."""
    whole, w, i, apart = s.executed.whole(layer, op), s.workload, OPS.index(op), s.apart(layer, op)
    causes = dict(array)
    dense = s.rows(op, layer) * s.width(op) * B
    if "direct" in apart:
        causes["concentration apart"] = max(s.gathering(layer, op), s.moving(dense + rotary_tables(s, layer, op)))
    elif "rotary" in apart:
        causes["rotary apart"] = s.moving(2 * dense)
        causes["rotary tables"] = s.moving(rotary_tables(s, layer, op))
    if "gather" in apart:
        causes["concentration apart"] = s.gathering(layer, op)
    if "tables" in apart:
        causes["rotary tables"] = s.moving(2 * apart.count("tables") * s.table(layer))
    if op == "norm":
        if s.merging:
            causes["two passes"] = s.moving(float(s.before[layer] + s.after[layer]) * w.width * B)
        else:
            causes["vector operands"] = s.moving(vector_operands(s, layer, op))
            causes["full tiles"] = sum(_turns(s, int(rows[layer])) for rows in (s.before, s.after))
    if op == "select" and "compact" in apart:
        causes["compaction apart"] = s.moving(2.0 * s.after[layer] * w.width * B)
    if op in s.products and op not in GATED and s.fills(layer, s.products[op]):
        vector = float(op in ADDED or (op in ("q_proj", "k_proj", "v_proj") and w.qkv_bias))
        causes["full tiles"] = s.moving(dense) + vector * dense / B / s.hardware.sfu.add
    if s.merging and op in s.products:
        causes["scatter queue"] = _queued(s, layer, op) - float(s.found.stalls_by_op["scatter"][layer, i])
    yield Comparison(label(op), "cycles", whole.cycles, float(s.found.cycles_by_op[layer, i]), causes)


def _turns(s: Sides, rows: int) -> float:
    """Cycles in which the vector unit squares, scales and scales again while DRAM has filled staging and waits, and of
    starting over, for every tile of a normalisation."""
    tiles, sfu = s.norm_tiles(rows), s.hardware.sfu
    ahead = s.moving(min(s.hardware.buffers["activation"].bytes, rows / tiles * s.workload.width * B))
    alone = NORM["mul"] * rows / tiles * s.workload.width / sfu.mul
    started = tiles * (s.machine.dram.latency_cycles + 4 * s.machine.sfu.pipeline_cycles)
    return tiles * max(alone - ahead, 0.0) + min(alone, ahead) + started  # nothing is loaded during the last tile


def _queued(s: Sides, layer: int, op: str) -> float:
    """Cycles by which the scatter of a tile's slices together is longer than their passes."""
    assert s.run is not None
    p = s.products[op]
    for number, (streamed, rows) in enumerate(s.run.passes(s.run.sites[p.site])):
        if number == layer:
            gap = ceil(rows, s.run.accumulators) - streamed - s.array.overhead_cycles
            late = float(np.maximum(gap.sum(axis=1), 0).sum())
            return late * float(ceil(p.n, s.array.cols))
    return 0.0
