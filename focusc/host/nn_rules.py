"""How the fused ops of the nn dialect are written in ONNX: taken apart again."""

from __future__ import annotations

import numpy as np

from focusc.host.graph import Site, rule
from focusc.ir.ops.attention import seen_keys


@rule("nn.linear")
def linear(s: Site, x: str, w: str, bias: str | None) -> str:
    y = s.add("MatMul", x, w)
    y = s.add("Add", y, bias) if bias else y
    return s.add("Gelu", y, approximate="tanh") if s.op.attrs["epilogue"] == "gelu_tanh" else y


@rule("nn.gelu")
def gelu(s: Site, x: str) -> str:
    kind = s.op.attrs["approximate"]
    if kind != "quick":
        return s.add("Gelu", x, approximate=kind)
    return s.add("Mul", x, s.add("Sigmoid", s.add("Mul", x, s.scalar(1.702))))


@rule("nn.silu")
def silu(s: Site, x: str) -> str:
    return s.add("Mul", x, s.add("Sigmoid", x))


@rule("nn.swiglu")
def swiglu(s: Site, gate: str, up: str) -> str:
    return s.add("Mul", s.add("Mul", gate, s.add("Sigmoid", gate)), up)


@rule("nn.layer_norm")
def layer_norm(s: Site, x: str, gamma: str, beta: str | None) -> str:
    return s.add("LayerNormalization", x, gamma, *([beta] if beta else []), axis=-1, epsilon=s.op.attrs["eps"])


@rule("nn.rms_norm")
def rms_norm(s: Site, x: str, gamma: str) -> str:
    mean = s.add("ReduceMean", s.add("Mul", x, x), s.graph.ints([-1]), keepdims=1)
    scale = s.add("Reciprocal", s.add("Sqrt", s.add("Add", mean, s.scalar(s.op.attrs["eps"]))))
    return s.add("Mul", s.add("Mul", x, scale), gamma)


@rule("nn.embed")
def embed(s: Site, ids: str, table: str) -> str:
    return s.add("Gather", table, ids, axis=0)


@rule("nn.rope")
def rope(s: Site, x: str, cos: str, sin: str) -> str:
    heads, shape = s.op.attrs["heads"], s.shape(0)
    width = shape[-1] // heads
    pairs = [width // 2, 2] if s.op.attrs["interleaved"] else [2, width // 2]
    axis = len(shape) + (1 if s.op.attrs["interleaved"] else 0)
    split = s.reshape(x, [*shape[:-1], heads, *pairs])
    first, second = (s.add("Slice", split, *(s.graph.ints([n]) for n in (i, i + 1, axis))) for i in (0, 1))
    turned = s.add("Concat", s.add("Neg", second), first, axis=axis)
    table = [shape[-2], 1, width]
    rows = [*shape[:-1], heads, width]
    straight = s.add("Mul", s.reshape(x, rows), s.reshape(cos, table))
    across = s.add("Mul", s.reshape(turned, rows), s.reshape(sin, table))
    return s.reshape(s.add("Add", straight, across), shape)


@rule("nn.patch_embed")
def patch_embed(s: Site, pixels: str, w: str, bias: str | None) -> str:
    a, (batch, places, width) = s.op.attrs, s.result.shape
    filters = s.reshape(s.add("Transpose", w, perm=[1, 0]), [width, s.shape(0)[1], *a["kernel"]])
    windows = {"strides": list(a["stride"]), "pads": list(a["pads"]) or None}
    y = s.add("Conv", pixels, filters, *([bias] if bias else []), **windows)
    return s.add("Transpose", s.reshape(y, [batch, width, places]), perm=[0, 2, 1])


@rule("nn.attention")
def attention(s: Site, q: str, k: str, v: str, mask: str | None, positions: str | None) -> str:
    """Query heads of a group side by side, so that keys and values are not copied."""
    a = s.op.attrs
    (batch, rows, columns), keys, wide = s.shape(0), s.shape(1)[1], s.shape(2)[2] // a["kv_heads"]
    heads, groups = a["heads"], a["kv_heads"]
    width, each = columns // heads, heads // groups
    scaled = s.add("Mul", q, s.scalar(a["scale"]))
    query = s.add("Transpose", s.reshape(scaled, [batch, rows, groups, each, width]), perm=[0, 2, 3, 1, 4])
    key = s.add("Transpose", s.reshape(k, [batch, keys, groups, 1, width]), perm=[0, 2, 3, 4, 1])
    value = s.add("Transpose", s.reshape(v, [batch, keys, groups, 1, wide]), perm=[0, 2, 3, 1, 4])
    score = s.reshape(s.add("MatMul", query, key), [batch, heads, rows, keys])
    hidden = s.scalar(-np.inf)
    moved = positions is not None and a["window"] > 0
    if a["causal"] or a["window"] and not moved:
        seen = seen_keys(rows, keys, a["causal"], 0 if moved else a["window"])
        score = s.add("Where", s.graph.constant(seen, "bool"), score, hidden)
    if positions is not None and moved:
        own = s.add("Slice", positions, *(s.graph.ints([n]) for n in (keys - rows, keys, 0)))
        first = s.add("Sub", own, s.scalar(float(a["window"]), 4))
        score = s.add("Where", s.add("Greater", s.reshape(positions, [1, keys]), first), score, hidden)
    if mask is not None:
        truth = s.type(3).dtype == "bool"
        score = s.add("Where", mask, score, hidden) if truth else s.add("Add", score, mask)
    share = _softmax_or_zeros(s, score) if mask is not None or moved else s.add("Softmax", score, axis=-1)
    y = s.add("MatMul", s.reshape(share, [batch, groups, each, rows, keys]), value)
    return s.reshape(s.add("Transpose", y, perm=[0, 3, 1, 2, 4]), [batch, rows, heads * wide])


def _softmax_or_zeros(s: Site, score: str) -> str:
    """Softmax over the keys; a row whose scores are all -inf gives zeros."""
    zero, one, axis = s.scalar(0.0), s.scalar(1.0), s.graph.ints([-1])
    top = s.add("ReduceMax", score, axis, keepdims=1)
    top = s.add("Where", s.add("IsInf", top, detect_positive=0), zero, top)
    powers = s.add("Exp", s.add("Sub", score, top))
    total = s.add("ReduceSum", powers, axis, keepdims=1)
    return s.add("Div", powers, s.add("Where", s.add("Equal", total, zero), one, total))
