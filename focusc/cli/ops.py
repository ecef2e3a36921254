"""`focusc ops`: what of a model can be compiled, before anything is compiled."""

from pathlib import Path
from typing import Annotated, Any, Literal

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
    show,
)


def command(
    model: Annotated[Path, typer.Argument(metavar="MODEL", help="An ONNX model.")],
    sites: Annotated[
        bool, typer.Option("--sites", help="Show the decoder layers and the sites that concentrate.")
    ] = False,
    nodes: Annotated[
        Literal["all", "unsupported", "none"],
        typer.Option("--nodes", help="Which nodes get a line: with unsupported, those of the host too."),
    ] = "all",
    target: Target = None,
    concentrate: Annotated[
        Method | None, typer.Option(help="Check what this concentrates. Default: as for `compile`.")
    ] = None,
    host: HostOption = None,
    config: Config = None,
    visual: Visual = None,
    grid: Grid = None,
    strides: Strides = None,
    query: Query = None,
    layout: LayoutFile = None,
    json: Json = False,
) -> None:
    """List every node: supported, the host's, or not; the constraint, the value found, what to do; status 1 if not."""
    from focusc.driver import layout_facts, ops
    from focusc.report.tables import ops_table, sites_table

    given = layout_facts(layout, visual=visual, grid=grid, strides=strides, query=query)
    options: dict[str, Any] = {"target": target, "concentrate": concentrate, "config": config, "layout": given}
    if sites:
        from focusc.driver import concentration_sites

        found = concentration_sites(model, **options)
        emit({"sites": found}, json, lambda: show(sites_table(found)))
        return
    report = ops(model, host=host, **options)
    emit(report.to_dict(), json, lambda: show(ops_table(report, nodes)))
    if not report.supported:
        raise typer.Exit(1)
