"""The disassembler: a program as `.fasm` text that assembles to the same bytes."""

from __future__ import annotations

import base64
import bisect
import hashlib
import re
from collections.abc import Callable, Iterator

import numpy as np

from focusc.isa.errors import IsaError
from focusc.isa.fields import Addr
from focusc.isa.program import Program, Symbol
from focusc.isa.sections import host_row, pack_json

__all__ = ["address_printer", "disassemble", "instruction_lines"]

_LINE_BYTES = 64
_MODEL_BYTES = 84
"""Bytes of a host model on one line of text."""
_MAX_HEX = 64 << 20


def quote(text: str) -> str:
    """A text argument, quoted as JSON."""
    return pack_json(text).decode()


def _name(text: str) -> str:
    plain = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_./]*", text) and not re.fullmatch(r"r[0-9]+", text)
    return text if plain else quote(text)


def address_printer(symbols: list[Symbol]) -> Callable[[Addr], str]:
    """A function that prints an address with the symbol that it falls into, or else as a number."""
    ordered = sorted((s for s in symbols if s.bytes), key=lambda s: (s.address, -s.bytes))
    starts = [s.address for s in ordered]

    def text(value: Addr) -> str:
        base, offset = value
        at = bisect.bisect_right(starts, offset) - 1
        # Buffers that share memory overlap: look a little further back for one that still reaches here.
        for symbol in ordered[max(0, at - 7):at + 1][::-1]:
            if symbol.address <= offset < symbol.address + symbol.bytes:
                beyond = offset - symbol.address
                inner = _name(symbol.name) + (f"+{beyond:#x}" if beyond else "")
                return f"[{inner}+r{base}]" if base else f"[{inner}]"
        if not base:
            return f"[{offset:#x}]" if offset >= 0 else f"[-{-offset:#x}]"
        return f"[r{base}{'-' if offset < 0 else '+'}{abs(offset):#x}]" if offset else f"[r{base}]"

    return text


def instruction_lines(program: Program) -> Iterator[tuple[int, str]]:
    """(pc, text) of every instruction, loop bodies indented."""
    printer = address_printer(program.symbols)
    depth = 0
    for pc, insn in enumerate(program.insns):
        if insn.mnemonic == "endl":
            depth = max(0, depth - 1)
        yield pc, "  " * min(depth, 16) + insn.text(printer)
        if insn.mnemonic == "loop":
            depth += 1


def disassemble(program: Program, *, const_file: str | None = None) -> str:
    """Assembly text; `assemble(disassemble(p)) == p`.

    With `const_file` the constants are not printed but referred to by that file name; the caller writes `program.const`
    there. IsaError if constants are too large to print.
    """
    lines = [".fasm 1", f".target {quote(program.target)}", f".arena {program.arena_bytes}"]
    for name, value in (("hardware", program.hardware), ("plan", program.plan), ("meta", program.meta)):
        if value:
            lines.append(f".{name} {pack_json(value).decode()}")
    for s in program.symbols:
        shape = ", ".join(map(str, s.shape))
        lines.append(f".symbol {_name(s.name)}, {s.kind}, {s.dtype}, [{shape}], {s.address:#x}")
    lines += _constants(program, const_file)
    for segment in program.host:
        lines.append(f".host {pack_json(host_row(segment)).decode()}")
        for start in range(0, len(segment.model), _MODEL_BYTES):
            lines.append(f'.host_model "{base64.b64encode(segment.model[start:start + _MODEL_BYTES]).decode()}"')
    lines += [f".debug {quote(e.ir)}, {quote(e.node)}, {quote(e.path)}, {quote(e.nn_op)}" for e in program.debug]
    lines.append("")
    current = -1
    for pc, text in instruction_lines(program):
        if program.debug_index[pc] != current:
            current = int(program.debug_index[pc])
            lines.append(f".loc {current}")
        lines.append("    " + text)
    return "\n".join(lines) + "\n"


def _constants(program: Program, const_file: str | None) -> list[str]:
    if not program.has_constants:
        return [f".const_absent {program.const_bytes}"]
    data = np.ascontiguousarray(program.const, np.uint8)
    if const_file is not None:
        digest = hashlib.blake2b(data.data, digest_size=16).hexdigest()
        return [f".const_file {quote(const_file)}, {len(data)}, {quote(digest)}"]
    if len(data) > _MAX_HEX:
        raise IsaError("asm.const", f"{len(data)} bytes of constants are too many to print",
                       hint="write them to a file and pass its name as const_file")
    lines: list[str] = []
    zeros = 0
    for start in range(0, len(data), _LINE_BYTES):
        piece = data[start:start + _LINE_BYTES]
        if not piece.any():
            zeros += len(piece)
            continue
        if zeros:
            lines.append(f".zero {zeros}")
            zeros = 0
        lines.append(f'.const "{piece.tobytes().hex()}"')
    return lines + ([f".zero {zeros}"] if zeros else [])
