"""Listings of a container: headers, sections, symbols and disassembly, as stable text that can be diffed."""

from __future__ import annotations

import os
from collections import Counter

from focusc.isa.container import load, read_sections
from focusc.isa.disassembler import instruction_lines
from focusc.isa.errors import printable
from focusc.isa.insns import INSNS
from focusc.isa.program import Program

__all__ = ["disassembly", "headers", "host", "objdump", "sections", "symbols"]


def _table(rows: list[tuple[str, ...]], right: tuple[int, ...] = ()) -> str:
    """Columns padded to their widest cell; those in `right` are aligned right."""
    if not rows:
        return ""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    padded = ([cell.rjust(widths[i]) if i in right else cell.ljust(widths[i]) for i, cell in enumerate(row)]
              for row in rows)
    lines = ("  ".join(row).rstrip() for row in padded)
    return "\n".join(lines) + "\n"


def headers(path: str | os.PathLike[str], program: Program | None = None) -> str:
    """Version, target, hardware digest and sizes (objdump -h)."""
    header, parts, _ = read_sections(path)
    program = program if program is not None else load(path)
    kinds = Counter(INSNS[int(word) & 0xFF].engine for word in program.text[:, 0])
    rows = [
        ("format", f"fbin version {header.version}, little-endian, {len(parts)} sections, {header.size} bytes"),
        ("target", header.target or "(none)"),
        ("hardware", f"{program.hardware.get('name', '(unnamed)')}, digest {header.digest}"),
        ("text", f"{len(program.text)} instructions, {32 * len(program.text)} bytes"),
        ("engines", ", ".join(f"{name} {kinds[name]}" for name in sorted(kinds))),
        ("constants", f"{program.const_bytes} bytes at 0x0{'' if program.has_constants else ', values absent'}"),
        ("arena", f"{program.arena_bytes} bytes at {program.arena_base:#x}"),
        *([("host", host)] if (host := _host(program)) else []),
        ("sites", f"{len(program.meta.get('sites', []))} concentration sites"),
        ("debug", f"{len(program.debug)} source nodes"),
    ]
    return _table(rows)


def _host(program: Program) -> str:
    """What the host runs of the program, or nothing."""
    segments = program.host
    return (f"{len(segments)} segments, {sum(len(s.nodes) for s in segments)} nodes, {sum(s.macs for s in segments)} "
            f"MACs, models of {sum(len(s.model) for s in segments)} bytes") if segments else ""


def host(program: Program) -> str:
    """What the host runs: every segment with its tensors, and its nodes with the reason."""
    lines: list[str] = []
    for number, segment in enumerate(program.host):
        lines.append(f"segment {number}: {len(segment.nodes)} nodes, {segment.macs} MACs, "
                     f"{len(segment.model)} bytes of ONNX")
        for s in (*segment.inputs, *segment.outputs):
            lines.append(f"  {s.kind:6}  {s.name}  {s.dtype}[{', '.join(map(str, s.shape))}] at {s.address:#x}")
        for node in segment.nodes:
            where = " ".join(part for part in (node.path, f"[{node.node}]" if node.node else "", node.op) if part)
            lines.append(printable(f"  {where}: {node.message} ({node.code})"))
    return "\n".join(lines) + "\n" if lines else "(none)\n"


def sections(path: str | os.PathLike[str]) -> str:
    """The section table."""
    _, parts, _ = read_sections(path)
    rows = [("name", "offset", "bytes", "flags", "blake2b-128")]
    for part in parts:
        flags = " ".join(word for word, on in (("required", part.required), ("external", part.external),
                                              ("absent", part.absent)) if on)
        rows.append((part.name, f"{part.offset:#x}", str(part.size), flags or "-", part.checksum.hex()))
    return _table(rows, (1, 2))


def symbols(program: Program) -> str:
    """The symbol table by address (objdump -t)."""
    rows = [("address", "bytes", "kind", "type", "shape", "name")]
    for s in sorted(program.symbols, key=lambda s: (s.address, s.name)):
        rows.append((f"{s.address:#x}", str(s.bytes), s.kind, s.dtype, "x".join(map(str, s.shape)) or "scalar", s.name))
    return _table(rows, (0, 1))


def disassembly(program: Program, *, source: bool = False) -> str:
    """Every instruction with its number (objdump -d); `source` interleaves the nodes they come from (-S)."""
    lines: list[str] = []
    width = len(str(max(len(program.text) - 1, 0)))
    current = -2
    for pc, text in instruction_lines(program):
        index = int(program.debug_index[pc])
        if source and index != current:
            current = index
            if index < 0:
                lines.append("; (no source)")
            else:
                entry = program.debug[index]
                node = f"[{entry.node}]" if entry.node else ""
                head = " ".join(part for part in (entry.path, node, entry.nn_op) if part)
                lines.append(printable(f"; {head or '(unnamed)'}"))
                if entry.ir:
                    lines += [printable(f";   {line}") for line in entry.ir.splitlines()]
        lines.append(f"{pc:{width}d}: {text}")
    return "\n".join(lines) + "\n"


def objdump(path: str | os.PathLike[str], *, header: bool = False, section: bool = False, disassemble: bool = False,
            source: bool = False, symbol: bool = False) -> str:
    """The requested listings of a container, in a fixed order, separated by titles; headers if none is requested."""
    program = load(path)
    if not (section or disassemble or source or symbol):
        header = True
    parts: list[str] = []
    if header:
        parts.append("headers\n\n" + headers(path, program))
    if section:
        parts.append("sections\n\n" + sections(path))
    if symbol:
        parts.append("symbols\n\n" + symbols(program))
    if program.host and (header or symbol):
        parts.append("host\n\n" + host(program))
    if disassemble or source:
        parts.append("disassembly\n\n" + disassembly(program, source=source))
    return "\n".join(parts)
