"""`focusc simulate`: timing and energy of a program from a recorded trace, without computing values."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import ArrayOption, Json, emit, progress, show


def command(
    program: Annotated[Path, typer.Argument(metavar="PROGRAM", help="A program (.fbin).")],
    trace: Annotated[
        Path | None,
        typer.Option(
            "--trace", metavar="T.npz", help="From `focusc run --record-trace` or `focusc trace`; if it concentrates."
        ),
    ] = None,
    stats: Annotated[
        Path | None, typer.Option(metavar="STATS.json", help="Cycles, energy, traffic, per-node profile.")
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="T.pftrace", help="A timeline for the Perfetto viewer.")
    ] = None,
    array: ArrayOption = "pipelined",
    json: Json = False,
) -> None:
    """Time a program from a trace: no weights, no activations."""
    from focusc.driver import simulate_files
    from focusc.report.tables import stats_table

    with progress(json) as report:
        found = simulate_files(program, trace, stats=stats, timeline=timeline, array=array, progress=report)
    emit(found, json, lambda: show(stats_table(found)))
