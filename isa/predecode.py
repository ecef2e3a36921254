"""Vectorised decoding: a program's words as arrays, with every word and the loop structure checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import IsaError
from focusc.isa.fields import STREAM
from focusc.isa.insns import INSNS, Endl, Halt, Host, Loop
from focusc.isa.program import Program

__all__ = ["F", "MAX_NEST", "Predecoded", "predecode"]

MAX_NEST: Final = 16
"""Loops inside loops that the sequencer has counters for."""
F: Final = max(len(cls.fields) for cls in INSNS.values())
"""The most fields that an instruction has."""


@dataclass(frozen=True, slots=True)
class Predecoded:
    """Instruction words as arrays: value of field j of instruction i is R[regs[i, j]] + imms[i, j]."""

    op: NDArray[np.uint8]
    regs: NDArray[np.uint8]
    imms: NDArray[np.int64]
    match: NDArray[np.int32]
    """Partner of each `loop` and `endl`."""


def predecode(program: Program) -> Predecoded:
    """Vectorised decode of a program's words; IsaError for illegal words and for badly nested loops."""
    words = program.text
    count = len(words)
    op = (words[:, 0] & np.uint64(0xFF)).astype(np.uint8)
    regs, imms = np.zeros((count, F), np.uint8), np.zeros((count, F), np.int64)
    for opcode in np.unique(op).tolist():
        rows = np.flatnonzero(op == opcode)
        if opcode not in INSNS:
            raise IsaError("text.opcode", f"no instruction has opcode {opcode:#04x}", f"pc {int(rows[0])}")
        cls = INSNS[opcode]
        block = words[rows]
        stray = np.flatnonzero((block & ~np.array(cls.used, np.uint64)).any(axis=1))
        if stray.size:
            raise IsaError("text.reserved", f"{cls.mnemonic}: reserved bits are set", f"pc {int(rows[stray[0]])}")
        for column, item in enumerate(cls.fields.values()):
            raw = block[:, item.lane] >> np.uint64(item.low) & np.uint64(item.mask)
            if item.kind in ("ext", "sext", "addr"):
                regs[rows, column] = raw & np.uint64(63)
                bits = item.bits - 6
                value = (raw >> np.uint64(6)).astype(np.int64)
                signed = item.kind != "ext"
            else:
                bits, signed = item.bits, item.kind == "simm"
                value = raw.view(np.int64)
                if item.kind == "reg":
                    regs[rows, column] = raw
                    value = np.zeros_like(value)
                elif item.kind == "tile":
                    bad = (raw == STREAM) if "s" not in item.access else np.zeros(len(rows), bool)
                    _reject(bad, rows, cls.mnemonic, f"operand {item.name} is 's', expected a tile descriptor")
                elif item.kind == "enum":
                    _reject(raw >= len(item.choices), rows, cls.mnemonic, f"operand {item.name} has no such value")
                elif item.kind == "f32":
                    bad = (raw & np.uint64(0x7F800000) == 0x7F800000) & (raw & np.uint64(0x7FFFFF) != 0)
                    _reject(bad, rows, cls.mnemonic, f"operand {item.name} is NaN")
            if signed and bits < 64:
                value = np.where(value >> (bits - 1) & 1, value - (1 << bits), value)
            imms[rows, column] = value
        if opcode == Host.opcode:
            _reject(imms[rows, 0] >= len(program.host), rows, cls.mnemonic,
                    f"there is no such segment, the program has {len(program.host)}")
    return Predecoded(op, regs, imms, _structure(op))


def _reject(bad: NDArray[Any], rows: NDArray[np.intp], mnemonic: str, message: str) -> None:
    found = np.flatnonzero(bad)
    if found.size:
        raise IsaError("text.operand", f"{mnemonic}: {message}", f"pc {int(rows[found[0]])}")


def _structure(op: NDArray[np.uint8]) -> NDArray[np.int32]:
    """Partners of loops; checks nesting and the one `halt` at the end."""
    match = np.full(len(op), -1, np.int32)
    stack: list[int] = []
    if len(op) == 0 or op[-1] != Halt.opcode:
        raise IsaError("program.halt", "the last instruction is not halt", hint="end the program with `halt`")
    for pc in np.flatnonzero((op == Loop.opcode) | (op == Endl.opcode) | (op == Halt.opcode)).tolist():
        if op[pc] == Loop.opcode:
            stack.append(pc)
            if len(stack) > MAX_NEST:
                raise IsaError("program.nest", f"loops are nested more than {MAX_NEST} deep", f"pc {pc}")
        elif op[pc] == Halt.opcode:
            if pc != len(op) - 1:
                raise IsaError("program.halt", "halt stands before the end of the program", f"pc {pc}")
        elif not stack:
            raise IsaError("program.endl", "endl without a loop", f"pc {pc}")
        else:
            match[pc] = stack.pop()
            match[match[pc]] = pc
    if stack:
        raise IsaError("program.loop", "loop without an endl", f"pc {stack[-1]}")
    return match
