"""canonicalise: one spelling for everything that has several, and nothing that does nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import constant_of, dtype_of, producer, rewrite, scalar_of, shape_of
from focusc.ir.ops.tensor_shape import Slice
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter
from focusc.ir.types import TensorType
from focusc.ir.views import VIEW_OPS, emit, plan, view_of

COMMUTATIVE = frozenset({"tensor.add", "tensor.mul", "tensor.max", "tensor.min", "tensor.equal", "tensor.and",
                         "tensor.or", "tensor.xor"})
BROADCASTING = COMMUTATIVE | {"tensor.sub", "tensor.div", "tensor.pow", "tensor.where", "tensor.greater", "tensor.less"}
NEUTRAL: dict[str, float] = {"tensor.add": 0, "tensor.sub": 0, "tensor.mul": 1, "tensor.div": 1, "tensor.pow": 1}
"""Right operand that leaves the left one as it is."""


@defpass("canonicalise", views="reshape and transpose chains shortened", neutral="ops without effect removed",
         slices="slices and gathers simplified", concats="concatenations simplified", swapped="constants moved right",
         moved="scalings moved behind reshapes and transposes", expands="repetitions simplified")
def canonicalise(module: Module, stats: Stats) -> Module:
    """Remove ops that do nothing and give equal things one form.

    Chains of reshape and transpose become the shortest chain with the same effect; casts, additions of 0,
    multiplications by 1, whole slices and single concatenations go; constants stand on the right of commutative ops;
    gathers by constant ranges become slices; multiplications by a number move behind reshapes and transposes.
    """
    return rewrite(module, stats, RULES)


def views(op: Op, rewriter: Rewriter) -> str | None:
    """A chain of reshape and transpose, by the shortest one."""
    if op.name not in ("tensor.reshape", "tensor.transpose"):
        return None
    view = view_of(op.result)
    steps = plan(shape_of(view.base), view.axes) if view.steps else None
    if steps is None or len(steps) >= view.steps:
        return None
    value = emit(rewriter.builder_before(op), view.base, view.axes)
    assert value is not None
    rewriter.replace(op, value)
    return "views"


def neutral(op: Op, rewriter: Rewriter) -> str | None:
    """x + 0, x * 1, a cast or expand to the same type, a where that is decided."""
    x = op.operands[0] if op.operands else None
    if op.name in NEUTRAL:
        y = op.operands[1]
        if scalar_of(y) != NEUTRAL[op.name]:
            return None
    elif op.name == "tensor.where":
        condition = constant_of(x)
        if condition is None or not (condition.all() or not condition.any()):
            return None
        x = op.operands[1] if condition.all() else op.operands[2]
    elif op.name not in ("tensor.cast", "tensor.expand"):
        return None
    if x is None or x.type != op.result.type:
        return None
    rewriter.replace(op, x)
    return "neutral"


def swapped(op: Op, rewriter: Rewriter) -> str | None:
    """The constant of a commutative op on the right."""
    if op.name not in COMMUTATIVE:
        return None
    x, y = op.operands
    if producer(x, "tensor.constant") is None or producer(y, "tensor.constant") is not None:
        return None
    rewriter.set_operand(op, 0, y)
    rewriter.set_operand(op, 1, x)
    return "swapped"


def expanded(op: Op, rewriter: Rewriter) -> str | None:
    """An operand that is expanded to a shape to which it would be broadcast anyway."""
    if op.name not in BROADCASTING:
        return None
    for index, value in enumerate(op.operands):
        source = producer(value, "tensor.expand")
        if source is None:
            continue
        shapes = [shape_of(v) for i, v in enumerate(op.operands) if v is not None and i != index]
        narrow = source.operands[0]
        if narrow is not None and np.broadcast_shapes(shape_of(narrow), *shapes) == shape_of(op.result):
            rewriter.set_operand(op, index, narrow)
            return "expands"
    return None


def repeated(op: Op, rewriter: Rewriter) -> str | None:
    """tile, and gather by 0 0 1 1 .., as reshape, expand, reshape."""
    x = op.operands[0] if op.operands else None
    if op.name == "tensor.tile" and x is not None:
        repeats: tuple[int, ...] = op.attrs["repeats"]
        pairs = list(zip(repeats, shape_of(x), strict=True))
        inner = False
    elif op.name == "tensor.gather" and x is not None:
        indices, axis = constant_of(op.operands[1]), axis_attr(op, len(shape_of(x)))
        extent = shape_of(x)[axis]
        if indices is None or indices.ndim != 1 or not extent or indices.size <= extent or indices.size % extent:
            return None
        times = indices.size // extent
        if not np.array_equal(indices, np.repeat(np.arange(extent), times)):
            return None
        pairs = [(times if a == axis else 1, d) for a, d in enumerate(shape_of(x))]
        inner = True
    else:
        return None
    if math.prod(r for r, _ in pairs) * math.prod(shape_of(x)) == 0:
        return None
    unit: list[int] = []  # x with an axis of 1 beside each axis that is repeated, and what that axis becomes
    full: list[int] = []
    for r, d in pairs:
        unit += [d] if r == 1 else [d, 1] if inner else [1, d]
        full += [d] if r == 1 else [d, r] if inner else [r, d]
    b = rewriter.builder_before(op)
    wide = b.emit("tensor.expand", b.emit("tensor.reshape", x, shape=tuple(unit)), shape=tuple(full))
    rewriter.replace(op, b.emit("tensor.reshape", wide, shape=shape_of(op.result)))
    return "expands"


def axis_attr(op: Op, rank: int) -> int:
    """The attribute `axis`, counted from the front."""
    axis: int = op.attrs["axis"]
    return axis % rank


def gathered(op: Op, rewriter: Rewriter) -> str | None:
    """A gather by one constant number or a constant range, as a slice."""
    x = op.operands[0] if op.operands else None
    if op.name != "tensor.gather" or x is None:
        return None
    axis = axis_attr(op, len(shape_of(x)))
    indices, extent = constant_of(op.operands[1]), shape_of(x)[axis]
    if indices is None or indices.ndim > 1 or not indices.size:
        return None
    rows = np.where(indices < 0, indices + extent, indices).reshape(-1)
    step = int(rows[1] - rows[0]) if rows.size > 1 else 1
    if step < 1 or not np.array_equal(rows, rows[0] + step * np.arange(rows.size)):
        return None
    if rows[0] < 0 or rows[-1] >= extent:
        return None
    b = rewriter.builder_before(op)
    part = b.emit("tensor.slice", x, starts=(int(rows[0]),), ends=(int(rows[-1]) + 1,), axes=(axis,), steps=(step,))
    rewriter.replace(op, part if indices.ndim else b.emit("tensor.reshape", part, shape=shape_of(op.result)))
    return "slices"


def ranges(op: Op) -> tuple[range, ...]:
    """What a slice keeps of each axis."""
    x = op.operands[0]
    assert x is not None
    key = Slice.key(shape_of(x), **op.keywords())
    return tuple(range(*s.indices(d)) for s, d in zip(key, shape_of(x), strict=True))


def sliced(op: Op, rewriter: Rewriter) -> str | None:
    """A slice of everything, of a slice, or of one part of a concatenation; and the plain way to write it."""
    if op.name != "tensor.slice":
        return None
    x = op.operands[0]
    assert x is not None
    if x.type == op.result.type and all(r.step == 1 or len(r) < 2 for r in ranges(op)):
        rewriter.replace(op, x)
        return "slices"
    keep = ranges(op)
    inner = producer(x, "tensor.slice")
    source = inner.operands[0] if inner is not None else None
    if inner is not None and source is not None:
        keep = tuple(outer[r.start : r.stop : r.step] if r.step > 0 else outer[r.start :: r.step][: len(r)]
                     for outer, r in zip(ranges(inner), keep, strict=True))
        rewriter.replace(op, slice_to(rewriter, op, source, keep))
        return "slices"
    joined = producer(x, "tensor.concat")
    if joined is not None and (found := _part(joined, keep)) is not None:
        rewriter.replace(op, slice_to(rewriter, op, *found))
        return "slices"
    plain = slice_attrs(shape_of(x), keep)
    if all(r.step > 0 for r in keep) and {k: op.attrs[k] for k in plain} != plain and len(keep) == len(shape_of(x)):
        rewriter.set_attr(op, **plain)
        return "slices"
    return None


def _part(joined: Op, keep: tuple[range, ...]) -> tuple[Value, tuple[range, ...]] | None:
    """The one operand of a concatenation that holds all of `keep`, and the same range in it."""
    axis = axis_attr(joined, len(keep))
    wanted, start = keep[axis], 0
    if not len(wanted) or wanted.step < 0:
        return None
    for value in joined.operands:
        assert value is not None
        stop = start + shape_of(value)[axis]
        if start <= wanted[0] and wanted[-1] < stop:
            moved = range(wanted.start - start, wanted[-1] + 1 - start, wanted.step)
            return value, (*keep[:axis], moved, *keep[axis + 1 :])
        start = stop
    return None


def slice_attrs(shape: tuple[int, ...], keep: tuple[range, ...]) -> dict[str, Any]:
    """Attributes of a slice of a value of that shape: only the axes that are cut, in order."""
    cut = [(a, r) for a, (r, d) in enumerate(zip(keep, shape, strict=True)) if len(r) != d or r.step != 1]
    ends = tuple(r[-1] + 1 if len(r) and r.step > 0 else r.stop for _, r in cut)
    return {"starts": tuple(r.start for _, r in cut), "ends": ends, "axes": tuple(a for a, _ in cut),
            "steps": tuple(r.step for _, r in cut)}


def slice_to(rewriter: Rewriter, op: Op, x: Value, keep: tuple[range, ...]) -> Value:
    """A slice of x before `op`; x itself if everything is kept."""
    attrs = slice_attrs(shape_of(x), keep)
    if not attrs["axes"]:
        return x
    if any(r.step < 0 for r in keep):  # an end before the first element has no other way to be written
        axes: tuple[int, ...] = attrs["axes"]
        cut = [keep[a] for a in axes]
        attrs["ends"] = tuple(r.stop if r.step > 0 or r.stop >= 0 else -(2**62) for r in cut)
    return rewriter.builder_before(op).emit("tensor.slice", x, **attrs)


def concatenated(op: Op, rewriter: Rewriter) -> str | None:
    """One part, empty parts, a concatenation as a part, and neighbouring slices of one value."""
    if op.name != "tensor.concat":
        return None
    axis = axis_attr(op, len(shape_of(op.result)))
    parts: list[Value] = []
    for value in op.operands:
        assert value is not None
        inner = producer(value, "tensor.concat")
        if inner is not None and inner.attrs["axis"] % len(shape_of(value)) == axis and value.use_count == 1:
            parts += [v for v in inner.operands if v is not None]
        elif shape_of(value)[axis]:
            parts.append(value)
    if len(parts) == 1:
        rewriter.replace(op, parts[0])
        return "concats"
    if not parts or len(parts) == len(op.operands):
        return None
    rewriter.replace_with(op, "tensor.concat", *parts, axis=axis)
    return "concats"


def moved(op: Op, rewriter: Rewriter) -> str | None:
    """view(x * number) as view(x) * number."""
    if op.name not in VIEW_OPS:
        return None
    x = op.operands[0]
    scaled = producer(x, "tensor.mul", "tensor.div")
    if scaled is None or x is None or x.use_count != 1:
        return None
    source, number = scaled.operands
    if scalar_of(number) is None or source is None or number is None or source.type != scaled.result.type:
        return None
    if len(shape_of(number)) > len(shape_of(op.result)):
        return None
    b = rewriter.builder_before(op)
    with b.from_op(scaled):
        inner = b.emit(op.name, source, **op.attrs)
        rewriter.replace(op, b.emit(scaled.name, inner, number))
    return "moved"


def recast(op: Op, rewriter: Rewriter) -> str | None:
    """bool or integer casts that undo each other: cast(cast(x, wide), back) = x."""
    inner = producer(op.operands[0], "tensor.cast") if op.name == "tensor.cast" else None
    source = inner.operands[0] if inner is not None else None
    if source is None or source.type != op.result.type or not isinstance(source.type, TensorType):
        return None
    exact = {("f32", "f64"), ("i32", "i64"), ("bool", "i32"), ("bool", "i64"), ("bool", "f32")}
    assert inner is not None
    if (dtype_of(source), dtype_of(inner.result)) not in exact:
        return None
    rewriter.replace(op, source)
    return "neutral"


RULES = (views, neutral, swapped, expanded, repeated, gathered, sliced, concatenated, moved, recast)
