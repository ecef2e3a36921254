"""fuse-updates: adding to some rows of a value, spelled with slices, is one addition."""

from __future__ import annotations

import math

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import dtype_of, producer, rewrite, shape_of
from focusc.ir.passes.canonicalise import ranges
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter


@defpass("fuse-updates", added="additions to runs of rows made additions to all")
def fuse_updates(module: Module, stats: Stats) -> Module:
    """Make concat(x[:a], x[a:b] + f, x[b:]) along the rows an addition of x and of f between rows of zeros.

    That is how features enter deeper layers of a decoder (Qwen3-VL's DeepStack): the visual rows are cut out, raised
    and put back. As an addition it goes with the residual stream, whose rows can then be followed and dropped.
    """
    return rewrite(module, stats, [added])


def added(op: Op, rewriter: Rewriter) -> str | None:
    """A concatenation of consecutive runs of rows of one value, to some of which something is added."""
    if op.name != "tensor.concat":
        return None
    shape = shape_of(op.result)
    rows = len(shape) - 2
    if rows < 0 or op.attrs["axis"] % len(shape) != rows or math.prod(shape[:rows]) != 1:
        return None
    parts = [_run_of(v) for v in op.operands if v is not None]
    source = parts[0][0]
    at = 0
    for found, start, end, _ in parts:
        if found is None or found is not source or start != at:
            return None
        at = end
    features = [feature for *_, feature in parts]
    if source is None or at != shape[rows] or shape_of(source)[-2] != at or not any(features):
        return None
    b = rewriter.builder_before(op)
    with b.from_op(op):
        padded: list[Value] = []
        for (_, start, end, feature) in parts:
            size = (*shape[:rows], end - start, shape[-1])
            if feature is None:
                padded.append(b.constant(np.zeros(size, np.float32)))
            else:
                padded.append(b.emit("tensor.reshape", feature, shape=size))
        raised = b.emit("tensor.concat", *padded, axis=rows) if len(padded) > 1 else padded[0]
        total = b.emit("tensor.add", source, b.emit("tensor.reshape", raised, shape=shape_of(source)))
        rewriter.replace(op, b.emit("tensor.reshape", total, shape=shape))
    return "added"


def _run_of(value: Value) -> tuple[Value | None, int, int, Value | None]:
    """(x, start, end, f or None) of rows [start, end) of x, with f added; x is None if it is something else."""
    nothing = None, 0, 0, None
    value = _same_rows(value)
    op = producer(value, "tensor.add")
    if op is None:
        run = _slice_of(value)
        return nothing if run is None else (*run, None)
    for one, other in (op.operands, op.operands[::-1]):
        run = _slice_of(_same_rows(one)) if one is not None else None
        if run is not None and other is not None and math.prod(shape_of(other)) == math.prod(shape_of(value)):
            return *run, other
    return nothing


def _slice_of(value: Value) -> tuple[Value, int, int] | None:
    op = producer(value, "tensor.slice")
    source = op.operands[0] if op is not None else None
    if op is None or source is None or dtype_of(source) != "f32" or len(shape_of(source)) < 2:
        return None
    *_, rows, columns = ranges(op)
    if math.prod(shape_of(source)[:-2]) != 1 or len(columns) != shape_of(source)[-1] or rows.step != 1:
        return None
    return source, rows.start, rows.stop


def _same_rows(value: Value) -> Value:
    """The value before reshapes that only add or drop leading axes of one element."""
    while (op := producer(value, "tensor.reshape")) is not None and op.operands[0] is not None:
        before = op.operands[0]
        if shape_of(before)[-2:] != shape_of(value)[-2:]:
            break
        value = before
    return value
