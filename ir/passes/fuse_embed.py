"""fuse-embed: rows of a constant table by token number."""

from __future__ import annotations

from focusc.ir.core import Module, Op
from focusc.ir.matching import depends_on_constants, dtype_of, rewrite, shape_of
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter


@defpass("fuse-embed", fused="gathers from a table")
def fuse_embed(module: Module, stats: Stats) -> Module:
    """Make `nn.embed` of a gather from the rows of a constant f32 matrix by computed numbers."""
    return rewrite(module, stats, [gathered])


def gathered(op: Op, rewriter: Rewriter) -> str | None:
    """gather on axis 0 of a constant matrix."""
    if op.name != "tensor.gather":
        return None
    table, ids = op.operands
    assert table is not None and ids is not None
    if len(shape_of(table)) != 2 or op.attrs["axis"] not in (0, -2) or dtype_of(table) != "f32":
        return None
    if not depends_on_constants(table) or depends_on_constants(ids):
        return None
    rewriter.replace_with(op, "nn.embed", ids, table)
    return "fused"
