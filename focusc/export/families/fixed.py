"""LLaVA 1.5, InternVL, PaliGemma, Gemma 3: every picture, frame or tile becomes the same square of tokens."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch

from . import Visual

MODEL_TYPES = ("llava", "internvl", "paligemma", "gemma3")
SEPARATORS = 2
COUNTS = ("mm_tokens_per_image", "image_seq_length")
"""Names under which a config says how many tokens a picture becomes; without one, each patch is a token."""


def visual(config: Any, sample: Mapping[str, torch.Tensor]) -> Visual:
    """See `families.Family`."""
    images = sample["pixel_values"].shape[0]
    named = next((getattr(config, name) for name in COUNTS if getattr(config, name, None)), None)
    tokens = (_size(config) // _first(config.vision_config.patch_size)) ** 2 if named is None else int(named)
    side = math.isqrt(tokens)
    grid = (images, side, side) if side * side == tokens else (images, 1, tokens)
    return Visual(grid, images * tokens)


def media(config: Any, frames: int, video: bool, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """See `families.Family`."""
    size = _size(config)
    return {"pixel_values": torch.randn(frames if video else 1, 3, size, size, generator=generator)}


def _size(config: Any) -> int:
    return _first(config.vision_config.image_size)


def _first(size: Any) -> int:
    """A size that is one number or [height, width], which are equal here."""
    return int(size[0] if isinstance(size, list | tuple) else size)
