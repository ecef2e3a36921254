"""Idefics3 and SmolVLM: each frame, or each tile of an image, is n x n tokens between marks of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from . import Visual

MODEL_TYPES = ("idefics3", "smolvlm")
SEPARATORS = 2


def visual(config: Any, sample: Mapping[str, torch.Tensor]) -> Visual:
    """See `families.Family`."""
    pixels = sample["pixel_values"]
    side = pixels.shape[-1] // config.vision_config.patch_size // config.scale_factor
    images = pixels.shape[0] * pixels.shape[1]
    return Visual((images, side, side), images * side * side)


def media(config: Any, frames: int, video: bool, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """See `families.Family`."""
    size = config.vision_config.image_size
    images = frames if video else 1
    return {"pixel_values": torch.randn(1, images, 3, size, size, generator=generator),
            "pixel_attention_mask": torch.ones(1, images, size, size, dtype=torch.int64)}
