"""Reductions, softmax and normalisation."""

from __future__ import annotations

import math

from focusc.frontend.node import Node, dtype, rank, shape
from focusc.frontend.registry import rule
from focusc.ir import Value


def _axes(n: Node, x: Value) -> tuple[int, ...] | None:
    """The axes to reduce; None if the node says to reduce none."""
    given = n.attr("axes") or (n.ints(1, "the axes") if n.has(1) else [])
    if not given:
        return None if n.attr("noop_with_empty_axes", 0) else tuple(range(rank(x)))
    return tuple(sorted(n.axis(int(a), rank(x)) for a in given))


def reduce(n: Node, kind: str, x: Value) -> Value:
    """Reduce x over the node's axes."""
    axes = _axes(n, x)
    if not axes:
        return x
    return n.emit(f"tensor.reduce_{kind}", x, axes=axes, keepdims=bool(n.attr("keepdims", 1)))


KINDS = {"ReduceMean": "mean", "ReduceSum": "sum", "ReduceMax": "max", "ReduceMin": "min", "ReduceProd": "prod"}


@rule(*KINDS)
def plain(n: Node) -> Value:
    """Mean, sum, maximum, minimum or product over axes; of bools, the maximum is `any` and the minimum `all`."""
    x = n.x()
    if dtype(x) == "bool" and n.op_type in ("ReduceMax", "ReduceMin"):
        return n.cast(reduce(n, KINDS[n.op_type], n.cast(x, "u8")), "bool")
    return reduce(n, KINDS[n.op_type], x)


@rule("ArgMax", "ArgMin")
def arg_max(n: Node) -> Value:
    """Position of the largest (smallest) element: the first in a tie, or the last if the node says so."""
    x = n.x()
    axis = n.axis(int(n.attr("axis", 0)), rank(x))
    if n.op_type == "ArgMin":
        n.check(not dtype(x).startswith("u"), "signed numbers", dtype(x))
        x = n.emit("tensor.neg", x)
    last = bool(n.attr("select_last_index", 0))
    if last:
        x = n.emit("tensor.slice", x, starts=(-1,), ends=(-(2**62),), axes=(axis,), steps=(-1,))
    found = n.emit("tensor.argmax", x, axis=axis, keepdims=bool(n.attr("keepdims", 1)))
    return n.sub(n.scalar(shape(x)[axis] - 1, found), found) if last else found


@rule("BatchNormalization")
def batch_normalization(n: Node) -> Value:
    """(x - mean) / sqrt(var + eps) * scale + bias with given statistics per channel, as one product and one sum."""
    n.check(not n.attr("training_mode", 0), "training_mode off", "training_mode on",
            hint="export the model in evaluation mode")
    x, scale, bias, mean, variance = (n.x(i) for i in range(5))
    root = n.emit("tensor.sqrt", n.add(variance, n.scalar(float(n.attr("epsilon", 1e-5)), variance)))
    factor = n.div(scale, root)
    shift = n.sub(bias, n.mul(mean, factor))
    channels = (shape(x)[1],) + (1,) * (rank(x) - 2)
    return n.add(n.mul(x, n.reshape(factor, channels)), n.reshape(shift, channels))


@rule("ReduceSumSquare", "ReduceL2", "ReduceL1")
def norms(n: Node) -> Value:
    """Sum of squares, its root, or sum of magnitudes."""
    x = n.x()
    total = reduce(n, "sum", n.emit("tensor.abs", x) if n.op_type == "ReduceL1" else n.mul(x, x))
    return n.emit("tensor.sqrt", total) if n.op_type == "ReduceL2" else total


@rule("ReduceLogSumExp")
def log_sum_exp(n: Node) -> Value:
    """max + log(sum(exp(x - max))): no exponential overflows. A maximum of -infinity is raised to the least f32."""
    given = n.x()
    x = given if dtype(given).startswith("f") else n.cast(given, "f32")
    axes, keep = _axes(n, x), bool(n.attr("keepdims", 1))
    if not axes:
        return given
    if not all(shape(x)[a] for a in axes):  # the sum of nothing is 0, and nothing has no maximum
        found = n.emit("tensor.log", reduce(n, "sum", n.emit("tensor.exp", x)))
    else:
        least = n.scalar(-3.4028234663852886e38, x)
        top = n.emit("tensor.max", n.emit("tensor.reduce_max", x, axes=axes, keepdims=True), least)
        total = n.emit("tensor.reduce_sum", n.emit("tensor.exp", n.sub(x, top)), axes=axes, keepdims=keep)
        found = n.add(n.emit("tensor.log", total), top if keep else n.reshape(top, shape(total)))
    return found if x is given else n.cast(found, dtype(given))


@rule("GlobalAveragePool")
def global_average(n: Node) -> Value:
    """Mean over all spatial axes, kept."""
    return n.emit("tensor.reduce_mean", n.x(), axes=tuple(range(2, rank(n.x()))), keepdims=True)


@rule("Softmax")
def softmax(n: Node) -> Value:
    """Along one axis."""
    return n.emit("tensor.softmax", n.x(), axis=n.axis(int(n.attr("axis", -1)), rank(n.x())))


@rule("LogSoftmax")
def log_softmax(n: Node) -> Value:
    """x - max - log(sum(exp(x - max)))."""
    x = n.x()
    axis = n.axis(int(n.attr("axis", -1)), rank(x))
    shifted = n.sub(x, n.emit("tensor.reduce_max", x, axes=(axis,), keepdims=True))
    total = n.emit("tensor.reduce_sum", n.emit("tensor.exp", shifted), axes=(axis,), keepdims=True)
    return n.sub(shifted, n.emit("tensor.log", total))


@rule("RMSNormalization", since=23)
def rms_normalization(n: Node) -> Value:
    """x / sqrt(mean(x^2) + eps) * scale over the axes from `axis` on: `nn.rms_norm` if that is the last one."""
    x, scale, epsilon = n.x(0), n.x(1), float(n.attr("epsilon", 1e-5))
    axis = n.axis(int(n.attr("axis", -1)), rank(x))
    if axis == rank(x) - 1 and shape(scale) == shape(x)[-1:]:
        return n.emit("nn.rms_norm", x, scale, eps=epsilon)
    axes = tuple(range(axis, rank(x)))
    mean = n.emit("tensor.reduce_mean", n.mul(x, x), axes=axes, keepdims=True)
    root = n.emit("tensor.sqrt", n.add(mean, n.scalar(epsilon, x)))
    return n.mul(n.div(x, root), scale)


@rule("LayerNormalization")
def layer_normalization(n: Node) -> tuple[Value, ...]:
    """(x - mean) / sqrt(var + eps) * scale + bias: `nn.layer_norm` over the last axis, else spelled out. The
    statistics are computed only if the node names these outputs."""
    x, scale, bias, epsilon = n.x(0), n.x(1), n.get(2), float(n.attr("epsilon", 1e-5))
    axis = n.axis(int(n.attr("axis", -1)), rank(x))
    simple = axis == rank(x) - 1 and shape(scale) == shape(x)[-1:] and (bias is None or shape(bias) == shape(scale))
    if simple and not n.wants(1) and not n.wants(2):
        return (n.emit("nn.layer_norm", x, scale, bias, eps=epsilon),)
    axes = tuple(range(axis, rank(x)))
    mean = n.emit("tensor.reduce_mean", x, axes=axes, keepdims=True)
    centred = n.sub(x, mean)
    variance = n.emit("tensor.reduce_mean", n.mul(centred, centred), axes=axes, keepdims=True)
    inverse = n.emit("tensor.reciprocal", n.emit("tensor.sqrt", n.add(variance, n.scalar(epsilon, x))))
    y = n.mul(n.mul(centred, inverse), scale)
    return (y if bias is None else n.add(y, bias), mean, inverse)


@rule("GroupNormalization", "InstanceNormalization")
def group_normalization(n: Node) -> Value:
    """Statistics per group of channels (instance: per channel), then scale and bias per channel."""
    x, scale, bias, epsilon = n.x(0), n.x(1), n.x(2), float(n.attr("epsilon", 1e-5))
    dims = shape(x)
    groups = int(n.attr("num_groups", dims[1]))
    grouped = n.reshape(x, (dims[0], groups, math.prod(dims[1:]) // groups))
    centred = n.sub(grouped, n.emit("tensor.reduce_mean", grouped, axes=(2,), keepdims=True))
    variance = n.emit("tensor.reduce_mean", n.mul(centred, centred), axes=(2,), keepdims=True)
    root = n.emit("tensor.sqrt", n.add(variance, n.scalar(epsilon, x)))
    y = n.reshape(n.div(centred, root), dims)
    if n.op_type == "GroupNormalization" and n.opset < 21:  # scale and bias were per group
        per_group = (1, groups, 1)
        y = n.reshape(n.add(n.mul(n.reshape(y, shape(grouped)), n.reshape(scale, per_group)),
                            n.reshape(bias, per_group)), dims)
        return y
    per_channel = (dims[1],) + (1,) * (len(dims) - 2)
    return n.add(n.mul(y, n.reshape(scale, per_channel)), n.reshape(bias, per_channel))
