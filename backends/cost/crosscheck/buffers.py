"""On-chip accesses of every operation: bytes read and written, by buffer, and why they differ.

Sizes are pairs [read, written]. A tile of f32 is written by the first product of its sums, read and written by the
others, and read and written by whatever vector work follows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from focusc.backends.cost.arithmetic import ceil
from focusc.backends.cost.crosscheck.kernels import rotary_tables, vector_operands
from focusc.backends.cost.crosscheck.sides import ACCUMULATOR, B, Sides
from focusc.backends.cost.decoder import ADDED, Product
from focusc.backends.cost.interface import VECTOR
from focusc.backends.cost.result import OPS
from focusc.isa.machine import BUFFERS

__all__ = ["Accesses", "accesses"]

Pair = NDArray[np.float64]
Causes = dict[str, Pair]
# f32 accesses of an element by the vector work behind a product: operands read, results written.
BIAS = (1, 1)
RESIDUAL = (1, 1)
ROPE = (5, 4)  # rotate; times sine; times cosine; add
GATED = (3, 2)  # silu; times up
SCALED = (3, 4)  # a concentrated normalisation: load, square; load, scale by row, by column
NORMALISED = (3, 3)  # the same, loaded once
SOFTMAX = (5, 3)  # scale, mask, maximum, exponential, sum
STATE = (10, 5)  # of a row and key block: copy, maximum, decay (2 operands), sum times decay (2), sum, 3 row operands
RESCALE = (1, 1)
RANKED = (7, 6)  # scale, mask, maximum, exponential, sum; again: scale, exponential, times 1 / sum (not the fold)


@dataclass
class Accesses:
    """One operation and buffer: bytes [read, written] of both sides."""

    op: str
    buffer: str
    program: Pair
    model: Pair
    causes: Causes = field(default_factory=dict[str, Pair])


def accesses(s: Sides, layer: int, op: str) -> Iterator[Accesses]:
    """All buffers of an operation in one layer."""
    i, whole, apart, found = OPS.index(op), s.executed.whole(layer, op), s.apart(layer, op), s.found
    model = {name: np.array([found.sram_read_bytes[name][layer, i], found.sram_write_bytes[name][layer, i]])
             if name in found.sram_read_bytes else np.zeros(2) for name in BUFFERS}
    causes: dict[str, Causes] = {name: {} for name in BUFFERS}
    if op in s.products:
        _linear(s, layer, s.products[op], model, causes)
    elif op == "attention":
        _attention(s, layer, model, causes)
    elif op == "norm":
        _norm(s, layer, model, causes)
    else:
        _select(s, layer, model, causes)
    elements = float(s.rows(op, layer) * s.width(op))
    if "rotary" in apart:
        _note(causes["activation"], "rotary apart", B * elements, B * elements)
        _note(causes["output"], "rotary apart", *_f32(elements, (ROPE[0] + 1, ROPE[1] + 1)))
    if "tables" in apart:
        moved = apart.count("tables") * s.table(layer)
        _note(causes["activation"], "rotary tables", moved, moved)
        _note(causes["output"], "rotary tables", *_f32(moved / B, (1, 1)))
    if "gather" in apart:
        _note(causes["activation"], "concentration apart", B * elements, B * elements)
        _note(causes["output"], "concentration apart", *_f32(elements, (1, 1)))
    for name in BUFFERS:
        if model[name].any() or whole.sram[name].any():
            yield Accesses(op, name, whole.sram[name], model[name], causes[name])


def _f32(elements: float, times: tuple[int, int]) -> tuple[float, float]:
    return ACCUMULATOR * elements * times[0], ACCUMULATOR * elements * times[1]


def _note(causes: Causes, name: str, read: float, written: float) -> None:
    causes[name] = causes.get(name, np.zeros(2)) + np.array([read, written])


def _linear(s: Sides, layer: int, p: Product, model: dict[str, Pair], causes: dict[str, Causes]) -> None:
    elements, again = float(s.rows(p.op, layer) * p.n), s.columns(layer, p) - 1
    _note(causes["activation"], "column tiles", 0.0, s.read(layer, p.op, "activation") * again)
    _note(causes["map"], "column tiles", 0.0, s.read(layer, p.op, "map") * again)
    operands = vector_operands(s, layer, p.op)
    _note(causes["activation"], "vector operands", operands, operands)
    more = (s.row_tiles(layer, p) - float(ceil(s.rows(p.op, layer), s.tiles.m))) * p.k * p.n * B
    _note(causes["weights"], "row tiles", more, more)
    out = causes["output"]
    _note(out, "f32 sums", *model["output"])
    _note(out, "first sums", -ACCUMULATOR * elements, 0.0)
    times = BIAS if p.op in ("q_proj", "k_proj", "v_proj") and s.workload.qkv_bias else (0, 0)
    if p.op in ("q_proj", "k_proj"):
        tables = rotary_tables(s, layer, p.op)
        _note(causes["activation"], "rotary tables", tables, tables)
        if "rotary" not in s.apart(layer, p.op):
            times = times[0] + ROPE[0], times[1] + ROPE[1]
    if p.op in ADDED:
        times = RESIDUAL
    if p.op == "up_proj":
        times = GATED[0] - 1, GATED[1]  # the closed form has silu read the gate
    _note(out, "vector accesses", *_f32(elements, times))


def _attention(s: Sides, layer: int, model: dict[str, Pair], causes: dict[str, Causes]) -> None:
    b, w = s.blocks(layer), s.workload
    groups, sums, cell = s.online.groups, s.online.sums, s.array.rows * B
    depth = float(ceil(w.head_size, s.array.rows))
    rows = groups * depth * float(sums.row_groups[layer])
    panels = float(groups * sums.row_panels[layer])
    share, at = s.share(layer), b.pairs
    extra, blocks = b.score_rows - share * b.value_rows, b.value_rows - rows
    pushed = b.vectors * VECTOR * B if s.merging else b.taken * w.head_size * B
    act = causes["activation"]
    _note(act, "row blocks", (1 + share) * blocks * cell,
          share * (b.taken - panels) * w.head_size * B + (at - rows / depth * s.array.cols) * B)
    _note(act, "vectors of a block", extra * cell, pushed - share * b.taken * w.head_size * B)
    value_panels = float(ceil(w.head_size, s.tiles.n))
    _note(act, "value panels", 0.0, (value_panels - 1) * at * B)
    keys = 2 * b.keys * w.head_size * B - model["weights"][0]
    _note(causes["weights"], "row blocks", keys, keys)
    if s.merging:
        _note(causes["partial"], "row blocks", blocks * cell, share * blocks * cell)
        _note(causes["partial"], "vectors of a block", 0.0, extra * cell)
        _note(causes["map"], "row blocks", blocks * B, (b.taken - panels) * depth * B)
    out = causes["output"]
    modelled = rows / depth * s.array.cols  # scores of the closed form
    sums_moved = (at - modelled) * depth * B + blocks * s.array.cols * B  # of Q K^T and of the product with V, f16
    moved = np.array([sums_moved + (at - modelled) * B, sums_moved])
    _note(out, "row blocks", *moved)
    _note(out, "f32 sums", *(model["output"] + moved))
    _note(out, "first sums", -ACCUMULATOR * at, 0.0)
    _note(out, "value panels", *_f32((value_panels - 1) * at, (1, 0)))
    for elements, times in ((at, SOFTMAX), (b.taken, STATE), (b.taken * w.head_size, RESCALE),
                            (float(s.rows("attention", layer) * s.width("attention")), (1, 2))):
        _note(out, "vector accesses", *_f32(elements, times))


def _norm(s: Sides, layer: int, model: dict[str, Pair], causes: dict[str, Causes]) -> None:
    operands = vector_operands(s, layer, "norm")
    elements = float(s.before[layer] + s.after[layer]) * s.workload.width
    _note(causes["activation"], "vector operands", operands, operands)
    if s.merging:
        _note(causes["activation"], "two passes", elements * B, elements * B)
        _note(causes["output"], "f32 sums", *model["output"])
    else:
        _note(causes["output"], "vector accesses", *_f32(elements, (1, 0)))
    _note(causes["output"], "vector accesses", *_f32(elements, SCALED if s.merging else NORMALISED))


def _select(s: Sides, layer: int, model: dict[str, Pair], causes: dict[str, Causes]) -> None:
    part, w = s.executed.part(layer, "select"), s.workload
    if not part.passes and not s.selects(layer):
        return
    ranked, asks = float(s.before[layer]), w.text_tokens - w.text_before
    visual, depth = ranked - w.text_tokens, float(ceil(w.head_size, s.array.rows))
    moved = float(s.after[layer] * w.width) * B
    once = 2 * asks * w.heads * w.head_size * B
    streamed = w.heads * depth * asks * float(ceil(int(ranked), s.array.cols) + ceil(int(visual), s.array.cols))
    panels = float(ceil(int(ranked), s.tiles.n) + ceil(int(visual), s.tiles.n))
    act, cell = causes["activation"], s.array.rows * B
    _note(act, "question", streamed * cell - (model["activation"][0] - moved), once - (model["activation"][1] - moved))
    _note(act, "question per panel", 0.0, once * (panels / 2 - 1))
    both = (ranked + visual) * w.head_size * w.kv_heads * B
    _note(causes["weights"], "question", *(both - model["weights"]))
    _note(causes["weights"], "keys per head", *(both * (w.heads // w.kv_heads - 1) * np.ones(2)))
    at = asks * w.heads * (ranked + visual)
    sums = np.array([at * B + streamed * cell + moved, streamed * cell + moved])
    out = causes["output"]
    _note(out, "question", *(sums - model["output"]))
    _note(out, "f32 sums", *sums)
    _note(out, "first sums", -ACCUMULATOR * at, 0.0)
    _note(out, "vector accesses", *_f32(at / 2, RANKED))
    _note(out, "vector accesses", *_f32(asks * w.heads * panels / 2, STATE))
    if s.merging:
        _note(causes["partial"], "question", streamed * cell, streamed * cell)
        _note(causes["map"], "question", streamed * B, once * panels / 2 / w.head_size * depth)
