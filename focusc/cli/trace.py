"""`focusc trace`: make traces without a run, import them from masks, look into them."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import Json, emit, show

app = typer.Typer(
    help="Make, import and describe traces: what concentration left of every activation.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Output = Annotated[Path, typer.Option("-o", "--output", metavar="T.npz", help="The trace to write.")]
Tile = Annotated[int, typer.Option("--m", metavar="ROWS", help="Retained tokens of an m-tile.")]


@app.command("synth")
def synth(
    workload: Annotated[str, typer.Option(metavar="WORKLOAD", help="A shipped workload or a TOML file.")],
    compression: Annotated[float, typer.Option(metavar="RATIO", help="Retained over unique vectors, at least 1.")],
    output: Output,
    frames: Annotated[int | None, typer.Option(metavar="N", help="Frames of a video workload.")] = None,
    variant: Annotated[str, typer.Option(metavar="NAME", help="One of the workload's variants (a data set).")] = "",
    layers: Annotated[int | None, typer.Option(metavar="N", help="Decoder layers, instead of the workload's.")] = None,
    correlation: Annotated[
        float | None,
        typer.Option(
            metavar="RHO",
            help="0: similar vectors lie anywhere; towards 1: whole tiles are similar. Default: 0.16, which fits the "
            "published utilisation of tiles.",
        ),
    ] = None,
    seed: Annotated[int, typer.Option(metavar="N", help="The same seed gives the same trace.")] = 0,
    m: Tile = 1024,
    links: Annotated[bool, typer.Option("--links", help="Write the link table too (token, slot -> root).")] = False,
    json: Json = False,
) -> None:
    """Make a trace with the schedule of a workload, a given compression and spatial correlation."""
    from focusc.driver import load_workload, synthesize_trace
    from focusc.report.traces import trace_table

    found = load_workload(workload, variant=variant, frames=frames, layers=layers)
    facts = synthesize_trace(
        found, output, compression=compression, correlation=correlation, seed=seed, m=m, links=links, source=workload
    )
    emit(facts, json, lambda: show(trace_table(facts)))


@app.command("import")
def import_(
    masks: Annotated[
        Path, typer.Argument(metavar="MASKS", help="An .npz of bool arrays SITE.mask_zero and SITE.mask_similar.")
    ],
    output: Output,
    workload: Annotated[str, typer.Option(metavar="NAME", help="Name to write into the trace.")] = "",
    m: Tile = 1024,
    json: Json = False,
) -> None:
    """Make a trace from masks [layer, head, token, slot] of zero and of similar vectors."""
    from focusc.driver import import_trace
    from focusc.report.traces import trace_table

    facts = import_trace(masks, output, workload=workload, m=m)
    emit(facts, json, lambda: show(trace_table(facts)))


@app.command("info")
def info(
    trace: Annotated[Path, typer.Argument(metavar="TRACE", help="A trace (.npz).")],
    workload: Annotated[
        str | None, typer.Option(metavar="WORKLOAD", help="Check the trace against a workload.")
    ] = None,
    plot: Annotated[Path | None, typer.Option(metavar="FILE.png", help="Draw it (.png, .svg, .pdf).")] = None,
    layers: Annotated[bool, typer.Option("--layers", help="A line for every layer and site.")] = False,
    json: Json = False,
) -> None:
    """Describe a trace in tables, and draw it."""
    from focusc.driver import load_workload, trace_info
    from focusc.report.traces import trace_table

    facts = trace_info(trace, workload=load_workload(workload) if workload else None, plot=plot)
    emit(facts, json, lambda: show(trace_table(facts, every=layers)))
