"""fuse-layer-norm: (x - mean) / sqrt(variance + eps) * gamma + beta, however it is spelled."""

from __future__ import annotations

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import both_orders, constant_of, factors, producer, rewrite, row_constant, shape_of
from focusc.ir.norms import inverse_root, is_last_mean, mean_of_squares
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter
from focusc.ir.types import DTYPES


@defpass("fuse-layer-norm", fused="normalisations found", gains="factors merged into gamma",
         shifts="additions merged into beta")
def fuse_layer_norm(module: Module, stats: Stats) -> Module:
    """Find layer normalisation over the last axis and make it one `nn.layer_norm`, with gain and shift."""
    return rewrite(module, stats, [normalised, gain, shift])


def normalised(op: Op, rewriter: Rewriter) -> str | None:
    """centred / sqrt(mean(centred^2) + eps), with a gain of 1."""
    for depth in (1, 2, 3):
        number, found = factors(op.result, depth) if op.name in ("tensor.mul", "tensor.div") else (0.0, [])
        if number != 1.0 or len(found) != 2:
            continue
        for (value, sign), (root, exponent) in (found, found[::-1]):
            x = _centred(value) if sign == 1 else None
            inner = inverse_root(root, exponent)
            if x is None or inner is None:
                continue
            squares = mean_of_squares(inner)
            if squares is None or _centred(squares[0]) is not x:
                continue
            width = shape_of(x)[-1]
            b = rewriter.builder_before(op)
            ones = b.constant(np.ones(width, DTYPES["f32"]))
            rewriter.replace(op, b.emit("nn.layer_norm", x, ones, None, eps=squares[1]))
            return "fused"
    return None


def _centred(value: Value) -> Value | None:
    """x, if the value is x - mean(x)."""
    op = producer(value, "tensor.sub")
    if op is None:
        return None
    x, mean = op.operands
    return x if x is not None and mean is not None and is_last_mean(mean, x) else None


def gain(op: Op, rewriter: Rewriter) -> str | None:
    """norm * constant row: into gamma, and into beta if there is one already."""
    if op.name != "tensor.mul":
        return None
    for x, row in both_orders(op):
        norm = producer(x, "nn.layer_norm")
        if norm is None or x.use_count != 1 or not row_constant(row, shape_of(x)[-1]):
            continue
        b = rewriter.builder_before(op)
        row = b.emit("tensor.reshape", row, shape=shape_of(x)[-1:])
        gamma = _product(norm.operands[1], row, rewriter, op)
        beta = norm.operands[2]
        beta = None if beta is None else b.emit("tensor.mul", beta, row)
        rewriter.replace_with(op, "nn.layer_norm", norm.operands[0], gamma, beta, eps=norm.attrs["eps"])
        return "gains"
    return None


def _product(gamma: Value | None, row: Value, rewriter: Rewriter, op: Op) -> Value:
    """gamma * row; just the row where gamma is all ones."""
    known = constant_of(gamma)
    if known is not None and (known == 1).all():
        return row
    return rewriter.builder_before(op).emit("tensor.mul", gamma, row)


def shift(op: Op, rewriter: Rewriter) -> str | None:
    """norm + constant row: into beta."""
    if op.name != "tensor.add":
        return None
    for x, row in both_orders(op):
        norm = producer(x, "nn.layer_norm")
        if norm is None or x.use_count != 1 or norm.operands[2] is not None or not row_constant(row, shape_of(x)[-1]):
            continue
        beta = rewriter.builder_before(op).emit("tensor.reshape", row, shape=shape_of(x)[-1:])
        rewriter.replace_with(op, "nn.layer_norm", norm.operands[0], norm.operands[1], beta, eps=norm.attrs["eps"])
        return "shifts"
    return None
