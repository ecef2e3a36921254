"""Run a program: check and place the inputs, execute the trace, return the outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import DynamicCounts
from focusc.isa.emulator.ahead import Followers, Helpers, followers, spare_cores
from focusc.isa.emulator.blas import one_thread_each
from focusc.isa.emulator.inputs import check_inputs
from focusc.isa.emulator.memory import Constants
from focusc.isa.emulator.runs import Steps, execute, runs
from focusc.isa.emulator.state import SicEvent, State, TopkEvent
from focusc.isa.errors import Fault, IsaError
from focusc.isa.host import HostRun
from focusc.isa.insns import INSNS
from focusc.isa.program import Program
from focusc.isa.sequencer import MAX_COMMANDS, MAX_STEPS, expand_chunks

__all__ = ["Emulator", "Run", "Session"]

_EXECUTE: list[Any] = [None] * 256
_COUNT = [0] * 256
_KEPT = 1 << 17
"""Commands (some 300 bytes each) of a trace that is kept from one run to the next."""
for _opcode, _cls in INSNS.items():
    _EXECUTE[_opcode], _COUNT[_opcode] = _cls.meaning(), len(_cls.fields)


@dataclass(frozen=True, slots=True)
class Run:
    """Result of a run: output tensors by name, the recorded unique-vector counts, and how many values of the host's
    segments were beyond the range of what they are stored as."""

    outputs: dict[str, NDArray[Any]]
    counts: DynamicCounts
    clipped: int = 0

    @property
    def trace(self) -> DynamicCounts:
        """The counts, under the name that the timing model uses."""
        return self.counts


@dataclass(frozen=True, slots=True)
class _Chunk:
    """A piece of the trace, ready to execute."""

    pcs: list[int]
    ops: list[int]
    rows: list[list[int]]
    """The resolved fields of each command."""
    tiles: list[list[int]]
    ahead: Followers
    runs: list[Steps]
    """What is executed in one go, unless step by step."""


class Emulator:
    """Executes one program, any number of times. `strict` adds the checks listed in docs/isa.md; results are the same.

    `observe` receives every SicEvent and TopkEvent. `host` runs the segments of a program that has some; without it the
    instruction `host` is a fault. `max_commands` and `max_steps` stop a program that does not end. `helpers` threads
    compute products ahead (default: one for each further core, none if `strict`).
    """

    def __init__(self, program: Program, strict: bool = False,
                 observe: Callable[[SicEvent | TopkEvent], None] | None = None, *, host: HostRun | None = None,
                 helpers: int | None = None, max_commands: int = MAX_COMMANDS, max_steps: int = MAX_STEPS) -> None:
        self.program = program
        self.strict = strict
        self.observe = observe
        self.host = host
        self.helpers = 0 if strict else spare_cores() if helpers is None else helpers
        self.max_commands, self.max_steps = max_commands, max_steps
        if not program.has_constants:
            raise IsaError("program.constants", f"the program was compiled without weights: its {program.const_bytes} "
                           "bytes of constants have no values", hint="`focusc simulate` times it; compile the model "
                           "with its weights to run it")
        self.constants = Constants(program.const)
        self._chunks: list[_Chunk] | None = None

    def run(self, inputs: Mapping[str, Any] | None = None) -> Run:
        """Execute the program on `inputs` (by symbol name); IsaError for wrong inputs, Fault for a wrong program."""
        session = self.session(inputs)
        session.finish()
        return Run(session.outputs(), session.state.counts, session.state.clipped)

    def session(self, inputs: Mapping[str, Any] | None = None) -> Session:
        """A run that can be advanced command by command (for debuggers)."""
        return Session(self, check_inputs(self.program, inputs or {}))

    def chunks(self, state: State) -> Iterator[_Chunk]:
        """The trace, for a run that begins. Control never depends on data: a short trace is kept for later runs."""
        if self._chunks is not None:
            yield from self._chunks
            return
        kept: list[_Chunk] = []
        commands = 0
        for part in expand_chunks(self.program, max_commands=self.max_commands, max_steps=self.max_steps):
            ops = part.op.tolist()
            rows = [row[:_COUNT[op]] for op, row in zip(ops, part.fields.tolist())]
            ahead = followers(part, (len(state.act), len(state.wgt))) if self.helpers else {}
            tiles = part.tiles.tolist()
            joined = [] if self.strict else runs(ops, rows, tiles, state.obuf.nbytes)
            chunk = _Chunk(part.pc.tolist(), ops, rows, tiles, ahead, joined)
            commands += len(part)
            if commands <= _KEPT:
                kept.append(chunk)
            yield chunk
        if commands <= _KEPT:
            self._chunks = kept


class Session:
    """One run in progress. `state` may be inspected between steps; `pc` is the next command's instruction."""

    def __init__(self, emulator: Emulator, inputs: dict[str, NDArray[Any]]) -> None:
        self.program = emulator.program
        self.executed = 0
        self._helpers = emulator.helpers
        state_type: type[State] = State
        if emulator.strict:
            from focusc.isa.emulator.strict import StrictState

            state_type = StrictState
        try:
            self.state = state_type(self.program, emulator.constants, emulator.observe, emulator.host)
        except (MemoryError, ValueError, OverflowError):
            raise IsaError("run.memory", f"an arena of {self.program.arena_bytes:,} bytes does not fit in memory",
                           hint="emulate a smaller model, or simulate from a recorded trace") from None
        for name, data in inputs.items():
            symbol = self.program.symbol(name)
            self.state.put(symbol, data)
            self.state.inputs.append((symbol, data))
            self.state.placed(symbol)
        self._chunks = emulator.chunks(self.state)
        self._pcs: list[int] = []
        self._ops: list[int] = []
        self._rows: list[list[int]] = []
        self._runs: list[Steps] = []
        self._next = 0
        self._done = False
        self._helping: Helpers | None = None

    def _fill(self) -> bool:
        """Fetch the next chunk of the trace; False at the end of the program."""
        chunk = next(self._chunks, None)
        if chunk is None:
            if not self._done:
                self._done = True
                self.state.finish()
            return False
        self._pcs, self._ops, self._rows, self._runs = chunk.pcs, chunk.ops, chunk.rows, chunk.runs
        self._next = 0
        if self._helping is not None:
            self._helping.begin_chunk(chunk.ahead)
        self.state.begin_chunk(chunk.tiles)
        return True

    def peek(self) -> tuple[int, int, list[int]] | None:
        """(pc, opcode, resolved fields) of the next command, or None when the program has ended."""
        if self._next >= len(self._ops) and not self._fill():
            return None
        i = self._next
        return self._pcs[i], self._ops[i], self._rows[i].copy()

    def step(self) -> bool:
        """Execute one command; False when the program has ended."""
        if self.peek() is None:
            return False
        with np.errstate(all="ignore"), one_thread_each():
            self._execute(self._next, self._next + 1)
        return True

    def finish(self) -> None:
        """Execute everything that is left, with helpers for the chunks of the trace that begin here."""
        helpers = Helpers(self._helpers, self.state.mem) if self._helpers else None
        self._helping = self.state.helpers = helpers
        try:
            with np.errstate(all="ignore"), one_thread_each():
                while self._next < len(self._ops) or self._fill():
                    self._execute(self._next, len(self._ops))
        finally:
            self._helping = self.state.helpers = None
            if helpers is not None:
                helpers.stop()

    def _execute(self, first: int, last: int) -> None:
        state, pcs, ops, rows = self.state, self._pcs, self._ops, self._rows
        meaning = _EXECUTE
        strict = state.strict
        i = first
        try:
            if strict:
                for i in range(first, last):
                    op = ops[i]
                    state.pc = pcs[i]
                    state.begin(op, rows[i])
                    meaning[op](state, *rows[i])
                    state.end()
            else:
                start = first
                for run in self._runs:
                    if start <= run.first and run.last <= last:
                        for i in range(start, run.first):
                            state.pc = pcs[i]
                            meaning[ops[i]](state, *rows[i])
                        execute(run.steps, run.values, run.rows, run.block, state.obuf)
                        start = run.last
                for i in range(start, last):
                    state.pc = pcs[i]
                    meaning[ops[i]](state, *rows[i])
        except Fault as fault:
            raise fault.at(pcs[i], self.program.line(pcs[i]), self.program.node(pcs[i])) from None
        except (MemoryError, OverflowError, ValueError) as error:
            # Operands that no array can have; what is checked by name has a fault of its own.
            fault = Fault("run.extent", f"cannot be executed: {error or 'out of memory'}",
                          hint="check extents, strides and addresses")
            raise fault.at(pcs[i], self.program.line(pcs[i]), self.program.node(pcs[i])) from None
        self.executed += last - first
        self._next = last

    def commands(self) -> Iterator[tuple[int, int, list[int]]]:
        """Yield each command before it is executed."""
        while (command := self.peek()) is not None:
            yield command
            self.step()

    def outputs(self) -> dict[str, NDArray[Any]]:
        """Output tensors as they are in memory now: f16 as float16, bf16 as float32, others as they are stored."""
        found = [symbol for symbol in self.program.symbols if symbol.kind == "output"]
        for symbol in found:
            self.state.fetched(symbol)
        return {symbol.name: self.state.tensor(symbol) for symbol in found}
