"""Reshapes, slices, concatenations, repetitions and margins: windows of existing buffers where no bytes need to move,
else copies."""

from __future__ import annotations

import math

import numpy as np

from focusc.backends.lower.context import HANDLERS, Lowering, handles
from focusc.backends.lower.moves import copy, fill, move
from focusc.backends.lower.strided import Strided
from focusc.backends.lower.views import View, matrix_shape
from focusc.ir import Op, TensorType, Value
from focusc.ir.diagnostics import fail
from focusc.ir.passes.canonicalise import ranges

WINDOWS = ("tensor.reshape", "tensor.slice", "tensor.concat", "tensor.cast", "tensor.constant", "tensor.gather")
"""Ops that may leave a window of an existing buffer: what they give is copied into a concatenation."""


def plan_destinations(low: Lowering) -> None:
    """Let the producers of concatenated values write straight into the concatenation's buffer."""
    for op in low.module.walk():
        if op.name != "tensor.concat":
            continue
        row = col = 0
        for part in op.operands:
            assert part is not None
            rows, cols = matrix_shape(part.type)
            source = _through_reshapes(low, part)
            direction = _direction(op)
            if direction and source is not None:
                low.destination[source] = (op.results[0], row, col)
            row, col = row + rows * (direction == "rows"), col + cols * (direction == "cols")


def _direction(op: Op) -> str:
    """Whether the parts of a concatenation are runs of its `rows` or of its `cols`; "" if of neither."""
    type_ = op.results[0].type
    assert isinstance(type_, TensorType)
    axis = op.attrs["axis"] % type_.rank
    if axis == type_.rank - 1:
        return "cols"
    return "rows" if math.prod(type_.shape[:axis]) == 1 else ""


def _through_reshapes(low: Lowering, value: Value) -> Value | None:
    """The value that a kernel writes for `value`, if nothing else reads it or what lies between."""
    shape = matrix_shape(value.type)
    while low.single_user(value) is not None and value.op is not None:
        if value.op.name == "tensor.reshape" and matrix_shape(value.op.operands[0].type) == shape:  # type: ignore[union-attr]
            value = value.op.operands[0]  # type: ignore[assignment]
            continue
        return value if value.op.name in HANDLERS and value.op.name not in WINDOWS else None
    return None


@handles("tensor.concat")
def concat(low: Lowering, op: Op) -> None:
    """Parts that were not written in place are copied."""
    result = op.results[0]
    assert isinstance(result.type, TensorType)
    axis = op.attrs["axis"] % result.type.rank
    home = low.home(result)
    whole, first = Strided.of(home, result.type.shape), 0
    pairs: list[tuple[Strided, Strided]] = []
    for part in op.operands:
        assert part is not None and isinstance(part.type, TensorType)
        view, extent = low.view(part), part.type.shape[axis]
        if view.buffer is not home.buffer:
            pairs.append((Strided.of(view, part.type.shape), whole.part(axis, first, extent)))
        first += extent
    move(low, op, pairs)


@handles("tensor.reshape", "tensor.cast")
def reshape(low: Lowering, op: Op) -> None:
    """The same bytes under another shape; a window that is not contiguous is copied first."""
    x, result = op.operands[0], op.results[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    if op.name == "tensor.cast" and x.type.dtype[0] != result.type.dtype[0]:
        raise fail(
            "lower.cast",
            f"cast from {x.type.dtype} to {result.type.dtype} is not lowered; expected i64 to i32, f32 to f16 "
            "or back",
            op.loc,
            hint="convert on the host and make the result an input",
        )
    view = low.view(x)
    rows, cols = matrix_shape(result.type)
    found = low.reshaped(view, rows, cols)
    if found is None:
        dense = low.allocate(view.rows, view.cols, result.name, view.dtype)
        copy(low, op, view, dense)
        found = low.reshaped(dense, rows, cols)
    assert found is not None
    low.at[result] = found


@handles("tensor.slice")
def slice_(low: Lowering, op: Op) -> None:
    """A window of rows or columns, else a copy of what is kept."""
    x, result = op.operands[0], op.results[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    view: View | None = low.view(x)
    assert view is not None
    source = Strided.of(view, x.type.shape)
    for axis, (keep, extent) in enumerate(zip(ranges(op), x.type.shape, strict=True)):
        if keep != range(extent):
            source = source.part(axis, keep.start, len(keep), keep.step)
            view = window(view, x.type.shape, axis, keep) if view is not None else None
    if view is None:
        move(low, op, [(source, Strided.of(low.result(result), result.type.shape))])
    else:
        low.at[result] = view


def window(view: View, shape: tuple[int, ...], axis: int, keep: range) -> View | None:
    """The window of some indices of an axis of a value of that shape, None if they are no run of rows or columns."""
    if len(keep) != 1 and keep.step != 1:
        return None
    if axis == len(shape) - 1:
        return view.cols_from(keep.start, len(keep))
    if math.prod(shape[:axis]) != 1:
        return None
    inner = math.prod(shape[axis + 1 : -1])
    return view.rows_from(keep.start * inner, len(keep) * inner)


@handles("tensor.expand", "tensor.tile")
def repeat(low: Lowering, op: Op) -> None:
    """Every element is read once and written as often as it repeats."""
    x, result = op.operands[0], op.results[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    source, target = Strided.of(low.view(x), x.type.shape), Strided.of(low.result(result), result.type.shape)
    if op.name == "tensor.tile":  # axis d repeated r times as two axes, of r and d
        dims = [n for r, d in zip(op.attrs["repeats"], x.type.shape, strict=True) for n in (r, d)]
        for axis, extent in reversed(list(enumerate(x.type.shape))):
            source, target = source.split(axis, extent), target.split(axis, extent)
        move(low, op, [(source.broadcast(dims), target)])
    else:
        move(low, op, [(source.broadcast(result.type.shape), target)])


@handles("tensor.pad")
def pad(low: Lowering, op: Op) -> None:
    """The value inside, and slabs of one number around it, axis by axis."""
    x, result = op.operands[0], op.results[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    rank = x.type.rank
    if op.attrs["mode"] != "constant":
        raise fail(
            "lower.pad",
            f"pad with mode {op.attrs['mode']} is not lowered; expected constant",
            op.loc,
            hint="write the margin as slices that are concatenated",
        )
    source = Strided.of(low.view(x), x.type.shape)
    inside = Strided.of(low.result(result), result.type.shape)
    slabs: list[Strided] = []
    for axis, (begin, end) in enumerate(zip(op.attrs["pads"][:rank], op.attrs["pads"][rank:], strict=True)):
        extent, cut = inside.dims[axis], max(0, -begin)
        kept = x.type.shape[axis] - cut - max(0, -end)
        source = source.part(axis, cut, kept)
        slabs.append(inside.part(axis, 0, max(0, begin)))
        slabs.append(inside.part(axis, max(0, begin) + kept, extent - kept - max(0, begin)))
        inside = inside.part(axis, max(0, begin), kept)
    value = op.attrs["value"]
    if source.dtype == "i32":  # the number is a source like any other, repeated
        one = low.constant(f"pad_{value}", np.array([[int(value)]], np.int64))
        number = Strided.of(one, (1,) * rank)
        move(low, op, [(source, inside), *((number.broadcast(slab.dims), slab) for slab in slabs)])
        return
    if 0 in inside.dims:
        low.kernel(op)
    move(low, op, [(source, inside)])
    fill(low, op, slabs, float(value))
