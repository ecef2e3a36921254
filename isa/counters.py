"""Counters: what commands moved and computed, exactly, from the work table; no cycle is needed for these.

Bytes by buffer follow the dataflow: activations are written to staging once and read once a column group, weights are
read once into the array, concentrated passes go through the partial sums, and every pass reads and writes the output
tile. A vector command reads and writes each of its windows once, at the window's own shape: a broadcast operand is not
read again for every row that it serves. SIC's bytes are those of the published model (cost_model section 4, "detect");
the map is written when it is made and when a load brings it back.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import SLOT
from focusc.isa.insns import INSNS
from focusc.isa.machine import BUFFERS, SFU_UNITS, Machine
from focusc.isa.program import Program
from focusc.isa.sequencer import Trace
from focusc.isa.timing_rules import Col, Kind, Work

__all__ = ["ACTIVITIES", "Counters", "count", "tensor_bytes"]

Ints = NDArray[np.int64]
ACTIVITIES: Final = ("array", *SFU_UNITS, "compare", "norm", "average", "scatter", "fold")
"""What clocks a logic component (`Component.engine`)."""


@dataclass(frozen=True, slots=True)
class Counters:
    """Exact counts; arrays have one entry a row of the work (a command, or all commands that do the same)."""

    dram_read: Ints
    """Bytes."""
    dram_write: Ints
    macs: Ints
    """Multiply-accumulates of the array (unique vectors only, no padding)."""
    rows: Ints
    """Vectors streamed through the array: sum of U over passes."""
    passes: Ints
    scatter_adds: Ints
    """Scalar additions of the scatter accumulators."""
    sram: dict[str, tuple[Ints, Ints]]
    """Bytes read and written by buffer."""
    active: dict[str, NDArray[np.float64]]
    """Cycles at work of each logic activity: one instance-cycle of each of its components at full width.
    `array` counts streamed vectors only; fill and drain are known to the timing."""


def by_pc(trace: Trace, values: NDArray[Any], count: int) -> NDArray[Any]:
    """Sum of per-command values over the executions of each of `count` instructions."""
    out = np.bincount(trace.pc, weights=values, minlength=count)
    return out if values.dtype.kind == "f" else np.rint(out).astype(np.int64)


def count(trace: Trace, work: Work, machine: Machine) -> Counters:
    """Counters of a trace, over all executions of each row of its work. All numbers but `active` are exact integers."""
    t, n = work.table, len(work.table)
    runs, unique, last, _ = work.sums()
    kind, rows, cols = t[:, Col.KIND], t[:, Col.ROWS], t[:, Col.COLS]
    depth, slices, item = t[:, Col.DEPTH], t[:, Col.SLICES], t[:, Col.ITEM_BYTES]
    conc = t[:, Col.UNIQUE] >= 0
    is_mma = kind == Kind.MMA
    width = np.maximum(t[:, Col.WIDTH], 1)
    used = np.where(is_mma, -(-depth // width), slices)

    dense_bytes = runs * rows * cols * item
    conc_bytes = runs * used * (4 + 2 * rows) + 2 * SLOT * unique
    load, forward, weight = kind == Kind.LOAD, kind == Kind.FORWARD, kind == Kind.WEIGHT
    sic, store = kind == Kind.CONCENTRATE, kind == Kind.STORE
    read = np.where(load, np.where(conc, conc_bytes, dense_bytes), 0) + np.where(weight, runs * depth * cols * item, 0)
    read = read + runs * t[:, Col.LEAD]
    write = np.where(store, dense_bytes, 0) + np.where(sic, conc_bytes, 0) + runs * t[:, Col.WRITES]

    # Array: passes of each slice are `tall` deep if the array has fewer rows than the slice.
    array = machine.array
    groups = np.where(is_mma, -(-cols // array.cols), 0)
    tail = depth - (used - 1) * width
    tall, tall_last = -(-width // array.rows), -(-np.maximum(tail, 0) // array.rows)
    vectors = np.where(conc, tall * (unique - last) + tall_last * last,
                       runs * rows * ((used - 1) * tall + tall_last))
    streamed = np.where(is_mma, groups * vectors, 0)
    levels = np.where(is_mma, runs * ((used - 1) * tall + tall_last), 0)
    macs = np.where(is_mma, np.where(conc, cols * (width * unique - (width - tail) * last),
                                     runs * rows * cols * depth), 0)
    scattered = np.where(is_mma & conc, rows * cols * levels, 0)

    sram = _buffers(work, machine, streamed, levels, groups)
    active = {name: np.zeros(n) for name in ACTIVITIES}
    active["array"] += streamed
    elements = np.where((kind == Kind.VECTOR) | forward, runs * rows * cols, 0)
    for i, unit in enumerate(SFU_UNITS):
        active[unit] += elements * work.uses[:, i] / getattr(machine.sfu, unit)
    sic_slots = np.where(sic, runs * slices, 0)
    active["compare"] += work.cost * sic_slots
    active["norm"] += rows * sic_slots
    active["average"] += np.where(sic, runs * rows * slices - unique, 0)
    lanes = machine.sic.scatter_lanes * machine.sic.scatter_accumulators
    active["scatter"] += scattered / lanes
    active["fold"] += np.where(kind == Kind.SELECT, runs * work.cost, 0)
    return Counters(read, write, macs, streamed, groups * levels, scattered, sram, active)


def _buffers(work: Work, machine: Machine, streamed: Ints, levels: Ints, groups: Ints) -> dict[str, tuple[Ints, Ints]]:
    """(read, written) bytes of every buffer, by row."""
    t = work.table
    runs, unique, _, other = work.sums()
    zero = np.zeros(len(t), np.int64)
    kind, rows, cols, depth = t[:, Col.KIND], t[:, Col.ROWS], t[:, Col.COLS], t[:, Col.DEPTH]
    conc = t[:, Col.UNIQUE] >= 0
    size = {name: buffer.element_bytes for name, buffer in machine.buffers.items()}
    pushes = (kind == Kind.LOAD) | (kind == Kind.FORWARD)
    is_mma, sic = kind == Kind.MMA, kind == Kind.CONCENTRATE
    pushed = np.where(pushes, np.where(conc, SLOT * unique, runs * rows * cols), 0)
    # Streams that the vector or the store engine takes are read once, by the taker.
    taken = SLOT * other
    for feed in (Col.FEED_A, Col.FEED_B):
        at = np.flatnonzero((t[:, feed] >= 0) & ~is_mma)
        source = t[at, feed]
        taken[at] += np.where(conc[source], 0, runs[at] * rows[source] * cols[source])
    deep = np.minimum(t[:, Col.WIDTH], machine.array.rows)
    tile = rows * cols

    def window(col: Col) -> Ints:
        at = t[:, col]
        some = len(work.windows.elements) > 0
        return runs * np.where(at >= 0, work.windows.elements[np.maximum(at, 0)], 0) if some else zero

    accumulate = np.where(is_mma, tile * levels, 0)
    reads = np.where(is_mma, accumulate - np.where(t[:, Col.RMW] > 0, 0, runs * tile), 0)
    vector = kind == Kind.VECTOR
    result = np.where(vector, window(Col.DST), 0)
    reads = reads + window(Col.A) + window(Col.B) + np.where(t[:, Col.RMW] > 0, result, 0)
    writes = accumulate + result
    panel = np.where(kind == Kind.WEIGHT, runs * depth * cols, 0)
    slots = np.where(sic, runs * t[:, Col.SLICES], 0)
    mapped = np.where(sic | ((kind == Kind.LOAD) & conc), runs * t[:, Col.SLICES] * rows, 0) * size["map"]
    detect = np.where(sic, runs * tile, 0) * size["layouter"] + slots * rows * size["map"]
    table_row = np.where(sic, runs * tile, 0) * size["table"]
    scatters = np.where(is_mma & conc, groups * levels, 0)
    return {
        "activation": ((np.where(is_mma, streamed * deep, 0) + taken) * size["activation"],
                       pushed * size["activation"]),
        "weights": (np.where(is_mma, runs * depth * cols, 0) * size["weights"], panel * size["weights"]),
        "partial": (scatters * rows * machine.array.cols * size["partial"],
                    np.where(conc, streamed, 0) * machine.array.cols * size["partial"]),
        "output": (reads * size["output"], writes * size["output"]),
        "layouter": (detect * np.maximum(np.where(sic, depth, 0) - 1, 0), detect),
        "map": (scatters * rows * size["map"], mapped),
        "table": (table_row + np.where(sic, SLOT * unique, 0) * size["table"], table_row),
    }


def tensor_bytes(program: Program, trace: Trace, counters: Counters) -> list[dict[str, Any]]:
    """DRAM bytes by tensor: name, kind, bytes read and written, largest traffic first.

    An instruction belongs to the tensor that holds its first address: a symbol, or the buffer of the memory plan that
    is live at its step (the number of fences before it). Index and position lists count for the tensor
    they select from.
    """
    count_ = len(program.text)
    read, write = by_pc(trace, counters.dram_read, count_), by_pc(trace, counters.dram_write, count_)
    pcs, first = np.unique(trace.pc, return_index=True)
    words = (program.text[:, 0] & np.uint64(0xFF)).astype(np.int64)
    fence = next(code for code, cls in INSNS.items() if cls.mnemonic == "fence")
    step = np.cumsum(words == fence)
    found: dict[tuple[str, str], list[int]] = {}
    owners = _Owners(program)
    for pc, at in zip(pcs.tolist(), first.tolist(), strict=True):
        moved = int(read[pc]), int(write[pc])
        if not any(moved):
            continue
        names = list(INSNS[int(trace.op[at])].fields)
        name = "addr" if "addr" in names else "rows"  # sec.topk writes its row list
        owner = owners.at(int(trace.fields[at, names.index(name)]), int(step[pc]))
        total = found.setdefault(owner, [0, 0])
        total[0] += moved[0]
        total[1] += moved[1]
    rows = [{"name": name, "kind": kind, "read": r, "write": w} for (name, kind), (r, w) in found.items()]
    return sorted(rows, key=lambda row: (-(int(row["read"]) + int(row["write"])), row["name"]))


class _Owners:
    """Which tensor lies at an address at a step of the program."""

    def __init__(self, program: Program) -> None:
        self.program = program
        self.rows: list[dict[str, Any]] = list(program.plan.get("buffers", ()))
        self.place = np.array([[row["offset"], row["offset"] + row["bytes"], row["from"], row["to"]]
                               for row in self.rows], np.int64).reshape(-1, 4)
        self.final = int(self.place[:, 3].max(initial=0))
        self.outer = [symbol for symbol in program.symbols if symbol.kind in ("input", "output")]
        self.symbols = program.symbols
        self.starts = np.array([symbol.address for symbol in self.symbols], np.int64)
        self.ends = np.array([symbol.address + max(symbol.bytes, 1) for symbol in self.symbols], np.int64)

    def at(self, address: int, step: int) -> tuple[str, str]:
        """(name, kind)."""
        base = self.program.arena_base
        if address >= base:
            offset, p = address - base, self.place
            here = (p[:, 0] <= offset) & (offset < p[:, 1]) & (p[:, 2] <= step) & (step <= p[:, 3])
            inside: list[int] = np.flatnonzero(here)[:1].tolist()
            for i in inside:
                row = self.rows[i]
                for symbol in self.outer:
                    # Inputs live from the first step, outputs past the last.
                    lives = row["from"] == 0 if symbol.kind == "input" else row["to"] >= self.final
                    if lives and symbol.address == base + row["offset"]:
                        return symbol.name, symbol.kind
                return str(row["name"]), "scratch"
        declared: list[int] = np.flatnonzero((self.starts <= address) & (address < self.ends))[:1].tolist()
        for i in declared:
            return self.symbols[i].name, self.symbols[i].kind
        return "other", "scratch"


assert set(BUFFERS) == {"activation", "weights", "partial", "output", "layouter", "map", "table"}
