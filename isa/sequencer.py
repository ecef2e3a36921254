"""The sequencer: expand a program's loops and scalar arithmetic into the resolved trace of its commands.

Control never depends on data, so this happens once; the functional emulator and the timing model both consume the
trace. Compiled by numba; `expand_chunks` bounds the memory that a long program needs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import Fault
from focusc.isa.fields import STREAM, R
from focusc.isa.insns import INSNS, Halt, Loop
from focusc.isa.insns import sequencer as seq
from focusc.isa.predecode import MAX_NEST, F, predecode
from focusc.isa.program import Program

__all__ = ["F", "MAX_COMMANDS", "MAX_NEST", "MAX_STEPS", "MAX_TRACE_BYTES", "NO_REPEATS", "Repeats", "Trace",
           "expand", "expand_chunks", "no_repeats"]

MAX_COMMANDS: Final = 1 << 25
"""Commands that a program may execute unless the caller allows more: a few words of text can ask for any number."""
MAX_STEPS: Final = 1 << 28
"""Sequencer steps, control instructions included."""
MAX_TRACE_BYTES: Final = 1 << 31
"""Bytes of a trace that `expand` holds at once."""
_QUANTUM = 1 << 23
"""Steps between returns to the interpreter (some tenths of a second), so that a keyboard interrupt is served."""
_LEFT_OUT = 1 << 20
"""Commands that a chunk may leave out: so many the timing kernel walks in one call if the loops never settle."""
_KIND: Final = {"reg": 0, "ext": 1, "sext": 0, "addr": 0, "simm": 0, "uimm": 0, "f32": 0, "enum": 0,
                "flag": 0, "tile": 2}
_HALTED, _FULL, _NEGATIVE, _NO_TILE, _COMMAND_LIMIT, _STEP_LIMIT, _TRAP, _BAD_TILE = range(8)
_PC, _STEPS, _COMMANDS, _DEPTH, _FIELD, _TILES, _REPEATS = range(7)
NO_REPEATS: Final = np.zeros((0, 4), np.int64)


@dataclass(frozen=True, slots=True)
class Repeats:
    """Loops whose rounds are alike as long as some operands are, by instruction: whether it is such a `loop`; the next
    instruction (itself perhaps) that a round whose commands are not wanted must execute all the same; and [n, F] which
    operands must be as in the first round."""

    loop: NDArray[np.bool_]
    following: NDArray[np.int64]
    watch: NDArray[np.bool_]


def no_repeats(count: int) -> Repeats:
    """Every round of every loop is wanted."""
    return Repeats(np.zeros(count, np.bool_), np.arange(count, dtype=np.int64), np.zeros((count, F), np.bool_))


@dataclass(frozen=True, slots=True)
class Trace:
    """Commands in issue order, operands resolved; control instructions are gone, `cfg.*`, `fence` and `host` are kept.

    `fields[i, j]` is the j-th declared field of the instruction class: registers and extents by value, addresses in
    bytes, float32 immediates as their bits, enums as their number, tiles as a row of `tiles` (-1: the stream head).
    `slot` is the number of sequencer steps before the command was issued, counting control instructions.
    """

    pc: NDArray[np.int32]
    op: NDArray[np.uint8]
    fields: NDArray[np.int64]
    tiles: NDArray[np.int64]
    """[m, 4]: byte offset, rows, cols, pitch of each executed `tile`."""
    slot: NDArray[np.int64]
    first: int = 0
    """Number of the first command (for chunks)."""
    repeats: NDArray[np.int64] = field(default_factory=lambda: NO_REPEATS)
    """[k, 4], for `expand_chunks` with `repeats`: first command of a round, commands of it, how many like rounds follow
    that are left out, sequencer steps of each."""

    def __len__(self) -> int:
        return len(self.pc)

    @property
    def executed(self) -> int:
        """Commands, with those of the rounds that are left out."""
        return len(self.pc) + int((self.repeats[:, 1] * self.repeats[:, 2]).sum())

    def place(self, command: int) -> str:
        """A command in messages."""
        return f"command {self.first + command} (pc {int(self.pc[command])})"

    @property
    def nbytes(self) -> int:
        """Bytes of the arrays."""
        return sum(array.nbytes for array in (self.pc, self.op, self.fields, self.tiles, self.slot))


def _tables() -> tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.uint8]]:
    """By opcode: field kinds, number of fields, whether the command appears in the trace."""
    kinds, counts, emit = np.zeros((256, F), np.uint8), np.zeros(256, np.int64), np.zeros(256, np.uint8)
    for opcode, cls in INSNS.items():
        counts[opcode] = len(cls.fields)
        emit[opcode] = cls.engine != "seq" or cls.mnemonic.startswith("cfg.") or cls.mnemonic in ("fence", "host")
        for column, item in enumerate(cls.fields.values()):
            kinds[opcode, column] = _KIND[item.kind]
    return kinds, counts, emit


_KINDS, _COUNTS, _EMIT = _tables()
_TILE, _LOOP, _ENDL, _HALT, _TRAP_OP = (c.opcode for c in (seq.Tile, Loop, seq.Endl, Halt, seq.Trap))
_PLAIN, _FIRST, _COUNTED = range(3)
_LI, _MOV, _ADD, _ADDI, _SUB, _MUL, _MULI, _MIN, _MAX, _DIVI = (
    c.opcode for c in (seq.Li, seq.Mov, seq.Add, seq.Addi, seq.Sub, seq.Mul, seq.Muli, seq.Min, seq.Max,
    seq.Divi))


@nb.njit(cache=True)
def _step(op: Any, regs: Any, imms: Any, match: Any, kinds: Any, counts: Any, emit: Any, state: Any, scalars: Any,
          loops: Any, desc: Any, memo: Any, alike: Any, following: Any, watch: Any, firsts: Any, out_repeats: Any,
          out_pc: Any, out_op: Any, out_fields: Any, out_slot: Any, tiles: Any, max_commands: int, max_steps: int,
          quantum: int, most_left_out: int) -> tuple[int, int]:
    """Run until the chunk is full, the program halts or a fault; returns (status, commands written).

    After `quantum` steps, or `most_left_out` commands left out, the chunk counts as full. Where a loop is `alike` a
    round is written (`_FIRST`) and the rounds after it are counted (`_COUNTED`), executing what `following` names,
    until an operand of `watch` differs: that round is taken back and is a first one again.
    """
    pc, steps, depth, ntiles = state[_PC], state[_STEPS], state[_DEPTH], state[_TILES]
    written, repeats, left_out = 0, 0, 0
    mode, begin, begin_steps, length, rounds = _PLAIN, 0, 0, 0, 0
    before, before_steps = np.zeros(64, np.int64), 0
    pause = steps + quantum
    values = np.zeros(kinds.shape[1], np.int64)
    status = -1
    while status < 0:
        if mode == _COUNTED:
            steps += following[pc] - pc
            pc = following[pc]
        code = op[pc]
        for j in range(counts[code]):
            value = scalars[regs[pc, j]] + imms[pc, j]
            if kinds[code, j] == 1 and value < 0:
                status = _NEGATIVE
                state[_FIELD] = j
                break
            values[j] = value
        if status >= 0:
            break
        if steps >= max_steps:
            status = _STEP_LIMIT
            break
        if steps >= pause and mode == _PLAIN:
            status = _FULL
            break
        fresh = False  # whether a round begins that may be the first of like ones
        if mode == _COUNTED and (emit[code] or code == _TILE):
            differs = False
            for j in range(counts[code]):
                differs = differs or (watch[pc, j] and values[j] != firsts[pc, j])
            if differs:
                scalars[:] = before
                steps, pc, mode = before_steps, loops[depth - 1, 1], _PLAIN
                repeats -= rounds == 0
                fresh = True
        elif emit[code]:
            if written == len(out_pc):
                status = _FULL
                break
            if state[_COMMANDS] + written + left_out >= max_commands:
                status = _COMMAND_LIMIT
                break
            for j in range(counts[code]):
                value = values[j]
                if kinds[code, j] == 2:
                    if value == STREAM:
                        value = -1
                    else:
                        value = desc[value]
                        if value < 0:
                            status = _NO_TILE
                            state[_FIELD] = j
                            break
                out_fields[written, j] = value
            if status >= 0:
                break
            if mode == _FIRST:
                firsts[pc, :] = values
            out_pc[written] = pc
            out_op[written] = code
            out_slot[written] = steps
            written += 1
        elif code == _TILE:
            known = memo[pc]
            if not (known >= 0 and tiles[known, 0] == values[1] and tiles[known, 1] == values[2]
                    and tiles[known, 2] == values[3] and tiles[known, 3] == values[4]):
                if values[1] % 64 or values[2] == 0 or values[3] == 0 or values[4] < values[3]:
                    status = _BAD_TILE
                    break
                if ntiles == len(tiles):
                    status = _FULL
                    break
                known = ntiles
                ntiles += 1
                for j in range(4):
                    tiles[known, j] = values[j + 1]
                memo[pc] = known
            desc[values[0]] = known
            if mode == _FIRST:
                firsts[pc, :] = values
        elif code == _LOOP:
            if values[0] == 0:
                pc = match[pc]
            else:
                loops[depth, 0] = values[0]
                loops[depth, 1] = pc
                depth += 1
                fresh = True
        elif code == _ENDL:
            loops[depth - 1, 0] -= 1
            left = loops[depth - 1, 0]
            if mode == _FIRST:
                mode, length, rounds = _PLAIN, written - begin, 0
                if length > 0:
                    mode = _COUNTED
                    out_repeats[repeats, 0], out_repeats[repeats, 1] = begin, length
                    out_repeats[repeats, 2], out_repeats[repeats, 3] = 0, steps + 1 - begin_steps
                    repeats += 1
            elif mode == _COUNTED:
                rounds += 1
                out_repeats[repeats - 1, 2] = rounds
                left_out += length
                if left_out >= most_left_out:
                    pause = steps
                if state[_COMMANDS] + written + left_out > max_commands:
                    status = _COMMAND_LIMIT
                    break
            if mode == _COUNTED and (left == 0 or steps >= pause):
                mode = _PLAIN
                repeats -= rounds == 0
            if left == 0:
                depth -= 1
            else:
                pc = loops[depth - 1, 1]
                fresh = mode == _PLAIN
            if mode == _COUNTED:
                before[:] = scalars
                before_steps = steps
        elif code == _HALT:
            status = _HALTED
            break
        elif code == _TRAP_OP:
            status = _TRAP
            break
        elif counts[code] > 0:
            # The destination register is the first field: its number is in `regs`, since it decodes as a register.
            result = values[1]
            if code in (_ADD, _ADDI):
                result = values[1] + values[2]
            elif code == _SUB:
                result = values[1] - values[2]
            elif code in (_MUL, _MULI):
                result = values[1] * values[2]
            elif code == _MIN:
                result = min(values[1], values[2])
            elif code == _MAX:
                result = max(values[1], values[2])
            elif code == _DIVI:
                result = values[1] // values[2] if values[2] > 0 else 0
            if regs[pc, 0] > 0:
                scalars[regs[pc, 0]] = result
        if fresh and alike[pc] and loops[depth - 1, 0] > 2 and repeats < len(out_repeats) and steps < pause:
            ahead = match[pc] - pc
            if written + ahead <= len(out_pc) and ntiles + ahead <= len(tiles):
                mode, begin, begin_steps = _FIRST, written, steps + 1
        pc += 1
        steps += 1
    state[_PC], state[_STEPS], state[_DEPTH], state[_TILES] = pc, steps, depth, ntiles
    state[_COMMANDS] += written + left_out
    state[_REPEATS] = repeats
    return status, written


def expand_chunks(program: Program, chunk: int = 1 << 16, *, max_commands: int = MAX_COMMANDS,
                  max_steps: int = MAX_STEPS, repeats: Repeats | None = None) -> Iterator[Trace]:
    """Traces of at most `chunk` commands; tile numbers are local to a chunk. Fault for what cannot be executed.

    With `repeats` one round stands for those after it that are alike, see `Trace.repeats`.
    """
    pre = predecode(program)
    alike = repeats or no_repeats(len(pre.op))
    most = chunk // 2 if repeats else 0
    state, scalars = np.zeros(8, np.int64), np.zeros(64, np.int64)
    loops, desc = np.zeros((MAX_NEST, 2), np.int64), np.full(32, -1, np.int64)
    memo, firsts = np.full(len(pre.op), -1, np.int64), np.zeros((len(pre.op), F), np.int64)
    carried = np.zeros((0, 4), np.int64)
    while True:
        out_pc, out_op = np.empty(chunk, np.int32), np.empty(chunk, np.uint8)
        out_repeats = np.zeros((most, 4), np.int64)
        out_fields, out_slot = np.zeros((chunk, F), np.int64), np.empty(chunk, np.int64)
        tiles = np.zeros((chunk + 32, 4), np.int64)
        tiles[:len(carried)] = carried
        state[_TILES] = len(carried)
        first = int(state[_COMMANDS])
        status, written = _step(pre.op, pre.regs, pre.imms, pre.match, _KINDS, _COUNTS, _EMIT, state, scalars, loops,
                                desc, memo, alike.loop, alike.following, alike.watch, firsts, out_repeats, out_pc,
                                out_op, out_fields, out_slot, tiles, max_commands, max_steps, _QUANTUM,
                                _LEFT_OUT)
        if written:
            yield Trace(out_pc[:written], out_op[:written], out_fields[:written], tiles[:int(state[_TILES])],
                        out_slot[:written], first, out_repeats[:int(state[_REPEATS])])
        if status == _HALTED:
            return
        if status != _FULL:
            raise _fault(program, status, int(state[_PC]), int(state[_FIELD]), scalars, (max_commands, max_steps))
        # The next chunk starts its tile table with the windows that are still defined.
        live = np.flatnonzero(desc >= 0)
        carried = tiles[desc[live]].copy()
        desc[live] = np.arange(len(live))
        memo[:] = -1


def expand(program: Program, *, max_commands: int = MAX_COMMANDS, max_steps: int = MAX_STEPS,
           max_bytes: int = MAX_TRACE_BYTES) -> Trace:
    """The whole trace of a program (about 130 bytes a command); Fault(`run.trace`) beyond `max_bytes`."""
    parts: list[Trace] = []
    held = 0
    for part in expand_chunks(program, max_commands=max_commands, max_steps=max_steps):
        held += part.nbytes
        if held > max_bytes:
            raise Fault("run.trace", f"the trace of the program takes more than {max_bytes:,} bytes, after "
                        f"{part.first + len(part):,} commands", hint="check the trip counts of its loops, or raise "
                        "max_bytes")
        parts.append(part)
    if not parts:
        return Trace(np.zeros(0, np.int32), np.zeros(0, np.uint8), np.zeros((0, F), np.int64),
                     np.zeros((0, 4), np.int64), np.zeros(0, np.int64))
    if len(parts) == 1:
        return parts[0]
    start = 0
    for part in parts:
        for opcode in np.unique(part.op).tolist():
            for column in np.flatnonzero(_KINDS[opcode] == 2).tolist():
                rows = np.flatnonzero(part.op == opcode)
                value = part.fields[rows, column]
                part.fields[rows, column] = np.where(value >= 0, value + start, value)
        start += len(part.tiles)
    return Trace(np.concatenate([part.pc for part in parts]), np.concatenate([part.op for part in parts]),
                 np.concatenate([part.fields for part in parts]), np.concatenate([part.tiles for part in parts]),
                 np.concatenate([part.slot for part in parts]))


def _fault(program: Program, status: int, pc: int, column: int, scalars: NDArray[np.int64],
           limits: tuple[int, int]) -> Fault:
    insn = program.insns[pc]
    names = list(insn.fields)
    if status == _NEGATIVE:
        value = getattr(insn, names[column])
        fault = Fault("run.negative", f"{names[column]} is {int(scalars[value.index]) + value.offset}, "
                      "expected a number >= 0")
    elif status == _NO_TILE:
        fault = Fault("run.tile", f"tile t{getattr(insn, names[column])} is used but not defined",
                      hint="execute `tile` for it first")
    elif status == _TRAP:
        fault = Fault("run.trap", f"trap {program.text[pc, 0] >> np.uint64(8)} was reached")
    elif status == _BAD_TILE:
        values = [getattr(insn, n) for n in names[1:]]
        shown = [int(scalars[v.index]) + v.offset if isinstance(v, R) else v for v in values]
        fault = Fault("run.window", "tile window off={}, rows={}, cols={}, pitch={}".format(*shown),
                      hint="off is a multiple of 64, rows and cols are not 0, pitch is at least cols")
    else:
        what = f"{limits[0]:,} commands" if status == _COMMAND_LIMIT else f"{limits[1]:,} steps of the sequencer"
        option = "max_commands" if status == _COMMAND_LIMIT else "max_steps"
        fault = Fault("run.runaway", f"the program executes more than {what}",
                      hint=f"check the trip counts of its loops, or raise {option}")
    return fault.at(pc, program.line(pc), program.node(pc))
