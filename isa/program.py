"""A program: instruction words, constants, symbols and what tools need to speak in the user's terms."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import IsaError, printable
from focusc.isa.host import HostSegment, check_segments
from focusc.isa.insns.base import Insn, decode, encode
from focusc.isa.symbol import ITEM_BYTES, Symbol

__all__ = ["ALIGN", "DebugEntry", "ITEM_BYTES", "Program", "Symbol", "align", "conc_block", "hardware_digest"]

ALIGN = 64
"""Bytes: alignment of allocations, constants and concentrated blocks."""


Size = TypeVar("Size", int, NDArray[np.int64])


def align(value: Size, to: int = ALIGN) -> Size:
    """`value` rounded up to a multiple of `to`."""
    return -(-value // to) * to


def conc_block(cap: Size) -> Size:
    """Bytes of one slot's block of a concentrated tile with room for `cap` rows (see `ld.conc`)."""
    return 64 + align(2 * cap) + 64 * cap


def hardware_digest(hardware: dict[str, Any]) -> str:
    """Digest (blake2b-128, hex) of a canonical hardware description."""
    text = json.dumps(hardware, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


@dataclass(frozen=True, slots=True)
class DebugEntry:
    """Where an instruction came from: IR op text, ONNX node, torch module path, nn-level op name."""

    ir: str = ""
    node: str = ""
    path: str = ""
    nn_op: str = ""


@dataclass(eq=False)
class Program:
    """An accelerator program. `text` is words [n, 4] uint64 (a list of Insn is encoded on construction).

    DRAM: constants at [0, const_bytes), read-only; the arena of `arena_bytes` from `arena_base` on. A program without
    weights has `const_bytes` > 0 and an empty `const`: it can be timed, not executed. `debug_index` gives, for every
    instruction, its entry in `debug`, or -1. `host` are the segments that the instruction `host` names by number.
    """

    text: NDArray[np.uint64]
    const: NDArray[np.uint8] = field(default_factory=lambda: np.zeros(0, np.uint8))
    const_bytes: int = 0
    symbols: list[Symbol] = field(default_factory=list)
    arena_bytes: int = 0
    target: str = ""
    hardware: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    debug: list[DebugEntry] = field(default_factory=list)
    debug_index: NDArray[np.int32] = field(default_factory=lambda: np.zeros(0, np.int32))
    meta: dict[str, Any] = field(default_factory=dict)
    host: list[HostSegment] = field(default_factory=list[HostSegment])
    _insns: list[Insn] | None = field(default=None, repr=False)

    def __init__(self, text: Sequence[Insn] | NDArray[np.uint64], const: NDArray[np.uint8] | bytes | None = None,
                 symbols: Sequence[Symbol] = (), arena_bytes: int = 0, target: str = "",
                 hardware: dict[str, Any] | None = None, plan: dict[str, Any] | None = None,
                 debug: Sequence[DebugEntry] = (), debug_index: Sequence[int] | NDArray[np.int32] | None = None,
                 meta: dict[str, Any] | None = None, *, const_bytes: int | None = None,
                 host: Sequence[HostSegment] = ()) -> None:
        self._insns = None
        if isinstance(text, np.ndarray):
            self.text = text
        else:
            self._insns = list(text)
            self.text = encode(self._insns)
        if isinstance(const, np.ndarray):
            self.const = const
        else:
            self.const = np.frombuffer(const or b"", np.uint8)
        self.const_bytes = len(self.const) if const_bytes is None else int(const_bytes)
        self.symbols = list(symbols)
        self.arena_bytes = int(arena_bytes)
        self.target = target
        self.hardware = hardware if hardware is not None else {}
        self.plan = plan if plan is not None else {}
        self.debug = list(debug)
        self.debug_index = (np.full(len(self.text), -1, np.int32) if debug_index is None
                            else np.asarray(debug_index, np.int32))
        self.meta = meta if meta is not None else {}
        self.host = list(host)
        self.check()

    def check(self) -> None:
        """Raise IsaError if the parts do not fit together."""
        if self.text.ndim != 2 or self.text.shape[1] != 4 or self.text.dtype != np.uint64:
            raise IsaError("program.text", f"text is {self.text.dtype}{list(self.text.shape)}, expected uint64[n, 4]")
        if len(self.debug_index) != len(self.text):
            raise IsaError("program.debug", f"debug index has {len(self.debug_index)} entries for {len(self.text)} "
                           "instructions")
        if len(self.debug_index) and (int(self.debug_index.min()) < -1
                                      or int(self.debug_index.max()) >= len(self.debug)):
            raise IsaError("program.debug", f"debug index refers outside the {len(self.debug)} debug entries")
        if self.const_bytes != len(self.const) and (len(self.const) or self.const_bytes < 0):
            raise IsaError("program.const", f"const_bytes is {self.const_bytes}, there are {len(self.const)} bytes of "
                           "constants")
        if self.arena_bytes < 0:
            raise IsaError("program.arena", f"arena_bytes is {self.arena_bytes}")
        check_segments(self.host, self.arena_base, self.dram_bytes)
        seen: set[str] = set()
        for symbol in self.symbols:
            if symbol.name in seen:
                raise IsaError("program.symbol", f"symbol {symbol.name} is defined twice")
            seen.add(symbol.name)
            low, high = (0, self.const_bytes) if symbol.kind == "const" else (self.arena_base, self.dram_bytes)
            if symbol.address < low or symbol.address + symbol.bytes > high:
                raise IsaError("program.symbol", f"symbol {symbol.name} ({symbol.bytes} bytes at {symbol.address:#x}) "
                               f"lies outside {'the constants' if symbol.kind == 'const' else 'the arena'} "
                               f"[{low:#x}, {high:#x})")

    @property
    def insns(self) -> list[Insn]:
        """Decoded instructions (cached); IsaError at the first illegal word."""
        if self._insns is None:
            self._insns = decode(self.text)
        return self._insns

    @property
    def arena_base(self) -> int:
        """DRAM address of the arena: the constants' end, 64-byte aligned."""
        return align(self.const_bytes)

    @property
    def has_constants(self) -> bool:
        """Whether the constants' values are there; a program without them can be timed, not executed."""
        return len(self.const) == self.const_bytes

    @property
    def dram_bytes(self) -> int:
        return self.arena_base + self.arena_bytes

    @property
    def hardware_digest(self) -> str:
        return hardware_digest(self.hardware)

    def symbol(self, name: str) -> Symbol:
        """The symbol of that name; IsaError names the ones there are."""
        for item in self.symbols:
            if item.name == name:
                return item
        raise IsaError("program.symbol", f"no symbol {name!r}",
                       hint="symbols: " + ", ".join(s.name for s in self.symbols[:20]))

    def line(self, pc: int) -> str:
        """Assembly text of one instruction, with symbolic addresses."""
        from focusc.isa.disassembler import address_printer

        return self.insns[pc].text(address_printer(self.symbols))

    def node(self, pc: int) -> str:
        """Source node of an instruction as shown to users: module path and ONNX node, or empty."""
        if not 0 <= pc < len(self.debug_index) or self.debug_index[pc] < 0:
            return ""
        entry = self.debug[int(self.debug_index[pc])]
        return printable(" ".join(part for part in (entry.path, entry.node) if part))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write a container (`focusc.isa.container.save`) atomically."""
        from focusc.isa.container import save

        save(self, path)

    @staticmethod
    def load(path: str | os.PathLike[str]) -> Program:
        """Read a container (`focusc.isa.container.load`); FormatError for anything that is not exactly right."""
        from focusc.isa.container import load

        return load(path)

    def __eq__(self, other: object) -> bool:
        return (isinstance(other, Program) and np.array_equal(self.text, other.text)
                and self.const_bytes == other.const_bytes
                and np.array_equal(self.const, other.const) and self.symbols == other.symbols
                and self.arena_bytes == other.arena_bytes and self.target == other.target
                and self.hardware == other.hardware and self.plan == other.plan and self.debug == other.debug
                and np.array_equal(self.debug_index, other.debug_index) and self.meta == other.meta
                and self.host == other.host)
