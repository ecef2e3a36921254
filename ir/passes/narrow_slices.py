"""narrow-slices: rows that are cut off later are not computed."""

from __future__ import annotations

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import rewrite, shape_of
from focusc.ir.passes.canonicalise import ranges, slice_attrs
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter

ROW_WISE = frozenset({"nn.linear", "nn.rms_norm", "nn.layer_norm", "nn.gelu", "nn.silu", "nn.swiglu"})
"""Ops whose result row depends on the same row of the first operand (of both, for swiglu) only."""


@defpass("narrow-slices", moved="slices moved in front of a row-wise op")
def narrow_slices(module: Module, stats: Stats) -> Module:
    """Move slices of rows in front of linear layers, normalisations and activations that nothing else reads.

    A language-model head that computes logits for all positions, of which the last is kept, then runs on the last one
    only. Slices stop at additions: the residual stream and the layers before it keep all rows.
    """
    return rewrite(module, stats, [moved])


def moved(op: Op, rewriter: Rewriter) -> str | None:
    """slice(f(x)) as f(slice(x)), for slices that keep all columns."""
    source = op.operands[0] if op.name == "tensor.slice" else None
    inner = source.op if source is not None else None
    if inner is None or source is None or inner.name not in ROW_WISE or source.use_count != 1:
        return None
    keep, shape = ranges(op), shape_of(source)
    if len(keep[-1]) != shape[-1] or any(r.step < 1 for r in keep):
        return None
    b = rewriter.builder_before(op)
    rows = 2 if inner.name == "nn.swiglu" else 1

    def narrowed(value: Value) -> Value:
        own = (*keep[:-1], range(shape_of(value)[-1]))
        with b.from_op(inner):
            return b.emit("tensor.slice", value, **slice_attrs(shape_of(value), own))

    with b.from_op(inner):
        operands = [narrowed(v) if v is not None and i < rows else v for i, v in enumerate(inner.operands)]
        rewriter.replace(op, b.emit(inner.name, *operands, **inner.attrs))
    return "moved"
