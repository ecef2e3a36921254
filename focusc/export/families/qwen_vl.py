"""Qwen2-VL and Qwen2.5-VL: flattened patches with a t x h x w grid beside them, merged 2 x 2."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from . import Visual

MODEL_TYPES = ("qwen2_vl", "qwen2_5_vl")
SEPARATORS = 0
MERGED_SIDE = 4
"""Merged rows and columns of a made-up image."""


def visual(config: Any, sample: Mapping[str, torch.Tensor]) -> Visual:
    """See `families.Family`."""
    grid = sample["video_grid_thw"] if "video_grid_thw" in sample else sample["image_grid_thw"]
    merge = config.vision_config.spatial_merge_size
    frames, height, width = (int(n) for n in grid[0])
    shape = (frames, height // merge, width // merge)
    return Visual(shape, shape[0] * shape[1] * shape[2])


def media(config: Any, frames: int, video: bool, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """See `families.Family`."""
    vision = config.vision_config
    steps = max(1, frames // vision.temporal_patch_size) if video else 1
    side = MERGED_SIDE * vision.spatial_merge_size
    channels = getattr(vision, "in_channels", None) or getattr(vision, "in_chans", 3)
    width = channels * vision.temporal_patch_size * vision.patch_size**2
    pixels = torch.randn(steps * side * side, width, generator=generator)
    grid = torch.tensor([[steps, side, side]])
    return {"pixel_values_videos": pixels, "video_grid_thw": grid} if video else {
        "pixel_values": pixels, "image_grid_thw": grid}
