"""Nodes that make constants, or whose result is known once their inputs are."""

from __future__ import annotations

import math

import numpy as np

from focusc.frontend.errors import Unsupported
from focusc.frontend.node import Node, rank, shape
from focusc.frontend.registry import rule
from focusc.frontend.weights import IMPORTED, STORED, WIDENED
from focusc.ir import Value
from focusc.ir.ops.tensor_reduce import TopK


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


def _known(n: Node, index: int) -> np.ndarray:
    """An input on whose values the output's shape depends: it must be known when compiling."""
    found = n.known(index)
    if found is None:
        raise Unsupported("an output shape that does not depend on data", f"a computed input {index} "
                          f"({n.proto.input[index]!r}), whose values decide how much {n.op_type} gives",
                          hint="record the value when exporting, so that it becomes a constant of the graph",
                          code="onnx.data-dependent")
    return found


@rule("NonZero")
def non_zero(n: Node) -> Value:
    """Indices of the non-zero elements, whose number must be known when compiling."""
    return n.constant(np.stack(np.nonzero(_known(n, 0))).astype(np.int64))


@rule("Compress")
def compress(n: Node) -> Value:
    """The slices along an axis (elements, without an axis) where a condition that is known holds."""
    x, rows = n.x(0), np.flatnonzero(_known(n, 1)).astype(np.int64)
    if n.attr("axis") is None:
        return n.emit("tensor.gather", n.reshape(x, (math.prod(shape(x)),)), n.constant(rows), axis=0)
    return n.emit("tensor.gather", x, n.constant(rows), axis=n.axis(int(n.attr("axis")), rank(x)))


@rule("Unique")
def unique(n: Node) -> tuple[Value, ...]:
    """The distinct elements (or slices along an axis) of a tensor that is known; first places, inverse and counts."""
    x, axis = _known(n, 0), n.attr("axis")
    axis = None if axis is None else n.axis(int(axis), x.ndim)
    values, first, inverse, counts = np.unique(x, return_index=True, return_inverse=True, return_counts=True, axis=axis)
    inverse = inverse.reshape(-1)
    if not n.attr("sorted", 1):
        order = np.argsort(first)
        values = np.take(values, order, axis=axis or 0)
        first, counts, inverse = first[order], counts[order], np.argsort(order)[inverse]
    return (n.constant(values), *(n.constant(v.astype(np.int64)) for v in (first, inverse, counts)))


@rule("TopK")
def top_k(n: Node) -> tuple[Value, ...]:
    """The k largest (or smallest) along an axis and their positions; k must be known when compiling."""
    x, k = n.x(0), n.ints(1, "k")[0]
    axis = n.axis(int(n.attr("axis", -1)), rank(x))
    n.check(0 <= k <= shape(x)[axis], f"a k of at most {shape(x)[axis]}", k)
    largest, known = bool(n.attr("largest", 1)), n.known(0)
    if known is not None:
        values, places = TopK.evaluate(known, k=k, axis=axis, largest=largest)
        return n.constant(values), n.constant(places)
    return tuple(n.builder.create("tensor.top_k", x, k=k, axis=axis, largest=largest).results)


@rule("EyeLike")
def eye_like(n: Node) -> Value:
    """Ones on a diagonal, in the shape of the input."""
    kind = int(n.attr("dtype", 1))
    n.check(kind in IMPORTED, "a numeric type", kind)
    target = np.dtype(np.float32) if kind in WIDENED else STORED[kind]
    return n.constant(np.eye(*shape(n.x()), k=int(n.attr("k", 0)), dtype=target))
