"""Backgrounds: photographs that ship inside the scikit-image and scikit-learn wheels, read without importing either."""

from __future__ import annotations

from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image

__all__ = ["TRAIN", "VALIDATION", "load"]

TRAIN = ("skimage/data/astronaut.png", "skimage/data/coffee.png", "skimage/data/motorcycle_left.png",
         "skimage/data/camera.png", "skimage/data/brick.png", "skimage/data/grass.png", "skimage/data/coins.png",
         "skimage/data/moon.png", "skimage/data/ihc.png", "skimage/data/hubble_deep_field.jpg",
         "sklearn/datasets/images/china.jpg")
VALIDATION = ("skimage/data/chelsea.png", "skimage/data/rocket.jpg", "skimage/data/gravel.png",
              "skimage/data/retina.jpg", "sklearn/datasets/images/flower.jpg")
_SHORT_SIDE = 160
"""Photographs are shrunk to this many pixels, so that a 48-pixel crop shows structure rather than blur."""


def _path(name: str) -> Path:
    package, _, rest = name.partition("/")
    spec = find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise FileNotFoundError(f"the demo's backgrounds need {package} installed (for {rest})")
    return Path(spec.submodule_search_locations[0]) / rest


@cache
def load(name: str) -> np.ndarray:
    """One photograph as muted RGB, float32 [h, w, 3] in about 0.15 .. 0.75, shorter side 160 pixels.

    Colours are drawn towards grey and contrast is lowered, so that the drawn objects are the only saturated things.
    """
    with Image.open(_path(name)) as image:
        rgb = image.convert("RGB")
        scale = _SHORT_SIDE / min(rgb.size)
        size = (round(rgb.width * scale), round(rgb.height * scale))
        x = np.asarray(rgb.resize(size, Image.Resampling.BOX), dtype=np.float32) / 255
    grey = x.mean(axis=2, keepdims=True)
    x = grey + 0.4 * (x - grey)
    return np.ascontiguousarray(0.45 + 0.6 * (x - x.mean()))
