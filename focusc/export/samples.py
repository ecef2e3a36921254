"""The sample a prefill is traced with: from the model's own processor, from arrays, or made up."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from focusc.isa.arrays import ArraysError, load_arrays

from .checkpoint import Checkpoint, silent_transformers
from .errors import ExportError
from .families import family_of
from .media import read_image, read_video
from .tokens import made_up_ids, placeholder_ids, token_types

if TYPE_CHECKING:
    import torch

__all__ = ["Request", "sample_of"]

DEFAULT_PROMPT = "What is shown here?"


@dataclass(frozen=True)
class Request:
    """What the user gave: a picture or a clip with a prompt, or arrays, or nothing but a number of frames.

    For a language model alone: a prompt, token ids, or nothing but their number.

    `tokens`: .npy of whole numbers [T] or [1, T]. `pixels`: .npz with arrays named like arguments of the model's
    forward (`pixel_values`, `image_grid_thw` ...), or .npy of the one main pixel argument. `length`: tokens of a
    made-up text.
    """

    image: Path | None = None
    video: Path | None = None
    prompt: str | None = None
    frames: int | None = None
    tokens: Path | None = None
    pixels: Path | None = None
    length: int | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        given = [name for name in ("image", "video", "pixels") if getattr(self, name) is not None]
        if len(given) > 1:
            raise ExportError(f"--{given[0]} and --{given[1]} are both given, expected one of them",
                              code="export.options")
        if self.pixels is not None and self.tokens is None:
            raise ExportError("--tokens and --pixels belong together, one is missing", code="export.options")
        for name in ("frames", "length"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ExportError(f"--{name} is {value}, expected at least 1", code="export.options")

    def check_visual(self) -> None:
        """ExportError for what a model that sees is not to be given."""
        if (self.tokens is None) != (self.pixels is None):
            raise ExportError("--tokens and --pixels belong together, one is missing", code="export.options")
        if self.prompt is not None and not (self.image or self.video):
            raise ExportError("--prompt needs --image or --video", code="export.options")
        if self.length is not None:
            raise ExportError("--length is given, but the model sees pictures", code="export.options",
                              hint="its text follows from --prompt, --tokens or --frames")


def sample_of(checkpoint: Checkpoint, request: Request) -> tuple[dict[str, torch.Tensor], str]:
    """(arguments of the model's forward by name, where they come from)."""
    if not checkpoint.visual:
        from .text import text_sample

        return text_sample(checkpoint, request)
    request.check_visual()
    if request.pixels is not None and request.tokens is not None:
        sample, source = _from_arrays(checkpoint, request.pixels, request.tokens), "arrays"
    elif request.image is not None or request.video is not None:
        sample, source = _from_processor(checkpoint, request), f"processor, {(request.image or request.video or '')}"
    else:
        sample, source = _made_up(checkpoint, request), f"made up, seed {request.seed}"
    return _completed(checkpoint, sample), source


def _completed(checkpoint: Checkpoint, sample: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """With token types where the model wants them and without what its forward does not take."""
    accepted = inspect.signature(checkpoint.model_class.forward).parameters
    if "mm_token_type_ids" in accepted and "mm_token_type_ids" not in sample:
        sample = sample | {"mm_token_type_ids": token_types(checkpoint.config, sample["input_ids"])}
    return {name: value for name, value in sample.items() if name in accepted}


def _made_up(checkpoint: Checkpoint, request: Request) -> dict[str, torch.Tensor]:
    import torch

    family = family_of(checkpoint.model_type)
    if family is None:
        from .families import FAMILIES

        raise ExportError(
            f"no inputs can be made up for model type {checkpoint.model_type!r}; families: {', '.join(FAMILIES)}",
            code="export.sample", where=str(checkpoint.directory),
            hint="give --image or --video with the model's processor, or --tokens and --pixels")
    generator = torch.Generator().manual_seed(request.seed)
    media = family.media(checkpoint.config, request.frames or 1, request.frames is not None, generator)
    return media | {"input_ids": made_up_ids(checkpoint.config, media, generator)}


def _from_arrays(checkpoint: Checkpoint, pixels: Path, tokens: Path) -> dict[str, torch.Tensor]:
    import torch

    ids = token_ids(tokens, checkpoint.config.get_text_config().vocab_size)
    given = _array(pixels)
    accepted = inspect.signature(checkpoint.model_class.forward).parameters
    if isinstance(given, np.ndarray):
        video = "pixel_values_videos" in accepted and placeholder_ids(checkpoint.config).get("video_token_id") in ids
        given = {"pixel_values_videos" if video else "pixel_values": given}
    unknown = [name for name in given if name not in accepted]
    if unknown:
        raise ExportError(f"{checkpoint.model_class.__name__} takes no argument {unknown[0]!r}", code="export.arrays",
                          where=str(pixels), hint="name the arrays like the arguments of the model's forward")
    media = {name: torch.from_numpy(value.astype(np.float32) if value.dtype.kind == "f" else value)
             for name, value in given.items()}
    return media | {"input_ids": torch.from_numpy(ids.reshape(1, -1))}


def token_ids(path: Path, vocabulary: int) -> np.ndarray[Any, np.dtype[np.int64]]:
    """[T] from a .npy file of whole numbers [T] or [1, T]. ExportError if they are not, or not of the vocabulary."""
    ids = _array(path)
    if not isinstance(ids, np.ndarray) or ids.dtype.kind not in "iu" or not ids.size or ids.size != ids.shape[-1]:
        found = f", found {ids.dtype} {list(ids.shape)}" if isinstance(ids, np.ndarray) else ""
        raise ExportError(f"expected one array of whole numbers, [T] or [1, T]{found}", code="export.arrays",
                          where=str(path))
    low, high = int(ids.min()), int(ids.max())
    if low < 0 or high >= vocabulary:
        raise ExportError(f"the token ids reach from {low} to {high}, expected 0 to {vocabulary - 1}",
                          code="export.arrays", where=str(path), hint="use the tokenizer of this model")
    return ids.astype(np.int64).reshape(-1)


def _array(path: Path) -> np.ndarray[Any, Any] | dict[str, np.ndarray[Any, Any]]:
    try:
        return load_arrays(path)
    except ArraysError as error:
        raise ExportError(f"this is no file of arrays: {error}", code="export.arrays", where=str(path),
                          hint="write it with numpy.save or savez") from None


def _from_processor(checkpoint: Checkpoint, request: Request) -> dict[str, torch.Tensor]:
    processor = checkpoint.processor("AutoProcessor")
    arguments: dict[str, Any]
    if request.video is not None:
        clip = read_video(request.video, request.frames or 8)
        kind, arguments = "video", {"videos": [clip], **_video_options(processor, len(clip))}
    else:
        assert request.image is not None
        kind, arguments = "image", {"images": [read_image(request.image)]}
    text = _prompt(processor, kind, request.prompt, checkpoint)
    with silent_transformers():
        try:
            made: Mapping[str, Any] = processor(text=[text], return_tensors="pt", **arguments)
        except MemoryError:
            raise
        except Exception as error:                       # the model's own code, on what the user gave
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ExportError(f"{type(processor).__name__} refuses the {kind} or the prompt: {first}",
                              code="export.processor", where=str(request.video or request.image),
                              hint=f"the prompt was {text!r}") from error
    sample = dict(made)
    if not any(name.startswith("pixel_values") for name in sample):
        raise ExportError(f"{type(processor).__name__} made no pixels from the {kind}", code="export.processor",
                          where=str(checkpoint.directory))
    return sample


def _video_options(processor: Any, frames: int) -> dict[str, Any]:
    """Frames are chosen here, so the processor must not choose again; it is told their number and a rate."""
    options: dict[str, Any] = {"do_sample_frames": False}
    if hasattr(processor, "video_processor"):
        from transformers.video_utils import VideoMetadata

        options["video_metadata"] = [VideoMetadata(total_num_frames=frames, fps=24.0, duration=frames / 24.0,
                                                   frames_indices=list(range(frames)))]
    return options


def _prompt(processor: Any, kind: str, prompt: str | None, checkpoint: Checkpoint) -> str:
    """The text for the processor: the user's, if it has the placeholder, else the chat template around it."""
    token = getattr(processor, f"{kind}_token", None) or getattr(processor, "image_token", None) or f"<{kind}>"
    token = str(getattr(token, "content", token))
    question = prompt or DEFAULT_PROMPT
    if token in question:
        return question
    if getattr(processor, "chat_template", None):
        content = [{"type": kind}, {"type": "text", "text": question}]
        return str(processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True))
    if prompt is not None:
        raise ExportError(f"the prompt has no {kind} placeholder {token!r}, and the checkpoint has no chat template",
                          code="export.prompt", where=str(checkpoint.directory),
                          hint=f"write it where the {kind} belongs: --prompt '{token} {question}'")
    return f"{token} {question}"
