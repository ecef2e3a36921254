"""Loops whose rounds are alike: they differ in addresses and masks, which no cycle depends on.

Found from the program's text alone, so that the sequencer can hand out one round and a number instead of all rounds.
A loop qualifies if it holds no other loop, no configuration, concentration, selection or host segment, and if it takes
from the streams what it put there. Its rounds are alike as long as every operand that timing reads has the same value:
those that may change from round to round are named, for the sequencer to watch.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.fields import STREAM
from focusc.isa.insns import BY_MNEMONIC, INSNS, Insn, Loop
from focusc.isa.predecode import Predecoded, predecode
from focusc.isa.program import Program
from focusc.isa.sequencer import Repeats, no_repeats
from focusc.isa.timing_distinct import UNREAD
from focusc.isa.timing_rules import stream_operands

__all__ = ["find_repeats"]

_COUNTED: Final = {"ld.conc": ("addr", "cap", "row0")}
"""Operands that decide which unique counts a load finds."""
_BARRED: Final = ("cfg.", "sec.", "sic", "host", "trap", "loop", "halt")
_TILE: Final = BY_MNEMONIC["tile"]


def find_repeats(program: Program) -> Repeats:
    """The loops of like rounds of a program."""
    pre = predecode(program)
    count = len(pre.op)
    found = no_repeats(count)
    gain = _flow(pre)
    before = np.concatenate([np.zeros((1, 2), np.int64), np.cumsum(gain, axis=0)])
    loops = np.flatnonzero(pre.op == Loop.opcode)
    ends = pre.match[loops]
    if bool((before[ends] != before[loops + 1]).any()):
        return found  # what is in the streams depends on trip counts
    inner = np.ones(len(loops), np.bool_)
    inner[:-1] = loops[1:] > ends[:-1]
    for start, end in zip(loops[inner].tolist(), ends[inner].tolist(), strict=True):
        body = range(start + 1, end)
        if before[start].any() or int(before[start:end].min()) < 0:
            continue
        needed = _alike(pre, body, found.watch)
        if needed is None:
            continue
        found.loop[start] = True
        following = end
        for pc in reversed(body):
            following = pc if pc in needed else following
            found.following[pc] = following
    return found


def _flow(pre: Predecoded) -> NDArray[np.int64]:
    """[n, 2]: items that each instruction puts on the activation and the weight stream, less those that it takes."""
    gain = np.zeros((len(pre.op), 2), np.int64)
    for code in np.unique(pre.op).tolist():
        cls, rows = INSNS[code], np.flatnonzero(pre.op == code)
        gain[rows, 0] = int(cls.engine == "lda" or cls.mnemonic == "fwd") - int(cls.mnemonic in ("mma", "v.ld"))
        gain[rows, 1] = int(cls.engine == "ldw") - int(cls.mnemonic == "mma")
        for name in stream_operands(cls):
            gain[rows, 0] -= pre.imms[rows, list(cls.fields).index(name)] == STREAM
    return gain


def _alike(pre: Predecoded, body: range, watch: NDArray[np.bool_]) -> set[int] | None:
    """Instructions that every round must execute: scalar ones, and those with operands to `watch` or that may become
    illegal. None if rounds may differ in what they cost although these are the same."""
    moving = {int(pre.regs[pc, 0]) for pc in body if _writes(INSNS[int(pre.op[pc])])} - {0}
    defined = {int(pre.imms[pc, 0]) for pc in body if int(pre.op[pc]) == _TILE.opcode}
    needed: set[int] = set()
    here: set[int] = set()
    for pc in body:
        cls = INSNS[int(pre.op[pc])]
        if cls.mnemonic.startswith(_BARRED):
            return None
        regs = [(item, name, int(pre.regs[pc, column])) for column, (name, item) in enumerate(cls.fields.items())]
        if _writes(cls):
            needed.add(pc)
            target = regs[0][2]
            if any(reg in moving for _, _, reg in regs[1:]):
                moving.add(target)
            else:
                moving.discard(target)
            moving.discard(0)
            continue
        if cls is _TILE:
            here.add(int(pre.imms[pc, 0]))
        over, counted = UNREAD.get(cls.mnemonic, ()), _COUNTED.get(cls.mnemonic, ())
        for column, (item, name, reg) in enumerate(regs):
            tile = int(pre.imms[pc, column])
            if item.kind == "tile" and tile != STREAM and tile in defined and tile not in here:
                return None  # the first round uses another window than the second
            if reg not in moving:
                continue
            if name in counted:
                return None
            watch[pc, column] = item.kind != "addr" and name not in over
            if watch[pc, column] or item.kind == "ext":
                needed.add(pc)
    return needed


def _writes(cls: type[Insn]) -> bool:
    """Whether it is a scalar instruction: its first operand is a register that it sets."""
    return cls.engine == "seq" and bool(cls.fields) and next(iter(cls.fields.values())).kind == "reg"
