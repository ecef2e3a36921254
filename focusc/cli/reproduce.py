"""`focusc reproduce`: the published tables and figures, ours beside them."""

import time
from pathlib import Path
from typing import Annotated, Literal

import typer

from focusc.cli.common import Json, emit, show


def command(
    tables: Annotated[
        list[str] | None, typer.Argument(metavar="TABLE", help="Tables to show; all if none is named.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="DIR", help="Write TABLE.csv, .png and .svg here.")
    ] = None,
    accounting: Annotated[
        Literal["published", "corrected", "both"],
        typer.Option("--accounting", help="As the tables were made, as they should have been, or one after the other."),
    ] = "published",
    json: Json = False,
) -> None:
    """Recompute the published tables and figures, and set them beside the published ones.

    Tables: results, headline, speedup, ablation, traffic, accuracy, int8,
    images, tile-rows, vector-size, block-size, accumulators, area-power,
    utilisation. Every number says where it comes from.
    """
    from focusc.report.reproduce import reproduce, write

    start = time.process_time()
    chosen = ("published", "corrected") if accounting == "both" else (accounting,)
    found = reproduce(tables or (), chosen)
    seconds = time.process_time() - start
    files = write(found, output) if output is not None else []
    data = {"tables": {table.name: table.to_dict() for table in found}, "seconds": seconds, "files": files}

    def text() -> None:
        from focusc.report.reproduce.terminal import legend, table_text

        for table in found:
            show(table_text(table))
        what = "1 table" if len(found) == 1 else f"{len(found)} tables"
        show(legend(found), f"{what}: {seconds:.2f} s of processor time")
        if files:
            show(f"{len(files)} files in {output}")

    emit(data, json, text)
