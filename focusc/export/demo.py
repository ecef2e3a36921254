"""Adapter for the demo model: the only file outside `focusc.models` that may know it."""

from __future__ import annotations

from .layout import TokenLayout
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
    layout = TokenLayout(len(PREFIX), VISUAL, (FRAMES, GRID, GRID), (GRID * GRID, GRID, 1), QUERY)
    return Exportable("demo", demo.load(random_weights), inputs, ("logits",), layout)
