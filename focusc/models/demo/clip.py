"""A real clip in front of the demo model: its pictures as pixel values, and what to ask about it. numpy and Pillow."""

from __future__ import annotations

import numpy as np
from PIL import Image

from .scene import FRAMES, SIZE, normalised

__all__ = ["QUESTIONS", "pixel_values"]

QUESTIONS = (
    "how many objects are there ?", "what colour is the circle ?", "what shape is the red object ?",
    "which way does the red circle move ?", "which is larger red or blue ?", "is the red object left of the blue ?",
    "is there a green square ?",
)
"""One of each standard family. The model was trained on drawn objects: of a real clip no answer is right or wrong."""


def pixel_values(frames: np.ndarray) -> np.ndarray:
    """float32 [8, 3, 48, 48] of uint8 RGB frames [8, height, width, 3]: the middle square, shrunk by means of areas."""
    assert len(frames) == FRAMES, f"{len(frames)} frames, expected {FRAMES}"
    height, width = frames.shape[1:3]
    side = min(height, width)
    top, left = (height - side) // 2, (width - side) // 2
    square = frames[:, top:top + side, left:left + side]
    small = [np.asarray(Image.fromarray(frame).resize((SIZE, SIZE), Image.Resampling.BOX)) for frame in square]
    return normalised(np.stack(small).astype(np.float32) / 255)
