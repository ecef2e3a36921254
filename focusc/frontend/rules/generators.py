"""Nodes that make constants, or whose result is known once their inputs are."""

from __future__ import annotations

import numpy as np

from focusc.frontend.node import Node, shape
from focusc.frontend.registry import rule
from focusc.frontend.weights import IMPORTED, STORED, WIDENED
from focusc.ir import Value


@rule("Constant")
def constant(n: Node) -> Value:
    """A tensor, number or list given as an attribute."""
    names = n.attribute_names()
    if "value" in names:
        return n.builder.constant(n.tensor_attr("value"))
    kinds = {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
    found = sorted(names & set(kinds))
    n.check(bool(found), f"one of value, {', '.join(kinds)}", ", ".join(sorted(names)) or "no value")
    return n.constant(np.asarray(n.attr(found[0]), kinds[found[0]]))


@rule("ConstantOfShape")
def constant_of_shape(n: Node) -> Value:
    """A constant shape filled with one number."""
    dims = tuple(n.ints(0, "the shape"))
    fill = n.tensor_attr("value").array.reshape(-1)[0] if "value" in n.attribute_names() else np.float32(0)
    return n.expand(n.reshape(n.constant(np.asarray(fill)), (1,) * len(dims)), dims)


@rule("Range")
def range_(n: Node) -> Value:
    """start, start + delta, ... below limit; all three known when compiling."""
    start, limit, delta = (n.const(i, what).reshape(-1)[0] for i, what in enumerate(("start", "limit", "delta")))
    count = max(int(np.ceil((limit - start) / delta)), 0)
    return n.constant((start + np.arange(count) * delta).astype(start.dtype))


@rule("NonZero")
def non_zero(n: Node) -> Value:
    """Indices of the non-zero elements, whose number must be known when compiling."""
    return n.constant(np.stack(np.nonzero(n.const(0, "the tensor"))).astype(np.int64))


@rule("TopK")
def top_k(n: Node) -> tuple[Value, Value]:
    """The k largest (or smallest) of a tensor that is known when compiling, and their indices."""
    x, k = n.const(0, "the tensor"), n.ints(1, "k")[0]
    axis = n.axis(int(n.attr("axis", -1)), x.ndim)
    order = np.argsort(-x if n.attr("largest", 1) else x, axis=axis, kind="stable")
    picked = np.take(order, np.arange(k), axis=axis)
    return n.constant(np.take_along_axis(x, picked, axis)), n.constant(picked.astype(np.int64))


@rule("EyeLike")
def eye_like(n: Node) -> Value:
    """Ones on a diagonal, in the shape of the input."""
    kind = int(n.attr("dtype", 1))
    n.check(kind in IMPORTED, "a numeric type", kind)
    target = np.dtype(np.float32) if kind in WIDENED else STORED[kind]
    return n.constant(np.eye(*shape(n.x()), k=int(n.attr("k", 0)), dtype=target))
