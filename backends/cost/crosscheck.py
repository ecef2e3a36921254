"""A compiled program against the closed form: cycles, MACs and DRAM bytes of every operation, and why they differ.

The program is timed with the array model `scalesim`, the closed form is the corrected accounting of the same workload
and trace. Array cycles are rows streamed plus fill and drain of every pass; waiting is in neither. The size of every
cause is computed from how the program is tiled, not from the difference that it explains, so that what is left checks
both sides.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.backends.cost.accounting import CORRECTED
from focusc.backends.cost.arithmetic import array_cycles, ceil
from focusc.backends.cost.attention import plan_online
from focusc.backends.cost.decoder import products
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import TraceCounts
from focusc.backends.cost.model import cost
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import OPS, Cost
from focusc.backends.workload import Workload
from focusc.isa.counters import by_pc, count
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.machine import Machine
from focusc.isa.program import Program
from focusc.isa.site_counts import SiteCounts
from focusc.isa.timing import simulate
from focusc.isa.timing_rules import Col, Kind

__all__ = ["CAUSES", "QUANTITIES", "Comparison", "cross_check"]

B = ELEMENT_BYTES
QUANTITIES: Final = ("array cycles", "MACs", "activation bytes", "weight bytes")
CAUSES: Final = {
    "row tiles": "text before the visual tokens is an m-tile of its own, and f32 sums make dense tiles lower: more passes, "
    "and the weights are read for every tile",
    "column tiles": "gate and up are computed together, so their f32 sums leave room for 32 columns instead of 96: the "
    "activation is read more often",
    "row blocks": "an m-tile is cut into equal blocks of query rows, each sees keys up to its own last row, and two "
    "products of 96 keys, sums and results must fit: other blocks than the closed form's",
    "vectors of a block": "a block of query rows refers to more than its share of the tile's unique vectors",
    "masked entries": "the array computes whole tiles on the diagonal; the closed form counts what the mask leaves",
    "question": "the rows of the question ask, not all text; weights are folded for visual keys alone",
}
"""Why a program and the closed form differ."""
_ALL: Final = np.s_[:]
Floats = NDArray[np.float64]


@dataclass
class Comparison:
    """One operation and quantity: the program's, the closed form's, and causes with their sizes."""

    op: str
    quantity: str
    program: float
    model: float
    causes: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def difference(self) -> float:
        """(program - model) / model; 0 if both are 0."""
        return (self.program - self.model) / self.model if self.model else float(self.program != 0)

    @property
    def residual(self) -> float:
        """What no cause explains, over the closed form's."""
        left = self.program - self.model - sum(self.causes.values())
        return left / self.model if self.model else float(left != 0)


@dataclass
class _Part:
    """Products of one operation: rows streamed, passes, executions of `mma`, MACs, and the bytes that feed them."""

    rows: float = 0.0
    passes: float = 0.0
    runs: float = 0.0
    macs: float = 0.0
    activation: float = 0.0
    weights: float = 0.0

    def cycles(self, overhead: int) -> float:
        """Array cycles of `scalesim`."""
        return self.rows + overhead * self.passes


def _programs(program: Program, machine: Machine, counts: DynamicCounts | SiteCounts | None) -> dict[str, _Part]:
    """By operation of the closed form; attention is split into `scores` and `values`."""
    timing = simulate(program, machine, counts, "scalesim", detail=False)
    work, length = timing.work, len(program.text)
    found, t = count(timing.trace, work, machine), work.table
    kinds, runs = t[:, Col.KIND], work.sums()[0]
    mma = kinds == Kind.MMA
    feeds = np.zeros(len(t), np.bool_)
    feeds[t[mma, Col.FEED_A]] = True
    forwarded = mma & (kinds[np.maximum(t[:, Col.FEED_A], 0)] == Kind.FORWARD)
    columns: dict[str, Any] = {
        "rows": found.rows, "passes": found.passes, "runs": np.where(mma, runs, 0), "macs": found.macs,
        "activation": np.where(feeds, found.dram_read, 0),
        "weights": np.where(kinds == Kind.WEIGHT, found.dram_read, 0)}
    sums = {name: by_pc(timing.trace, values, length) for name, values in columns.items()}
    values_of = by_pc(timing.trace, np.where(forwarded, 1, 0), length) > 0
    parts: dict[str, _Part] = {}
    for pc in np.flatnonzero(sum(sums.values()) > 0).tolist():
        entry = program.debug[int(program.debug_index[pc])] if program.debug_index[pc] >= 0 else None
        name = entry.node.split(".")[-1] if entry else ""
        if entry is not None and entry.nn_op == "nn.attention":
            name = "values" if values_of[pc] else "scores"
        elif entry is not None and entry.nn_op == "sec.importance":
            name = "select"
        part = parts.setdefault(name, _Part())
        for column, total in sums.items():
            setattr(part, column, getattr(part, column) + float(total[pc]))
    # the weights of both products carry no mark; K is as large as V
    if "scores" in parts:
        parts["scores"].weights += parts.pop("values_weights", _Part()).weights
    return parts


def cross_check(program: Program, machine: Machine, workload: Workload, trace: TraceCounts | None,
                counts: DynamicCounts | SiteCounts | None, accelerator: Accelerator) -> list[Comparison]:
    """Compare a compiled decoder with its closed form; `trace` None for the dense array, `counts` None unless it merges
    vectors. Raises IsaError as `simulate` and `cost` do."""
    found = cost(workload, trace, accelerator, accounting=CORRECTED, options=Options(similarity=counts is not None))
    parts = _programs(program, machine, counts)
    useful = {str(n["node"]).split(".")[-1]: float(n.get("useful", 1.0)) for n in program.meta.get("nodes", ())}
    before, after = _rows(workload, trace)
    made: list[Comparison] = []
    for p in products(workload):
        rows = after if p.site in ("gate_proj", "down_proj") else before
        made += _linear(p.op, p.k, p.n, parts.get(p.op, _Part()), found, rows, accelerator)
    made += _attention(parts, found, workload, before, accelerator, useful.get("attention", 1.0))
    if "select" in parts:
        made += _select(parts["select"], found, workload, before, after, accelerator)
    return made


def _rows(workload: Workload, trace: TraceCounts | None) -> tuple[Any, Any]:
    """Rows of attention and of the feed-forward block by layer, text included."""
    if trace is None:
        every = np.full(workload.layers, workload.visual_tokens + workload.text_tokens, np.int64)
        return every, every
    return trace.retained[:, 0] + workload.text_tokens, trace.retained[:, 3] + workload.text_tokens


def _bytes(found: Cost, op: str, *tensors: str) -> float:
    i = OPS.index(op)
    return float(sum(found.dram_read_bytes[name][:, i].sum() for name in tensors if name in found.dram_read_bytes))


def _linear(op: str, k: int, n: int, part: _Part, found: Cost, rows: Any, hardware: Accelerator) -> list[Comparison]:
    array, tiles, i = hardware.array, hardware.tiles, OPS.index(op)
    passes = float(ceil(k, array.rows) * ceil(n, array.cols))
    expected = float(ceil(rows, tiles.m).sum())
    pieces = part.passes / passes
    wide = part.runs / max(pieces, 1.0)  # column tiles
    return [
        Comparison(op, QUANTITIES[0], part.cycles(array.overhead_cycles), float(found.compute_by_op[:, i].sum()),
                   {"row tiles": array.overhead_cycles * (part.passes - expected * passes)}),
        Comparison(op, QUANTITIES[1], part.macs, float(found.macs_by_op[:, i].sum())),
        Comparison(op, QUANTITIES[2], part.activation, _bytes(found, op, "activation", "map"),
                   {"column tiles": part.activation * (1 - float(ceil(n, tiles.n)) / max(wide, 1.0))}),
        Comparison(op, QUANTITIES[3], part.weights, _bytes(found, op, "weights"),
                   {"row tiles": (pieces - expected) * k * n * B}),
    ]


def _attention(parts: dict[str, _Part], found: Cost, workload: Workload, rows: Any, hardware: Accelerator,
               useful: float) -> list[Comparison]:
    array, i = hardware.array, OPS.index("attention")
    scores, values = parts.get("scores", _Part()), parts.get("values", _Part())
    online = plan_online(workload, hardware, CORRECTED, rows, hardware.tiles.m)
    depth = online.groups * float(ceil(workload.head_size, array.rows))
    value_rows, passes = depth * float(online.sums.row_groups.sum()), depth * float(online.sums.key_groups.sum())
    value_cycles = float(array_cycles(array, value_rows, passes, "scalesim"))
    total = float(found.compute_by_op[:, i].sum())
    share = (total - value_cycles - passes * array.overhead_cycles) / value_rows  # unique of all query rows, in QK
    extra = scores.rows - share * values.rows
    blocks = (values.rows - value_rows) * (1 + share) + array.overhead_cycles * (
        values.passes + scores.passes - 2 * passes)
    macs = float(found.macs_by_op[:, i].sum())
    masked = (1 - useful) * (values.macs + scores.macs)
    panel = min(hardware.tiles.n, online.panel) // array.cols
    row_panels = online.groups * float(online.sums.row_panels.sum())
    queries, keys = _bytes(found, "attention", "activation", "map"), _bytes(found, "attention", "weights")
    made = scores.rows / panel * array.rows * B  # vectors that the program loads: each serves the groups of a panel
    return [
        Comparison("attention", QUANTITIES[0], scores.cycles(array.overhead_cycles) + values.cycles(
            array.overhead_cycles), total, {"row blocks": blocks, "vectors of a block": extra}),
        Comparison("attention", QUANTITIES[1], scores.macs + values.macs, macs, {
            "masked entries": masked,
            "vectors of a block": useful * scores.macs * extra / max(scores.rows, 1.0)}),
        Comparison("attention", QUANTITIES[2], scores.activation, queries, {
            "vectors of a block": made * extra / max(scores.rows, 1.0),
            "row blocks": queries * (values.rows / panel / (row_panels * float(ceil(workload.head_size, array.rows)))
                                     - 1)}),
        Comparison("attention", QUANTITIES[3], scores.weights + values.weights, keys, {
            "row blocks": keys * (values.passes / passes - 1)}),
    ]


def _select(part: _Part, found: Cost, workload: Workload, before: Any, after: Any,
            hardware: Accelerator) -> list[Comparison]:
    array, i = hardware.array, OPS.index("select")
    text, asks = workload.text_tokens, workload.text_tokens - workload.text_before
    ranked = before[after < before]
    keys = float((ceil(ranked, array.cols) + ceil(ranked - text, array.cols)).sum())
    depth = workload.heads * float(ceil(workload.head_size, array.rows))
    model = float(found.compute_by_op[:, i].sum())
    weights = _bytes(found, "select", "weights")
    return [
        Comparison("select", QUANTITIES[0], part.cycles(array.overhead_cycles), model, {
            "question": depth * keys * (asks + array.overhead_cycles) - model}),
        Comparison("select", QUANTITIES[3], part.weights, weights, {
            "question": float((2 * ranked - text).sum()) * workload.head_size * workload.heads * B - weights}),
    ]
