"""fuse-swiglu: x * sigmoid(x), and its product with a second value."""

from __future__ import annotations

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.elementwise import argument_of
from focusc.ir.matching import both_orders, factors, producer, rewrite
from focusc.ir.ops.activations import sigmoid
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter


@defpass("fuse-swiglu", silu="x * sigmoid(x) found", swiglu="silu(gate) * up found")
def fuse_swiglu(module: Module, stats: Stats) -> Module:
    """Make `nn.silu` of x * sigmoid(x) in any spelling, and `nn.swiglu` of its product with a value of that shape."""
    return rewrite(module, stats, [silu, gated, regrouped])


def silu(op: Op, rewriter: Rewriter) -> str | None:
    """A product with a factor x that equals x * sigmoid(x)."""
    if op.name not in ("tensor.mul", "tensor.div"):
        return None
    x = argument_of(op, _silu)
    if x is None:
        return None
    rewriter.replace_with(op, "nn.silu", x)
    return "silu"


def _silu(x: np.ndarray) -> np.ndarray:
    return x * sigmoid(x)


def gated(op: Op, rewriter: Rewriter) -> str | None:
    """silu(gate) * up."""
    if op.name != "tensor.mul":
        return None
    for x, up in both_orders(op):
        gate = producer(x, "nn.silu")
        if gate is not None and up.type == x.type and x.use_count == 1:
            rewriter.replace_with(op, "nn.swiglu", gate.operands[0], up)
            return "swiglu"
    return None


def regrouped(op: Op, rewriter: Rewriter) -> str | None:
    """gate * (sigmoid(gate) * up) and (gate * up) * sigmoid(gate)."""
    if op.name != "tensor.mul":
        return None
    number, found = factors(op.result, 2)
    if number != 1.0 or len(found) != 3 or any(sign != 1 for _, sign in found):
        return None
    values = [v for v, _ in found]
    for sigma in values:
        made = producer(sigma, "tensor.sigmoid")
        gate = made.operands[0] if made is not None else None
        if gate is None or gate not in values:
            continue
        rest: list[Value] = [v for v in values if v is not sigma]
        rest.remove(gate)
        if rest[0].type == op.result.type == gate.type:
            rewriter.replace_with(op, "nn.swiglu", gate, rest[0])
            return "swiglu"
    return None
