"""`focusc workload`: a workload becomes a model without weights, or is listed."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import Json, emit, show


def command(
    name: Annotated[
        str | None, typer.Argument(metavar="WORKLOAD", help="A shipped workload or a TOML file; none: list them.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE.fir", help="Write the model here, without weights.")
    ] = None,
    frames: Annotated[int | None, typer.Option(metavar="N", help="Frames of a video workload.")] = None,
    variant: Annotated[str, typer.Option(metavar="NAME", help="One of the workload's variants (a data set).")] = "",
    layers: Annotated[int | None, typer.Option(metavar="N", help="Decoder layers, instead of the workload's.")] = None,
    json: Json = False,
) -> None:
    """Describe a workload, or write it as a model without weights for `focusc compile --no-weights`."""
    from focusc.driver import list_workloads, load_workload, write_workload
    from focusc.report.workloads import workload_list, workload_table

    if name is None:
        found = list_workloads()
        emit(found, json, lambda: show(workload_list(found)))
        return
    workload = load_workload(name, variant=variant, frames=frames, layers=layers)
    facts = write_workload(workload, output)
    emit(facts, json, lambda: show(workload_table(facts)))
