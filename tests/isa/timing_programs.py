"""Small programs and machines for timing tests."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from focusc.backends.hardware import load_hardware
from focusc.isa import Insn, Program, conc_block
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.insns import CfgLayout, CfgPos, CfgSic, Fence, Halt, LdAct, LdConc, LdWgt, Mma, Sic, St, Tile, VFill
from focusc.isa.machine import Machine
from focusc.isa.timing import Timing, simulate
from tests.isa.helpers import HARDWARE


def machine(base: str = "focus", **changes: Any) -> Machine:
    """A shipped description with some figures changed: `machine(array={"rows": 64, "cols": 16})`."""
    data = load_hardware(base).to_dict()
    for table, values in changes.items():
        if isinstance(values, dict):
            data[table].update(values)
        else:
            data[table] = values
    return Machine.from_dict(data)


def fast(**changes: Any) -> Machine:
    """Focus with a memory that never limits, so that only the engines show."""
    return machine(dram={"bytes_per_s": 1 << 50, "latency_cycles": 0}, **changes)


def program(text: Sequence[Insn], arena: int = 1 << 26) -> Program:
    """A program of some commands; addresses are offsets into an arena without constants."""
    return Program([*text, Halt()], arena_bytes=arena, hardware=HARDWARE)


def gemm(rows: int, k: int, n: int, times: int = 1, *, store: bool = False) -> Program:
    """`times` dense products into one tile."""
    text: list[Insn] = [Tile(t=0, off=0, rows=rows, cols=n, pitch=n)]
    for _ in range(times):
        text += [LdAct(addr=0, rows=rows, cols=k, stride=2 * k), LdWgt(addr=0, k=k, n=n, stride=2 * n), Mma(t=0, k=k)]
    return program([*text, St(a=0, addr=0, stride=2 * n)] if store else text)


def concentrated(rows: int, slots: int, n: int, times: int = 1) -> Program:
    """Gather a tile of `slots` * 32 columns, then `times` products of it with [k x n] weights into another tile."""
    k = 32 * slots
    text: list[Insn] = [
        CfgLayout(f=1, h=1, w=rows, sf=rows, sh=rows, sw=1),
        CfgSic(bf=2, bh=2, bw=2, threshold=0.5),
        CfgPos(addr=0, count=rows, visual_start=0, identity=1),
        Tile(t=0, off=0, rows=rows, cols=k, pitch=k),
        Tile(t=1, off=rows * k * 4, rows=rows, cols=n, pitch=n),
        VFill(d=0, imm=1.0),
        Sic(a=0, addr=0, cap=rows, row0=0),
        Fence(act=1),
    ]
    for _ in range(times):
        text += [
            LdConc(addr=0, rows=rows, slots=slots, cap=rows),
            LdWgt(addr=slots * conc_block(rows), k=k, n=n, stride=2 * n),
            Mma(t=1, k=k),
        ]
    return program(text)


def counts(rows: int, *unique: int) -> DynamicCounts:
    """Recorded counts of one `sic` with the given unique vectors per slot."""
    found = DynamicCounts()
    found.add(np.array(unique, np.int32), 0, rows, rows)
    return found


def array_cycles(timing: Timing) -> int:
    """Cycles that the array is occupied: streaming, filling, draining."""
    return timing.busy["mxu"] + timing.stalls["mxu"]["fill"]


def parts_add_up(timing: Timing) -> bool:
    """Busy and stalled cycles of every engine are >= 0 and sum to the total."""
    return all(
        timing.busy[engine] >= 0
        and min(causes.values()) >= 0
        and timing.busy[engine] + sum(causes.values()) == timing.cycles
        for engine, causes in timing.stalls.items()
    )


__all__ = ["array_cycles", "concentrated", "counts", "fast", "gemm", "machine", "parts_add_up", "program", "simulate"]
