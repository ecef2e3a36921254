"""`focusc objdump`: what a program file holds, as stable text and as data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from focusc.driver.load import load_program

if TYPE_CHECKING:
    from focusc.isa import Program
    from focusc.isa.container import Section


@dataclass(frozen=True)
class Dump:
    """An opened program file. Its text is stable, for diff: no times, no absolute paths."""

    path: str
    program: Program
    version: int
    size: int
    sections: list[Section]

    def text(
        self, *, headers: bool = False, symbols: bool = False, disassembly: bool = False, source: bool = False
    ) -> Iterator[str]:
        """The parts asked for, in this order; `source` is the disassembly with the source nodes in between."""
        if headers:
            yield self._headers()
        if symbols:
            yield self._symbols()
        if disassembly or source:
            from focusc.isa import disassemble

            yield disassemble(self.program, source=source)

    def data(self) -> dict[str, Any]:
        """Headers and symbols for --json."""
        program = self.program
        return {
            "path": self.path,
            "version": self.version,
            "bytes": self.size,
            "target": program.target,
            "hardware_digest": program.hardware_digest,
            "instructions": len(program.text),
            "const_bytes": len(program.const),
            "arena_bytes": program.arena_bytes,
            "plan": program.plan,
            "sections": [
                {
                    "name": s.name,
                    "offset": s.offset,
                    "bytes": s.size,
                    "required": s.required,
                    "checksum": s.checksum.hex(),
                }
                for s in self.sections
            ],
            "symbols": [
                {
                    "name": s.name,
                    "kind": s.kind,
                    "dtype": s.dtype,
                    "shape": list(s.shape),
                    "address": s.address,
                    "bytes": s.bytes,
                }
                for s in program.symbols
            ],
        }

    def _headers(self) -> str:
        program = self.program
        lines = [
            f"{os.path.basename(self.path)}: focusc program, format {self.version}, {self.size} bytes",
            f"  target        {program.target}",
            f"  hardware      {program.hardware_digest}",
            f"  instructions  {len(program.text)}",
            f"  constants     {len(program.const)} bytes at 0x0",
            f"  arena         {program.arena_bytes} bytes at {program.arena_base:#x}",
        ]
        for key, value in sorted(program.plan.items()):
            if isinstance(value, (int, float, str)):
                lines.append(f"  plan.{key:<9} {value}")
        lines += ["", "sections:", f"  {'name':<12} {'offset':>10} {'bytes':>10}  flags     checksum"]
        for item in self.sections:
            flags = "required" if item.required else "optional"
            lines.append(f"  {item.name:<12} {item.offset:>#10x} {item.size:>10}  {flags}  {item.checksum.hex()}")
        return "\n".join(lines)

    def _symbols(self) -> str:
        lines = ["symbols:", f"  {'address':>12} {'bytes':>10}  {'kind':<8} {'type':<28} name"]
        for item in sorted(self.program.symbols, key=lambda s: (s.address, s.name)):
            shown = f"{item.dtype}[{', '.join(map(str, item.shape))}]"
            lines.append(f"  {item.address:>#12x} {item.bytes:>10}  {item.kind:<8} {shown:<28} {item.name}")
        return "\n".join(lines)


def objdump(path: str | os.PathLike[str]) -> Dump:
    """Open a program file for inspection; FormatError if it is not one, or damaged."""
    from focusc.isa.container import read_sections

    program = load_program(path)
    header, sections, _ = read_sections(path)
    return Dump(os.fspath(path), program, header.version, header.size, sections)
