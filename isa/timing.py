"""Timing of a program: cycles by engine and by cause, from the hardware description and recorded unique counts.

No data is touched: `simulate` needs the program and, if it concentrates, the counts of a run. The model and what it
approximates are described in docs/timing.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import SLOT, DynamicCounts
from focusc.isa.errors import IsaError
from focusc.isa.insns import ENGINES
from focusc.isa.machine import Machine
from focusc.isa.program import Program
from focusc.isa.sequencer import NO_REPEATS, Trace, expand, expand_chunks
from focusc.isa.site_counts import SiteCounts
from focusc.isa.timing_distinct import DistinctCommands, weight_widths
from focusc.isa.timing_kernel import finish, run
from focusc.isa.timing_ledger import new_ledger
from focusc.isa.timing_repeats import find_repeats
from focusc.isa.timing_rules import Col, Work, lower, weight_chunk
from focusc.isa.timing_state import (
    CAUSES,
    ITEMS,
    PASSES,
    RING,
    Cause,
    Channel,
    Detail,
    Item,
    Misc,
    Num,
    Par,
    State,
    Tally,
    When,
)
from focusc.isa.timing_steady import new_round, new_steady
from focusc.isa.timing_unique import UniqueFeed

__all__ = ["ARRAY_MODELS", "CAUSES", "ENGINES", "ArrayModel", "Timing", "simulate"]

ArrayModel = Literal["scalesim", "pipelined"]
ARRAY_MODELS: Final = get_args(ArrayModel)
MOST_COMMANDS: Final = 1 << 32
"""Commands and steps that a program timed in pieces may execute: an hour's work or so."""
MOST_STEPS: Final = 1 << 34
Progress = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Timing:
    """When commands ran, in core cycles.

    With `detail` the arrays have one entry a command of the trace. Without it they have one for all commands that do
    the same (a row of `work`, a command of `trace`), and `issue`, `start`, `end` are empty.
    """

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
    node_span: NDArray[np.float64]
    """By source node (the last entry: commands without one): cycles from its first array command to the end of its
    last, over its uninterrupted runs."""
    scatter_cycles: float
    commands: int
    trace: Trace
    work: Work

    @property
    def detail(self) -> bool:
        """Whether every command has its own times."""
        return self.work.tally is None

    @property
    def time_s(self) -> float:
        """Seconds at the machine's clock."""
        return self.cycles / self.clock_hz


def parameters(machine: Machine, array: str) -> NDArray[np.float64]:
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
        Par.CHUNK: weight_chunk(machine),
        Par.DEPTH: machine.queue_depth,
        Par.VECTOR_PIPE: machine.sfu.pipeline_cycles,
        Par.LOAD_COST: 1 / machine.sfu.add,
        Par.PARTIAL: machine.buffers.partial.bytes,
        Par.PARTIAL_ELEMENT: machine.buffers.partial.element_bytes,
        Par.MAP_ELEMENT: machine.buffers.map.element_bytes,
    }
    return np.array([float(values[par]) for par in Par])


def simulate(program: Program, machine: Machine, counts: DynamicCounts | SiteCounts | None = None,
             array: str = "scalesim", *, trace: Trace | None = None, detail: bool = True,
             max_commands: int = MOST_COMMANDS, max_steps: int = MOST_STEPS,
             progress: Progress | None = None) -> Timing:
    """Time a program on a machine.

    `counts` are the unique-vector counts of a run, or counts by site (None for a program that never concentrates). With
    `detail` every command's times are kept, in some hundred bytes each, and `trace` may give the expansion if it is at
    hand. Without it the program is expanded and timed piece by piece, in memory that does not grow with its length, to
    the same cycles; `progress(commands so far)` is called after each piece. The machine may differ from the one the
    program was compiled for, as in a sweep, as long as its tiles fit the output buffer. Raises IsaError for counts of
    another program, a machine that lacks an engine or room, and a program that can make no progress.
    """
    if array not in ARRAY_MODELS:
        raise IsaError("timing.array", f"no array model {array!r}", hint="one of " + ", ".join(ARRAY_MODELS))
    if not detail:
        return _in_pieces(program, machine, counts, array, max_commands, max_steps, progress)
    trace = expand(program) if trace is None else trace
    if isinstance(counts, DynamicCounts):
        counts.check(program, trace)
    _fits(trace.tiles, machine)
    work = lower(trace, machine, counts)
    count = len(trace)
    commands = np.stack([np.arange(count, dtype=np.int64), trace.slot, work.column(Col.UNIQUE)], axis=1)
    clock = _Clock(program, machine, array)
    clock.grow(work, np.zeros((count, len(Detail))))
    clock.run(commands, work.unique, trace)
    return clock.timing(trace, work, count - 1)


def _in_pieces(program: Program, machine: Machine, counts: DynamicCounts | SiteCounts | None, array: str,
               max_commands: int, max_steps: int, progress: Progress | None) -> Timing:
    if isinstance(counts, DynamicCounts):
        counts.check_program(program)

    # a recording has one entry for every partial load that was executed
    repeats = None if isinstance(counts, DynamicCounts) else find_repeats(program)

    def pieces() -> Iterator[Trace]:
        return expand_chunks(program, max_commands=max_commands, max_steps=max_steps, repeats=repeats)

    # a weight slice is as deep as the activation slice that meets it, which may come later
    widths = weight_widths(pieces(), machine) if machine.array.rows != SLOT else None
    kinds, feed, clock = DistinctCommands(machine, widths), UniqueFeed(counts), _Clock(program, machine, array)
    total, last, windows_ = 0, -1, 0
    for part in pieces():
        unique, offsets = feed.take(part)
        commands = kinds.take(part, np.where(offsets >= 0, offsets + total, -1))
        if kinds.window_count > windows_:
            _fits(kinds.window_keys[windows_:kinds.window_count], machine)
            windows_ = kinds.window_count
        clock.grow(kinds.work(clock.state.tally), np.zeros((0, len(Detail))))
        clock.run(commands, unique, part)
        total += len(unique)
        last = int(commands[-1, 0])
        if progress is not None:
            progress(part.first + part.executed)
    feed.finish()
    return clock.timing(kinds.trace(), kinds.work(clock.state.tally), last)


def _fits(tiles: NDArray[np.int64], machine: Machine) -> None:
    """IsaError if a tile ends beyond the output buffer."""
    extent = tiles[:, 0] + 4 * ((tiles[:, 1] - 1) * tiles[:, 3] + tiles[:, 2])
    if int(extent.max(initial=0)) > machine.buffers.output.bytes:
        raise IsaError("timing.buffer", f"a tile ends at byte {int(extent.max())} of the output buffer, which has "
                       f"{machine.buffers.output.bytes} on {machine.name!r}", hint="compile for this description")


class _Clock:
    """The kernel and its state, fed with pieces of a trace."""

    def __init__(self, program: Program, machine: Machine, array: str) -> None:
        self.program, self.machine, self.array = program, machine, array
        misc = np.zeros(Misc.SIZE)
        misc[:len(Par)] = parameters(machine, array)
        misc[Misc.NOW] = -1.0
        num = np.zeros(Num.SIZE, np.int64)
        num[Num.LAST_SLOT] = num[Num.NODE] = -1
        transfers, booked = new_ledger()
        none = np.zeros((0, 0), np.int64)
        self.seen = 0
        self.index = np.where(program.debug_index >= 0, program.debug_index, len(program.debug)).astype(np.int64)
        self.state = State(
            none, np.zeros(0), np.zeros(0, np.int64), none, NO_REPEATS, new_steady(), new_round(1),
            np.zeros(0, np.int32), np.zeros(1, np.int64),
            np.zeros(0, np.int32), misc, num, np.zeros((2, 6), np.int64), np.zeros((2, ITEMS, len(Item)), np.int64),
            np.zeros((2, ITEMS, len(When))), np.zeros((6, RING)), np.zeros((3, PASSES)), np.zeros((3, 1)),
            np.zeros((8, machine.queue_depth)), np.zeros(8, np.int64), transfers, booked, np.zeros((0, 2)),
            np.zeros((0, len(Tally)), np.int64), np.zeros(len(program.debug) + 1), np.zeros((0, len(Detail))))

    def grow(self, work: Work, detail: NDArray[np.float64]) -> None:
        """Take the work table as it is now, and make room for its rows and windows."""
        s, rows = self.state, len(work.table)
        wins = max(len(work.windows.start) - 1, 1)

        def wider(array: NDArray[Any], size: int, axis: int) -> NDArray[Any]:
            more = list(array.shape)
            more[axis] = size - more[axis]
            return np.concatenate([array, np.zeros(more, array.dtype)], axis) if more[axis] else array

        self.state = s._replace(
            table=work.table, cost=work.cost, node=self.index[work.pc], of_start=work.windows.start,
            others=work.windows.others, win=wider(s.win, wins, 1),
            round=s.round if s.win.shape[1] == wins else new_round(wins), sums=wider(s.sums, rows, 0),
            tally=wider(s.tally, rows, 0), detail=detail)

    def run(self, commands: NDArray[np.int64], unique: NDArray[np.int32], part: Trace) -> None:
        """Time a piece. `unique` are its own counts; those of loads that are still open are kept from before."""
        s = self.state
        num = s.num
        ring = s.item[0, np.arange(num[Num.POPPED], s.channel[0, Channel.ISSUED]) & (ITEMS - 1), Item.OFFSET]
        known = int(num[Num.UNIQUE]) + len(s.unique)
        oldest = int(ring[ring >= 0].min(initial=known))
        kept = s.unique[oldest - int(num[Num.UNIQUE]):]
        num[Num.UNIQUE], num[Num.FIRST] = oldest, self.seen
        self.state = s._replace(commands=commands, repeats=part.repeats, unique=np.concatenate([kept, unique]))
        stuck = int(run(self.state))
        if stuck >= 0:
            pc = int(part.pc[stuck])
            raise IsaError("timing.deadlock", f"no progress from cycle {int(s.misc[Misc.NOW])}: a queue of "
                           f"{self.machine.queue_depth} loads is full, staging is full, and what would consume it is "
                           "issued later", where=f"command {part.first + stuck} (pc {pc}: {self.program.insns[pc]})",
                           hint="issue consumers sooner, or raise queue_depth")
        self.seen += part.executed

    def timing(self, trace: Trace, work: Work, last: int) -> Timing:
        """The result, after the last command (of row `last`)."""
        s = self.state
        total = round(float(finish(s, last)))
        busy, stalls = self._whole(total)
        detail = s.detail
        one = work.tally is None
        span, occupied = (detail[:, Detail.SPAN], detail[:, Detail.WORK]) if one else (s.sums[:, 0], s.sums[:, 1])
        return Timing(self.array, total, self.machine.clock_hz, busy, stalls, detail[:, Detail.ISSUE].copy(),
                      detail[:, Detail.START].copy(), detail[:, Detail.END].copy(), span.copy(), occupied.copy(),
                      s.spans, float(s.misc[Misc.SCATTERED]), self.seen, trace, work)

    def _whole(self, total: int) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
        """Whole cycles per engine: parts rounded down, what remains of the total is time without a command."""
        s = self.state
        work = s.misc[Misc.BUSY:Misc.STALL].copy()
        work[0] = float(s.num[Num.LAST_SLOT] + 2) if self.seen else 1.0  # up to the last command, and `halt`
        waits = s.misc[Misc.STALL:Misc.SIZE].reshape(len(ENGINES), len(CAUSES))
        busy: dict[str, int] = {}
        stalls: dict[str, dict[str, int]] = {}
        for number, engine in enumerate(ENGINES):
            busy[engine] = int(min(work[number] + 1e-6, total))
            stalls[engine] = {cause: int(waits[number, i] + 1e-6) for i, cause in enumerate(CAUSES)}
            stalls[engine]["issue"] = 0
            stalls[engine]["issue"] = total - busy[engine] - sum(stalls[engine].values())
        return busy, stalls


assert SLOT == 32 and CAUSES[Cause.ISSUE] == "issue"
