"""Timing of a program: cycles by engine and by cause, from the hardware description and recorded unique counts.

No data is touched: `simulate` needs the program and, if it concentrates, the counts of a run. The model and what it
approximates are described in docs/timing.md.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import SLOT, DynamicCounts
from focusc.isa.errors import IsaError
from focusc.isa.insns import ENGINES
from focusc.isa.machine import Machine
from focusc.isa.program import Program
from focusc.isa.sequencer import Trace, expand
from focusc.isa.timing_kernel import run
from focusc.isa.timing_ledger import new_ledger
from focusc.isa.timing_rules import Work, lower
from focusc.isa.timing_state import CAUSES, RING, Cause, Misc, Par, State, Time

__all__ = ["ARRAY_MODELS", "CAUSES", "ENGINES", "ArrayModel", "Timing", "simulate"]

ArrayModel = Literal["scalesim", "pipelined"]
ARRAY_MODELS: Final = get_args(ArrayModel)


@dataclass(frozen=True, slots=True)
class Timing:
    """When every command ran. Times in core cycles; arrays have one entry a command of the trace."""

    array: str
    cycles: int
    clock_hz: int
    busy: dict[str, int]
    """Cycles in which each engine worked; the array's without fill and drain."""
    stalls: dict[str, dict[str, int]]
    """By engine and cause; with `busy` they sum to `cycles` for every engine. `issue`: no command at hand."""
    issue: NDArray[np.float64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    span: NDArray[np.float64]
    """By how much a command moved the latest end so far: sums to `cycles`, so it can be summed over source nodes."""
    occupied: NDArray[np.float64]
    """Busy cycles of each command on its engine."""
    scatter_cycles: float
    trace: Trace
    work: Work

    @property
    def time_s(self) -> float:
        """Seconds at the machine's clock."""
        return self.cycles / self.clock_hz


def parameters(machine: Machine, array: str, work: Work) -> NDArray[np.float64]:
    """The kernel's figures, in the order of `Par`."""
    values = {
        Par.RATE: machine.bytes_per_cycle,
        Par.LATENCY: machine.dram.latency_cycles,
        Par.ARRAY_ROWS: machine.array.rows,
        Par.ARRAY_COLS: machine.array.cols,
        Par.OVERHEAD: machine.array.overhead_cycles,
        Par.SKEW: machine.array.skew_cycles,
        Par.PIPELINED: array == "pipelined",
        Par.SCATTER_ROWS: machine.sic.scatter_accumulators / -(-machine.array.cols // machine.sic.scatter_lanes),
        Par.STAGE_ACT: machine.buffers.activation.bytes,
        Par.STAGE_WGT: machine.buffers.weights.bytes,
        Par.CHUNK: work.wgt_chunk,
        Par.DEPTH: machine.queue_depth,
        Par.VECTOR_PIPE: machine.sfu.pipeline_cycles,
        Par.LOAD_COST: 1 / machine.sfu.add,
    }
    return np.array([float(values[par]) for par in Par])


def simulate(program: Program, machine: Machine, counts: DynamicCounts | None = None,
             array: str = "scalesim", *, trace: Trace | None = None) -> Timing:
    """Time a program on a machine.

    `counts` are the unique-vector counts of a run (None for a program that never concentrates); `trace` may give the
    expansion if it is at hand. The machine may differ from the one the program was compiled for, as in a sweep, as long
    as its tiles fit the output buffer. Raises IsaError for counts of another program, a machine that lacks an engine or
    room, and a program that can make no progress.
    """
    if array not in ARRAY_MODELS:
        raise IsaError("timing.array", f"no array model {array!r}", hint="one of " + ", ".join(ARRAY_MODELS))
    trace = expand(program) if trace is None else trace
    if counts is not None:
        counts.check(program, trace)
    extent = trace.tiles[:, 0] + 4 * ((trace.tiles[:, 1] - 1) * trace.tiles[:, 3] + trace.tiles[:, 2])
    if int(extent.max(initial=0)) > machine.buffers.output.bytes:
        raise IsaError("timing.buffer", f"a tile ends at byte {int(extent.max())} of the output buffer, which has "
                       f"{machine.buffers.output.bytes} on {machine.name!r}", hint="compile for this description")
    work = lower(trace, machine, counts)
    state = _state(work, machine, array)
    stuck, now = run(state)
    if stuck >= 0:
        raise IsaError("timing.deadlock", f"no progress from cycle {int(now)}: a queue of {machine.queue_depth} loads "
                       "is full, staging is full, and what would consume it is issued later",
                       where=_where(program, trace, stuck), hint="issue consumers sooner, or raise queue_depth")
    total = round(now)
    busy, stalls = _whole(state, trace, total)
    times = {time.name.lower(): state.times[:, time].copy() for time in (Time.ISSUE, Time.START, Time.END, Time.SPAN)}
    return Timing(array, total, machine.clock_hz, busy, stalls, **times, occupied=state.times[:, Time.WORK].copy(),
                  scatter_cycles=float(state.misc[Misc.SCATTERED]), trace=trace, work=work)


def _where(program: Program, trace: Trace, command: int) -> str:
    pc = int(trace.pc[command])
    return f"command {command} (pc {pc}: {program.insns[pc]})"


def _state(work: Work, machine: Machine, array: str) -> State:
    count, wins = len(work.table), max(len(work.windows.start) - 1, 1)
    items = np.zeros((2, max(len(work.act_items), len(work.wgt_items), 1)), np.int64)
    items[0, :len(work.act_items)], items[1, :len(work.wgt_items)] = work.act_items, work.wgt_items
    times = np.zeros((count, len(Time)))
    times[:, Time.COST] = work.cost
    misc = np.zeros(Misc.SIZE)
    misc[:len(Par)] = parameters(machine, array, work)
    used, buckets = new_ledger()
    return State(work.table, work.unique if len(work.unique) else np.zeros(1, np.int32), items, work.windows.start,
                 work.windows.others, times, misc, np.zeros((2, 6), np.int64), np.zeros((6, RING)), np.zeros((3, wins)),
                 np.zeros((8, machine.queue_depth + 1), np.int64), used, buckets)


def _whole(state: State, trace: Trace, total: int) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """Whole cycles per engine: parts rounded down, what remains of the total is time without a command."""
    work = state.misc[Misc.BUSY:Misc.STALL].copy()
    work[0] = float(trace.slot[-1] + 2) if len(trace) else 1.0  # up to the last command, and `halt`
    waits = state.misc[Misc.STALL:Misc.SIZE].reshape(len(ENGINES), len(CAUSES))
    busy: dict[str, int] = {}
    stalls: dict[str, dict[str, int]] = {}
    for number, engine in enumerate(ENGINES):
        busy[engine] = int(min(work[number] + 1e-6, total))
        stalls[engine] = {cause: int(waits[number, i] + 1e-6) for i, cause in enumerate(CAUSES)}
        stalls[engine]["issue"] = 0
        stalls[engine]["issue"] = total - busy[engine] - sum(stalls[engine].values())
    return busy, stalls


assert SLOT == 32 and CAUSES[Cause.ISSUE] == "issue"
