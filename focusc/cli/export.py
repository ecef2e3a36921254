"""`focusc export`: a torch model becomes an ONNX file with its token layout in the metadata."""

from pathlib import Path
from typing import Annotated

import typer

from focusc.cli.common import Json, emit, progress


def command(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="`demo`, a Hugging Face checkpoint directory of a vision-language or language model, a config.json, "
            "or a .gguf file.",
        ),
    ],
    output: Annotated[
        Path, typer.Option("-o", "--output", metavar="FILE.onnx", help="The ONNX file; weights go to FILE.onnx.data.")
    ],
    opset: Annotated[
        int | None, typer.Option(help="20: attention and norms in parts; 23: as nodes. Default: 20 for demo, else 23.")
    ] = None,
    random_weights: Annotated[
        int | None, typer.Option("--random-weights", metavar="SEED", help="An untrained instance of the config.")
    ] = None,
    no_weights: Annotated[
        bool, typer.Option("--no-weights", help="Shapes only, for models larger than memory; not compared.")
    ] = False,
    image: Annotated[Path | None, typer.Option(metavar="FILE", help="A picture for the model's processor.")] = None,
    video: Annotated[Path | None, typer.Option(metavar="FILE", help="A clip for the model's processor.")] = None,
    prompt: Annotated[str | None, typer.Option(help="The question; the chat template is put around it.")] = None,
    length: Annotated[
        int | None, typer.Option(help="Tokens of a made-up text (32), for a language model without --prompt.")
    ] = None,
    frames: Annotated[
        int | None, typer.Option(help="Frames taken from the clip (8), or of a made-up clip without --video.")
    ] = None,
    tokens: Annotated[
        Path | None, typer.Option(metavar="FILE.npy", help="Token ids, instead of a processor; with --pixels.")
    ] = None,
    pixels: Annotated[
        Path | None,
        typer.Option(metavar="FILE.npz", help="Arrays named like arguments of the model's forward; or one, .npy."),
    ] = None,
    json: Json = False,
) -> None:
    """Export a torch model to ONNX and check the file against torch on onnxruntime.

    The prefill is exported, as one static graph for one sample's layout: a picture or clip with a prompt, a prompt
    alone for a language model, arrays, or random values when none is given. The sample is kept as FILE.npz.
    """
    options = (random_weights, image, video, prompt, length, frames, tokens, pixels)
    if model == "demo":
        if no_weights or any(option is not None for option in options):
            raise typer.BadParameter("demo takes no options but --opset", param_hint="MODEL")
        from focusc.driver import export

        with progress(json) as report:
            done = export(model, output, opset=20 if opset is None else opset, progress=report)
        emit(done, json, lambda: typer.echo(str(done)))
        return

    from focusc.driver import export_vlm, vlm_request

    request = vlm_request(image=image, video=video, prompt=prompt, length=length, frames=frames, tokens=tokens,
                          pixels=pixels, seed=random_weights or 0)
    with progress(json) as report:
        made = export_vlm(model, output, request=request, opset=23 if opset is None else opset,
                          random_weights=random_weights, weights=not no_weights, progress=report)
    emit(made, json, lambda: typer.echo(str(made)))
