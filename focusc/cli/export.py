"""`focusc export`: a torch model becomes an ONNX file with its token layout in the metadata."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import Json, emit, progress


def command(
    model: Annotated[
        str, typer.Argument(help="What to export: `demo`, the video question-answering model shipped here.")
    ],
    output: Annotated[Path, typer.Option("-o", "--output", metavar="FILE.onnx", help="The ONNX file to write.")],
    opset: Annotated[int, typer.Option(help="ONNX opset, 20 or newer.")] = 20,
    json: Json = False,
) -> None:
    """Export a torch model to ONNX and check the file against torch on onnxruntime."""
    from focusc.driver import export

    with progress(json) as report:
        done = export(model, output, opset=opset, progress=report)

    emit(done, json, lambda: typer.echo(str(done)))
