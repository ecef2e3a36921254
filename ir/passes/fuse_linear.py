"""fuse-linear: products with a constant matrix, and their bias."""

from __future__ import annotations

from focusc.ir.core import Module, Op
from focusc.ir.matching import both_orders, depends_on_constants, dtype_of, producer, rewrite, row_constant, shape_of
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter


@defpass("fuse-linear", linear="products with a constant matrix", bias="additions merged as bias",
         reshapes="reshapes of the rows moved behind the product")
def fuse_linear(module: Module, stats: Stats) -> Module:
    """Make `nn.linear` of x @ w and x @ w + b where w and b depend on constants only.

    A product of flattened rows (the form of Gemm) is taken over the rows as they were, and flattened after it.
    """
    return rewrite(module, stats, [product, bias, flattened])


def product(op: Op, rewriter: Rewriter) -> str | None:
    """x @ constant matrix."""
    if op.name != "tensor.matmul":
        return None
    x, w = op.operands
    assert x is not None and w is not None
    if len(shape_of(w)) != 2 or len(shape_of(x)) < 2 or dtype_of(x) != "f32":
        return None
    if not depends_on_constants(w) or depends_on_constants(x):
        return None
    rewriter.replace_with(op, "nn.linear", x, w)
    return "linear"


def bias(op: Op, rewriter: Rewriter) -> str | None:
    """linear + constant row."""
    if op.name != "tensor.add":
        return None
    for y, row in both_orders(op):
        linear = producer(y, "nn.linear")
        if linear is None or y.use_count != 1 or linear.operands[2] is not None or linear.attrs["epilogue"] != "none":
            continue
        width = shape_of(y)[-1:]
        if y.type != op.result.type or not row_constant(row, width[0]):
            continue
        flat = rewriter.builder_before(op).emit("tensor.reshape", row, shape=width)
        rewriter.replace_with(op, "nn.linear", linear.operands[0], linear.operands[1], flat)
        return "bias"
    return None


def flattened(op: Op, rewriter: Rewriter) -> str | None:
    """linear(reshape(x)) as reshape(linear(x)), where only the rows are regrouped and a reshape follows anyway."""
    if op.name != "nn.linear":
        return None
    rows = producer(op.operands[0], "tensor.reshape")
    x = rows.operands[0] if rows is not None else None
    if x is None or len(shape_of(x)) < 2 or shape_of(x)[-1] != shape_of(op.operands[1])[0]:  # type: ignore[arg-type]
        return None
    users = op.result.users
    if not users or any(u.name != "tensor.reshape" for u in users):
        return None
    b = rewriter.builder_before(op)
    y = b.emit("nn.linear", x, op.operands[1], op.operands[2], **op.attrs)
    rewriter.replace(op, b.emit("tensor.reshape", y, shape=shape_of(op.result)))
    return "reshapes"
