"""What a compiled program does, by layer and operation of the closed form: the other side of a cross-check.

A program is a sequence of kernels, each between two fences. A kernel belongs to the operation whose result it makes:
rotary embedding to the projection before it, the concentration of a stored result to what computed it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.counters import by_pc, count
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.energy import Energy, energy
from focusc.isa.insns import INSNS
from focusc.isa.machine import BUFFERS, Machine
from focusc.isa.program import Program
from focusc.isa.site_counts import SiteCounts
from focusc.isa.timing import Timing, simulate
from focusc.isa.timing_rules import Col, Kind

__all__ = ["GATED", "Executed", "Part", "Whole", "execute", "label"]

Floats = NDArray[np.float64]
GATED: Final = ("gate_proj", "up_proj")
"""Products of one kernel."""
_MAKER: Final = {"attention": "q_proj", "o_proj": "attention", "down_proj": "up_proj"}
"""Whose result a site concentrates that no kernel of a product or a normalisation does: by the reader's name."""


def label(op: str) -> str:
    """The row of the tables that an operation belongs to: gate and up are one kernel."""
    return "gate, up" if op in GATED else op


@dataclass
class Part:
    """Products of one operation in one layer: rows streamed, passes, MACs, and DRAM bytes that feed them."""

    rows: float = 0.0
    passes: float = 0.0
    macs: float = 0.0
    activation: float = 0.0
    weights: float = 0.0

    def cycles(self, overhead: int) -> float:
        """Array cycles of `scalesim`."""
        return self.rows + overhead * self.passes


@dataclass
class Whole:
    """Kernels of one operation in one layer: cycles from the end of the kernel before to their own end, DRAM bytes read
    for anything but products, bytes written, on-chip bytes read and written by buffer, and which kernels there are
    beside that of the product: `rotary` (`direct` if it concentrates its result), `gather`, `norm`, `compact` (kept
    rows), `tables` (of the rotary embedding)."""

    cycles: float = 0.0
    other: float = 0.0
    written: float = 0.0
    sram: dict[str, Floats] = field(default_factory=lambda: {name: np.zeros(2) for name in BUFFERS})
    apart: tuple[str, ...] = ()


@dataclass(frozen=True)
class Executed:
    """All of it; `outside` belongs to no layer: embedding, last normalisation, head (`other` are all its reads)."""

    parts: dict[tuple[int, str], Part]
    wholes: dict[tuple[int, str], Whole]
    outside: Whole
    timing: Timing
    spent: Energy

    def part(self, layer: int, name: str) -> Part:
        """Products; empty if there are none."""
        return self.parts.get((layer, name), Part())

    def whole(self, layer: int, op: str) -> Whole:
        """Kernels; empty if there are none."""
        return self.wholes.get((layer, op), Whole())


def execute(program: Program, machine: Machine, counts: DynamicCounts | SiteCounts | None) -> Executed:
    """Time a program with the array model `scalesim` and sort what it did; attention is split into the parts `scores`
    and `values`. Raises IsaError as `simulate` does."""
    timing = simulate(program, machine, counts, "scalesim", detail=False)
    work, length = timing.work, len(program.text)
    found, t = count(timing.trace, work, machine), work.table
    mma = t[:, Col.KIND] == Kind.MMA
    feeds = np.zeros(len(t), np.bool_)
    feeds[t[mma, Col.FEED_A]] = True
    weights = np.where(t[:, Col.KIND] == Kind.WEIGHT, found.dram_read, 0)
    activation = np.where(feeds, found.dram_read, 0)

    def sums(values: NDArray[Any]) -> Floats:
        return by_pc(timing.trace, values, length).astype(np.float64)

    columns = {"rows": sums(found.rows), "passes": sums(found.passes), "macs": sums(found.macs),
               "activation": sums(activation), "weights": sums(weights)}
    forwarded = mma & (t[np.maximum(t[:, Col.FEED_A], 0), Col.KIND] == Kind.FORWARD)
    of_values = sums(forwarded.astype(np.int64)) > 0
    parts: dict[tuple[int, str], Part] = {}
    for pc in np.flatnonzero(sum(columns.values()) > 0).tolist():
        layer, node, nn_op = _source(program, pc)
        if layer < 0:
            continue
        name = {"nn.attention": "values" if of_values[pc] else "scores", "sec.importance": "select"}.get(
            nn_op, node.split(".")[-1])
        part = parts.setdefault((layer, name), Part())
        for column, total in columns.items():
            setattr(part, column, getattr(part, column) + float(total[pc]))
    cycles, written = sums(timing.span), sums(found.dram_write)
    other = sums(found.dram_read - activation - weights)
    sram = {name: np.stack([sums(read), sums(write)]) for name, (read, write) in found.sram.items()}
    wholes: dict[tuple[int, str], Whole] = {}
    outside = Whole()
    fed = sums(activation + weights)
    for pcs in _kernels(program):
        layer, op, *kinds = _owner(program, pcs, wholes)
        whole = outside if layer < 0 else wholes.setdefault((layer, op), Whole())
        whole.other += float(fed[pcs].sum()) if layer < 0 else 0.0
        whole.apart += tuple(kinds)
        whole.cycles += float(cycles[pcs].sum())
        whole.other += float(other[pcs].sum())
        whole.written += float(written[pcs].sum())
        for name, moved in sram.items():
            whole.sram[name] += moved[:, pcs].sum(axis=1)
    return Executed(parts, wholes, outside, timing, energy(machine, found, timing))


def _source(program: Program, pc: int) -> tuple[int, str, str]:
    """(layer or -1, source node, nn-level op) of an instruction."""
    entry = program.debug[int(program.debug_index[pc])] if program.debug_index[pc] >= 0 else None
    layer = re.match(r"layers\.(\d+)\.", entry.node) if entry is not None else None
    return int(layer[1]) if layer else -1, entry.node if entry else "", entry.nn_op if entry else ""


def _kernels(program: Program) -> list[slice]:
    """Instructions of each kernel."""
    fence = next(code for code, cls in INSNS.items() if cls.mnemonic == "fence")
    codes = (program.text[:, 0] & np.uint64(0xFF)).astype(np.int64)
    starts = [0, *np.flatnonzero(codes == fence).tolist(), len(codes)]
    return [slice(a, b) for a, b in pairwise(starts) if b > a]


def _owner(program: Program, pcs: slice, seen: dict[tuple[int, str], Whole]) -> tuple[int, str, *tuple[str, ...]]:
    """(layer or -1, operation, and what the kernel is if it is none of a product)."""
    sources = [_source(program, pc) for pc in range(pcs.start, pcs.stop)]
    names = [INSNS[int(word)].mnemonic for word in (program.text[pcs, 0] & np.uint64(0xFF)).tolist()]
    layer = next((layer for layer, *_ in sources if layer >= 0), -1)
    products = [(node.split(".")[-1], nn_op) for (_, node, nn_op), name in zip(sources, names, strict=True)
                if name == "mma"]
    if products:
        name, nn_op = products[0]
        return layer, "select" if nn_op.startswith("sec.") else name
    if "ld.idx" in names:
        return layer, "select", "tables" if any(node.endswith("rotary") for _, node, _ in sources) else "compact"
    if "v.rot" in names:
        turned = seen.get((layer, "q_proj"))
        op = "k_proj" if turned is not None and "rotary" in turned.apart else "q_proj"
        return (layer, op, "rotary", "direct") if "sic" in names else (layer, op, "rotary")
    if "v.rsumsq" in names:
        return layer, "norm", "norm"
    if "sic" in names:
        reader = sources[names.index("sic")][1].split(".")[-1]
        return layer, _MAKER.get(reader, "norm"), "gather"
    return layer, "select"

