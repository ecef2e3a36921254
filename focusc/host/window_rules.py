"""How the channels-last window ops of the nn dialect are written in ONNX, which has channels first."""

from __future__ import annotations

import numpy as np

from focusc.host.graph import Site, rule
from focusc.ir.ops.nn_window import inverse_counts


def _channels(s: Site, x: str, *, first: bool) -> str:
    rank = s.type(0).rank
    perm = [0, rank - 1, *range(1, rank - 1)] if first else [0, *range(2, rank), 1]
    return s.add("Transpose", x, perm=perm)


def _depthwise(s: Site, x: str, filters: str, bias: str | None) -> str:
    """Convolution of each channel by itself; `filters` is [C, 1, kernel...]."""
    a = s.op.attrs
    windows = {name: list(a[name]) or None for name in ("strides", "pads", "dilations")}
    return s.add("Conv", x, filters, *([bias] if bias else []), group=s.shape(0)[-1], **windows)


@rule("nn.depthwise_conv")
def depthwise_conv(s: Site, x: str, w: str, bias: str | None) -> str:
    filters = s.reshape(s.add("Transpose", w, perm=[1, 0]), [s.shape(0)[-1], 1, *s.op.attrs["kernel"]])
    return _channels(s, _depthwise(s, _channels(s, x, first=True), filters, bias), first=False)


@rule("nn.pool")
def pool(s: Site, x: str) -> str:
    """A mean is a convolution with ones, since onnxruntime's own has other rules for padding under dilation."""
    a, shape = s.op.attrs, s.shape(0)
    turned = _channels(s, x, first=True)
    if a["reduction"] == "max":
        windows = {name: list(a[name]) or None for name in ("strides", "pads", "dilations")}
        return _channels(s, s.add("MaxPool", turned, kernel_shape=a["kernel"], **windows), first=False)
    ones = s.graph.constant(np.ones((shape[-1], 1, *a["kernel"])), s.dtype(0))
    total = _channels(s, _depthwise(s, turned, ones, None), first=False)
    padding = bool(a["count_include_pad"])
    scale = inverse_counts(shape[1:-1], a["kernel"], a["strides"], a["pads"], a["dilations"], padding)
    return s.add("Mul", total, s.graph.constant(scale, s.dtype(0)))
