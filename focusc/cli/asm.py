"""`focusc asm`: assembly text becomes a program file."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import Json, emit


def command(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="Assembly text (.fasm).")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="P.fbin", help="The program to write.")],
    json: Json = False,
) -> None:
    """Assemble a program."""
    from focusc.driver import assemble_file

    done = assemble_file(source, output)
    emit(done, json, lambda: typer.echo(f"{done['path']}: {done['instructions']} instructions, {done['bytes']} bytes"))
