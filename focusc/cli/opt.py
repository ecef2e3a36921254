"""`focusc opt`: run passes over any IR snapshot."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import Json, emit, progress


def command(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="An IR file (.fir), such as a snapshot of --dump-ir, or an ONNX model."),
    ],
    pipeline: Annotated[
        str, typer.Option("-p", "--pipeline", metavar="TEXT", help="Passes, such as 'fuse-nn,concentrate{method=sec}'.")
    ],
    output: Annotated[
        Path | None,
        typer.Option("-o", "--output", metavar="OUT.fir", help="Where the result goes; otherwise to stdout."),
    ] = None,
    dump_ir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the IR after every pass into this folder, replacing an earlier run's."),
    ] = None,
    verify_each: Annotated[
        bool, typer.Option("--verify-each", help="Execute the IR before and after every pass and compare.")
    ] = False,
    stats: Annotated[bool, typer.Option("--stats", help="Print what each pass counted, on stderr.")] = False,
    json: Json = False,
) -> None:
    """Run a pipeline of passes over an IR file."""
    from focusc.driver import opt

    with progress(json) as report:
        done = opt(source, pipeline, output=output, dump_ir=dump_ir, verify_each=verify_each, progress=report)

    def text() -> None:
        if output is None:
            typer.echo(done.text, nl=False)
        if stats or output is not None:
            typer.echo(done.stats_text, err=True)

    emit(done.data, json, text)
