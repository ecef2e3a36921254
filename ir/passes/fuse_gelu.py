"""fuse-gelu: x * Phi(x), exact, by tanh or quick, however it is spelled."""

from __future__ import annotations

from functools import partial

from focusc.ir.core import Module, Op
from focusc.ir.elementwise import argument_of
from focusc.ir.matching import rewrite
from focusc.ir.ops.activations import gelu
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter


@defpass("fuse-gelu", none="exact ones (erf)", tanh="tanh approximations", quick="x * sigmoid(1.702 x)",
         named="tensor.gelu ops taken over")
def fuse_gelu(module: Module, stats: Stats) -> Module:
    """Make one `nn.gelu` of every group of elementwise ops that computes a GELU; compared by value on sample points."""
    return rewrite(module, stats, [named, spelled])


def named(op: Op, rewriter: Rewriter) -> str | None:
    """tensor.gelu."""
    if op.name != "tensor.gelu":
        return None
    rewriter.replace_with(op, "nn.gelu", op.operands[0], approximate=op.attrs["approximate"])
    return "named"


def spelled(op: Op, rewriter: Rewriter) -> str | None:
    """A product with a factor x that equals gelu(x)."""
    if op.name not in ("tensor.mul", "tensor.div"):
        return None
    for approximate in ("none", "tanh", "quick"):
        x = argument_of(op, partial(gelu, approximate=approximate))
        if x is not None:
            rewriter.replace_with(op, "nn.gelu", x, approximate=approximate)
            return approximate
    return None
