"""The tensor dialect: matrix products, reductions and what is built from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.checks import axes_of, axis_of, broadcast, floating, same_dtype, tensor
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]

_X = np.array([[[1.5, -2.0, 0.25], [3.0, -0.5, 2.0]], [[0.0, 1.0, 4.0], [-1.0, 2.5, 0.5]]], np.float32)


@defop("tensor.matmul")
class MatMul(Op):
    """numpy.matmul: the last two axes multiply, the others broadcast; one-axis operands are vectors. f16 sums in f32."""

    __slots__ = ()

    x = operand()
    y = operand()

    @staticmethod
    def infer(x: Type, y: Type) -> Type:
        a, b = tensor(x, "x"), tensor(y, "y")
        same_dtype(a, b, "x, y")
        if not a.rank or not b.rank or a.dtype == "bool":
            raise InferError(f"x, y are {a}, {b}, expected numbers with at least one axis", code="type.shape")
        left = a.shape if a.rank > 1 else (1, *a.shape)
        right = b.shape if b.rank > 1 else (*b.shape, 1)
        if left[-1] != right[-2]:
            raise InferError(f"K is {left[-1]} in x ({a}) but {right[-2]} in y ({b})", code="type.shape")
        out = [*broadcast(left[:-2], right[:-2]), *left[-2:-1][: a.rank - 1], *right[-1:][: b.rank - 1]]
        return TensorType(tuple(out), a.dtype)

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        if x.dtype == np.float16:
            return np.matmul(x.astype(np.float32), y.astype(np.float32)).astype(np.float16)
        if y.ndim == 2 and x.ndim > 2:  # one GEMM instead of a loop over the batch
            return (x.reshape(-1, x.shape[-1]) @ y).reshape(*x.shape[:-1], y.shape[1])
        return np.matmul(x, y)

    @staticmethod
    def examples() -> Examples:
        w = np.arange(12, dtype=np.float32).reshape(3, 4) / 7
        return [([_X, w], {}), ([_X, _X.transpose(0, 2, 1)], {}), ([_X, w[:, 0]], {}), ([w[:, 0], w], {})]


class Reduction(Op):
    """Base: a reduction over `axes` (all if empty)."""

    __slots__ = ()

    x = operand()
    axes: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: all")
    keepdims: bool = attr(bool, True)

    @staticmethod
    def infer(x: Type, *, axes: tuple[int, ...], keepdims: bool) -> Type:
        found = tensor(x, "x")
        if found.dtype == "bool":
            raise InferError("x is bool, expected numbers", code="type.dtype")
        gone = axes_of(axes or None, found.rank)
        kept = [1 if i in gone else d for i, d in enumerate(found.shape) if keepdims or i not in gone]
        return TensorType(tuple(kept), found.dtype)

    @staticmethod
    def examples() -> Examples:
        return [([_X], {"axes": (-1,)}), ([_X], {"axes": (0, 2), "keepdims": False}), ([_X], {})]


def _wide(x: Array) -> Array:
    return x.astype(np.float32) if x.dtype == np.float16 else x


@defop("tensor.reduce_sum")
class ReduceSum(Reduction):
    """The sum."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(_wide(x).sum(axis=axes or None, keepdims=keepdims)).astype(x.dtype, copy=False)


@defop("tensor.reduce_mean")
class ReduceMean(Reduction):
    """The arithmetic mean; integers are divided as integers."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(_wide(x).mean(axis=axes or None, keepdims=keepdims)).astype(x.dtype, copy=False)


@defop("tensor.reduce_max")
class ReduceMax(Reduction):
    """The largest element."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.max(axis=axes or None, keepdims=keepdims))


@defop("tensor.reduce_min")
class ReduceMin(Reduction):
    """The smallest element."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.min(axis=axes or None, keepdims=keepdims))


@defop("tensor.reduce_prod")
class ReduceProd(Reduction):
    """The product."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(_wide(x).prod(axis=axes or None, keepdims=keepdims)).astype(x.dtype, copy=False)


@defop("tensor.argmax")
class ArgMax(Op):
    """Position of the largest element along `axis`, the first one in a tie."""

    __slots__ = ()

    x = operand()
    axis: int = attr(int, 0)
    keepdims: bool = attr(bool, True)

    @staticmethod
    def infer(x: Type, *, axis: int, keepdims: bool) -> Type:
        found = tensor(x, "x")
        at = axis_of(axis, found.rank)
        middle = (1,) if keepdims else ()
        return TensorType((*found.shape[:at], *middle, *found.shape[at + 1 :]), "i64")

    @staticmethod
    def evaluate(x: Array, *, axis: int, keepdims: bool) -> Array:
        return np.asarray(np.argmax(x, axis=axis, keepdims=keepdims))

    @staticmethod
    def examples() -> Examples:
        return [([_X], {"axis": -1}), ([_X], {"axis": 1, "keepdims": False})]


@defop("tensor.softmax")
class Softmax(Op):
    """exp(x - max) / sum of it, along `axis`; f16 is computed in f32."""

    __slots__ = ()

    x = operand()
    axis: int = attr(int, -1)

    @staticmethod
    def infer(x: Type, *, axis: int) -> Type:
        found = floating(tensor(x, "x"), "x")
        axis_of(axis, found.rank)
        return found

    @staticmethod
    def evaluate(x: Array, *, axis: int) -> Array:
        wide = _wide(x)
        y = np.asarray(wide - wide.max(axis=axis, keepdims=True))
        np.exp(y, out=y)
        y /= y.sum(axis=axis, keepdims=True)
        return y.astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [([_X], {}), ([_X], {"axis": 1})]


@defop("tensor.cumsum")
class CumSum(Op):
    """Running sum along `axis`; `exclusive` leaves the element itself out, `reverse` runs from the end."""

    __slots__ = ()

    x = operand()
    axis: int = attr(int)
    exclusive: bool = attr(bool, False)
    reverse: bool = attr(bool, False)

    @staticmethod
    def infer(x: Type, *, axis: int, exclusive: bool, reverse: bool) -> Type:
        found = tensor(x, "x")
        if found.dtype == "bool":
            raise InferError("x is bool, expected numbers", code="type.dtype")
        axis_of(axis, found.rank)
        return found

    @staticmethod
    def evaluate(x: Array, *, axis: int, exclusive: bool, reverse: bool) -> Array:
        source = np.flip(x, axis) if reverse else x
        total = np.cumsum(source, axis=axis, dtype=x.dtype)
        if exclusive:
            total = np.roll(total, 1, axis)
            total[tuple(slice(0, 1) if i == axis % x.ndim else slice(None) for i in range(x.ndim))] = 0
        return np.flip(total, axis) if reverse else total

    @staticmethod
    def examples() -> Examples:
        return [([_X], {"axis": 1}), ([_X], {"axis": -1, "exclusive": True, "reverse": True})]


@defop("tensor.conv")
class Conv(Op):
    """Convolution over the spatial axes, grouped and dilated, plus bias. `pads` holds the begins, then the ends."""

    __slots__ = ()

    x = operand(doc="[N, C, spatial...]")
    w = operand(doc="[M, C / group, kernel...]")
    bias = operand(optional=True, doc="[M]")
    strides: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: all 1")
    pads: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: all 0")
    dilations: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: all 1")
    group: int = attr(int, 1, minimum=1)

    @staticmethod
    def infer(x: Type, w: Type, bias: Type | None, *, strides: tuple[int, ...], pads: tuple[int, ...],
              dilations: tuple[int, ...], group: int) -> Type:
        a, b = floating(tensor(x, "x"), "x"), tensor(w, "w")
        same_dtype(a, b, "x, w")
        if a.rank < 3 or b.rank != a.rank:
            raise InferError(f"x, w are {a}, {b}, expected [N, C, spatial...] and [M, C / group, kernel...]",
                             code="type.shape")
        if a.shape[1] != b.shape[1] * group or b.shape[0] % group:
            raise InferError(f"{a.shape[1]} channels, {group} groups and w {b} do not fit", code="type.shape")
        if bias is not None and tensor(bias, "bias") != TensorType((b.shape[0],), a.dtype):
            raise InferError(f"bias is {bias}, expected {TensorType((b.shape[0],), a.dtype)}", code="type.shape")
        out = window_shape(a.shape[2:], b.shape[2:], strides, pads, dilations)
        return TensorType((a.shape[0], b.shape[0], *out), a.dtype)

    @staticmethod
    def evaluate(x: Array, w: Array, bias: Array | None, *, strides: tuple[int, ...], pads: tuple[int, ...],
                 dilations: tuple[int, ...], group: int) -> Array:
        axes = w.ndim - 2
        view = windows(_wide(x), w.shape[2:], strides, pads, dilations)
        per = w.shape[1]
        count = w.shape[0] // group
        order = (0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
        parts: list[Array] = []
        for g in range(group):
            columns = view[:, g * per : (g + 1) * per].transpose(order)
            space = columns.shape[: 1 + axes]
            flat = _wide(w[g * count : (g + 1) * count]).reshape(count, -1)
            parts.append((columns.reshape(-1, flat.shape[1]) @ flat.T).reshape(*space, count))
        y = np.concatenate(parts, axis=-1)
        if bias is not None:
            y = y + _wide(bias)
        return np.moveaxis(y, -1, 1).astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        r = np.random.default_rng(1)
        x, w, bias = (r.standard_normal(s).astype("f4") for s in ((2, 4, 7, 6), (6, 2, 3, 2), (6,)))
        wide = r.standard_normal((3, 4, 2, 2)).astype("f4")
        return [([x, w, bias], {"group": 2, "strides": (2, 1), "pads": (1, 0, 1, 2)}),
                ([x, wide, None], {"dilations": (2, 3)})]


def window_shape(space: tuple[int, ...], kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...],
                 dilations: tuple[int, ...]) -> tuple[int, ...]:
    """Output extents of a sliding window, rounded down; InferError if the numbers do not fit."""
    axes = len(space)
    if len(kernel) != axes or len(strides) not in (0, axes) or len(dilations) not in (0, axes) or \
            len(pads) not in (0, 2 * axes):
        raise InferError(f"kernel {list(kernel)}, strides {list(strides)}, pads {list(pads)}, dilations {list(dilations)} do "
                         f"not fit {axes} spatial axes", code="attr.value")
    if min(*kernel, *strides, *dilations, 1) < 1 or min(pads, default=0) < 0:
        raise InferError("kernel, strides and dilations are at least 1, pads at least 0", code="attr.value")
    out: list[int] = []
    for i, extent in enumerate(space):
        reach = (kernel[i] - 1) * (dilations[i] if dilations else 1) + 1
        padded = extent + (pads[i] + pads[axes + i] if pads else 0)
        if reach > padded:
            raise InferError(f"the window reaches over {reach} of {padded} positions in spatial axis {i}", code="type.shape")
        out.append((padded - reach) // (strides[i] if strides else 1) + 1)
    return tuple(out)


def windows(x: Array, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...],
            dilations: tuple[int, ...], fill: float = 0.0) -> Array:
    """View [N, C, out..., kernel...] of all windows."""
    axes = len(kernel)
    if any(pads):
        margin = [(0, 0), (0, 0), *((pads[i], pads[axes + i]) for i in range(axes))]
        x = np.pad(x, margin, constant_values=fill)
    reach = tuple((k - 1) * (dilations[i] if dilations else 1) + 1 for i, k in enumerate(kernel))
    view = np.lib.stride_tricks.sliding_window_view(x, reach, axis=tuple(range(2, 2 + axes)))
    step = tuple(slice(None, None, strides[i] if strides else 1) for i in range(axes))
    inner = tuple(slice(None, None, dilations[i] if dilations else 1) for i in range(axes))
    return view[(slice(None), slice(None), *step, *inner)]


class Pool(Op):
    """Base: a window slides over the spatial axes."""

    __slots__ = ()

    x = operand(doc="[N, C, spatial...]")
    kernel: tuple[int, ...] = attr(tuple, of=int)
    strides: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: all 1")
    pads: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: all 0")

    @staticmethod
    def examples() -> Examples:
        x = np.random.default_rng(2).standard_normal((1, 2, 5, 6)).astype("f4")
        return [([x], {"kernel": (2, 3), "strides": (2, 2)}), ([x], {"kernel": (3, 3), "pads": (1, 1, 1, 0)})]


@defop("tensor.average_pool")
class AveragePool(Pool):
    """The mean of each window; padding counts only if `count_include_pad`."""

    __slots__ = ()

    count_include_pad: bool = attr(bool, False)

    @staticmethod
    def infer(x: Type, *, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...],
              count_include_pad: bool) -> Type:
        found = floating(tensor(x, "x"), "x")
        return TensorType((*found.shape[:2], *window_shape(found.shape[2:], kernel, strides, pads, ())), found.dtype)

    @staticmethod
    def evaluate(x: Array, *, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...],
                 count_include_pad: bool) -> Array:
        last = tuple(range(-len(kernel), 0))
        total = windows(_wide(x), kernel, strides, pads, ()).sum(axis=last)
        if count_include_pad or not any(pads):
            count: Any = np.float32(math.prod(kernel))
        else:
            ones = np.ones((1, 1, *x.shape[2:]), np.float32)
            count = windows(ones, kernel, strides, pads, ()).sum(axis=last)
        return (total / count).astype(x.dtype, copy=False)


@defop("tensor.max_pool")
class MaxPool(Pool):
    """The largest element of each window."""

    __slots__ = ()

    @staticmethod
    def infer(x: Type, *, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...]) -> Type:
        found = floating(tensor(x, "x"), "x")
        return TensorType((*found.shape[:2], *window_shape(found.shape[2:], kernel, strides, pads, ())), found.dtype)

    @staticmethod
    def evaluate(x: Array, *, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...]) -> Array:
        return windows(x, kernel, strides, pads, (), -np.inf).max(axis=tuple(range(-len(kernel), 0)))
