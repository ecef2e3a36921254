"""The products of every operation: array cycles, MACs, and DRAM bytes that feed the array."""

from __future__ import annotations

from collections.abc import Iterator

from focusc.backends.cost.arithmetic import ceil
from focusc.backends.cost.crosscheck.comparison import Comparison
from focusc.backends.cost.crosscheck.program import label
from focusc.backends.cost.crosscheck.sides import B, Sides
from focusc.backends.cost.decoder import Product
from focusc.backends.cost.interface import VECTOR
from focusc.backends.cost.result import OPS

__all__ = ["attention", "linear", "select"]


def linear(s: Sides, layer: int, p: Product) -> Iterator[Comparison]:
    """A linear layer: tiles of rows and of columns."""
    part, i, op = s.executed.part(layer, p.op), OPS.index(p.op), label(p.op)
    passes, overhead = s.passes(p), s.array.overhead_cycles
    more = s.row_tiles(layer, p) - float(ceil(s.rows(p.op, layer), s.tiles.m))
    read = s.read(layer, p.op, "activation", "map")
    yield Comparison(op, "array cycles", part.cycles(overhead), float(s.found.compute_by_op[layer, i]),
                     {"row tiles": overhead * more * passes})
    yield Comparison(op, "MACs", part.macs, float(s.found.macs_by_op[layer, i]))
    yield Comparison(op, "DRAM read, activation", part.activation, read,
                     {"column tiles": read * (s.columns(layer, p) - 1)})
    yield Comparison(op, "DRAM read, weights", part.weights, s.read(layer, p.op, "weights"),
                     {"row tiles": more * p.k * p.n * B})


def attention(s: Sides, layer: int) -> Iterator[Comparison]:
    """Attention: blocks of rows, the vectors that they refer to, what the mask leaves."""
    scores, values, op = s.executed.part(layer, "scores"), s.executed.part(layer, "values"), "attention"
    b, w, sums, overhead = s.blocks(layer), s.workload, s.online.sums, s.array.overhead_cycles
    groups, depth = s.online.groups, float(ceil(w.head_size, s.array.rows))
    rows, passes = groups * depth * float(sums.row_groups[layer]), groups * depth * float(sums.key_groups[layer])
    cycles = float(s.found.compute_by_op[layer, OPS.index(op)])
    share = s.share(layer)
    extra = b.score_rows - share * b.value_rows
    yield Comparison(op, "array cycles", scores.cycles(overhead) + values.cycles(overhead), cycles, {
        "row blocks": (b.value_rows - rows) * (1 + share) + overhead * (b.value_passes + b.score_passes - 2 * passes),
        "vectors of a block": extra})
    yield Comparison(op, "MACs", scores.macs + values.macs, float(s.found.macs_by_op[layer, OPS.index(op)]), {
        "masked entries": (1 - b.useful) * (b.score_macs + b.pairs * w.head_size),
        "vectors of a block": b.useful * b.score_macs * extra / b.score_rows})
    queries, keys = s.read(layer, op, "activation", "map"), s.read(layer, op, "weights")
    packed = (b.vectors - share * b.taken * depth) * VECTOR * B if s.merging else 0.0
    yield Comparison(op, "DRAM read, activation", scores.activation, queries, {
        "vectors of a block": packed, "row list": b.lists,
        "row blocks": queries * (b.taken / (groups * float(sums.row_panels[layer])) - 1)})
    yield Comparison(op, "DRAM read, weights", scores.weights + values.weights, keys, {
        "row blocks": 2 * b.keys * w.head_size * B - keys})


def select(s: Sides, layer: int) -> Iterator[Comparison]:
    """Ranking of tokens."""
    part, op, w = s.executed.part(layer, "select"), "select", s.workload
    if not part.passes and not s.selects(layer):
        return
    ranked, asks = int(s.before[layer]), w.text_tokens - w.text_before
    visual, depth = ranked - w.text_tokens, float(ceil(w.head_size, s.array.rows))
    keys = float(ceil(ranked, s.array.cols) + ceil(visual, s.array.cols))
    cycles = float(s.found.compute_by_op[layer, OPS.index(op)])
    yield Comparison(op, "array cycles", part.cycles(s.array.overhead_cycles), cycles, {
        "question": w.heads * depth * keys * (asks + s.array.overhead_cycles) - cycles})
    read = s.read(layer, op, "activation")
    once = 2 * asks * w.heads * w.head_size * B
    panels = float(ceil(ranked, s.tiles.n) + ceil(visual, s.tiles.n))
    maps = panels * w.heads * depth * (4 + 2 * asks) if s.merging else 0.0
    yield Comparison(op, "DRAM read, activation", part.activation, read, {
        "question": once - read, "question per panel": once * (panels / 2 - 1) + maps})
    read = s.read(layer, op, "weights")
    both = (ranked + visual) * w.head_size * w.kv_heads * B
    yield Comparison(op, "DRAM read, weights", part.weights, read, {
        "question": both - read, "keys per head": both * (w.heads // w.kv_heads - 1)})
