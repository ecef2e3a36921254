"""Resize with known sizes: along each axis a product with a constant interpolation matrix."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from focusc.frontend.node import Node, rank, shape
from focusc.frontend.registry import rule
from focusc.frontend.rules.products import along_axis
from focusc.ir import Value

ROUNDING: dict[str, Callable[[float], int]] = {
    "round_prefer_floor": lambda v: math.ceil(v - 0.5),
    "round_prefer_ceil": lambda v: math.floor(v + 0.5),
    "floor": math.floor,
    "ceil": math.ceil,
}


@rule("Resize")
def resize(n: Node) -> Value:
    """Nearest, linear and cubic, all coordinate transformations but tf_crop_and_resize."""
    x = n.x(0)
    dims = shape(x)
    axes = [n.axis(int(a), rank(x)) for a in n.attr("axes", range(rank(x)))]
    sizes, scales = _target(n, [dims[a] for a in axes])
    mode, place = n.attr("mode", "nearest"), n.attr("coordinate_transformation_mode", "half_pixel")
    n.check(place != "tf_crop_and_resize", "a coordinate transformation without a region of interest", place)
    for axis, size, scale in zip(axes, sizes, scales, strict=True):
        if size == dims[axis] and scale == 1:
            continue
        centres = _coordinates(place, dims[axis], size, scale)
        if mode == "nearest":
            pick = ROUNDING[n.attr("nearest_mode", "round_prefer_floor")]
            rows = np.array([min(max(pick(c), 0), dims[axis] - 1) for c in centres], np.int64)
            x = n.emit("tensor.gather", x, n.constant(rows), axis=axis)
        else:
            x = along_axis(n, x, axis, _matrix(n, mode, dims[axis], centres, scale))
    return x


def _target(n: Node, old: list[int]) -> tuple[list[int], list[float]]:
    """Output extents and scales of the resized axes."""
    if n.has(2) and shape(n.x(2)) != (0,):
        scales = [float(v) for v in n.const(2, "the scales")]
        return [math.floor(d * s) for d, s in zip(old, scales, strict=True)], scales
    sizes = n.ints(3, "the sizes")
    scales = [s / d for s, d in zip(sizes, old, strict=True)]
    policy = n.attr("keep_aspect_ratio_policy", "stretch")
    if policy != "stretch":
        scale = min(scales) if policy == "not_larger" else max(scales)
        sizes, scales = [math.floor(d * scale + 0.5) for d in old], [scale] * len(old)
    return sizes, scales


def _coordinates(place: str, old: int, new: int, scale: float) -> list[float]:
    """Where each output element lies in the input, as ONNX defines it by mode."""
    if place == "align_corners":
        return [0.0 if new == 1 else i * (old - 1) / (scale * old - 1) for i in range(new)]
    if place == "asymmetric":
        return [i / scale for i in range(new)]
    if place == "pytorch_half_pixel" and new == 1:
        return [0.0]
    shift = 0.0
    if place == "half_pixel_symmetric":  # the centre of the input stays the centre if the scale was rounded
        shift = old / 2 * (1 - new / (scale * old))
    return [shift + (i + 0.5) / scale - 0.5 for i in range(new)]


def _matrix(n: Node, mode: str, old: int, centres: list[float], scale: float) -> np.ndarray:
    """[old, new] interpolation weights; neighbours outside the input count as its edge, or not at all."""
    a = float(n.attr("cubic_coeff_a", -0.75))
    n.check(mode in ("linear", "cubic"), "mode nearest, linear or cubic", mode)
    outside = bool(n.attr("exclude_outside", 0))
    stretch = min(scale, 1.0) if n.attr("antialias", 0) else 1.0
    reach = (1 if mode == "linear" else 2) / stretch
    weight = np.zeros((old, len(centres)), np.float64)
    for column, centre in enumerate(centres):
        cells = range(math.floor(centre - reach) + 1, math.ceil(centre + reach))
        if centre == math.floor(centre) and stretch == 1:
            cells = range(math.floor(centre), math.floor(centre) + 1)
        values = {c: _kernel(mode, (c - centre) * stretch, a) for c in cells}
        if outside:
            values = {c: v for c, v in values.items() if 0 <= c < old}
        total = sum(values.values())
        for c, v in values.items():
            weight[min(max(c, 0), old - 1), column] += v / total
    return weight.astype(np.float32)


def _kernel(mode: str, distance: float, a: float) -> float:
    """Triangle, or Keys' cubic convolution with coefficient a (IEEE ASSP 29(6), 1981)."""
    d = abs(distance)
    if mode == "linear":
        return max(0.0, 1 - d)
    if d <= 1:
        return ((a + 2) * d - (a + 3)) * d * d + 1
    return ((a * d - 5 * a) * d + 8 * a) * d - 4 * a if d < 2 else 0.0
