"""Embedding, concatenation, slices and reshapes: mostly windows of existing buffers, else copies."""

from __future__ import annotations

from focusc.backends.lower.context import HANDLERS, Lowering, handles
from focusc.backends.lower.views import View, matrix_shape
from focusc.ir import Op, TensorType, Value
from focusc.ir.diagnostics import fail

WINDOWS = ("tensor.reshape", "tensor.slice", "tensor.concat", "tensor.cast", "tensor.constant", "tensor.gather")


def plan_destinations(low: Lowering) -> None:
    """Let the producers of row-wise concatenated values write straight into the concatenation's buffer."""
    for op in low.module.walk():
        if op.name == "tensor.concat" and _row_axis(op):
            row = 0
            for part in op.operands:
                assert part is not None
                rows = matrix_shape(part.type)[0]
                source = _through_reshapes(low, part)
                if source is not None:
                    low.destination[source] = (op.results[0], row)
                row += rows


def _row_axis(op: Op) -> bool:
    type_ = op.results[0].type
    if not isinstance(type_, TensorType) or type_.rank < 2 or type_.dtype != "f32":
        return False
    axis = op.attrs["axis"] % type_.rank
    return axis == type_.rank - 2 and matrix_shape(type_)[0] == type_.shape[-2]


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
    if not _row_axis(op):
        type_ = op.results[0].type
        raise fail(
            "lower.concat",
            f"concatenation along axis {op.attrs['axis']} of {type_} is not lowered; expected the row "
            "axis of f32 activations",
            op.loc,
            hint="concatenate token-major rows, or multiply the parts by a weight each and add",
        )
    home, row = low.home(op.results[0]), 0
    for part in op.operands:
        assert part is not None
        view = low.view(part)
        if view.buffer is not home.buffer:
            copy(low, op, view, home.rows_from(row, view.rows))
        row += view.rows


def copy(low: Lowering, op: Op, source: View, target: View) -> None:
    """Copy a window tile by tile."""
    low.kernel(op)
    e = low.emit
    rows = low.rows_of(source.rows)
    cols = low.columns(rows.most, 1, source.cols)
    with e.loop(rows.total, rows.step, first=rows.first) as m, e.loop(source.cols, cols) as c:
        tile = e.to_tile(e.load(source.buffer, m.off + source.row, c.off + source.col, m.len, c.len))
        e.store(tile, target.buffer, m.off + target.row, c.off + target.col)


@handles("tensor.reshape", "tensor.cast")
def reshape(low: Lowering, op: Op) -> None:
    """Another matrix over the same elements."""
    x = op.operands[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(op.results[0].type, TensorType)
    if x.type.dtype != op.results[0].type.dtype and {x.type.dtype, op.results[0].type.dtype} not in (
        {"i64", "i32"},
        {"f32", "f16"},
    ):
        raise fail(
            "lower.cast",
            f"cast from {x.type.dtype} to {op.results[0].type.dtype} is not lowered; expected i64 to i32, f32 to f16 "
            "or back",
            op.loc,
            hint="convert on the host and make the result an input",
        )
    view = low.view(x)
    rows, cols = matrix_shape(op.results[0].type)
    found = low.reshaped(view, rows, cols)
    if found is None:
        dense = low.allocate(view.rows, view.cols, op.results[0].name)
        copy(low, op, view, dense)
        found = low.reshaped(dense, rows, cols)
    assert found is not None
    low.at[op.results[0]] = found


@handles("tensor.slice")
def slice_(low: Lowering, op: Op) -> None:
    """A window of rows or columns."""
    x = op.operands[0]
    assert x is not None and isinstance(x.type, TensorType)
    view, rank = low.view(x), x.type.rank
    axes = op.attrs.get("axes") or tuple(range(len(op.attrs["starts"])))
    steps = op.attrs.get("steps") or (1,) * len(axes)
    for axis, start, end, step in zip(axes, op.attrs["starts"], op.attrs["ends"], steps, strict=True):
        axis, extent = axis % rank, x.type.shape[axis % rank]
        first = max(0, start + extent if start < 0 else min(start, extent))
        last = min(extent, end + extent if end < 0 else end)
        if (first, last) == (0, extent) and step == 1:
            continue
        outer = matrix_shape(TensorType((*x.type.shape[: axis + 1], 1), "f32"))[0] // extent
        if step != 1 or (axis < rank - 1 and outer != 1):
            raise fail(
                "lower.slice",
                f"slice [{start}:{end}:{step}] on axis {axis} of {x.type} is no window of rows or columns; expected "
                "step 1, on the last axis or on one with no more than one element before it",
                op.loc,
                hint="reorder the axes in the model, so that the slice is a run of rows or columns",
            )
        if axis == rank - 1:
            view = view.cols_from(first, last - first)
        else:
            inner = view.rows // extent
            view = view.rows_from(first * inner, (last - first) * inner)
    low.at[op.results[0]] = view


@handles("tensor.gather")
def gather(low: Lowering, op: Op) -> None:
    """One row at a constant index is a window."""
    x, index = op.operands
    assert x is not None and index is not None
    assert isinstance(x.type, TensorType) and isinstance(index.type, TensorType)
    rank = x.type.rank
    if (
        index.op is None
        or index.op.name != "tensor.constant"
        or index.type.size != 1
        or op.attrs["axis"] % rank != rank - 2
        or matrix_shape(x.type)[0] != x.type.shape[-2]
    ):
        raise fail(
            "lower.gather",
            f"gather on axis {op.attrs['axis']} of {x.type} is not lowered; expected one row by a constant index",
            op.loc,
            hint="use a constant index (nn.embed looks up a table by token ids)",
        )
    row = int(index.op.attrs["value"].array.reshape(-1)[0]) % x.type.shape[-2]
    low.at[op.results[0]] = low.view(x).rows_from(row, 1)


@handles("nn.embed")
def embed(low: Lowering, op: Op) -> None:
    """Rows of the table by token id, streamed by the index list."""
    ids, table = op.operands
    assert ids is not None and table is not None
    index, source = low.view(ids), low.view(table)
    total = index.rows * index.cols
    if not index.contiguous:
        raise fail(
            "lower.embed",
            f"token ids are a window of {index.rows} x {index.cols} in rows of {index.pitch}; expected one run of "
            "memory",
            op.loc,
            hint="slice whole rows of the token ids",
        )
    low.kernel(op)
    sink = low.sink(op.results[0])
    move_rows(low, source, index.buffer, index.offset, total, sink.view)


def move_rows(low: Lowering, source: View, index: Value, start: int, total: int, target: object) -> None:
    """target[i] = source[index[start + i]] for `total` rows of the whole width."""
    assert isinstance(target, View) and source.row == 0 and source.col == 0
    e = low.emit
    rows = low.rows_of(total, most=max(1, low.tiling.obuf // (8 * source.cols)))
    with e.loop(rows.total, rows.step, first=rows.first) as m:
        tile = e.to_tile(e.load_index(source.buffer, index, m.off + start, m.len))
        e.store(tile, target.buffer, m.off + target.row, target.col)
