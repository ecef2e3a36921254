"""`focusc compare`: one model, every concentration method, side by side."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import ArrayOption, Json, emit, progress, show


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model.")],
    samples: Annotated[int, typer.Option(min=1, help="How many samples to run.")] = 20,
    inputs: Annotated[
        Path | None,
        typer.Option(
            metavar="IN.npz",
            help="Inputs with a leading sample axis, and `answer` if known; "
            "otherwise the held-out questions that the model's metadata names.",
        ),
    ] = None,
    methods: Annotated[
        str, typer.Option(metavar="A,B", help="Which to compare, the first is the base.")
    ] = "none,sec,sic,focus",
    config: Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Compile options from a file.")] = None,
    array: ArrayOption = "pipelined",
    json: Json = False,
) -> None:
    """Accuracy, sparsity, cycles, energy, DRAM bytes and speed-up of dense, SEC, SIC and both."""
    from focusc.driver import compare
    from focusc.report.tables import compare_table

    with progress(json) as report:
        table = compare(
            model,
            samples=samples,
            inputs=inputs,
            methods=methods.split(","),
            config=config,
            array=array,
            progress=report,
        )
    emit(table, json, lambda: show(compare_table(table)))
