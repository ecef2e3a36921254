"""`focusc demo`: the whole path on the model that is shipped, what `make demo` runs."""

import os
from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import ArrayOption, Json, emit, progress


def command(
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="DIR", help="Folder for everything it leaves.")
    ] = Path("demo-out"),
    video: Annotated[
        Path | None, typer.Option(metavar="FILE", help="A clip to ask about, instead of held-out videos.")
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Questions in the comparison table, at most.")] = 24,
    array: ArrayOption = "pipelined",
    json: Json = False,
) -> None:
    """Export, compile and run the demo model, dense and concentrated; leave binaries, IR, timeline, picture."""
    # the model is small: one thread is as fast as two, and does not collapse when the machine is busy
    for library in ("OPENBLAS", "NUMBA"):
        os.environ.setdefault(f"{library}_NUM_THREADS", "1")
    from focusc.driver import demo

    with progress(json) as report:
        done = demo(
            output,
            samples=samples,
            video=video,
            array=array,
            progress=report,
            say=(lambda line: None) if json else typer.echo,
        )
    emit(done, json, lambda: None)
