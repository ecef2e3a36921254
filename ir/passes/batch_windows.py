"""batch-windows: attentions over neighbouring windows of one sequence as one attention with a batch."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import producer, rewrite, shape_of
from focusc.ir.passes.canonicalise import ranges, slice_attrs
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Builder, Rewriter
from focusc.ir.views import plan, view_of


@defpass("batch-windows", batched="attentions with a batch made", windows="attentions of one window replaced by them")
def batch_windows(module: Module, stats: Stats) -> Module:
    """Join attentions whose operands are neighbouring slices of the same values and whose results are concatenated.

    Vision encoders with windowed attention are exported as Split, one Attention for each window, and Concat. Windows of
    equal length that follow each other become a batch; where lengths change, a new batch starts.
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

    return rewrite(module, stats, [concatenated])


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
