"""The tensor dialect: reads and writes by index. Negative indices count from the end; others outside are errors."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.checks import axis_of, inside, same_dtype, tensor
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]

_X = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


def _indices(type_: Type) -> TensorType:
    found = tensor(type_, "indices")
    if found.dtype not in ("i32", "i64"):
        raise InferError(f"indices is {found}, expected i32 or i64", code="type.dtype")
    return found


def _inside(indices: Array, extent: int, what: str) -> Array:
    """The indices counted from the front; InferError if one lies outside."""
    return inside(indices, -extent, extent - 1, what)


@defop("tensor.gather")
class Gather(Op):
    """Slices of x along `axis` by number: shape x[:axis] + indices + x[axis+1:]."""

    __slots__ = ()

    x = operand()
    indices = operand(doc="i32 or i64")
    axis: int = attr(int, 0)

    @staticmethod
    def infer(x: Type, indices: Type, *, axis: int) -> Type:
        found, numbers = tensor(x, "x"), _indices(indices)
        at = axis_of(axis, found.rank)
        return TensorType((*found.shape[:at], *numbers.shape, *found.shape[at + 1 :]), found.dtype)

    @staticmethod
    def evaluate(x: Array, indices: Array, *, axis: int) -> Array:
        return np.take(x, _inside(indices, x.shape[axis], f"axis {axis}"), axis=axis)

    @staticmethod
    def examples() -> Examples:
        return [([_X, np.array([[2, 0], [-1, 1]])], {"axis": 1}), ([_X, np.array(1)], {"axis": -1})]


@defop("tensor.gather_elements")
class GatherElements(Op):
    """result[i, j, k] = x[i, indices[i, j, k], k] for axis 1."""

    __slots__ = ()

    x = operand()
    indices = operand(doc="i32 or i64, rank of x")
    axis: int = attr(int, 0)

    @staticmethod
    def infer(x: Type, indices: Type, *, axis: int) -> Type:
        found, numbers = tensor(x, "x"), _indices(indices)
        at = axis_of(axis, found.rank)
        if numbers.rank != found.rank or any(
            n > d for i, (n, d) in enumerate(zip(numbers.shape, found.shape, strict=True)) if i != at
        ):
            raise InferError(f"indices {numbers} do not fit x {found} outside axis {at}", code="type.shape")
        return TensorType(numbers.shape, found.dtype)

    @staticmethod
    def evaluate(x: Array, indices: Array, *, axis: int) -> Array:
        at = axis % x.ndim
        part = x[tuple(slice(None) if i == at else slice(n) for i, n in enumerate(indices.shape))]
        return np.take_along_axis(part, _inside(indices, x.shape[at], f"axis {axis}"), axis=at)

    @staticmethod
    def examples() -> Examples:
        return [([_X, np.array([[[2, 0], [-1, 1]]])], {"axis": 2})]


@defop("tensor.gather_nd")
class GatherNd(Op):
    """Each row of the last axis of `indices` addresses a slice of x."""

    __slots__ = ()

    x = operand()
    indices = operand(doc="[..., k]")
    batch_dims: int = attr(int, 0, minimum=0)

    @staticmethod
    def infer(x: Type, indices: Type, *, batch_dims: int) -> Type:
        found, numbers = tensor(x, "x"), _indices(indices)
        b = batch_dims
        if not numbers.rank or b >= min(found.rank, numbers.rank) or numbers.shape[-1] + b > found.rank:
            raise InferError(f"indices {numbers} do not fit x {found} with {b} batch axes", code="type.shape")
        if found.shape[:b] != numbers.shape[:b]:
            raise InferError(f"the batch axes of {found} and {numbers} differ", code="type.shape")
        return TensorType((*numbers.shape[:-1], *found.shape[b + numbers.shape[-1] :]), found.dtype)

    @staticmethod
    def evaluate(x: Array, indices: Array, *, batch_dims: int) -> Array:
        depth = indices.shape[-1]
        parts = [_inside(indices[..., i], x.shape[batch_dims + i], f"axis {batch_dims + i}") for i in range(depth)]
        rank = indices.ndim - 1
        grid = np.ogrid[tuple(slice(0, n) for n in indices.shape[:rank])][:batch_dims]
        return x[(*grid, *parts)]

    @staticmethod
    def examples() -> Examples:
        return [([_X, np.array([[0, 1], [1, -1]])], {}), ([_X, np.array([[[0], [2]], [[1], [1]]])], {"batch_dims": 1})]


@defop("tensor.scatter_nd")
class ScatterNd(Op):
    """A copy of x with the slices that `indices` address replaced by `updates` (or reduced with them)."""

    __slots__ = ()

    x = operand()
    indices = operand(doc="[..., k]")
    updates = operand()
    reduction: str = attr(str, "none", one_of=("none", "add", "mul", "max", "min"))

    @staticmethod
    def infer(x: Type, indices: Type, updates: Type, *, reduction: str) -> Type:
        found, numbers, new = tensor(x, "x"), _indices(indices), tensor(updates, "updates")
        same_dtype(found, new, "x, updates")
        if not numbers.rank or numbers.shape[-1] > found.rank:
            raise InferError(f"indices {numbers} do not fit x {found}", code="type.shape")
        expected = (*numbers.shape[:-1], *found.shape[numbers.shape[-1] :])
        if new.shape != expected:
            raise InferError(f"updates is {new}, expected shape {list(expected)}", code="type.shape")
        return found

    @staticmethod
    def evaluate(x: Array, indices: Array, updates: Array, *, reduction: str) -> Array:
        out = x.copy()
        key = tuple(_inside(indices[..., i], x.shape[i], f"axis {i}") for i in range(indices.shape[-1]))
        if reduction == "none":
            out[key] = updates
        else:
            ufunc = {"add": np.add, "mul": np.multiply, "max": np.maximum, "min": np.minimum}[reduction]
            ufunc.at(out, key, updates)
        return out

    @staticmethod
    def examples() -> Examples:
        updates = np.ones((2, 4), np.float32)
        return [
            ([_X, np.array([[0, 1], [1, -1]]), updates], {}),
            ([_X, np.array([[0, 1], [0, 1]]), updates], {"reduction": "add"}),
        ]
