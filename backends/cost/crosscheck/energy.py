"""Energy by part: where the differences in bytes, accesses and cycles end up, in millijoules."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import numpy as np
from numpy.typing import NDArray

from focusc.backends.cost.arithmetic import ceil
from focusc.backends.cost.crosscheck.buffers import Accesses
from focusc.backends.cost.crosscheck.comparison import Comparison
from focusc.backends.cost.crosscheck.sides import ACCUMULATOR, B, Sides
from focusc.isa.machine import BUFFERS, SFU_UNITS

__all__ = ["outside", "parts", "total"]

MJ_PER_PJ = 1e-9


def outside(s: Sides) -> dict[str, float]:
    """What embedding, last normalisation and head cost, by quantity, from their shapes."""
    w = s.workload
    row = float(w.width * B)
    read, written, cycles, array = 2 * row, row, 0.0, 0.0
    if w.vocab:
        tokens, deep, wide = w.tokens, float(ceil(w.width, s.array.rows)), float(ceil(w.vocab, s.array.cols))
        embedded = (w.text_tokens + tokens) * row
        read += embedded + w.vocab * row + float(ceil(w.vocab, s.tiles.n)) * row
        written += embedded + w.vocab * B
        array = deep * wide * (1 + s.array.overhead_cycles)
        cycles = array + s.moving(2 * embedded)
    return {"cycles": cycles, "array cycles": array, "DRAM read": read, "DRAM written": written,
            "MACs": float(w.vocab * w.width)}


def _outside_accesses(s: Sides) -> dict[str, NDArray[np.float64]]:
    """On-chip bytes [read, written] of the head; embedding is little."""
    w = s.workload
    if not w.vocab:
        return {}
    row, wide, deep = float(w.width * B), float(ceil(w.vocab, s.array.cols)), float(ceil(w.width, s.array.rows))
    embedded = (w.text_tokens + w.tokens) * row
    sums = w.vocab * deep * ACCUMULATOR + embedded * ACCUMULATOR / B
    return {"activation": np.array([wide * row + embedded, float(ceil(w.vocab, s.tiles.n)) * row + embedded]),
            "weights": np.full(2, w.vocab * row), "output": np.array([sums, sums])}


def total(s: Sides, rows: Iterable[Comparison]) -> Iterator[Comparison]:
    """The whole program: all operations, and what belongs to no layer."""
    apart, made = outside(s), dict[str, Comparison]()
    for row in rows:
        name = row.quantity.split(",")[0]
        if name in apart:
            made.setdefault(name, Comparison("total", name, 0.0, 0.0)).add(row)
    rest = s.executed.outside
    found = {"cycles": rest.cycles, "DRAM read": rest.other, "DRAM written": rest.written}
    for name, row in made.items():
        if name in found:
            row.add(Comparison("total", name, found[name], 0.0, {"embedding and head": apart[name]}))
        yield row


def parts(s: Sides, totals: Mapping[str, Comparison], moved: Iterable[Accesses]) -> Iterator[Comparison]:
    """DRAM, every buffer, and groups of logic. The run lasts as long as the causes of its cycles say."""
    machine, spent, found = s.machine, s.executed.spent.components, s.found
    pj = machine.dram.pj_per_byte * MJ_PER_PJ
    dram = Comparison("energy", "DRAM", spent["dram"], found.dram_mj)
    for name in ("DRAM read", "DRAM written"):
        dram.add(Comparison("energy", "DRAM", 0.0, 0.0, {k: v * pj for k, v in totals[name].causes.items()}))
    yield dram
    later = float(sum(totals["cycles"].causes.values())) / machine.clock_hz
    buffers: dict[str, Comparison] = {}
    for name in BUFFERS:
        leak, modelled = machine.buffer_leak_mw(name), found.sram_mj_by_buffer.get(name)
        causes = {"time": leak * later} if modelled is not None else {"spare buffers": leak * (found.time_s + later)}
        buffers[name] = Comparison("energy", f"buffer, {name}", spent[f"buffer.{name}"], modelled or 0.0, causes)
    for name, size in _outside_accesses(s).items():
        each = np.array(machine.buffer_access_pj_per_byte(name)) * MJ_PER_PJ
        buffers[name].causes["embedding and head"] = float(size @ each)
    for one in moved:
        each = np.array(machine.buffer_access_pj_per_byte(one.buffer)) * MJ_PER_PJ
        buffers[one.buffer].add(Comparison("", "", 0.0, 0.0, {k: float(v @ each) for k, v in one.causes.items()}))
    yield from (row for row in buffers.values() if row.program or row.model)
    groups = {"array": "array", **dict.fromkeys(SFU_UNITS, "vector unit"), "scatter": "SIC", "compare": "SIC",
              "norm": "SIC", "average": "SIC", "fold": "SEC"}
    logic: dict[str, Comparison] = {}
    idle = machine.energy.idle_fraction
    for name, part in machine.components.items():
        group = groups[part.engine]
        rated = part.count * part.power_mw
        row = logic.setdefault(group, Comparison("energy", group, 0.0, 0.0))
        causes = {"time": rated * idle * later}
        if group == "array":
            causes |= {k: v * rated * (1 - idle) / machine.clock_hz for k, v in totals["array cycles"].causes.items()}
            causes["embedding and head"] = outside(s)["array cycles"] * rated * (1 - idle) / machine.clock_hz
        row.add(Comparison("", "", spent[name], found.core_mj_by_component.get(name, 0.0), causes))
    yield from logic.values()
