"""The nn dialect: windows over positions, channels last: pooling, and convolution of each channel by itself.

Positions are rows and channels columns, as everywhere at nn level, so that a window is a sum over rows.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.checks import floating, of_shape, tensor
from focusc.ir.ops.nn import f32, sample
from focusc.ir.ops.tensor_conv import window_shape, windows
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]
Numbers = tuple[int, ...]


def _result(x: Type, kernel: Numbers, strides: Numbers, pads: Numbers, dilations: Numbers) -> TensorType:
    found = floating(tensor(x, "x"), "x")
    if found.rank < 3:
        raise InferError(f"x is {found}, expected [N, spatial..., C]", code="type.shape")
    space = window_shape(found.shape[1:-1], kernel, strides, pads, dilations)
    return TensorType((found.shape[0], *space, found.shape[-1]), found.dtype)


def _windows(
    x: Array, kernel: Numbers, strides: Numbers, pads: Numbers, dilations: Numbers, fill: float = 0.0
) -> Array:
    """[N, out..., C, taps] of x [N, spatial..., C]."""
    view = windows(np.moveaxis(f32(x), -1, 1), kernel, strides, pads, dilations, fill)
    view = view.reshape(*view.shape[: -len(kernel)], math.prod(kernel))
    return np.moveaxis(view, 1, -2)


@defop("nn.pool")
class Pool(Op):
    """The mean or the largest element of each window, channels last. Padding counts for a mean only if
    `count_include_pad`, for a maximum never."""

    __slots__ = ()

    x = operand(doc="[N, spatial..., C]")
    reduction: str = attr(str, one_of=("mean", "max"))
    kernel: Numbers = attr(tuple, of=int)
    strides: Numbers = attr(tuple, (), of=int, doc="empty: all 1")
    pads: Numbers = attr(tuple, (), of=int, doc="begins, then ends; empty: none")
    dilations: Numbers = attr(tuple, (), of=int, doc="empty: all 1")
    count_include_pad: bool = attr(bool, False)

    @staticmethod
    def infer(
        x: Type,
        *,
        reduction: str,
        kernel: Numbers,
        strides: Numbers,
        pads: Numbers,
        dilations: Numbers,
        count_include_pad: bool,
    ) -> Type:
        return _result(x, kernel, strides, pads, dilations)

    @staticmethod
    def evaluate(
        x: Array,
        *,
        reduction: str,
        kernel: Numbers,
        strides: Numbers,
        pads: Numbers,
        dilations: Numbers,
        count_include_pad: bool,
    ) -> Array:
        if reduction == "max":
            found = _windows(x, kernel, strides, pads, dilations, -np.inf).max(axis=-1)
        else:
            found = _windows(x, kernel, strides, pads, dilations).sum(axis=-1)
            found = found * inverse_counts(x.shape[1:-1], kernel, strides, pads, dilations, count_include_pad)
        return found.astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        x = sample(2, 5, 6, 3)
        return [
            ([x], {"reduction": "mean", "kernel": (2, 2), "strides": (2, 2)}),
            ([x], {"reduction": "mean", "kernel": (3, 2), "pads": (1, 0, 1, 1), "dilations": (1, 2)}),
            ([x], {"reduction": "max", "kernel": (3, 3), "strides": (2, 2), "pads": (1, 1, 1, 1)}),
        ]


def inverse_counts(
    space: Numbers, kernel: Numbers, strides: Numbers, pads: Numbers, dilations: Numbers, padding: bool
) -> Array:
    """1 / elements of each window, f32 [1, out..., 1], or [1, ..., 1] of one number if all are equal."""
    if padding or not any(pads):
        return np.full((1,) * (len(space) + 2), 1 / math.prod(kernel), np.float32)
    return 1 / _windows(np.ones((1, *space, 1), np.float32), kernel, strides, pads, dilations).sum(axis=-1)


@defop("nn.depthwise_conv")
class DepthwiseConv(Op):
    """Convolution of each channel with a kernel of its own, channels last; zeros beyond the edges."""

    __slots__ = ()

    x = operand(doc="[N, spatial..., C]")
    w = operand(doc="[prod(kernel), C]")
    bias = operand(optional=True, doc="[C]")
    kernel: Numbers = attr(tuple, of=int)
    strides: Numbers = attr(tuple, (), of=int, doc="empty: all 1")
    pads: Numbers = attr(tuple, (), of=int, doc="begins, then ends; empty: none")
    dilations: Numbers = attr(tuple, (), of=int, doc="empty: all 1")

    @staticmethod
    def infer(
        x: Type,
        w: Type,
        bias: Type | None,
        *,
        kernel: Numbers,
        strides: Numbers,
        pads: Numbers,
        dilations: Numbers,
    ) -> Type:
        found = _result(x, kernel, strides, pads, dilations)
        of_shape(w, (math.prod(kernel), found.shape[-1]), "w", found.dtype)
        if bias is not None:
            of_shape(bias, (found.shape[-1],), "bias", found.dtype)
        return found

    @staticmethod
    def evaluate(
        x: Array,
        w: Array,
        bias: Array | None,
        *,
        kernel: Numbers,
        strides: Numbers,
        pads: Numbers,
        dilations: Numbers,
    ) -> Array:
        y = np.einsum("...ct,tc->...c", _windows(x, kernel, strides, pads, dilations), f32(w))
        if bias is not None:
            y = y + f32(bias)
        return y.astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [
            ([sample(1, 9, 4), sample(3, 4), sample(4)], {"kernel": (3,), "pads": (2, 0)}),
            ([sample(2, 5, 6, 3), sample(6, 3), None], {"kernel": (3, 2), "strides": (2, 1), "dilations": (1, 2)}),
        ]
