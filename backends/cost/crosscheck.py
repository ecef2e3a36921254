"""A compiled program against the closed form: cycles, MACs and DRAM bytes of every operation, and why they differ.

The program is timed with the array model `scalesim`, the closed form is the corrected accounting of the same workload
and trace. Array cycles are rows streamed plus fill and drain of every pass; waiting is in neither. The size of every
cause is computed from how the program is tiled, not from the difference that it explains, so that what is left checks
both sides.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from focusc.backends.cost.accounting import CORRECTED
from focusc.backends.cost.arithmetic import ceil
from focusc.backends.cost.attention import plan_online
from focusc.backends.cost.decoder import Product, products
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import VECTOR, Ints, TraceCounts
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

__all__ = ["CAUSES", "Comparison", "cross_check"]

B = ELEMENT_BYTES
CAUSES: Final = {
    "row tiles": "text before the visual tokens is an m-tile of its own, and f32 sums make dense tiles lower: more "
    "passes, and the weights are read for every tile",
    "column tiles": "gate and up are computed together, so their f32 sums leave room for 32 columns instead of 96: the "
    "activation is read more often",
    "row blocks": "an m-tile is cut into equal blocks of query rows, each sees keys up to its own last row, and two "
    "products of 96 keys, sums and results must fit: other blocks than the closed form's",
    "vectors of a block": "a block of query rows refers to more than its share of the tile's unique vectors",
    "masked entries": "the array computes whole tiles on the diagonal; the closed form counts what the mask leaves",
    "row list": "rows of stacked heads are loaded by a list of row numbers, 4 bytes a row",
    "question": "the rows of the question ask, not all text; weights are folded for visual keys alone",
    "keys per head": "every query head that ranks tokens reads the keys for itself, not once for its group",
}
"""Why a program and the closed form differ."""


@dataclass
class Comparison:
    """One operation and quantity: the program's, the closed form's, and causes with their sizes."""

    op: str
    quantity: str
    program: float
    model: float
    causes: dict[str, float] = field(default_factory=dict[str, float])

    def add(self, other: Comparison) -> None:
        """Count another layer in."""
        self.program += other.program
        self.model += other.model
        for name, size in other.causes.items():
            self.causes[name] = self.causes.get(name, 0.0) + size

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
    """Products of one operation in one layer: rows streamed, passes, executions of `mma` and the rows and vectors that
    they take, MACs, and DRAM bytes that feed them (`lists`: of the activation's, those of row numbers)."""

    rows: float = 0.0
    passes: float = 0.0
    runs: float = 0.0
    taken: float = 0.0
    vectors: float = 0.0
    macs: float = 0.0
    activation: float = 0.0
    lists: float = 0.0
    weights: float = 0.0
    useful: float = 1.0

    def cycles(self, overhead: int) -> float:
        """Array cycles of `scalesim`."""
        return self.rows + overhead * self.passes


Parts = dict[tuple[int, str], _Part]


def _program_parts(program: Program, machine: Machine, counts: DynamicCounts | SiteCounts | None) -> Parts:
    """By layer and operation of the closed form; attention is split into `scores` and `values`."""
    timing = simulate(program, machine, counts, "scalesim", detail=False)
    work, length = timing.work, len(program.text)
    found, t = count(timing.trace, work, machine), work.table
    mma, (runs, unique, *_) = t[:, Col.KIND] == Kind.MMA, work.sums()
    feeds = np.zeros(len(t), np.bool_)
    feeds[t[mma, Col.FEED_A]] = True
    columns: dict[str, Any] = {
        "rows": found.rows, "passes": found.passes, "runs": np.where(mma, runs, 0),
        "taken": np.where(mma, runs * t[:, Col.ROWS], 0), "vectors": np.where(mma, unique, 0), "macs": found.macs,
        "activation": np.where(feeds, found.dram_read, 0), "lists": np.where(feeds, runs * t[:, Col.LEAD], 0),
        "weights": np.where(t[:, Col.KIND] == Kind.WEIGHT, found.dram_read, 0)}
    sums = {name: by_pc(timing.trace, values, length) for name, values in columns.items()}
    forwarded = mma & (t[np.maximum(t[:, Col.FEED_A], 0), Col.KIND] == Kind.FORWARD)
    of_values = by_pc(timing.trace, forwarded.astype(np.int64), length) > 0
    useful = {str(node["node"]): float(node.get("useful", 1.0)) for node in program.meta.get("nodes", ())}
    parts: Parts = {}
    for pc in np.flatnonzero(sum(sums.values()) > 0).tolist():
        entry = program.debug[int(program.debug_index[pc])] if program.debug_index[pc] >= 0 else None
        layer = re.match(r"layers\.(\d+)\.", entry.node) if entry is not None else None
        if entry is None or layer is None:
            continue
        name = {"nn.attention": "values" if of_values[pc] else "scores", "sec.importance": "select"}.get(
            entry.nn_op, entry.node.split(".")[-1])
        part = parts.setdefault((int(layer[1]), name), _Part(useful=useful.get(entry.node, 1.0)))
        for column, total in sums.items():
            setattr(part, column, getattr(part, column) + float(total[pc]))
    return parts


class _Check:
    """One cross-check: both sides by layer."""

    def __init__(self, parts: Parts, found: Cost, workload: Workload, trace: TraceCounts | None,
                 hardware: Accelerator) -> None:
        self.parts, self.found, self.workload, self.hardware = parts, found, workload, hardware
        self.array, self.tiles = hardware.array, hardware.tiles
        every = np.full(workload.layers, workload.visual_tokens + workload.text_tokens, np.int64)
        self.before: Ints = every if trace is None else trace.retained[:, 0] + workload.text_tokens
        self.after: Ints = every if trace is None else trace.retained[:, 3] + workload.text_tokens
        self.online = plan_online(workload, hardware, CORRECTED, self.before, self.tiles.m)

    def part(self, layer: int, name: str) -> _Part:
        return self.parts.get((layer, name), _Part())

    def bytes(self, layer: int, op: str, *tensors: str) -> float:
        """What the closed form reads."""
        read = self.found.dram_read_bytes
        return float(sum(read[name][layer, OPS.index(op)] for name in tensors if name in read))

    def linear(self, layer: int, p: Product) -> Iterator[Comparison]:
        """A linear layer: tiles of rows and of columns."""
        part, i = self.part(layer, p.op), OPS.index(p.op)
        rows = int((self.after if p.site in ("gate_proj", "down_proj") else self.before)[layer])
        passes, overhead = float(ceil(p.k, self.array.rows) * ceil(p.n, self.array.cols)), self.array.overhead_cycles
        more = part.passes / passes - float(ceil(rows, self.tiles.m))  # row tiles
        across = part.runs * passes / max(part.passes, 1.0)  # column tiles
        read = part.activation * (1 - float(ceil(p.n, self.tiles.n)) / max(across, 1.0))
        yield Comparison(p.op, "array cycles", part.cycles(overhead), float(self.found.compute_by_op[layer, i]),
                         {"row tiles": overhead * more * passes})
        yield Comparison(p.op, "MACs", part.macs, float(self.found.macs_by_op[layer, i]))
        yield Comparison(p.op, "activation bytes", part.activation, self.bytes(layer, p.op, "activation", "map"),
                         {"column tiles": read})
        yield Comparison(p.op, "weight bytes", part.weights, self.bytes(layer, p.op, "weights"),
                         {"row tiles": more * p.k * p.n * B})

    def attention(self, layer: int) -> Iterator[Comparison]:
        """Attention: blocks of rows, the vectors that they refer to, what the mask leaves."""
        scores, values, op = self.part(layer, "scores"), self.part(layer, "values"), "attention"
        overhead, groups, sums = self.array.overhead_cycles, self.online.groups, self.online.sums
        depth = float(ceil(self.workload.head_size, self.array.rows))
        rows, passes = groups * depth * float(sums.row_groups[layer]), groups * depth * float(sums.key_groups[layer])
        cycles = float(self.found.compute_by_op[layer, OPS.index(op)])
        share = (cycles - rows - 2 * passes * overhead) / rows  # unique of all query rows, as the closed form has it
        extra = scores.rows - share * values.rows
        yield Comparison(op, "array cycles", scores.cycles(overhead) + values.cycles(overhead), cycles, {
            "row blocks": (values.rows - rows) * (1 + share) + overhead * (values.passes + scores.passes - 2 * passes),
            "vectors of a block": extra})
        yield Comparison(op, "MACs", scores.macs + values.macs, float(self.found.macs_by_op[layer, OPS.index(op)]), {
            "masked entries": (1 - values.useful) * (scores.macs + values.macs),
            "vectors of a block": values.useful * scores.macs * extra / max(scores.rows, 1.0)})
        queries, keys = self.bytes(layer, op, "activation", "map"), self.bytes(layer, op, "weights")
        packed = (scores.vectors - share * scores.taken * depth) * VECTOR * B if scores.vectors else 0.0
        yield Comparison(op, "activation bytes", scores.activation, queries, {
            "vectors of a block": packed, "row list": scores.lists,
            "row blocks": queries * (scores.taken / (groups * float(sums.row_panels[layer])) - 1)})
        yield Comparison(op, "weight bytes", scores.weights + values.weights, keys, {
            "row blocks": keys * (values.passes / passes - 1)})

    def select(self, layer: int) -> Iterator[Comparison]:
        """Ranking of tokens."""
        part, op, w = self.part(layer, "select"), "select", self.workload
        if not part.passes:
            return
        ranked, asks = int(self.before[layer]), w.text_tokens - w.text_before
        keys = float(ceil(ranked, self.array.cols) + ceil(ranked - w.text_tokens, self.array.cols))
        cycles = float(self.found.compute_by_op[layer, OPS.index(op)])
        yield Comparison(op, "array cycles", part.cycles(self.array.overhead_cycles), cycles, {
            "question": w.heads * float(ceil(w.head_size, self.array.rows)) * keys * (
                asks + self.array.overhead_cycles) - cycles})
        read = self.bytes(layer, op, "weights")
        visual = (2 * ranked - w.text_tokens) * w.head_size * w.kv_heads * B
        yield Comparison(op, "weight bytes", part.weights, read, {
            "question": visual - read, "keys per head": visual * (w.heads // w.kv_heads - 1)})


def cross_check(program: Program, machine: Machine, workload: Workload, trace: TraceCounts | None,
                counts: DynamicCounts | SiteCounts | None, hardware: Accelerator) -> list[Comparison]:
    """Compare a compiled decoder with its closed form, summed over the layers.

    `trace` is None for the dense array; `counts` (of the program's sites) are None unless it merges vectors. Raises
    IsaError as `simulate` and `cost` do.
    """
    found = cost(workload, trace, hardware, accounting=CORRECTED, options=Options(similarity=counts is not None))
    check = _Check(_program_parts(program, machine, counts), found, workload, trace, hardware)
    made: dict[tuple[str, str], Comparison] = {}
    for layer in range(workload.layers):
        linear = (row for p in products(workload) for row in check.linear(layer, p))
        for row in (*linear, *check.attention(layer), *check.select(layer)):
            if (row.op, row.quantity) in made:
                made[row.op, row.quantity].add(row)
            else:
                made[row.op, row.quantity] = row
    return list(made.values())
