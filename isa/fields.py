"""Bit fields of an instruction word: each kind knows its width, its range, its value and its text.

A word is 256 bits, four little-endian 64-bit lanes; bits 0..7 hold the opcode. Fields are packed in the order in which
an instruction declares them, lowest bits first; a field that would straddle a lane starts at the next one. Every field
that the sequencer resolves is `R[register] + immediate` (with r0 = 0), so that expansion needs no case by field kind.
"""

from __future__ import annotations

import math
import re
import struct
from dataclasses import dataclass
from dataclasses import field as dc_field
from typing import (
    TYPE_CHECKING,
    Any,
    Generic,
    Literal,
    NamedTuple,
    Never,
    SupportsFloat,
    SupportsIndex,
    TypeVar,
    cast,
    overload,
)

from focusc.isa.errors import IsaError

__all__ = ["Addr", "Address", "AnyField", "Choice", "Extent", "Field", "Float", "Int", "R", "Register", "STREAM",
           "Source", "WORD_LANES", "addr", "enum", "ext", "f32", "f32_bits", "f32_text", "f32_value", "flag", "reg",
           "sext", "simm", "tile", "uimm"]

WORD_LANES = 4
REGISTERS = 64
STREAM = 31
"""Tile number 31 is not a descriptor: as a source it names the head of the activation stream (text: `s`)."""


class R(NamedTuple):
    """A register, or a register plus an unsigned offset, as the value of an `ext` field: `R(5)`, `R(5, 64)`."""

    index: int  # pyright: ignore[reportIncompatibleMethodOverride]  # R is compared and unpacked, never searched
    offset: int = 0

    def __str__(self) -> str:
        return f"r{self.index}+{self.offset}" if self.offset else f"r{self.index}"


class Addr(NamedTuple):
    """A DRAM address: the value of register `base` plus `offset` bytes (signed, 40 bits)."""

    base: int
    offset: int = 0


def f32_bits(value: float) -> int:
    """Bit pattern of `value` rounded to float32 (round to nearest even, overflow to infinity)."""
    try:
        return int(struct.unpack("<I", struct.pack("<f", value))[0])
    except OverflowError:
        return 0x7F800000 if value > 0 else 0xFF800000


def f32_value(bits: int) -> float:
    """The float of a float32 bit pattern."""
    return float(struct.unpack("<f", struct.pack("<I", bits))[0])


def f32_text(value: float) -> str:
    """Shortest decimal text that reads back as the same float32."""
    for digits in range(1, 10):
        text = f"{value:.{digits}g}"
        if f32_bits(float(text)) == f32_bits(value):
            break
    else:
        text = repr(value)
    return text if re.search(r"[.einf]", text) else text + ".0"


Given = TypeVar("Given", contravariant=True)
Held = TypeVar("Held", covariant=True)


@dataclass
class Field(Generic[Given, Held]):
    """One field of an instruction: `kind` decides range and text, `bits` the width; `lane` and `low` are assigned.

    `name` is the Python attribute; `default` is None for a required field; the constructor takes a `kw_only` field by
    name only. A constructor is given a `Given`, the attribute holds a `Held`: the canonical form that `check` returns.
    """

    kind: str
    bits: int
    doc: str = ""
    choices: tuple[str, ...] = ()
    default: Any = None
    access: str = "r"
    kw_only: bool = False
    name: str = ""
    lane: int = -1
    low: int = -1
    owner: str = dc_field(default="", repr=False)

    if TYPE_CHECKING:
        # How a checker sees a field: a descriptor, whose `__set__` types the constructor's parameter. When the program
        # runs there is none: `Insn.__init_subclass__` takes the declaration out of the class, instances hold values.
        @overload
        def __get__(self, insn: None, owner: type[object]) -> Field[Given, Held]: ...
        @overload
        def __get__(self, insn: object, owner: type[object]) -> Held: ...
        def __get__(self, insn: object, owner: type[object]) -> Field[Given, Held] | Held: ...
        def __set__(self, insn: object, value: Given) -> None: ...

    @property
    def mask(self) -> int:
        return (1 << self.bits) - 1

    @property
    def positional(self) -> bool:
        """Printed by position (registers, tiles, addresses, signed and float immediates) rather than as
        `name=value`.
        """
        return self.kind in ("reg", "tile", "addr", "f32", "simm")

    def fail(self, value: object, expected: str) -> IsaError:
        return IsaError("insn.operand", f"{self.owner}: operand {self.name} is {value!r}, expected {expected}")

    def integer(self, value: object, low: int, high: int, what: str) -> int:
        try:
            if isinstance(value, (bool, float)) and value != int(value):
                raise self.fail(value, what)
            number = int(value)  # type: ignore[call-overload]  # numpy integers are welcome
        except (TypeError, ValueError, OverflowError):
            raise self.fail(value, what) from None
        if not low <= number <= high:
            raise self.fail(number, f"{what} in {low}..{high}")
        return number

    def check(self, value: Any) -> Any:
        """The canonical form of `value`, or an IsaError that says what is allowed."""
        kind = self.kind
        if kind in ("ext", "sext"):
            low, high = (0, (1 << 24) - 1) if kind == "ext" else (-(1 << 23), (1 << 23) - 1)
            if isinstance(value, R):
                index = self.integer(value.index, 0, REGISTERS - 1, "a register")
                offset = self.integer(value.offset, low, high, "an offset")
                return R(index, offset) if index else offset
            return self.integer(value, low, high, "an integer or R(n)")
        if kind == "addr":
            pair = cast("tuple[object, ...]", value) if isinstance(value, tuple) else ()
            if len(pair) == 2:
                return Addr(self.integer(pair[0], 0, REGISTERS - 1, "a base register"),
                            self.integer(pair[1], -(1 << 39), (1 << 39) - 1, "a byte offset"))
            return Addr(0, self.integer(cast(object, value), -(1 << 39), (1 << 39) - 1, "an address"))
        if kind == "reg":
            if isinstance(value, R):
                if value.offset:
                    raise self.fail(value, "a plain register")
                value = value.index
            return self.integer(value, 0, REGISTERS - 1, "a register")
        if kind == "tile":
            if value == "s":
                value = STREAM
            number = self.integer(value, 0, STREAM, "a tile 0..30 or 's'")
            if number == STREAM and "s" not in self.access:
                raise self.fail("s", "a tile descriptor 0..30 (the stream can only be a vector source)")
            return number
        if kind == "f32":
            if isinstance(value, bool) or not isinstance(value, (int, float)):
                try:
                    value = float(value)
                except (TypeError, ValueError):
                    raise self.fail(value, "a number") from None
            if math.isnan(value):
                raise self.fail(value, "a number that is not NaN")
            return f32_value(f32_bits(float(value)))
        if kind == "enum":
            if value not in self.choices:
                raise self.fail(value, "one of " + ", ".join(self.choices))
            return str(value)
        if kind == "flag":
            return self.integer(value, 0, 1, "0 or 1")
        low, high = (0, self.mask) if kind == "uimm" else (-(1 << (self.bits - 1)), (1 << (self.bits - 1)) - 1)
        return self.integer(value, low, high, "an integer")

    def pack(self, value: Any) -> int:
        """Raw bits of a canonical value."""
        kind = self.kind
        if kind in ("ext", "sext"):
            index, offset = (value.index, value.offset) if isinstance(value, R) else (0, value)
            return index | (offset & 0xFFFFFF) << 6
        if kind == "addr":
            return value[0] | (value[1] & ((1 << 40) - 1)) << 6
        if kind == "f32":
            return f32_bits(value)
        if kind == "enum":
            return self.choices.index(value)
        return int(value) & self.mask

    def unpack(self, raw: int) -> Any:
        """Canonical value of raw bits; IsaError if no value has these bits."""
        kind = self.kind
        if kind in ("ext", "sext"):
            index, offset = raw & 63, raw >> 6
            if kind == "sext" and offset >> 23:
                offset -= 1 << 24
            return R(index, offset) if index else offset
        if kind == "addr":
            offset = raw >> 6
            return Addr(raw & 63, offset - (1 << 40) if offset >> 39 else offset)
        if kind == "f32":
            if raw & 0x7F800000 == 0x7F800000 and raw & 0x7FFFFF:
                raise self.fail("NaN", "a number that is not NaN")
            return f32_value(raw)
        if kind == "enum":
            if raw >= len(self.choices):
                raise self.fail(raw, "one of " + ", ".join(self.choices))
            return self.choices[raw]
        if kind == "simm":
            return raw - (1 << self.bits) if raw >> (self.bits - 1) else raw
        return self.check(raw)

    def text(self, value: Any) -> str:
        """Assembly text of a canonical value, without the operand's name."""
        kind = self.kind
        if kind == "reg":
            return f"r{value}"
        if kind == "tile":
            return "s" if value == STREAM else f"t{value}"
        if kind == "addr":
            base, offset = value
            if not base:
                return f"[{offset:#x}]" if offset >= 0 else f"[-{-offset:#x}]"
            sign = "+" if offset >= 0 else "-"
            return f"[r{base}{sign}{abs(offset):#x}]" if offset else f"[r{base}]"
        if kind in ("ext", "sext") and isinstance(value, R):
            if not value.offset:
                return f"r{value.index}"
            return f"r{value.index}{'+' if value.offset > 0 else '-'}{abs(value.offset)}"
        return f32_text(value) if kind == "f32" else str(value)


AnyField = Field[Never, object]
Register = Field[SupportsIndex | R, int]
Extent = Field[SupportsIndex | R, int | R]
Address = Field[SupportsIndex | tuple[SupportsIndex, SupportsIndex], Addr]
Int = Field[SupportsIndex, int]
Source = Field[SupportsIndex | Literal["s"], int]
"""A tile, or the head of the activation stream."""
Float = Field[SupportsFloat, float]
Choice = Field[str, str]


def reg(doc: str = "") -> Register:
    """A scalar register r0..r63 (6 bits). As a source it resolves to the register's value."""
    return Field("reg", 6, doc)


def ext(doc: str = "", *, default: int | None = None) -> Extent:
    """An extent or count: register plus unsigned 24-bit immediate (30 bits); must resolve to a number >= 0."""
    return Field("ext", 30, doc, default=default)


def sext(doc: str = "", *, default: int | None = None) -> Extent:
    """A signed position: register plus signed 24-bit immediate (30 bits)."""
    return Field("sext", 30, doc, default=default)


def addr(doc: str = "") -> Address:
    """A DRAM byte address: base register plus signed 40-bit offset (46 bits)."""
    return Field("addr", 46, doc)


def simm(bits: int, doc: str = "", *, default: int | None = None) -> Int:
    """A signed immediate."""
    return Field("simm", bits, doc, default=default)


def uimm(bits: int, doc: str = "", *, default: int | None = None) -> Int:
    """An unsigned immediate."""
    return Field("uimm", bits, doc, default=default)


def f32(doc: str = "", *, default: float | None = None, kw_only: bool = False) -> Float:
    """A float32 immediate (32 bits); infinities are allowed, NaN is not."""
    return Field("f32", 32, doc, default=default, kw_only=kw_only)


@overload
def tile(doc: str = "", *, access: Literal["r", "w", "rw"] = "r") -> Int: ...
@overload
def tile(doc: str = "", *, access: Literal["rs"]) -> Source: ...
def tile(doc: str = "", *, access: Literal["r", "w", "rw", "rs"] = "r") -> Int | Source:
    """A tile descriptor t0..t30 (5 bits). `access`: r read, w written, s the stream head may stand here."""
    return Field("tile", 5, doc, access=access)


def enum(*choices: str, default: str | None = None, doc: str = "", kw_only: bool = False) -> Choice:
    """One of a few words, numbered in order."""
    return Field("enum", max(1, (len(choices) - 1).bit_length()), doc, choices, default, kw_only=kw_only)


def flag(doc: str = "", *, default: Literal[0]) -> Int:
    """One bit, 0 by default, which a type checker sees only if it is written out; its text is its name when set."""
    return Field("flag", 1, doc, default=default)
