"""Distinct commands: a trace in pieces as numbers of commands that do the same, each lowered once.

A loop's rounds differ in addresses, which no cycle depends on, and now and then in an extent. So a program of a hundred
million commands has some thousand distinct ones. Two commands are the same if they are executions of one instruction
with equal operands (those that a timing rule reads), under equal configuration, fed by the same distinct loads.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import SLOT
from focusc.isa.errors import IsaError
from focusc.isa.insns import BY_MNEMONIC, INSNS
from focusc.isa.machine import SFU_UNITS, Machine
from focusc.isa.predecode import F
from focusc.isa.sequencer import Trace
from focusc.isa.timing_rules import CONFIGS, Col, Work, complete, describe, stream_operands, weight_chunk
from focusc.isa.timing_state import ITEMS
from focusc.isa.timing_streams import Windows, windows

__all__ = ["UNREAD", "DistinctCommands", "weight_widths"]

Ints = NDArray[np.int64]
compiled: Final[Any] = nb.njit(cache=True)

UNREAD: Final = {
    "ld.act": ("stride",), "ld.conc": ("cap", "row0"), "ld.idx": ("stride", "limit"), "ld.patch": ("row0",),
    "ld.wgt": ("stride", "trans"), "v.mask": ("row0", "col0", "window", "inf"), "sic": ("cap", "site"),
    "sec.fold": ("col0",), "st": ("stride",), "st.idx": ("stride", "limit"),
}
"""Operands that no timing rule reads, besides addresses; to leave one out here costs time, nothing else."""
_CONFIGURED: Final = {
    "sic": ("cfg.layout", "cfg.sic", "cfg.pos"), "ld.patch": ("cfg.conv.in",), "sec.topk": ("sec.init",),
}
"""The configuration that a rule reads (`Lowering.config`)."""
_SKIP, _VALUE, _TILE = 0, 1, 2
_NO_STREAM, _LOADS, _WEIGHTS, _MMA, _MAYBE, _LOADS_TILE = range(6)
_KEY: Final = 1 + F + len(CONFIGS) + 4
"""pc, operands, configuration, feeders of a and b, of the weight, lead."""
_ADDRESS, _COUNT, _PENDING, _SEEN, _ACTS, _ACTS_TAKEN, _WGTS, _WGTS_TAKEN = range(8)
_GOOD, _NO_ACT, _NO_WEIGHT, _OVERFULL = range(4)


def _tables() -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.int8], NDArray[np.int8], NDArray[np.uint8]]:
    """By opcode: role of each field; what it does with streams; fields that may name the stream head; number of the
    configuration that it is; configurations that it reads."""
    role, stream = np.zeros((256, F), np.uint8), np.zeros(256, np.uint8)
    heads, config = np.full((256, 2), -1, np.int8), np.full(256, -1, np.int8)
    reads = np.zeros((256, len(CONFIGS)), np.uint8)
    for opcode, cls in INSNS.items():
        for column, (name, item) in enumerate(cls.fields.items()):
            skipped = item.kind == "addr" or name in UNREAD.get(cls.mnemonic, ())
            role[opcode, column] = _SKIP if skipped else _TILE if item.kind == "tile" else _VALUE
        for place, name in enumerate(stream_operands(cls)):
            heads[opcode, place] = list(cls.fields).index(name)
        kinds = {"lda": _LOADS, "ldw": _WEIGHTS, "mxu": _MMA, "vec": _MAYBE, "st": _MAYBE}
        stream[opcode] = _LOADS_TILE if cls.mnemonic == "v.ld" else kinds.get(cls.engine, _NO_STREAM)
        if cls.mnemonic in CONFIGS:
            config[opcode] = CONFIGS.index(cls.mnemonic)
        for name in _CONFIGURED.get(cls.mnemonic, ()):
            reads[opcode, CONFIGS.index(name)] = 1
    return role, stream, heads, config, reads


_ROLE, _STREAM, _HEADS, _CONFIG, _READS = _tables()
_POS, _TOPK, _SIC, _FWD = (BY_MNEMONIC[name].opcode for name in ("cfg.pos", "sec.topk", "sic", "fwd"))
_POS_ADDR, _POS_COUNT, _POS_IDENTITY = (list(BY_MNEMONIC["cfg.pos"].fields).index(n) for n in
                                        ("addr", "count", "identity"))


class _Kind(Trace):
    """One command of each kind, in order of first appearance."""

    __slots__ = ()

    def place(self, command: int) -> str:
        return f"pc {int(self.pc[command])}"


class DistinctCommands:
    """Collects the distinct commands of a trace piece by piece, and keeps their work table.

    `widths`, if given, says for every weight load in turn how deep its slices are (`weight_widths`); else all are as
    deep as the array.
    """

    def __init__(self, machine: Machine, widths: NDArray[np.int64] | None = None) -> None:
        self.machine = machine
        self.chunk = weight_chunk(machine)
        self.widths = widths if widths is not None else np.full(1, machine.array.rows, np.int64)
        self.count = 0
        self.keys = np.zeros((1 << 12, _KEY), np.int64)
        self.slots = np.full(1 << 14, -1, np.int64)
        self.window_keys = np.zeros((1 << 10, 4), np.int64)
        self.window_slots = np.full(1 << 12, -1, np.int64)
        self.window_count = 0
        self.state = np.zeros(8, np.int64)
        self.config = np.full(len(CONFIGS), -1, np.int64)
        self.fifo = np.zeros((2, ITEMS, 2), np.int64)
        self.pc, self.op = np.zeros(0, np.int32), np.zeros(0, np.uint8)
        self.fields = np.zeros((0, F), np.int64)
        self.configured = np.zeros((0, len(CONFIGS)), np.int64)
        self.windows = windows(np.zeros((0, 4), np.int64))
        self.table = np.zeros((0, len(Col)), np.int64)
        self.cost, self.uses = np.zeros(0), np.zeros((0, len(SFU_UNITS)), np.int64)

    def take(self, part: Trace, offsets: Ints) -> Ints:
        """[n, 3]: kind of each command, sequencer steps before it, offset of its unique counts.

        `offsets` has those of `sic` and `ld.conc`; an `mma` gets that of the load that feeds it. IsaError as `lower`.
        """
        window = self._intern_windows(part.tiles)
        self._room(len(part))
        commands = np.zeros((len(part), 3), np.int64)
        commands[:, 1], commands[:, 2] = part.slot, offsets
        fresh = np.zeros(len(part), np.int64)
        before = self.count
        status, at, self.count = _classify(
            part.pc, part.op, part.fields, window, commands, _ROLE, _STREAM, _HEADS, _CONFIG, _READS, self.state,
            self.config, self.fifo, self.widths, self.keys, self.slots, self.count, fresh)
        if status != _GOOD:
            what = "weight" if status == _NO_WEIGHT else "activation"
            text = (f"takes from the {what} stream before the load that would feed it is issued"
                    if status != _OVERFULL else f"more than {ITEMS} stream items are loaded and not taken")
            raise IsaError("timing.stream", text, part.place(int(at)))
        if self.count > before:
            self._lower(part, fresh[:self.count - before], window, before)
        return commands

    def work(self, tally: Ints) -> Work:
        """The work table of all kinds so far, with the sums over their executions."""
        return Work(self.table, self.cost, self.uses, np.zeros(0, np.int32), self.windows, self.pc, self.chunk, tally)

    def trace(self) -> Trace:
        """One command of each kind, with the operands of its first execution; tiles are windows."""
        tiles = self.window_keys[:self.window_count]
        return _Kind(self.pc, self.op, self.fields, tiles, np.zeros(len(self.pc), np.int64))

    def _intern_windows(self, tiles: Ints) -> Ints:
        """Number of the distinct window of each row."""
        need = self.window_count + len(tiles)
        if need > len(self.window_keys):
            grown = np.zeros((2 * need, 4), np.int64)
            grown[:self.window_count] = self.window_keys[:self.window_count]
            self.window_keys = grown
        if 2 * need > len(self.window_slots):
            self.window_slots = np.full(_power(4 * need), -1, np.int64)
            _rehash(self.window_keys, self.window_count, self.window_slots)
        numbers = np.empty(len(tiles), np.int64)
        before = self.window_count
        self.window_count = _intern(tiles, self.window_keys, self.window_slots, self.window_count, numbers)
        if self.window_count > before:
            known = self.window_keys[:self.window_count]
            found = windows(known)  # numbers distinct windows in another order
            self.windows = _in_order(found)
        return numbers

    def _room(self, more: int) -> None:
        need = self.count + more
        if need > len(self.keys):
            grown = np.zeros((2 * need, _KEY), np.int64)
            grown[:self.count] = self.keys[:self.count]
            self.keys = grown
        if 2 * need > len(self.slots):
            self.slots = np.full(_power(4 * need), -1, np.int64)
            _rehash(self.keys, self.count, self.slots)

    def _lower(self, part: Trace, fresh: Ints, window: Ints, before: int) -> None:
        """Apply the rules to kinds seen for the first time, at commands `fresh` of the part."""
        keys = self.keys[before:self.count]
        fields = part.fields[fresh]
        op = part.op[fresh]
        for opcode in np.unique(op).tolist():
            rows = np.flatnonzero(op == opcode)
            for column in np.flatnonzero(_ROLE[opcode] == _TILE).tolist():
                value = fields[rows, column]
                fields[rows, column] = np.where(value >= 0, window[np.maximum(value, 0)], -1)
        self.pc = np.concatenate([self.pc, part.pc[fresh]])
        self.op = np.concatenate([self.op, op])
        self.fields = np.concatenate([self.fields, fields])
        self.configured = np.concatenate([self.configured, keys[:, 1 + F:1 + F + len(CONFIGS)]])
        # a configuration command may have come long before: it is among the kinds, so rules see all of them
        trace = self.trace()
        low = _described(trace, self.machine, self.windows, self.configured, np.arange(before, self.count))
        self.table = np.concatenate([self.table, low.table])
        self.cost, self.uses = np.concatenate([self.cost, low.cost]), np.concatenate([self.uses, low.uses])
        rows = np.arange(before, self.count)
        feeds = keys[:, 1 + F + len(CONFIGS):]
        self.table[rows, Col.FEED_A], self.table[rows, Col.FEED_B] = feeds[:, 0], feeds[:, 1]
        stream = _STREAM[op]
        conc = np.array([INSNS[int(code)].mnemonic in ("ld.conc", "sic") for code in op], np.bool_)
        self.table[rows, Col.UNIQUE] = np.where(conc, 0, -1)
        mma, weight = rows[stream == _MMA], rows[stream == _WEIGHTS]
        self.table[mma, Col.FEED_W] = feeds[stream == _MMA, 2]
        self.table[weight, Col.WIDTH] = feeds[stream == _WEIGHTS, 2]
        reader = (op == _SIC) | (op == _TOPK)
        self.table[rows[reader], Col.LEAD] = feeds[reader, 3]
        complete(self.table, rows, self.chunk, trace)


def _described(trace: Trace, machine: Machine, found: Windows, configured: Ints, rows: Ints) -> Any:
    """`describe` of some rows; the configuration that they name may be any row."""
    some = _Kind(trace.pc[rows], trace.op[rows], trace.fields[rows], trace.tiles, trace.slot[rows])
    named = np.unique(configured[rows])
    named = named[named >= 0]
    if not named.size:
        return describe(some, machine, found, configured[rows])
    # the commands named come behind the rows, so that the rules find their operands; their own results are dropped
    both = np.concatenate([rows, named])
    wide = _Kind(trace.pc[both], trace.op[both], trace.fields[both], trace.tiles, trace.slot[both])
    mapped = np.where(configured[both] >= 0, len(rows) + np.searchsorted(named, configured[both]), -1)
    low = describe(wide, machine, found, mapped)
    low.table, low.cost, low.uses = low.table[:len(rows)], low.cost[:len(rows)], low.uses[:len(rows)]
    return low


def _in_order(found: Windows) -> Windows:
    """Windows numbered like the rows they were found from (which are all distinct)."""
    count = len(found.of)
    back = np.empty(count, np.int64)
    back[found.of] = np.arange(count)
    lengths = np.diff(found.start)[found.of]
    start = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    ramp = np.arange(int(start[-1])) - np.repeat(start[:-1], lengths)
    index = np.repeat(found.start[:-1][found.of], lengths) + ramp
    others = back[found.others[index]].astype(np.int32)
    return Windows(np.arange(count, dtype=np.int32), start, others, found.elements[found.of])


def weight_widths(parts: Iterable[Trace], machine: Machine) -> Ints:
    """How deep the slices of every weight load are, in order: as those of the activation that meets it.

    Needed where slots and array rows differ, since a weight load may go out before the activation that decides.
    """
    conc: list[NDArray[np.bool_]] = []
    met: list[Ints] = []
    weights = taken = 0
    for part in parts:
        pushes = np.isin(_STREAM[part.op], (_LOADS,)) | (part.op == _FWD)
        conc.append(part.op[pushes] == BY_MNEMONIC["ld.conc"].opcode)
        takes = np.zeros((len(part), 2), np.int64)
        mma = _STREAM[part.op] == _MMA
        takes[mma | (_STREAM[part.op] == _LOADS_TILE), 0] = 1
        for column in range(2):
            head = _HEADS[part.op, column].astype(np.int64)
            rows = np.flatnonzero((_STREAM[part.op] == _MAYBE) & (head >= 0))
            takes[rows, column] = part.fields[rows, head[rows]] < 0
        number = taken + np.cumsum(takes.reshape(-1)).reshape(takes.shape) - 1
        taken += int(takes.sum())
        met.append(number[mma, 0])
        weights += int((_STREAM[part.op] == _WEIGHTS).sum())
    widths = np.full(max(weights, 1), machine.array.rows, np.int64)
    if met and conc:
        kinds, at = np.concatenate(conc), np.concatenate(met)[:weights]
        at = np.minimum(at, len(kinds) - 1)
        widths[:len(at)] = np.where(kinds[at], SLOT, machine.array.rows) if len(kinds) else machine.array.rows
    return widths


def _power(size: int) -> int:
    return 1 << max(10, (size - 1).bit_length())


@compiled
def _hash(key: Any) -> Any:
    value = np.int64(1469598103)
    for j in range(len(key)):
        value = (value ^ key[j]) * np.int64(1099511627)
        value ^= value >> np.int64(29)
    return value


@compiled
def _find(key: Any, keys: Any, slots: Any, count: int) -> Any:
    """(number of the key, number of keys): the key is added if it is new."""
    mask = len(slots) - 1
    at = _hash(key) & mask
    while slots[at] >= 0:
        known = slots[at]
        same = True
        for j in range(len(key)):
            if keys[known, j] != key[j]:
                same = False
                break
        if same:
            return known, count
        at = (at + 1) & mask
    slots[at] = count
    for j in range(len(key)):
        keys[count, j] = key[j]
    return count, count + 1


@compiled
def _rehash(keys: Any, count: int, slots: Any) -> None:
    mask = len(slots) - 1
    for i in range(count):
        at = _hash(keys[i]) & mask
        while slots[at] >= 0:
            at = (at + 1) & mask
        slots[at] = i


@compiled
def _intern(rows: Any, keys: Any, slots: Any, count: int, numbers: Any) -> int:
    """Number the distinct rows; returns how many there are."""
    for i in range(len(rows)):
        numbers[i], count = _find(rows[i], keys, slots, count)
    return count


@compiled
def _classify(pc: Any, op: Any, fields: Any, window: Any, commands: Any, role: Any, stream: Any, heads: Any,
              configs: Any, reads: Any, state: Any, config: Any, fifo: Any, widths: Any, keys: Any, slots: Any,
              count: int, fresh: Any) -> Any:
    """Number every command's kind; `fresh` gets the first command of each new kind.

    Returns (status, command, number of kinds).
    """
    key = np.zeros(_KEY, np.int64)
    begin = count
    feeds = 1 + F + len(config)
    for i in range(len(pc)):
        code = op[i]
        key[0] = pc[i]
        for j in range(F):
            what = role[code, j]
            if what == _SKIP:
                key[1 + j] = 0
            elif what == _TILE and fields[i, j] >= 0:
                key[1 + j] = window[fields[i, j]]
            else:
                key[1 + j] = fields[i, j]
        for j in range(len(config)):
            key[1 + F + j] = config[j] if reads[code, j] else -1
        key[feeds] = key[feeds + 1] = key[feeds + 2] = -1
        key[feeds + 3] = 0
        does = stream[code]
        if does == _WEIGHTS:
            number = state[_WGTS]
            key[feeds + 2] = widths[number] if len(widths) > 1 else widths[0]
        for place in range(2):
            takes = place == 0 and (does in (_MMA, _LOADS_TILE))
            if does == _MAYBE and heads[code, place] >= 0 and fields[i, heads[code, place]] < 0:
                takes = True
            if takes:
                if state[_ACTS_TAKEN] == state[_ACTS]:
                    return _NO_ACT, i, count
                at = state[_ACTS_TAKEN] & (ITEMS - 1)
                state[_ACTS_TAKEN] += 1
                key[feeds + place] = fifo[0, at, 0]
                if does == _MMA:
                    commands[i, 2] = fifo[0, at, 1]
        if does == _MMA:
            if state[_WGTS_TAKEN] == state[_WGTS]:
                return _NO_WEIGHT, i, count
            key[feeds + 2] = fifo[1, state[_WGTS_TAKEN] & (ITEMS - 1), 0]
            state[_WGTS_TAKEN] += 1
        if code in (_SIC, _TOPK) and state[_PENDING] > 0:
            key[feeds + 3] = 4 * state[_PENDING]
            state[_PENDING] = 0
        number, after = _find(key, keys, slots, count)
        if after > count:
            fresh[count - begin] = i
            count = after
        commands[i, 0] = number
        if does == _LOADS or code == _FWD:
            if state[_ACTS] - state[_ACTS_TAKEN] >= ITEMS:
                return _OVERFULL, i, count
            fifo[0, state[_ACTS] & (ITEMS - 1), 0] = number
            fifo[0, state[_ACTS] & (ITEMS - 1), 1] = commands[i, 2]
            state[_ACTS] += 1
        elif does == _WEIGHTS:
            if state[_WGTS] - state[_WGTS_TAKEN] >= ITEMS:
                return _OVERFULL, i, count
            fifo[1, state[_WGTS] & (ITEMS - 1), 0] = number
            state[_WGTS] += 1
        if configs[code] >= 0:
            config[configs[code]] = number
        if code == _POS:
            address, rows = fields[i, _POS_ADDR], fields[i, _POS_COUNT]
            moved = state[_SEEN] == 0 or address != state[_ADDRESS] or rows != state[_COUNT]
            if moved and fields[i, _POS_IDENTITY] == 0:
                state[_PENDING] = rows
            state[_ADDRESS], state[_COUNT], state[_SEEN] = address, rows, 1
    return _GOOD, -1, count
