"""LLaVA-OneVision, LLaVA-NeXT and LLaVA-NeXT-Video: pooled frames of a clip, or one image of any resolution.

A clip is F x h x w tokens; OneVision adds one newline after the clip, which belongs to the text. An image is a base
view followed by the map of its tiles without padding, each row closed by a newline token.
"""

from __future__ import annotations

import importlib
import math
from collections.abc import Mapping
from typing import Any

import torch

from . import Visual

MODEL_TYPES = ("llava_onevision", "llava_next", "llava_next_video")
SEPARATORS = 0


def visual(config: Any, sample: Mapping[str, torch.Tensor]) -> Visual:
    """See `families.Family`."""
    side = config.vision_config.image_size // config.vision_config.patch_size
    onevision = config.model_type == "llava_onevision"
    clip = sample.get("pixel_values_videos")
    if clip is not None:
        pooled = math.ceil(side / 2) if onevision else side // getattr(config, "spatial_pool_stride", 2)
        frames = clip.shape[1]
        newline = 1 if onevision else 0
        return Visual((frames, pooled, pooled), frames * pooled * pooled + newline, tail=newline)
    height, width = (int(n) for n in sample["image_sizes"][0])
    tiles = _tiles(config, height, width)
    if tiles is None:
        return Visual((1, side, side), side * side + 1, tail=1)
    rows, columns = _unpadded(config, (tiles[0] * side, tiles[1] * side), (height, width))
    if onevision:
        limit = int(config.vision_aspect_ratio.removeprefix("anyres_max_"))
        ratio = math.sqrt(rows * columns / (limit * side**2))
        if ratio > 1.1:
            rows, columns = int(rows // ratio), int(columns // ratio)
    columns += 1
    base = side * side
    return Visual((1, rows, columns), base + rows * columns, lead=base, strides=(side, columns, 1))


def media(config: Any, frames: int, video: bool, generator: torch.Generator) -> dict[str, torch.Tensor]:
    """See `families.Family`. The image is a little lower than its tiles, so that some padding is cut off."""
    size = config.vision_config.image_size
    if video:
        return {"pixel_values_videos": torch.randn(1, frames, 3, size, size, generator=generator)}
    height, width = config.image_grid_pinpoints[-1]
    height -= height // 4
    tiles = _tiles(config, height, width) or (0, 0)
    pixels = torch.randn(1, 1 + tiles[0] * tiles[1], 3, size, size, generator=generator)
    return {"pixel_values": pixels, "image_sizes": torch.tensor([[height, width]])}


def _modeling(config: Any) -> Any:
    return importlib.import_module(f"transformers.models.{config.model_type}.modeling_{config.model_type}")


def _tiles(config: Any, height: int, width: int) -> tuple[int, int] | None:
    """Rows and columns of tiles that the model chooses for an image; None if it takes the base view alone."""
    grid = _modeling(config).get_anyres_image_grid_shape(
        (height, width), config.image_grid_pinpoints, config.vision_config.image_size)
    return (int(grid[0]), int(grid[1])) if grid[0] * grid[1] > 0 else None


def _unpadded(config: Any, tiled: tuple[int, int], original: tuple[int, int]) -> tuple[int, int]:
    """Rows and columns left of the tile map when the padding is cut off, as the model's own function does it."""
    kept = _modeling(config).unpad_image(torch.empty((1, *tiled), device="meta"), original)
    return int(kept.shape[1]), int(kept.shape[2])
