"""Adapter for the demo model: the only file outside `focusc.models` that may know it."""

from __future__ import annotations

from collections.abc import Iterator

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


def answer_text(token: int) -> str:
    """The word of a token."""
    from focusc.models.demo.tokenizer import decode

    return decode(token)
