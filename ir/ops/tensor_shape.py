"""The tensor dialect: ops that move data and leave values as they are."""

from __future__ import annotations

import math
from typing import Any, cast

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand, operands
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.checks import axis_of, broadcast, same_dtype, tensor
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]


def _count(*shape: int) -> Array:
    return np.arange(math.prod(shape), dtype=np.float32).reshape(shape)


@defop("tensor.transpose")
class Transpose(Op):
    """Axis i of the result is axis perm[i] of x."""

    __slots__ = ()

    x = operand()
    perm: tuple[int, ...] = attr(tuple, of=int)

    @staticmethod
    def infer(x: Type, *, perm: tuple[int, ...]) -> Type:
        found = tensor(x, "x")
        if sorted(perm) != list(range(found.rank)):
            raise InferError(f"perm {list(perm)} is not a permutation of the {found.rank} axes of x", code="type.axis")
        return TensorType(tuple(found.shape[p] for p in perm), found.dtype)

    @staticmethod
    def evaluate(x: Array, *, perm: tuple[int, ...]) -> Array:
        return x.transpose(perm)

    @staticmethod
    def examples() -> Examples:
        return [([_count(2, 3, 4)], {"perm": (2, 0, 1)})]


@defop("tensor.reshape")
class Reshape(Op):
    """The same elements in another shape. One -1 is inferred; 0 copies the extent of x, unless x is empty."""

    __slots__ = ()

    x = operand()
    shape: tuple[int, ...] = attr(tuple, of=int)

    @staticmethod
    def infer(x: Type, *, shape: tuple[int, ...]) -> Type:
        found = tensor(x, "x")
        want = list(shape)
        if found.size:
            want = [found.shape[i] if d == 0 and i < found.rank else d for i, d in enumerate(want)]
        if want.count(-1) > 1 or min(want, default=0) < -1:
            raise InferError(f"shape {list(shape)} is expected to hold extents and at most one -1", code="attr.value")
        if -1 in want:
            rest = math.prod(d for d in want if d != -1)
            if rest == 0 or found.size % rest:
                raise InferError(f"{found.size} elements of {found} do not fill {list(shape)}", code="type.shape")
            want[want.index(-1)] = found.size // rest
        if math.prod(want) != found.size:
            raise InferError(
                f"{found} has {found.size} elements, shape {want} has {math.prod(want)}", code="type.shape"
            )
        return TensorType(tuple(want), found.dtype)

    @staticmethod
    def evaluate(x: Array, *, shape: tuple[int, ...]) -> Array:
        if x.size:
            shape = tuple(x.shape[i] if d == 0 else d for i, d in enumerate(shape))
        return x.reshape(shape)

    @staticmethod
    def examples() -> Examples:
        return [([_count(2, 3, 4)], {"shape": (6, 4)}), ([_count(2, 3, 4)], {"shape": (0, -1)})]


def _window(extent: int, start: int, end: int, step: int) -> slice:
    """One axis of ONNX Slice as a Python slice: negative numbers count from the end, then clamp."""
    start = start + extent if start < 0 else start
    end = end + extent if end < 0 else end
    if step > 0:
        return slice(min(max(start, 0), extent), min(max(end, 0), extent), step)
    start, end = min(max(start, 0), extent - 1), min(max(end, -1), extent - 1)
    return slice(start, None if end < 0 else end, step) if extent else slice(0, 0, 1)


@defop("tensor.slice")
class Slice(Op):
    """x[starts:ends:steps] on the given axes, with ONNX's clamping."""

    __slots__ = ()

    x = operand()
    starts: tuple[int, ...] = attr(tuple, of=int)
    ends: tuple[int, ...] = attr(tuple, of=int)
    axes: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: the leading ones")
    steps: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: all 1")

    @staticmethod
    def infer(
        x: Type, *, starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...], steps: tuple[int, ...]
    ) -> Type:
        found = tensor(x, "x")
        if len(ends) != len(starts) or len(axes) not in (0, len(starts)) or len(steps) not in (0, len(starts)):
            raise InferError(
                f"starts {list(starts)}, ends {list(ends)}, axes {list(axes)}, steps {list(steps)} differ in length",
                code="attr.value",
            )
        if 0 in steps:
            raise InferError("a step is 0", code="attr.value")
        if len(starts) > found.rank:
            raise InferError(f"{len(starts)} slices on {found}", code="type.axis")
        used = [axis_of(a, found.rank) for a in axes]
        if len(set(used)) != len(used):
            raise InferError(f"axes {list(axes)} name one axis twice", code="type.axis")
        key = Slice.key(found.shape, starts, ends, axes, steps)
        return TensorType(tuple(len(range(*s.indices(d))) for s, d in zip(key, found.shape, strict=True)), found.dtype)

    @staticmethod
    def key(
        shape: tuple[int, ...],
        starts: tuple[int, ...],
        ends: tuple[int, ...],
        axes: tuple[int, ...],
        steps: tuple[int, ...],
    ) -> tuple[slice, ...]:
        """The Python slice of every axis."""
        key = [slice(0, d, 1) for d in shape]
        for i, start in enumerate(starts):
            axis = axes[i] % len(shape) if axes else i
            key[axis] = _window(shape[axis], start, ends[i], steps[i] if steps else 1)
        return tuple(key)

    @staticmethod
    def evaluate(
        x: Array, *, starts: tuple[int, ...], ends: tuple[int, ...], axes: tuple[int, ...], steps: tuple[int, ...]
    ) -> Array:
        return x[Slice.key(x.shape, starts, ends, axes, steps)]

    @staticmethod
    def examples() -> Examples:
        x = _count(3, 5, 4)
        return [
            ([x], {"starts": (1, -3), "ends": (2**62, -1), "axes": (0, 2)}),
            ([x], {"starts": (-1, 4), "ends": (-(2**62), 0), "axes": (-1, 1), "steps": (-1, -2)}),
        ]


@defop("tensor.concat")
class Concat(Op):
    """The operands one after the other along `axis`."""

    __slots__ = ()

    xs = operands()
    axis: int = attr(int)

    @staticmethod
    def infer(*xs: Type, axis: int) -> Type:
        if not xs:
            raise InferError("has no operands, expected at least 1")
        found = [tensor(x, f"operand {i}") for i, x in enumerate(xs)]
        first = found[0]
        at = axis_of(axis, first.rank)
        for t in found[1:]:
            same_dtype(first, t, "operands")
            if t.rank != first.rank or any(
                a != b for i, (a, b) in enumerate(zip(t.shape, first.shape, strict=True)) if i != at
            ):
                raise InferError(f"{first} and {t} differ outside axis {at}", code="type.shape")
        total = sum(t.shape[at] for t in found)
        return TensorType((*first.shape[:at], total, *first.shape[at + 1 :]), first.dtype)

    @staticmethod
    def evaluate(*xs: Array, axis: int) -> Array:
        return np.concatenate(xs, axis=axis)

    @staticmethod
    def examples() -> Examples:
        return [([_count(2, 3), _count(2, 1), _count(2, 2)], {"axis": -1})]


@defop("tensor.expand")
class Expand(Op):
    """x broadcast with `shape` (both ways, as ONNX Expand)."""

    __slots__ = ()

    x = operand()
    shape: tuple[int, ...] = attr(tuple, of=int)

    @staticmethod
    def infer(x: Type, *, shape: tuple[int, ...]) -> Type:
        found = tensor(x, "x")
        if min(shape, default=0) < 0:
            raise InferError(f"shape {list(shape)} has a negative extent", code="attr.value")
        return TensorType(broadcast(found.shape, shape), found.dtype)

    @staticmethod
    def evaluate(x: Array, *, shape: tuple[int, ...]) -> Array:
        return np.broadcast_to(x, broadcast(x.shape, shape))

    @staticmethod
    def examples() -> Examples:
        return [([_count(3, 1)], {"shape": (2, 1, 4)}), ([_count(1)], {"shape": ()})]


@defop("tensor.tile")
class Tile(Op):
    """x repeated `repeats[i]` times along axis i."""

    __slots__ = ()

    x = operand()
    repeats: tuple[int, ...] = attr(tuple, of=int)

    @staticmethod
    def infer(x: Type, *, repeats: tuple[int, ...]) -> Type:
        found = tensor(x, "x")
        if len(repeats) != found.rank or min(repeats, default=0) < 0:
            raise InferError(f"repeats {list(repeats)} does not fit {found}", code="attr.value")
        return TensorType(tuple(d * r for d, r in zip(found.shape, repeats, strict=True)), found.dtype)

    @staticmethod
    def evaluate(x: Array, *, repeats: tuple[int, ...]) -> Array:
        return np.tile(x, repeats)

    @staticmethod
    def examples() -> Examples:
        return [([_count(2, 3)], {"repeats": (2, 1)})]


@defop("tensor.pad")
class Pad(Op):
    """x with a margin: `pads` holds the begins of all axes, then the ends; negative ones cut."""

    __slots__ = ()

    x = operand()
    pads: tuple[int, ...] = attr(tuple, of=int)
    mode: str = attr(str, "constant", one_of=("constant", "edge", "reflect", "wrap"))
    value: float = attr((int, float, bool), 0, doc="for mode constant")

    @staticmethod
    def infer(x: Type, *, pads: tuple[int, ...], mode: str, value: float) -> Type:
        found = tensor(x, "x")
        if len(pads) != 2 * found.rank:
            raise InferError(
                f"pads {list(pads)} has {len(pads)} numbers, expected {2 * found.rank} for {found}", code="attr.value"
            )
        if mode != "constant" and min(pads, default=0) < 0:
            raise InferError(f"mode {mode} takes no negative pads", code="attr.value")
        shape = tuple(d + a + b for d, a, b in zip(found.shape, pads, pads[found.rank :], strict=False))
        if min(shape, default=0) < 0:
            raise InferError(f"pads {list(pads)} cut more than {found} has", code="type.shape")
        return TensorType(shape, found.dtype)

    @staticmethod
    def evaluate(x: Array, *, pads: tuple[int, ...], mode: str, value: float) -> Array:
        begins, ends = pads[: x.ndim], pads[x.ndim :]
        margin = [(max(a, 0), max(b, 0)) for a, b in zip(begins, ends, strict=True)]
        extra: dict[str, Any] = {"constant_values": value} if mode == "constant" else {}
        full: Array = np.pad(x, margin, mode=cast(Any, mode), **extra)
        return full[tuple(slice(max(-a, 0), d - max(-b, 0)) for a, b, d in zip(begins, ends, full.shape, strict=True))]

    @staticmethod
    def examples() -> Examples:
        x = _count(2, 3)
        return [
            ([x], {"pads": (0, 1, 2, 0), "value": 1.5}),
            ([x], {"pads": (0, -1, 0, 2)}),
            ([x], {"pads": (1, 1, 0, 2), "mode": "reflect"}),
            ([x], {"pads": (1, 1, 0, 2), "mode": "edge"}),
        ]


@defop("tensor.range")
class Range(Op):
    """start, start + delta, ... below (or above) limit. The numbers are compile-time constants."""

    __slots__ = ()

    start: float = attr((int, float))
    limit: float = attr((int, float))
    delta: float = attr((int, float), 1)
    dtype: str = attr(str, "i64", one_of=("i64", "i32", "i16", "f32", "f64"))

    @staticmethod
    def infer(*, start: float, limit: float, delta: float, dtype: str) -> Type:
        if delta == 0 or not all(map(math.isfinite, (start, limit, delta))):
            raise InferError("delta is 0 or a bound is not finite", code="attr.value")
        return TensorType((max(math.ceil((limit - start) / delta), 0),), dtype)

    @staticmethod
    def evaluate(*, start: float, limit: float, delta: float, dtype: str) -> Array:
        found = Range.infer(start=start, limit=limit, delta=delta, dtype=dtype)
        steps = np.arange(tensor(found, "result").shape[0])
        return (start + steps * delta).astype({"i64": "i8", "i32": "i4", "i16": "i2", "f32": "f4", "f64": "f8"}[dtype])

    @staticmethod
    def examples() -> Examples:
        return [
            ([], {"start": 1, "limit": 10, "delta": 3}),
            ([], {"start": 1.0, "limit": -1.0, "delta": -0.5, "dtype": "f32"}),
        ]
