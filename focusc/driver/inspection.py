"""`focusc objdump`: what a program file holds, as stable text and as data."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focusc.driver.files import atomic_writer, check_outputs, write_text
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
        from focusc.isa import objdump as listing

        if headers:
            yield f"headers\n\n{listing.headers(self.path, self.program)}"
            yield f"sections\n\n{listing.sections(self.path)}"
            if self.program.host:
                yield f"host\n\n{listing.host(self.program)}"
        if symbols:
            yield f"symbols\n\n{listing.symbols(self.program)}"
        if disassembly or source:
            yield f"disassembly\n\n{listing.disassembly(self.program, source=source)}"

    def write_assembly(self, path: str | os.PathLike[str]) -> list[str]:
        """Write text that `focusc asm` turns back into the same program; its constants go into a file beside it."""
        from focusc.isa import disassemble

        check_outputs({"--fasm": path}, {"the program": self.path})
        target = Path(path)
        const = target.with_suffix(".const.bin") if len(self.program.const) else None
        write_text(target, disassemble(self.program, const_file=const.name if const else None))
        if const is None:
            return [str(target)]
        with atomic_writer(const) as file:
            file.write(self.program.const.tobytes())
        return [str(target), str(const)]

    def data(self) -> dict[str, Any]:
        """Headers, host segments and symbols for --json."""
        from focusc.isa.sections import host_row

        program = self.program
        return {
            "path": self.path,
            "version": self.version,
            "bytes": self.size,
            "target": program.target,
            "hardware_digest": program.hardware_digest,
            "instructions": len(program.text),
            "const_bytes": program.const_bytes,
            "constants": program.has_constants,
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
            "host": [host_row(segment) for segment in program.host],
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


def objdump(path: str | os.PathLike[str]) -> Dump:
    """Open a program file for inspection; FormatError if it is not one, or damaged."""
    from focusc.isa.container import read_sections

    program = load_program(path)
    header, sections, _ = read_sections(path)
    return Dump(os.fspath(path), program, header.version, header.size, sections)
