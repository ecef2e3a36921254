"""Checks that `infer` functions share. Each raises InferError with what is and what was expected."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from focusc.ir.diagnostics import InferError
from focusc.ir.types import ConcentratedType, TensorType, Type


def tensor(type_: Type | None, what: str) -> TensorType:
    """The operand as a tensor type."""
    if not isinstance(type_, TensorType):
        raise InferError(f"{what} is {type_}, expected a tensor")
    return type_


def rows_of(type_: Type | None, what: str) -> TensorType:
    """The operand as a tensor type; a concentrated one counts as its reconstruction."""
    return type_.dense if isinstance(type_, ConcentratedType) else tensor(type_, what)


def floating(type_: TensorType, what: str) -> TensorType:
    """A tensor of a floating element type."""
    if type_.dtype not in ("f64", "f32", "f16"):
        raise InferError(f"{what} has element type {type_.dtype}, expected f32, f16 or f64", code="type.dtype")
    return type_


def of_shape(type_: Type | None, shape: tuple[int, ...], what: str, dtype: str | None = None) -> TensorType:
    """A tensor of exactly that shape (and element type)."""
    found = tensor(type_, what)
    if found.shape != shape or (dtype is not None and found.dtype != dtype):
        raise InferError(f"{what} is {found}, expected {TensorType(shape, dtype or found.dtype)}", code="type.shape")
    return found


def same_dtype(a: TensorType, b: TensorType, what: str) -> None:
    """Both operands have one element type."""
    if a.dtype != b.dtype:
        raise InferError(
            f"{what} has element types {a.dtype} and {b.dtype}, expected one",
            code="type.dtype",
            hint="insert tensor.cast",
        )


def axis_of(axis: int, rank: int, what: str = "axis") -> int:
    """The axis counted from the front."""
    if not -rank <= axis < rank:
        raise InferError(f"{what} {axis} is outside a rank of {rank}", code="type.axis")
    return axis % rank


def axes_of(axes: tuple[int, ...] | None, rank: int) -> tuple[int, ...]:
    """Axes counted from the front, distinct; None means all."""
    if axes is None:
        return tuple(range(rank))
    found = tuple(axis_of(a, rank) for a in axes)
    if len(set(found)) != len(found):
        raise InferError(f"axes {list(axes)} name one axis twice", code="type.axis")
    return found


def broadcast(*shapes: tuple[int, ...]) -> tuple[int, ...]:
    """The common shape by numpy's (and ONNX's) rule."""
    rank = max((len(s) for s in shapes), default=0)
    out: list[int] = []
    for axis in range(rank):
        extents = {s[axis - rank + len(s)] for s in shapes if axis - rank + len(s) >= 0}
        wide = extents - {1}
        if len(wide) > 1:
            raise InferError(
                f"shapes {' and '.join(str(list(s)) for s in shapes)} do not broadcast: extents "
                f"{' and '.join(map(str, sorted(wide)))} meet in axis {axis}",
                code="type.shape",
            )
        out.append(wide.pop() if wide else 1)
    return tuple(out)


def count(shape: tuple[int, ...]) -> int:
    """Number of elements."""
    return math.prod(shape)


def inside(indices: np.ndarray[Any, Any], low: int, high: int, what: str) -> np.ndarray[Any, Any]:
    """The indices, if all are in low..high; InferError `run.index` for the first that is not."""
    outside = (indices < low) | (indices > high)
    if outside.any():
        at = tuple(int(i) for i in np.argwhere(outside)[0])
        raise InferError(f"index {list(at)} is {indices[at]}, expected {low}..{high} ({what})", code="run.index")
    return indices
