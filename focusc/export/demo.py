"""Adapter for the demo model: the only file outside `focusc.models` that may know it."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from .evaluation import Question
from .layout import Layout
from .onnx_export import Exportable


def exportable(random_weights: int | None = None) -> Exportable:
    """The demo model with a held-out sample as its example, and its layout."""
    import torch

    from focusc.models import demo
    from focusc.models.demo.data import VISUAL, sample
    from focusc.models.demo.scene import FRAMES, GRID
    from focusc.models.demo.tokenizer import PREFIX, QUERY

    example = sample("heldout", 0)
    inputs = {"pixel_values": torch.from_numpy(example.pixel_values), "input_ids": torch.from_numpy(example.input_ids)}
    layout = Layout(len(PREFIX), VISUAL, (FRAMES, GRID, GRID), (GRID * GRID, GRID, 1), QUERY)
    return Exportable("demo", demo.load(random_weights), inputs, ("logits",), layout)


def questions(split: str, count: int, start: int = 0) -> Iterator[Question]:
    """Questions of a split ("heldout", "transient", ...) with their answers; see `focusc.export.evaluation`."""
    from focusc.models.demo.data import samples

    for item in samples(split, count, start=start):
        inputs = {"pixel_values": item.pixel_values, "input_ids": item.input_ids}
        yield Question(inputs, item.answer_id, item.question, item.family)


def clip_frames() -> int:
    """Number of frames that the model takes."""
    from focusc.models.demo.scene import FRAMES

    return FRAMES


def ask_clip(frames: np.ndarray) -> Iterator[Question]:
    """Questions about RGB frames uint8 [8, height, width, 3] from elsewhere; no answer is known."""
    from focusc.models.demo.clip import QUESTIONS, pixel_values
    from focusc.models.demo.data import VISUAL
    from focusc.models.demo.tokenizer import prompt_ids

    pixels = pixel_values(frames)
    for text in QUESTIONS:
        yield Question({"pixel_values": pixels, "input_ids": prompt_ids(text, VISUAL)}, None, text, "clip")


def answer_text(token: int) -> str:
    """The word of a token."""
    from focusc.models.demo.tokenizer import decode

    return decode(token)
