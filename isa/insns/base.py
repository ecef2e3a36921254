"""The base class of all instructions and the registry: a subclass declares fields, everything else is derived."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, ClassVar, Final, Literal, dataclass_transform, get_args

import numpy as np
from numpy.typing import NDArray

from focusc.isa import fields as fld
from focusc.isa.errors import IsaError
from focusc.isa.fields import AnyField, Field

__all__ = ["BY_MNEMONIC", "ENGINES", "INSNS", "EngineName", "Insn", "decode", "decode_word", "encode"]

EngineName = Literal["seq", "lda", "ldw", "mxu", "vec", "sic", "sec", "st"]
ENGINES: Final[tuple[EngineName, ...]] = get_args(EngineName)
INSNS: dict[int, type[Insn]] = {}
"""Every instruction class by opcode."""
BY_MNEMONIC: dict[str, type[Insn]] = {}
Words = NDArray[np.uint64]


@dataclass_transform(frozen_default=True, field_specifiers=(fld.reg, fld.ext, fld.sext, fld.addr, fld.simm, fld.uimm,
                                                            fld.f32, fld.tile, fld.enum, fld.flag))
class Insn:
    """One instruction: declared fields as attributes, `opcode`, `engine`, `mnemonic`; compares by value.

    `execute(s, *values)` is the architectural meaning of a command, called with the resolved values of the fields in
    declared order (tiles as rows of the trace's tile table, -1 for the stream; enums and float32 as integers).
    Sequencer instructions that never leave the sequencer have none.
    """

    opcode: ClassVar[int]
    engine: ClassVar[EngineName]
    mnemonic: ClassVar[str]
    fields: ClassVar[dict[str, AnyField]]
    used: ClassVar[tuple[int, int, int, int]]
    """Bits of the four lanes that may be set."""

    @classmethod
    def meaning(cls) -> Callable[..., None] | None:
        """The class's `execute`, or None for what only the sequencer does."""
        return getattr(cls, "execute", None)

    def __init_subclass__(cls, *, opcode: int, engine: EngineName, mnemonic: str) -> None:
        cls.opcode, cls.engine, cls.mnemonic = opcode, engine, mnemonic
        if opcode in INSNS or not 0 < opcode < 256:
            raise TypeError(f"{cls.__name__}: opcode {opcode:#x} is taken or out of range")
        if mnemonic in BY_MNEMONIC or not re.fullmatch(r"[a-z][a-z0-9_.]*", mnemonic):
            raise TypeError(f"{cls.__name__}: mnemonic {mnemonic!r} is taken or malformed")
        if engine not in ENGINES:
            raise TypeError(f"{cls.__name__}: no engine {engine!r}")
        if not cls.__doc__:
            raise TypeError(f"{cls.__name__} has no docstring")
        cls.fields = {name: value for name, value in vars(cls).items() if isinstance(value, Field)}
        lane, low, used = 0, 8, [0xFF, 0, 0, 0]
        for name, item in cls.fields.items():
            if low + item.bits > 64:
                lane, low = lane + 1, 0
            if lane >= fld.WORD_LANES:
                raise TypeError(f"{cls.__name__}: the fields do not fit in 256 bits")
            item.name, item.owner, item.lane, item.low = name, mnemonic, lane, low
            used[lane] |= item.mask << low
            low += item.bits
            delattr(cls, name)
        cls.used = (used[0], used[1], used[2], used[3])
        INSNS[opcode] = cls
        BY_MNEMONIC[mnemonic] = cls

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        ordered = [name for name, item in self.fields.items() if not item.kw_only]
        values = dict(zip(ordered, args))
        if len(args) > len(ordered):
            named = len(self.fields) - len(ordered)
            raise IsaError("insn.operand", f"{self.mnemonic} has {len(ordered)} operands"
                           + (f" beside the {named} that are given by name" if named else "") + f", not {len(args)}")
        for name, value in kwargs.items():
            if name not in self.fields or name in values:
                what = "twice" if name in values else "which it does not have"
                raise IsaError("insn.operand", f"{self.mnemonic}: operand {name} given, {what}",
                               hint="operands: " + ", ".join(self.fields))
            values[name] = value
        for name, item in self.fields.items():
            value = values.get(name, item.default)
            if value is None:
                raise IsaError("insn.operand", f"{self.mnemonic}: operand {name} is missing",
                               hint="operands: " + ", ".join(self.fields))
            self.__dict__[name] = item.check(value)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"instructions are immutable: {self.mnemonic}.{name}")

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and self.lanes() == other.lanes()  # type: ignore[attr-defined]

    def __hash__(self) -> int:
        return hash(self.lanes())

    def __repr__(self) -> str:
        inner = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.fields)
        return f"{type(self).__name__}({inner})"

    def __str__(self) -> str:
        return self.text()

    def text(self, address: Callable[[fld.Addr], str] | None = None) -> str:
        """Assembly text; `address` may print an address with symbolic names."""
        parts: list[str] = []
        for name, item in self.fields.items():
            value = getattr(self, name)
            if item.kind == "flag":
                if value:
                    parts.append(name)
            elif item.kind == "enum":
                if value != item.default:
                    parts.append(value)
            elif item.kind == "addr" and address is not None:
                parts.append(address(value))
            elif item.positional or len(self.fields) == 1:
                parts.append(item.text(value))
            elif item.default is None or value != item.default:
                parts.append(f"{name}={item.text(value)}")
        return f"{self.mnemonic} {', '.join(parts)}" if parts else self.mnemonic

    def lanes(self) -> tuple[int, int, int, int]:
        """The instruction word as four 64-bit integers."""
        out = [self.opcode, 0, 0, 0]
        for name, item in self.fields.items():
            out[item.lane] |= item.pack(getattr(self, name)) << item.low
        return (out[0], out[1], out[2], out[3])

    def encode(self) -> bytes:
        """The 32 bytes of the instruction word."""
        return b"".join(lane.to_bytes(8, "little") for lane in self.lanes())


def decode_word(lanes: tuple[int, int, int, int], pc: int = -1) -> Insn:
    """The instruction of one word; IsaError if no instruction encodes to it."""
    where = f"pc {pc}" if pc >= 0 else ""
    cls = INSNS.get(lanes[0] & 0xFF)
    if cls is None:
        raise IsaError("text.opcode", f"no instruction has opcode {lanes[0] & 0xFF:#04x}", where)
    for number, (lane, used) in enumerate(zip(lanes, cls.used)):
        if lane & ~used:
            raise IsaError("text.reserved", f"{cls.mnemonic}: reserved bits {lane & ~used:#x} of lane {number} are set",
                           where)
    insn = object.__new__(cls)
    for name, item in cls.fields.items():
        try:
            insn.__dict__[name] = item.unpack(lanes[item.lane] >> item.low & item.mask)
        except IsaError as error:
            raise IsaError("text.operand", error.message, where) from None
    return insn


def encode(insns: list[Insn]) -> Words:
    """Instruction words [n, 4] uint64 of a list of instructions."""
    return np.array([insn.lanes() for insn in insns], dtype="<u8").reshape(len(insns), fld.WORD_LANES)


def decode(words: Words | bytes) -> list[Insn]:
    """Instructions of words [n, 4] uint64 or of their bytes; IsaError names the first illegal word."""
    if isinstance(words, (bytes, bytearray, memoryview)):
        if len(words) % 32:
            raise IsaError("text.size", f"text is {len(words)} bytes, not a whole number of 32-byte words")
        words = np.frombuffer(words, dtype="<u8").reshape(-1, fld.WORD_LANES)
    rows: list[list[int]] = words.tolist()
    return [decode_word((a, b, c, d), pc) for pc, (a, b, c, d) in enumerate(rows)]
