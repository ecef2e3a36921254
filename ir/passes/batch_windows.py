"""batch-windows: attentions over neighbouring windows of one sequence as one attention with a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import constant_of, producer, rewrite, shape_of
from focusc.ir.passes.canonicalise import ranges, slice_attrs
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Builder, Rewriter
from focusc.ir.types import TensorType
from focusc.ir.views import plan, view_of


@defpass("batch-windows", batched="attentions with a batch made", windows="attentions of one window replaced by them",
         blocks="masks of blocks that became batches")
def batch_windows(module: Module, stats: Stats) -> Module:
    """Join attentions whose operands are neighbouring slices of the same values and whose results are concatenated.

    Vision encoders with windowed attention are exported as Split, one Attention for each window, and Concat. Windows of
    equal length that follow each other become a batch; where lengths change, a new batch starts. Others mask one
    attention, so that rows see the keys of their own block only: such blocks become batches too.
    """

    def concatenated(op: Op, rewriter: Rewriter) -> str | None:
        windows = _windows(op)
        runs = list(_runs(windows)) if windows else []
        if all(len(run) < 2 for run in runs):
            return None
        b = rewriter.builder_before(op)
        parts = [_joined(b, run, op) for run in runs]
        stats["windows"] += sum(len(run) for run in runs if len(run) > 1)
        stats["batched"] += sum(len(run) > 1 for run in runs) - 1  # `rewrite` counts the first
        value = parts[0] if len(parts) == 1 else b.emit("tensor.concat", *parts, axis=op.attrs["axis"])
        rewriter.replace(op, value)
        return "batched"

    def masked(op: Op, rewriter: Rewriter) -> str | None:
        sizes = _blocks(op)
        runs = [(size, len(list(run))) for size, run in groupby(sizes)]
        if len(sizes) < 2 or len(runs) > RUNS:
            return None
        rewriter.replace(op, _apart(rewriter.builder_before(op), op, runs))
        return "blocks"

    return rewrite(module, stats, [concatenated, masked])


RUNS = 16
"""Most runs of blocks of equal size that a mask is cut into: each is an attention of its own."""


def _blocks(op: Op) -> list[int]:
    """Sizes of the blocks of rows of an attention that see the keys of their block and no others; none for others."""
    if op.name != "nn.attention" or op.attrs["causal"] or op.attrs["window"]:
        return []
    q, mask = op.operands[0], constant_of(op.operands[3])
    if q is None or not isinstance(q.type, TensorType) or mask is None or mask.dtype != np.bool_:
        return []
    batch, rows = q.type.shape[:2]
    if batch != 1 or mask.size != rows * rows or mask.shape[-2:] != (rows, rows):
        return []
    seen = mask.reshape(rows, rows)
    starts = seen.argmax(axis=1) == np.arange(rows)
    number = np.cumsum(starts)
    if not np.array_equal(seen, np.equal.outer(number, number)):
        return []
    return np.diff(np.append(np.flatnonzero(starts), rows)).tolist()


def _apart(b: Builder, op: Op, runs: Sequence[tuple[int, int]]) -> Value:
    """The attention by runs of (size, number of blocks), each with a batch element for a block."""
    parts: list[Value] = []
    start = 0
    with b.from_op(op):
        for size, count in runs:
            stop = start + size * count
            operands: list[Value] = []
            for x in op.operands[:3]:
                assert x is not None
                columns = shape_of(x)[2]
                if len(runs) > 1:
                    x = b.emit("tensor.slice", x, starts=(start,), ends=(stop,), axes=(1,), steps=(1,))
                operands.append(b.emit("tensor.reshape", x, shape=(count, size, columns)))
            y = b.emit("nn.attention", *operands, None, **op.attrs)
            parts.append(b.emit("tensor.reshape", y, shape=(1, stop - start, shape_of(y)[2])))
            start = stop
        return parts[0] if len(parts) == 1 else b.emit("tensor.concat", *parts, axis=1)


@dataclass(frozen=True, slots=True)
class Segment:
    """Rows `start` to `stop` of an axis of `source`, all axes before which have extent 1."""

    source: Value
    axis: int
    start: int
    stop: int

    def follows(self, other: Segment) -> bool:
        """True if this is the next piece of the same size."""
        return (self.source is other.source and self.axis == other.axis and self.start == other.stop
                and self.stop - self.start == other.stop - other.start)


@dataclass(frozen=True, slots=True)
class Window:
    """One attention, its operands as segments, and its result as the concatenation reads it."""

    attention: Op
    operands: tuple[Segment, ...]
    result: Value

    def follows(self, other: Window) -> bool:
        """True if the two can be neighbours in a batch."""
        return (self.attention.attrs == other.attention.attrs and self.result.type == other.result.type
                and all(a.follows(b) for a, b in zip(self.operands, other.operands, strict=True)))


def _windows(op: Op) -> list[Window] | None:
    """The windows that a concatenation joins, None if it joins anything else."""
    if op.name != "tensor.concat" or len(op.operands) < 2:
        return None
    shape = shape_of(op.result)
    if math.prod(shape[: op.attrs["axis"] % len(shape)]) != 1:
        return None
    found: list[Window] = []
    for value in op.operands:
        attention = None if value is None else producer(_flat(value), "nn.attention")
        if value is None or attention is None or any(v is not None for v in attention.operands[3:]):
            return None
        operands = [_segment(v) for v in attention.operands[:3]]
        segments = tuple(s for s in operands if s is not None)
        if len(segments) != 3:
            return None
        found.append(Window(attention, segments, value))
    return found


def _flat(value: Value) -> Value:
    """The value that this one only reshapes."""
    view = view_of(value)
    steps = plan(shape_of(view.base), view.axes)
    return view.base if steps is not None and all(kind == "reshape" for kind, _ in steps) else value


def _segment(value: Value | None) -> Segment | None:
    """The value as a segment, if it is a reshaped slice along one axis."""
    cut = None if value is None else producer(_flat(value), "tensor.slice")
    source = cut.operands[0] if cut is not None else None
    if cut is None or source is None or value is None or shape_of(value)[0] != 1:
        return None
    shape, keep = shape_of(source), ranges(cut)
    axes = [i for i, (r, d) in enumerate(zip(keep, shape, strict=True)) if len(r) != d]
    if len(axes) != 1 or keep[axes[0]].step != 1 or math.prod(shape[: axes[0]]) != 1:
        return None
    return Segment(source, axes[0], keep[axes[0]].start, keep[axes[0]].stop)


def _runs(windows: Sequence[Window]) -> Iterator[list[Window]]:
    """Windows that follow each other, together."""
    run = [windows[0]]
    for window in windows[1:]:
        if window.follows(run[-1]):
            run.append(window)
        else:
            yield run
            run = [window]
    yield run


def _joined(b: Builder, run: Sequence[Window], op: Op) -> Value:
    """The concatenated results of a run, by one attention."""
    if len(run) == 1:
        return run[0].result
    first = run[0].attention
    with b.from_op(first):
        operands = [_batch(b, [w.operands[i] for w in run], first.operands[i]) for i in range(3)]
        y = b.emit("nn.attention", *operands, None, **first.attrs)
        shape = list(shape_of(run[0].result))
        shape[op.attrs["axis"] % len(shape)] *= len(run)
        return b.emit("tensor.reshape", y, shape=tuple(shape))


def _batch(b: Builder, segments: Sequence[Segment], operand: Value | None) -> Value:
    """All segments of a run as [windows, rows, columns]."""
    assert operand is not None
    source, axis = segments[0].source, segments[0].axis
    keep = [range(d) for d in shape_of(source)]
    keep[axis] = range(segments[0].start, segments[-1].stop)
    attrs = slice_attrs(shape_of(source), tuple(keep))
    whole = b.emit("tensor.slice", source, **attrs) if attrs["axes"] else source
    return b.emit("tensor.reshape", whole, shape=(len(segments), *shape_of(operand)[1:]))
