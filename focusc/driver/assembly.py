"""Assembly text to a program file."""

from __future__ import annotations

import os
from typing import Any

from focusc.driver.errors import InputError
from focusc.driver.files import check_outputs, existing


def assemble_file(source: str | os.PathLike[str], output: str | os.PathLike[str]) -> dict[str, Any]:
    """Assemble `source` and write the program; returns path, instructions, bytes. AsmError names line and column."""
    from focusc.isa import assemble, save

    check_outputs({"-o": output}, {"the assembly": source})
    file = existing(source, "assembly file (.fasm)")
    try:
        text = file.read_text("utf-8")
    except UnicodeDecodeError:
        raise InputError(
            "asm.text", "this is not text", where=str(file), hint="to look into a program, use `focusc objdump`"
        ) from None
    program = assemble(text, file=str(file), folder=file.parent)
    save(program, output)
    return {"path": os.fspath(output), "instructions": len(program.text), "bytes": os.path.getsize(output)}
