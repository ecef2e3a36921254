"""`focusc run`: execute a program on the emulator."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import ArrayOption, Json, emit, progress, show


def command(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A program (.fbin).")],
    inputs: Annotated[
        Path, typer.Option("--inputs", metavar="IN.npz", help="One array for each input of the program.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="OUT.npz", help="One array for each output.")],
    stats: Annotated[
        Path | None, typer.Option(metavar="STATS.json", help="Cycles, energy, traffic, per-node profile.")
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="T.pftrace", help="A timeline for the Perfetto viewer.")
    ] = None,
    record_trace: Annotated[
        Path | None, typer.Option(metavar="T.npz", help="Record the data-dependent counts, for `focusc simulate`.")
    ] = None,
    array: ArrayOption = "pipelined",
    target: Annotated[
        str | None, typer.Option(help="Refuse a program that was not compiled for this target or description.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Also check reads of unwritten memory, races, NaN from finite inputs.")
    ] = False,
    json: Json = False,
) -> None:
    """Run a program on inputs and report cycles, energy and traffic."""
    from focusc.driver import run_files
    from focusc.report.tables import stats_table

    with progress(json) as report:
        result = run_files(
            program,
            inputs,
            output,
            stats=stats,
            timeline=timeline,
            record_trace=record_trace,
            array=array,
            target=target,
            strict=strict,
            progress=report,
        )
    emit(result.stats, json, lambda: show(stats_table(result.stats)))
