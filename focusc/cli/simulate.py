"""`focusc simulate`: timing and energy of a program from a recorded trace, without computing values."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import ArrayOption, Json, emit, show


def command(
    program: Annotated[Path, typer.Argument(help="A program (.fbin).")],
    trace: Annotated[Path, typer.Option("--trace", metavar="T.npz", help="What `focusc run --record-trace` wrote.")],
    stats: Annotated[
        Path | None, typer.Option(metavar="STATS.json", help="Cycles, energy, traffic, per-node profile.")
    ] = None,
    timeline: Annotated[
        Path | None, typer.Option(metavar="T.pftrace", help="A timeline for the Perfetto viewer.")
    ] = None,
    array: ArrayOption = "pipelined",
    json: Json = False,
) -> None:
    """Time a program from a recorded trace: no weights, no activations."""
    from focusc.driver import simulate_files
    from focusc.report.tables import stats_table

    found = simulate_files(program, trace, stats=stats, timeline=timeline, array=array)
    emit(found, json, lambda: show(stats_table(found)))
