"""fuse-windows: pooling, and convolutions in groups, channels last."""

from __future__ import annotations

import math
from typing import Any

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import depends_on_constants, rewrite, shape_of
from focusc.ir.passes.canonicalise import slice_attrs
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Builder, Rewriter


@defpass(
    "fuse-windows",
    pools="poolings",
    depthwise="convolutions of each channel by itself",
    grouped="other convolutions in groups",
)
def fuse_windows(module: Module, stats: Stats) -> Module:
    """Make `nn.pool` of poolings and `nn.depthwise_conv` of convolutions of each channel by itself, over 1 to 3 axes.

    Both have channels last; the transposes around them cancel against the model's own in `canonicalise`. Convolutions
    in larger groups become one convolution for each group. Runs before fuse-patch-embed, which takes those.
    """
    return rewrite(module, stats, [pool, depthwise, grouped])


def _last(b: Builder, x: Value) -> Value:
    """[N, C, spatial...] as [N, spatial..., C]."""
    rank = len(shape_of(x))
    return b.emit("tensor.transpose", x, perm=(0, *range(2, rank), 1))


def _first(b: Builder, x: Value) -> Value:
    """[N, spatial..., C] as [N, C, spatial...]."""
    rank = len(shape_of(x))
    return b.emit("tensor.transpose", x, perm=(0, rank - 1, *range(1, rank - 1)))


def pool(op: Op, rewriter: Rewriter) -> str | None:
    """A pooling as transpose, nn.pool, transpose."""
    x = op.operands[0] if op.name in ("tensor.average_pool", "tensor.max_pool") else None
    if x is None or len(op.attrs["kernel"]) > 3 or x.type.dtype not in ("f32", "f16"):  # type: ignore[attr-defined]
        return None
    b = rewriter.builder_before(op)
    attrs: dict[str, Any] = {**op.attrs, "pads": op.attrs["pads"] if any(op.attrs["pads"]) else ()}
    attrs["reduction"] = "max" if op.name == "tensor.max_pool" else "mean"
    rewriter.replace(op, _first(b, b.emit("nn.pool", _last(b, x), **attrs)))
    return "pools"


def _convolution(op: Op) -> tuple[Value, Value, Value | None] | None:
    """(x, w, bias) of a convolution in groups with constant weights."""
    if op.name != "tensor.conv" or op.attrs["group"] == 1:
        return None
    x, w, bias = op.operands
    assert x is not None and w is not None
    constant = depends_on_constants(w) and (bias is None or depends_on_constants(bias))
    return (x, w, bias) if constant and len(shape_of(x)) <= 5 else None


def depthwise(op: Op, rewriter: Rewriter) -> str | None:
    """One output channel for each input channel."""
    found = _convolution(op)
    if found is None or shape_of(found[1])[0] != op.attrs["group"] or shape_of(found[1])[1] != 1:
        return None
    x, w, bias = found
    channels, kernel = shape_of(w)[0], shape_of(w)[2:]
    b = rewriter.builder_before(op)
    taps = b.emit("tensor.transpose", b.emit("tensor.reshape", w, shape=(channels, math.prod(kernel))), perm=(1, 0))
    attrs = {k: op.attrs[k] for k in ("strides", "dilations")}
    pads = op.attrs["pads"] if any(op.attrs["pads"]) else ()
    y = b.emit("nn.depthwise_conv", _last(b, x), taps, bias, kernel=kernel, pads=pads, **attrs)
    rewriter.replace(op, _first(b, y))
    return "depthwise"


def grouped(op: Op, rewriter: Rewriter) -> str | None:
    """Each group as a convolution of its own."""
    found = _convolution(op)
    if found is None or any(d != 1 for d in op.attrs["dilations"]):
        return None
    x, w, bias = found
    groups, b = op.attrs["group"], rewriter.builder_before(op)
    attrs: dict[str, Any] = {**op.attrs, "group": 1}

    def part(value: Value, axis: int, number: int) -> Value:
        shape = shape_of(value)
        size = shape[axis] // groups
        keep = [range(d) for d in shape]
        keep[axis] = range(number * size, (number + 1) * size)
        return b.emit("tensor.slice", value, **slice_attrs(shape, tuple(keep)))

    parts = [
        b.emit(
            "tensor.conv",
            part(x, 1, i),
            part(w, 0, i),
            part(bias, 0, i) if bias is not None else None,
            **attrs,
        )
        for i in range(groups)
    ]
    rewriter.replace(op, b.emit("tensor.concat", *parts, axis=1))
    return "grouped"
