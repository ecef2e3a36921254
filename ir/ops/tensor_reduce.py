"""The tensor dialect: matrix products, reductions and what is built from them."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand, result
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.checks import axes_of, axis_of, broadcast, floating, same_dtype, tensor
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]

_X = np.array([[[1.5, -2.0, 0.25], [3.0, -0.5, 2.0]], [[0.0, 1.0, 4.0], [-1.0, 2.5, 0.5]]], np.float32)


@defop("tensor.matmul")
class MatMul(Op):
    """numpy.matmul: the last two axes multiply, the others broadcast; one axis is a vector. f16 sums in f32."""

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


def wide(x: Array) -> Array:
    """f16 as f32, everything else as it is: what sums are computed in."""
    return x.astype(np.float32) if x.dtype == np.float16 else x


def bounds(dtype: np.dtype[Any]) -> tuple[float, float]:
    """The lowest and the highest value of a type of numbers."""
    if np.issubdtype(dtype, np.floating):
        return -np.inf, np.inf
    found = np.iinfo(dtype)
    return found.min, found.max


@defop("tensor.reduce_sum")
class ReduceSum(Reduction):
    """The sum."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(wide(x).sum(axis=axes or None, keepdims=keepdims)).astype(x.dtype, copy=False)


@defop("tensor.reduce_mean")
class ReduceMean(Reduction):
    """The arithmetic mean; integers are divided as integers."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(wide(x).mean(axis=axes or None, keepdims=keepdims)).astype(x.dtype, copy=False)


@defop("tensor.reduce_max")
class ReduceMax(Reduction):
    """The largest element; of none, the lowest value of the type."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.max(axis=axes or None, keepdims=keepdims, initial=bounds(x.dtype)[0]))


@defop("tensor.reduce_min")
class ReduceMin(Reduction):
    """The smallest element; of none, the highest value of the type."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(x.min(axis=axes or None, keepdims=keepdims, initial=bounds(x.dtype)[1]))


@defop("tensor.reduce_prod")
class ReduceProd(Reduction):
    """The product."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, *, axes: tuple[int, ...], keepdims: bool) -> Array:
        return np.asarray(wide(x).prod(axis=axes or None, keepdims=keepdims)).astype(x.dtype, copy=False)


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


@defop("tensor.top_k")
class TopK(Op):
    """The `k` largest (or smallest) elements along `axis`, best first, and their positions (i64); ties in order."""

    __slots__ = ()

    x = operand()
    k: int = attr(int, minimum=0)
    axis: int = attr(int, -1)
    largest: bool = attr(bool, True)
    values = result()
    indices = result()

    @staticmethod
    def infer(x: Type, *, k: int, axis: int, largest: bool) -> tuple[Type, Type]:
        found = tensor(x, "x")
        at = axis_of(axis, found.rank)
        if found.dtype == "bool" or k > found.shape[at]:
            raise InferError(f"x is {found}, expected numbers, at least {k} along axis {at}", code="type.shape")
        shape = (*found.shape[:at], k, *found.shape[at + 1 :])
        return TensorType(shape, found.dtype), TensorType(shape, "i64")

    @staticmethod
    def evaluate(x: Array, *, k: int, axis: int, largest: bool) -> tuple[Array, Array]:
        if largest:  # stable from the end, so that equal elements keep their order
            last = np.flip(np.argsort(np.flip(x, axis), axis=axis, kind="stable"), axis)
            order = x.shape[axis] - 1 - last
        else:
            order = np.argsort(x, axis=axis, kind="stable")
        places = np.take(order, np.arange(k), axis=axis).astype(np.int64)
        return np.take_along_axis(x, places, axis), places

    @staticmethod
    def examples() -> Examples:
        return [([_X], {"k": 2}), ([_X], {"k": 1, "axis": 1, "largest": False})]


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
        source = wide(x)
        y = np.asarray(source - source.max(axis=axis, keepdims=True))
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
