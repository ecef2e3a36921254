"""MiniCPM-V 4.6 and 4.7: patches of all frames packed into one row, each frame merged 4 x 4 between marks of text."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch

from . import Visual

MODEL_TYPES = ("minicpmv4_6", "minicpmv4_7")
SEPARATORS = 2
MERGED_SIDE = 2
"""Merged rows and columns of a made-up frame."""


def _merge(config: Any) -> int:
    return config.merge_kernel_size[0] ** config.merger_times * (1 if config.downsample_mode == "4x" else 2)


def visual(config: Any, sample: Mapping[str, torch.Tensor]) -> Visual:
    """See `families.Family`. Frames or slices of different sizes have no common grid: they count as one row."""
    sizes = sample["target_sizes_videos"] if "target_sizes_videos" in sample else sample["target_sizes"]
    merge = _merge(config)
    cells = [(int(h) // merge, int(w) // merge) for h, w in sizes.tolist()]
    tokens = sum(h * w for h, w in cells)
    if len(set(cells)) > 1:
        return Visual((1, 1, tokens), tokens)
    return Visual((len(cells), *cells[0]), tokens)


def media(config: Any, frames: int, video: bool, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """See `families.Family`."""
    vision = config.vision_config
    count = frames if video else 1
    side = MERGED_SIDE * _merge(config)
    pixels = torch.randn(1, vision.num_channels, vision.patch_size, count * side * side * vision.patch_size,
                         generator=generator)
    sizes = torch.tensor([[side, side]] * count, dtype=torch.int32)
    return {"pixel_values_videos": pixels, "target_sizes_videos": sizes} if video else {
        "pixel_values": pixels, "target_sizes": sizes}
