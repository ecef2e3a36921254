"""Reads and writes by index: embedding, gathers and scatters, as rows streamed by a list of numbers.

Constant lists of few runs are strided copies; one index of an axis is a window where rows or columns are one.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.data import window
from focusc.backends.lower.moves import copy, move
from focusc.backends.lower.strided import Strided, cut, longest, simplified
from focusc.backends.lower.views import View
from focusc.ir import Op, TensorType, Value
from focusc.ir.diagnostics import fail

RUNS = 8
"""Most runs of a constant list that are copied run by run; the text grows with them."""

WIDE = 1024
"""Columns that a tile of rows by number has at least, if they fit: each piece of a row reads the list again."""

Numbers = NDArray[np.int64]


def known(value: Value) -> Numbers | None:
    """The numbers of a constant list, flat; None if they are computed."""
    if value.op is None or value.op.name != "tensor.constant":
        return None
    return np.asarray(value.op.attrs["value"].array, np.int64).reshape(-1)


def runs(numbers: Numbers) -> list[range]:
    """A list as arithmetic sequences, one after the other."""
    found: list[range] = []
    at = 0
    while at < len(numbers):
        end, first = at + 1, int(numbers[at])
        step = int(numbers[end]) - first if end < len(numbers) else 1
        while end < len(numbers) and step and int(numbers[end]) - int(numbers[end - 1]) == step:
            end += 1
        count = end - at
        found.append(range(first, first + (step or 1) * count, step or 1))
        at = end
    return found


def listed(low: Lowering, op: Op, numbers: Numbers | None, value: Value, what: str) -> View:
    """An i32 list in DRAM: of a constant's numbers, or a computed value as one run."""
    if numbers is not None:
        name = f"{what}_{len(numbers)}_{hashlib.blake2b(numbers.tobytes(), digest_size=6).hexdigest()}"
        return low.constant(name, numbers.astype(np.int32).reshape(1, -1))
    view = low.view(value)
    if not view.contiguous:
        dense = low.allocate(view.rows, view.cols, value.name, view.dtype)
        copy(low, op, view, dense)
        view = dense
    return view


def joined(side: Strided, axis: int, count: int) -> Strided | None:
    """`count` axes from `axis` on as one; None if they are no run of one distance."""
    end = axis + count
    if not count:
        dims, strides = (1,), (1,)
    else:
        for i in range(axis, end - 1):
            if side.dims[i] != 1 and side.strides[i] != side.strides[i + 1] * side.dims[i + 1]:
                return None
        dims, strides = (math.prod(side.dims[axis:end]),), (side.strides[end - 1],)
    return Strided(
        side.buffer,
        side.start,
        (*side.dims[:axis], *dims, *side.dims[end:]),
        (*side.strides[:axis], *strides, *side.strides[end:]),
        side.dtype,
    )


def move_listed(
    low: Lowering, op: Op, source: Strided, target: Strided, axis: int, index: View, *, scatter: bool = False
) -> None:
    """One kernel: index i of an axis of the target is index list[i] of that axis of the source; with `scatter` index
    list[i] of the target is index i of the source."""
    if source.dtype == "i32":
        source, target = source.bytes(low), target.bytes(low)
    if 0 in source.dims or 0 in target.dims:
        return
    table, plain = (target, source) if scatter else (source, target)
    rest = [i for i in range(len(source.dims)) if i != axis]
    a, b = simplified(table.permuted(rest), plain.permuted(rest))
    both = [i for i in range(len(a.dims)) if a.strides[i] == b.strides[i] == 1]
    col = longest(a.dims, both)
    count, row = plain.dims[axis], len(a.dims)
    c = cut(low, (*a.dims, count), row, col, least=WIDE) or cut(low, (*a.dims, count), row, col)
    if c is None:
        raise fail("tile.obuf", f"one row of 32 f32 does not fit the output buffer of {low.tiling.obuf} bytes", op.loc)
    low.kernel(op)
    e, pitch, limit = low.emit, table.strides[axis], table.dims[axis]
    with ExitStack() as nest:
        at = {i: nest.enter_context(e.loop(a.dims[i], 1)).off for i in c.loops}
        r = nest.enter_context(e.loop(c.rows.total, c.rows.step, repeat=True))
        width = e.loop(a.dims[col], c.cols) if col is not None else None
        k = nest.enter_context(width) if width is not None else None
        cols = k.len if k is not None else 1
        if k is not None and col is not None:
            at[col] = k.off
        run = b.at(at) + r.off * plain.strides[axis]
        if scatter:
            tile = e.to_tile(e.load_strided(plain.buffer, run, r.len, cols, plain.strides[axis]))
            e.store_index(tile, table.buffer, index.buffer, r.off + index.offset, a.at(at), pitch, limit)
        else:
            where = {"at": a.at(at), "cols": cols, "pitch": pitch, "limit": limit}
            tile = e.to_tile(e.load_index(table.buffer, index.buffer, r.off + index.offset, r.len, **where))
            e.store_strided(tile, plain.buffer, run, plain.strides[axis])


def _place(low: Lowering, result: Value, axis: int, count: int) -> tuple[Strided, View | None]:
    """The result with `count` axes from `axis` on as one, and the window it must be copied to if that is none."""
    assert isinstance(result.type, TensorType)
    view = low.result(result)
    found = joined(Strided.of(view, result.type.shape), axis, count)
    if found is not None:
        return found, None
    dense = low.allocate(view.rows, view.cols, result.name, view.dtype)
    found = joined(Strided.of(dense, result.type.shape), axis, count)
    assert found is not None
    return found, view


def _written(low: Lowering, op: Op, target: Strided, elsewhere: View | None) -> None:
    if elsewhere is not None:
        copy(low, op, View(target.buffer, 0, 0, elsewhere.rows, elsewhere.cols, elsewhere.cols), elsewhere)


@handles("tensor.gather")
def gather(low: Lowering, op: Op) -> None:
    """Slices of an axis by number."""
    x, index = op.operands
    assert x is not None and index is not None
    assert isinstance(x.type, TensorType) and isinstance(index.type, TensorType)
    axis, extent = op.attrs["axis"] % x.type.rank, x.type.shape[op.attrs["axis"]]
    numbers = known(index)
    if numbers is not None:
        numbers = numbers % extent
    view = low.view(x)
    if numbers is not None and len(numbers) == 1:
        one = int(numbers[0])
        found = window(view, x.type.shape, axis, range(one, one + 1))
        if found is not None and axis < x.type.rank - 1:
            low.at[op.results[0]] = found
            return
    source = Strided.of(view, x.type.shape)
    target, elsewhere = _place(low, op.results[0], axis, index.type.rank)
    parts = runs(numbers) if numbers is not None else []
    if parts and len(parts) <= RUNS:
        pairs: list[tuple[Strided, Strided]] = []
        first = 0
        for part in parts:
            kept = source.part(axis, part.start, len(part), part.step)
            pairs.append((kept, target.part(axis, first, len(part))))
            first += len(part)
        move(low, op, pairs)
    else:
        move_listed(low, op, source, target, axis, listed(low, op, numbers, index, "rows"))
    _written(low, op, target, elsewhere)


@handles("nn.embed")
def embed(low: Lowering, op: Op) -> None:
    """Rows of the table by token id, streamed by the index list."""
    ids, table = op.operands
    assert ids is not None and table is not None and isinstance(table.type, TensorType)
    index = listed(low, op, None, ids, "ids")
    total, width = index.rows * index.cols, table.type.shape[1]
    target = Strided.of(low.result(op.results[0]), (total, width))
    move_listed(low, op, Strided.of(low.view(table), table.type.shape), target, 0, index)


def _flat(op: Op, shape: Sequence[int], indices: Value, batch: int = 0) -> tuple[Numbers | None, int]:
    """(numbers of the slices that `indices` [..., k] address, k); None if they are computed and k is 1."""
    assert isinstance(indices.type, TensorType)
    depth, numbers = indices.type.shape[-1], known(indices)
    if numbers is None:
        if depth == 1 and not batch:
            return None, depth
        raise fail(
            "lower.index",
            f"{op.name} by computed indices of {depth} numbers; expected one number each, or constants",
            op.loc,
            hint="use constant indices, or number the flattened axes",
        )
    extents = shape[batch : batch + depth]
    places = numbers.reshape(-1, depth) % np.array(extents)
    flat = np.zeros(len(places), np.int64)
    for axis, extent in enumerate(extents):
        flat = flat * extent + places[:, axis]
    if batch:
        size = math.prod(extents)
        groups = math.prod(indices.type.shape[:batch])
        flat = flat + np.repeat(np.arange(groups), len(flat) // groups) * size
    return flat, depth


def _table(low: Lowering, op: Op, value: Value, rows: int) -> Strided:
    """A value as [rows, the rest], one run of memory."""
    assert isinstance(value.type, TensorType)
    view = low.view(value)
    if not view.contiguous:
        dense = low.allocate(view.rows, view.cols, value.name, view.dtype)
        copy(low, op, view, dense)
        view = dense
    return Strided.of(view, (rows, value.type.size // rows))


@handles("tensor.gather_nd")
def gather_nd(low: Lowering, op: Op) -> None:
    """Slices addressed by several numbers are rows of the flattened leading axes."""
    x, indices = op.operands
    assert x is not None and indices is not None and isinstance(x.type, TensorType)
    batch = op.attrs["batch_dims"]
    numbers, depth = _flat(op, x.type.shape, indices, batch)
    source = _table(low, op, x, math.prod(x.type.shape[: batch + depth]))
    _rows(low, op, source, numbers, indices)


@handles("tensor.gather_elements")
def gather_elements(low: Lowering, op: Op) -> None:
    """Single elements by constant numbers."""
    x, indices = op.operands
    assert x is not None and indices is not None
    assert isinstance(x.type, TensorType) and isinstance(indices.type, TensorType)
    numbers = known(indices)
    if numbers is None:
        raise fail(
            "lower.index",
            f"{op.name} by computed indices is not lowered; expected constants",
            op.loc,
            hint="use tensor.gather, whose numbers may be computed",
        )
    axis, shape = op.attrs["axis"] % x.type.rank, indices.type.shape
    where = list(np.indices(shape))
    where[axis] = numbers.reshape(shape) % x.type.shape[axis]
    flat = np.ravel_multi_index(tuple(where), x.type.shape).reshape(-1)
    _rows(low, op, _table(low, op, x, x.type.size), flat, indices)


def _rows(low: Lowering, op: Op, source: Strided, numbers: Numbers | None, indices: Value) -> None:
    """The result is rows of a table, by number."""
    result = op.results[0]
    assert isinstance(result.type, TensorType)
    view = low.result(result)
    dense = view if view.contiguous else low.allocate(view.rows, view.cols, result.name, view.dtype)
    count = result.type.size // source.dims[1]
    target = Strided.of(dense, (count, source.dims[1]))
    move_listed(low, op, source, target, 0, listed(low, op, numbers, indices, "rows"))
    if dense is not view:
        copy(low, op, dense, view)


@handles("tensor.scatter_nd")
def scatter_nd(low: Lowering, op: Op) -> None:
    """A copy of x, over which the updates are written."""
    x, indices, updates = op.operands
    assert x is not None and indices is not None and updates is not None
    assert isinstance(x.type, TensorType) and isinstance(updates.type, TensorType)
    if op.attrs["reduction"] != "none":
        raise fail(
            "lower.scatter",
            f"scatter_nd with reduction {op.attrs['reduction']} is not lowered; expected none",
            op.loc,
            hint="gather what is there, combine, and scatter the result",
        )
    numbers, depth = _flat(op, x.type.shape, indices)
    view = low.result(op.results[0])
    dense = view if view.contiguous else low.allocate(view.rows, view.cols, op.results[0].name, view.dtype)
    copy(low, op, low.view(x), dense)
    rows = math.prod(x.type.shape[:depth])
    target = Strided.of(dense, (rows, x.type.size // rows))
    count = updates.type.size // target.dims[1]
    source = _table(low, op, updates, count)
    parts = runs(numbers) if numbers is not None and len(set(numbers.tolist())) == count else []
    if parts and len(parts) <= RUNS:
        pairs: list[tuple[Strided, Strided]] = []
        first = 0
        for part in parts:
            pairs.append((source.part(0, first, len(part)), target.part(0, part.start, len(part), part.step)))
            first += len(part)
        move(low, op, pairs)
    else:
        move_listed(low, op, source, target, 0, listed(low, op, numbers, indices, "rows"), scatter=True)
    if dense is not view:
        copy(low, op, dense, view)
