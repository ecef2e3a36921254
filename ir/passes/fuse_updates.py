"""fuse-updates: adding to some rows of a value, spelled with slices, is one addition."""

from __future__ import annotations

import math

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import dtype_of, rewrite, shape_of
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


Run = tuple[int, int, Value | None, int]
"""Rows [start, end) of a value; and the value whose rows from the last number on are added to them, or None."""


def added(op: Op, rewriter: Rewriter) -> str | None:
    """A concatenation of consecutive runs of rows of one value, to some of which something is added."""
    if op.name != "tensor.concat":
        return None
    shape = shape_of(op.result)
    rows = len(shape) - 2
    if rows < 0 or op.attrs["axis"] % len(shape) != rows or math.prod(shape[:rows]) != 1:
        return None
    found = next((f for x in _cut_from(op) if (f := _all_of(op, x)) is not None), None)
    if found is None:
        return None
    source, runs = found
    b = rewriter.builder_before(op)
    with b.from_op(op):
        parts: list[Value] = []
        for start, end, feature, first in runs:
            size = (*shape[:rows], end - start, shape[-1])
            if feature is None:
                parts.append(b.constant(np.zeros(size, np.float32)))
                continue
            axis, last = len(shape_of(feature)) - 2, first + end - start
            if (first, last) != (0, shape_of(feature)[axis]):
                feature = b.emit("tensor.slice", feature, starts=(first,), ends=(last,), axes=(axis,), steps=(1,))
            parts.append(b.emit("tensor.reshape", feature, shape=size))
        raised = b.emit("tensor.concat", *parts, axis=rows) if len(parts) > 1 else parts[0]
        total = b.emit("tensor.add", source, b.emit("tensor.reshape", raised, shape=shape_of(source)))
        rewriter.replace(op, b.emit("tensor.reshape", total, shape=shape))
    return "added"


def _all_of(concat: Op, source: Value) -> tuple[Value, list[Run]] | None:
    """(source, runs), if the concatenation is all rows of `source` in order, something being added to some."""
    runs = _runs(concat.result, 0, shape_of(concat.result)[-2], source, True)
    at = 0
    for start, end, *_ in runs or ():
        if start != at:
            return None
        at = end
    return (source, runs) if runs and at == shape_of(source)[-2] and any(r[2] is not None for r in runs) else None


def _runs(value: Value, start: int, end: int, source: Value, adds: bool) -> list[Run] | None:
    """Rows [start, end) of `value` as runs of rows of `source`, None if they are something else; `adds`: one addition
    may lie between."""
    if value is source:
        return [(start, end, None, 0)]
    if _leading(value) != 1:
        return None
    op = value.op
    if op is None:
        return None
    if op.name == "tensor.reshape" and op.operands[0] is not None:
        before = op.operands[0]
        same = len(shape_of(before)) > 1 and shape_of(before)[-2:] == shape_of(value)[-2:]
        return _runs(before, start, end, source, adds) if same else None
    if op.name == "tensor.slice" and (cut := _rows_cut(op)) is not None:
        return _runs(cut[0], start + cut[1], end + cut[1], source, adds)
    if op.name == "tensor.concat" and op.attrs["axis"] % len(shape_of(value)) == len(shape_of(value)) - 2:
        return _joined(op, start, end, source, adds)
    if op.name == "tensor.add" and adds:
        for one, other in (op.operands, op.operands[::-1]):
            if one is None or other is None or shape_of(other)[-2:] != shape_of(value)[-2:] or _leading(other) != 1:
                continue
            inner = _runs(one, start, end, source, False)
            if inner is not None:
                firsts = [start + sum(e - s for s, e, *_ in inner[:i]) for i in range(len(inner))]
                return [(s, e, other, first) for (s, e, *_), first in zip(inner, firsts, strict=True)]
    return None


def _joined(concat: Op, start: int, end: int, source: Value, adds: bool) -> list[Run] | None:
    found: list[Run] = []
    at = 0
    for part in concat.operands:
        assert part is not None
        size = shape_of(part)[-2]
        first, last = max(start - at, 0), min(end - at, size)
        if first < last:
            inner = _runs(part, first, last, source, adds)
            if inner is None:
                return None
            found += inner
        at += size
    return found


def _cut_from(concat: Op) -> list[Value]:
    """Values from which the parts of a concatenation are cut, directly or before an addition."""
    found: dict[Value, None] = {}
    stack = [(v, 0) for v in concat.operands]
    while stack:
        value, depth = stack.pop()
        op = value.op if value is not None else None
        if op is None or depth > 6:
            continue
        if op.name == "tensor.slice" and (cut := _rows_cut(op)) is not None and shape_of(cut[0])[-2] == (
                shape_of(concat.result)[-2]):
            found[cut[0]] = None
        elif op.name in ("tensor.slice", "tensor.reshape", "tensor.add", "tensor.concat"):
            stack += [(v, depth + 1) for v in op.operands]
    return list(found)


def _rows_cut(op: Op) -> tuple[Value, int] | None:
    """(x, first row) of a slice that keeps consecutive rows and all columns of f32 x [.., rows, columns]."""
    source = op.operands[0]
    if source is None or len(shape_of(source)) < 2 or dtype_of(source) != "f32" or _leading(source) != 1:
        return None
    *_, rows, columns = ranges(op)
    return (source, rows.start) if len(columns) == shape_of(source)[-1] and rows.step == 1 else None


def _leading(value: Value) -> int:
    return math.prod(shape_of(value)[:-2])
