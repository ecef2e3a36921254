"""`focusc compile`: an ONNX model (or an IR snapshot) becomes a program."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import (
    Config,
    Grid,
    HostOption,
    Json,
    LayoutFile,
    Method,
    Query,
    Strides,
    Target,
    Visual,
    emit,
    progress,
    show,
)


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model or an IR file (.fir).")],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.fbin", help="The program to write.")],
    target: Target = None,
    concentrate: Annotated[
        Method | None, typer.Option(help="What to concentrate. Default: focus on the target focus, none on systolic.")
    ] = None,
    host: HostOption = None,
    config: Config = None,
    pipeline: Annotated[
        str | None, typer.Option("-p", "--pipeline", metavar="TEXT", help="Passes to run instead of the usual ones.")
    ] = None,
    dump_ir: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Write the IR after every pass into this folder, replacing an earlier run's."),
    ] = None,
    verify_each: Annotated[
        bool, typer.Option("--verify-each", help="Execute the IR before and after every pass and compare.")
    ] = False,
    no_weights: Annotated[
        bool, typer.Option("--no-weights", help="Leave the weights out: the program can be simulated, not run.")
    ] = False,
    visual: Visual = None,
    grid: Grid = None,
    strides: Strides = None,
    query: Query = None,
    layout: LayoutFile = None,
    json: Json = False,
) -> None:
    """Compile a model for a target."""
    from focusc.driver import CompileOptions, compile_model, layout_facts
    from focusc.driver.files import check_outputs, toml_file
    from focusc.report.tables import compile_table

    check_outputs(
        {"-o": output, "--dump-ir": dump_ir},
        {"the model": model, "--config": config, "--layout": layout, "--target": toml_file(target)},
    )
    options = CompileOptions.load(
        config,
        target=target,
        concentrate=concentrate,
        host=host,
        layout=layout_facts(layout, visual=visual, grid=grid, strides=strides, query=query),
        pipeline=pipeline,
    )
    with progress(json) as report:
        done = compile_model(
            model, options, dump_ir=dump_ir, verify_each=verify_each, weights=not no_weights, progress=report
        )
        done.program.save(output)
    summary = done.summary(output)
    emit(summary, json, lambda: show(compile_table(summary)))
