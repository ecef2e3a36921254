"""The tensor dialect: convolution and pooling over sliding windows."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.checks import floating, same_dtype, tensor
from focusc.ir.ops.tensor_reduce import bounds, wide
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]


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
    def infer(
        x: Type,
        w: Type,
        bias: Type | None,
        *,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        group: int,
    ) -> Type:
        a, b = floating(tensor(x, "x"), "x"), tensor(w, "w")
        same_dtype(a, b, "x, w")
        if a.rank < 3 or b.rank != a.rank:
            raise InferError(
                f"x, w are {a}, {b}, expected [N, C, spatial...] and [M, C / group, kernel...]", code="type.shape"
            )
        if a.shape[1] != b.shape[1] * group or b.shape[0] % group:
            raise InferError(f"{a.shape[1]} channels, {group} groups and w {b} do not fit", code="type.shape")
        if bias is not None and tensor(bias, "bias") != TensorType((b.shape[0],), a.dtype):
            raise InferError(f"bias is {bias}, expected {TensorType((b.shape[0],), a.dtype)}", code="type.shape")
        out = window_shape(a.shape[2:], b.shape[2:], strides, pads, dilations)
        return TensorType((a.shape[0], b.shape[0], *out), a.dtype)

    @staticmethod
    def evaluate(
        x: Array,
        w: Array,
        bias: Array | None,
        *,
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
        group: int,
    ) -> Array:
        axes = w.ndim - 2
        view = windows(wide(x), w.shape[2:], strides, pads, dilations)
        per = w.shape[1]
        count = w.shape[0] // group
        order = (0, *range(2, 2 + axes), 1, *range(2 + axes, 2 + 2 * axes))
        parts: list[Array] = []
        for g in range(group):
            columns = view[:, g * per : (g + 1) * per].transpose(order)
            space = columns.shape[: 1 + axes]
            flat = wide(w[g * count : (g + 1) * count]).reshape(count, -1)
            parts.append((columns.reshape(-1, flat.shape[1]) @ flat.T).reshape(*space, count))
        y = np.concatenate(parts, axis=-1)
        if bias is not None:
            y = y + wide(bias)
        return np.moveaxis(y, -1, 1).astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        r = np.random.default_rng(1)
        x, w, bias = (r.standard_normal(s).astype("f4") for s in ((2, 4, 7, 6), (6, 2, 3, 2), (6,)))
        other = r.standard_normal((3, 4, 2, 2)).astype("f4")
        return [
            ([x, w, bias], {"group": 2, "strides": (2, 1), "pads": (1, 0, 1, 2)}),
            ([x, other, None], {"dilations": (2, 3)}),
        ]


def window_shape(
    space: tuple[int, ...],
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
) -> tuple[int, ...]:
    """Output extents of a sliding window, rounded down; InferError if the numbers do not fit."""
    axes = len(space)
    if (
        len(kernel) != axes
        or len(strides) not in (0, axes)
        or len(dilations) not in (0, axes)
        or len(pads) not in (0, 2 * axes)
    ):
        raise InferError(
            f"kernel {list(kernel)}, strides {list(strides)}, pads {list(pads)}, dilations {list(dilations)} do "
            f"not fit {axes} spatial axes",
            code="attr.value",
        )
    if min(*kernel, *strides, *dilations, 1) < 1 or min(pads, default=0) < 0:
        raise InferError("kernel, strides and dilations are at least 1, pads at least 0", code="attr.value")
    out: list[int] = []
    for i, extent in enumerate(space):
        reach = (kernel[i] - 1) * (dilations[i] if dilations else 1) + 1
        padded = extent + (pads[i] + pads[axes + i] if pads else 0)
        if reach > padded:
            raise InferError(
                f"the window reaches over {reach} of {padded} positions in spatial axis {i}", code="type.shape"
            )
        out.append((padded - reach) // (strides[i] if strides else 1) + 1)
    return tuple(out)


def windows(
    x: Array,
    kernel: tuple[int, ...],
    strides: tuple[int, ...],
    pads: tuple[int, ...],
    dilations: tuple[int, ...],
    fill: float = 0.0,
) -> Array:
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
    def infer(
        x: Type, *, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...], count_include_pad: bool
    ) -> Type:
        found = floating(tensor(x, "x"), "x")
        return TensorType((*found.shape[:2], *window_shape(found.shape[2:], kernel, strides, pads, ())), found.dtype)

    @staticmethod
    def evaluate(
        x: Array, *, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...], count_include_pad: bool
    ) -> Array:
        last = tuple(range(-len(kernel), 0))
        total = windows(wide(x), kernel, strides, pads, ()).sum(axis=last)
        if count_include_pad or not any(pads):
            count: Any = np.float32(math.prod(kernel))
        else:
            ones = np.ones((1, 1, *x.shape[2:]), np.float32)
            count = windows(ones, kernel, strides, pads, ()).sum(axis=last)
        return (total / count).astype(x.dtype, copy=False)


@defop("tensor.max_pool")
class MaxPool(Pool):
    """The largest element of each window; padding never is."""

    __slots__ = ()

    dilations: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: all 1")

    @staticmethod
    def infer(
        x: Type, *, kernel: tuple[int, ...], strides: tuple[int, ...], pads: tuple[int, ...], dilations: tuple[int, ...]
    ) -> Type:
        found = tensor(x, "x")
        if found.dtype == "bool":
            raise InferError("x is bool, expected numbers", code="type.dtype")
        space = window_shape(found.shape[2:], kernel, strides, pads, dilations)
        return TensorType((*found.shape[:2], *space), found.dtype)

    @staticmethod
    def evaluate(
        x: Array,
        *,
        kernel: tuple[int, ...],
        strides: tuple[int, ...],
        pads: tuple[int, ...],
        dilations: tuple[int, ...],
    ) -> Array:
        return windows(x, kernel, strides, pads, dilations, bounds(x.dtype)[0]).max(axis=tuple(range(-len(kernel), 0)))
