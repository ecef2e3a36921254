"""split-packed: slices of a packed projection become projections of their own."""

from __future__ import annotations

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import depends_on_constants, producer, rewrite, shape_of
from focusc.ir.passes.canonicalise import ranges, slice_attrs
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter
from focusc.ir.views import Axis, contiguous, emit, merged, view_of


@defpass("split-packed", lifted="slices moved in front of reshapes and transposes", split="projections cut in parts")
def split_packed(module: Module, stats: Stats) -> Module:
    """Turn one linear whose columns are sliced apart (packed q, k, v; packed gate and up) into one linear per part.

    Slices first move in front of the reshapes and transposes that split heads, so that they cut columns.
    """
    return rewrite(module, stats, [lifted, split])


def lifted(op: Op, rewriter: Rewriter) -> str | None:
    """slice(view(x)) as view(slice(x)), where the slice keeps a contiguous part of one axis of x."""
    if op.name != "tensor.slice" or op.operands[0] is None:
        return None
    view = view_of(op.operands[0])
    keep = ranges(op)
    cut = [a for a, (r, d) in enumerate(zip(keep, view.shape, strict=True)) if len(r) != d]
    if not view.steps or len(cut) != 1 or keep[cut[0]].step != 1 or not len(keep[cut[0]]):
        return None
    axis = view.axis(cut[0])
    inner = 1
    for extent, _ in axis[1:]:
        inner *= extent
    first, last = keep[cut[0]][0], keep[cut[0]][-1] + 1
    if not axis or first % inner or last % inner:
        return None
    extent, stride = axis[0]
    source = next((i for i, a in enumerate(contiguous(shape_of(view.base)))
                   if a and a[0][0] * a[0][1] == extent * stride), None)
    if source is None:
        return None
    unit = contiguous(shape_of(view.base))[source][0][1]  # elements per step of the base's axis
    if stride % unit:
        return None
    start, stop, count = first // inner * stride // unit, last // inner * stride // unit, (last - first) // inner

    def shrunk(factor: tuple[int, int]) -> tuple[int, int]:
        return factor if factor[1] < extent * stride else (factor[0], factor[1] // extent * count)

    axes: list[Axis] = [tuple(shrunk(f) for f in merged(a)) for a in view.axes]
    axes[cut[0]] = (((count, stride),) if count > 1 else ()) + axis[1:]
    shape = shape_of(view.base)
    kept = tuple(range(start, stop) if i == source else range(d) for i, d in enumerate(shape))
    b = rewriter.builder_before(op)
    part = b.emit("tensor.slice", view.base, **slice_attrs(shape, kept))
    value = emit(b, part, axes)
    if value is None:
        return None
    rewriter.replace(op, value)
    return "lifted"


def split(op: Op, rewriter: Rewriter) -> str | None:
    """slice(linear(x, w, bias)) on columns as linear(x, slice(w), slice(bias)), if every user is such a slice."""
    linear = producer(op.operands[0], "nn.linear") if op.name == "tensor.slice" else None
    if linear is None or not all(_columns_only(u) for u in linear.result.users):
        return None
    x, w, bias = linear.operands
    assert w is not None
    if not depends_on_constants(w) or (bias is not None and not depends_on_constants(bias)):
        return None
    columns = ranges(op)[-1]
    b = rewriter.builder_before(op)

    def part(value: Value) -> Value:
        shape = shape_of(value)
        kept = (*(range(d) for d in shape[:-1]), columns)
        return b.emit("tensor.slice", value, **slice_attrs(shape, kept))

    cut = None if bias is None else part(bias)
    rewriter.replace_with(op, "nn.linear", x, part(w), cut, **linear.attrs)
    return "split"


def _columns_only(op: Op) -> bool:
    """True for a slice that keeps some columns of all rows."""
    if op.name != "tensor.slice" or op.operands[0] is None:
        return False
    keep, shape = ranges(op), shape_of(op.operands[0])
    return all(len(r) == d for r, d in zip(keep[:-1], shape[:-1], strict=True)) and keep[-1].step > 0
