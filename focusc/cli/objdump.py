"""`focusc objdump`: look into a program file."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import Json, emit


def command(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A program (.fbin).")],
    headers: Annotated[bool, typer.Option("-h", "--headers", help="Header and sections.")] = False,
    disassemble: Annotated[
        bool, typer.Option("-d", "--disassemble", help="The instructions as assembly text.")
    ] = False,
    source: Annotated[bool, typer.Option("-S", "--source", help="Assembly with the source nodes in between.")] = False,
    symbols: Annotated[
        bool, typer.Option("-t", "--syms", help="Inputs, outputs, constants and their addresses.")
    ] = False,
    fasm: Annotated[
        Path | None, typer.Option("--fasm", metavar="OUT.fasm", help="Write assembly that `focusc asm` turns back.")
    ] = None,
    json: Json = False,
) -> None:
    """Show headers, symbols and assembly of a program; with no flag, its headers and symbols."""
    from focusc.driver import objdump

    if not (headers or disassemble or source or symbols or fasm):
        headers = symbols = True
    dump = objdump(program)
    if fasm is not None:
        for path in dump.write_assembly(fasm):
            typer.echo(f"wrote {path}", err=True)
    if json:
        emit(dump.data(), True, lambda: None)
        return
    for part in dump.text(headers=headers, symbols=symbols, disassembly=disassemble, source=source):
        typer.echo(part)
