"""Chains of reshape, transpose and expand as one view of the value they start from.

A view gives each axis as a list of factors (extent, stride): strides count elements of the contiguous base, stride 0
is a repetition. Two chains with the same view are the same function, whatever ops spell it, so that passes compare and
rebuild views instead of matching op sequences.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from focusc.ir.core import Op, Value
from focusc.ir.matching import shape_of
from focusc.ir.rewrite import Builder
from focusc.ir.types import TensorType

Factor = tuple[int, int]
Axis = tuple[Factor, ...]

VIEW_OPS = frozenset({"tensor.reshape", "tensor.transpose", "tensor.expand"})


@dataclass(frozen=True, slots=True)
class View:
    """`base` seen through axes of factors; `steps` is how many ops spell it in the graph."""

    base: Value
    axes: tuple[Axis, ...]
    steps: int

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of the viewed value."""
        return tuple(math.prod(e for e, _ in axis) for axis in self.axes)

    def axis(self, index: int) -> Axis:
        """One axis, with factors merged where they are contiguous."""
        return merged(self.axes[index])


def view_of(value: Value, *, expand: bool = False) -> View:
    """The value as a view of the farthest base from which it is one. `expand` also looks through repetitions."""
    chain: list[Op] = []
    current = value
    while (op := current.op) is not None and op.name in VIEW_OPS and isinstance(current.type, TensorType):
        source = op.operands[0]
        if source is None or current.type.size == 0 or (op.name == "tensor.expand" and not expand):
            break
        chain.append(op)
        current = source
    while chain:
        base = chain[-1].operands[0]
        assert base is not None
        axes: tuple[Axis, ...] | None = contiguous(shape_of(base))
        for op in reversed(chain):
            axes = _apply(op, axes)
            if axes is None:
                break
        if axes is not None:
            return View(base, axes, len(chain))
        chain.pop()
    return View(value, contiguous(shape_of(value)), 0)


def contiguous(shape: Sequence[int]) -> tuple[Axis, ...]:
    """The axes of a value seen as itself."""
    axes: list[Axis] = []
    stride = 1
    for extent in reversed(shape):
        axes.append(((extent, stride),) if extent != 1 else ())
        stride *= extent
    return tuple(reversed(axes))


def merged(factors: Sequence[Factor]) -> Axis:
    """The factors with neighbours joined where they are contiguous."""
    out: list[Factor] = []
    for extent, stride in factors:
        if out and out[-1][1] == extent * stride:
            out[-1] = (out[-1][0] * extent, stride)
        else:
            out.append((extent, stride))
    return tuple(out)


def regrouped(factors: Sequence[Factor], shape: Sequence[int]) -> tuple[Axis, ...] | None:
    """The factors dealt out to axes of the given extents, split where needed; None if they do not divide."""
    rest = list(reversed(factors))
    axes: list[Axis] = []
    for extent in shape:
        taken: list[Factor] = []
        need = extent
        while need > 1:
            size, stride = rest.pop()
            if need % size == 0:
                taken.append((size, stride))
                need //= size
            elif size % need == 0:
                taken.append((need, stride * (size // need)))
                rest.append((size // need, stride))
                need = 1
            else:
                return None
        axes.append(tuple(taken))
    return tuple(axes)


def _apply(op: Op, axes: tuple[Axis, ...] | None) -> tuple[Axis, ...] | None:
    if axes is None:
        return None
    if op.name == "tensor.transpose":
        perm: tuple[int, ...] = op.attrs["perm"]
        return tuple(axes[p] for p in perm)
    shape = shape_of(op.result)
    if op.name == "tensor.reshape":
        return regrouped([f for axis in axes for f in axis], shape)
    padded = ((),) * (len(shape) - len(axes)) + axes
    return tuple(((extent, 0),) if extent > 1 and not axis else axis
                 for extent, axis in zip(shape, padded, strict=True))


Plan = list[tuple[str, tuple[int, ...]]]


def plan(base_shape: tuple[int, ...], axes: Sequence[Axis]) -> Plan | None:
    """The fewest reshapes and transposes from a base to a view of it; None if the view repeats or drops elements."""
    shape = tuple(math.prod(e for e, _ in axis) for axis in axes)
    flat = [f for axis in axes for f in axis]
    runs = merged(flat)
    if merged(sorted(runs, key=lambda f: -f[1])) != merged([f for axis in contiguous(base_shape) for f in axis]):
        return None
    if len(runs) <= 1:
        return [] if shape == base_shape else [("reshape", shape)]
    fine = _refine(flat, contiguous(base_shape))
    whole_base = fine is not None and len(fine) == sum(d != 1 for d in base_shape)
    whole_axes = all(len(merged(axis)) <= 1 for axis in axes)
    if whole_base and fine is not None:
        order = sorted(fine, key=lambda f: -f[1])
        perm = _with_units(base_shape, [order.index(f) for f in fine])
        turned = tuple(base_shape[p] for p in perm)
        if turned == shape:
            return [("transpose", perm)]
        if len(turned) == len(shape) and whole_axes and (exact := _exact(base_shape, order, axes)):
            return [("transpose", exact)]
        return [("transpose", perm), ("reshape", shape)]
    if whole_axes:
        split, perm = _split([merged(axis) for axis in axes])
        return [("reshape", split), ("transpose", perm)]
    order = sorted(runs, key=lambda f: -f[1])
    return [("reshape", tuple(e for e, _ in order)), ("transpose", tuple(order.index(f) for f in runs)),
            ("reshape", shape)]


def _refine(flat: list[Factor], base: tuple[Axis, ...]) -> list[Factor] | None:
    """The factors in output order, cut at the boundaries of the base's axes and merged within them."""
    out: list[Factor] = []
    for extent, stride in merged(flat):
        parts: list[Factor] = []
        for size, step in (axis[0] for axis in base if axis):
            low, high = max(stride, step), min(stride * extent, step * size)
            if high > low:
                if high % low:
                    return None
                parts.append((high // low, low))
        out += parts
    return out


def _with_units(base_shape: tuple[int, ...], order: list[int]) -> tuple[int, ...]:
    """A permutation of all axes from one of the axes that are not 1: unit axes keep their places."""
    wide = [i for i, d in enumerate(base_shape) if d != 1]
    moved = iter(wide[o] for o in order)
    return tuple(i if d == 1 else next(moved) for i, d in enumerate(base_shape))


def _exact(base_shape: tuple[int, ...], order: list[Factor], axes: Sequence[Axis]) -> tuple[int, ...] | None:
    """A permutation of the base's axes that gives exactly these output axes, unit axes included."""
    wide = [i for i, d in enumerate(base_shape) if d != 1]
    units = iter(i for i, d in enumerate(base_shape) if d == 1)
    if sum(not axis for axis in axes) != len(base_shape) - len(wide):
        return None
    perm: list[int] = []
    for axis in axes:
        factor = merged(axis)
        if factor and factor[0] not in order:
            return None
        perm.append(wide[order.index(factor[0])] if factor else next(units))
    return tuple(perm)


def _split(axes: list[Axis]) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape and permutation for output axes of one factor each; a unit axis stays behind the axis before it."""
    keys: list[tuple[float, int]] = []
    stride = math.inf
    for index, axis in enumerate(axes):
        stride = axis[0][1] if axis else stride
        keys.append((-stride, index))
    order = sorted(range(len(axes)), key=lambda i: keys[i])
    shape = tuple(axes[i][0][0] if axes[i] else 1 for i in order)
    return shape, tuple(order.index(i) for i in range(len(axes)))


def emit(builder: Builder, base: Value, axes: Sequence[Axis]) -> Value | None:
    """Build the view of `base`; None if no reshape and transpose can."""
    steps = plan(shape_of(base), axes)
    if steps is None:
        return None
    for kind, numbers in steps:
        if kind == "reshape":
            base = builder.emit("tensor.reshape", base, shape=numbers)
        else:
            base = builder.emit("tensor.transpose", base, perm=numbers)
    return base
