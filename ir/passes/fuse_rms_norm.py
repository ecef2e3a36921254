"""fuse-rms-norm: x / sqrt(mean(x^2) + eps) * gamma, however it is spelled."""

from __future__ import annotations

import numpy as np

from focusc.ir.core import Module, Op
from focusc.ir.matching import both_orders, constant_of, factors, producer, rewrite, row_constant, shape_of
from focusc.ir.norms import inverse_root, mean_of_squares
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter
from focusc.ir.types import DTYPES


@defpass("fuse-rms-norm", fused="normalisations found", gains="factors merged into gamma")
def fuse_rms_norm(module: Module, stats: Stats) -> Module:
    """Find root-mean-square normalisation over the last axis and make it one `nn.rms_norm`, with its gain.

    Runs after fuse-layer-norm: a layer normalisation holds an rms norm of centred values.
    """
    return rewrite(module, stats, [normalised, gain])


def normalised(op: Op, rewriter: Rewriter) -> str | None:
    """x / sqrt(mean(x^2) + eps), with a gain of 1."""
    if op.name not in ("tensor.mul", "tensor.div"):
        return None
    for depth in (1, 2, 3):
        number, found = factors(op.result, depth)
        if number != 1.0 or len(found) != 2:
            continue
        for (x, sign), (root, exponent) in (found, found[::-1]):
            inner = inverse_root(root, exponent) if sign == 1 else None
            squares = mean_of_squares(inner) if inner is not None else None
            if squares is None or squares[0] is not x:
                continue
            b = rewriter.builder_before(op)
            ones = b.constant(np.ones(shape_of(x)[-1], DTYPES["f32"]))
            rewriter.replace(op, b.emit("nn.rms_norm", x, ones, eps=squares[1]))
            return "fused"
    return None


def gain(op: Op, rewriter: Rewriter) -> str | None:
    """norm * constant row: into gamma."""
    if op.name != "tensor.mul":
        return None
    for x, row in both_orders(op):
        norm = producer(x, "nn.rms_norm")
        if norm is None or x.use_count != 1 or not row_constant(row, shape_of(x)[-1]):
            continue
        b = rewriter.builder_before(op)
        gamma = b.emit("tensor.reshape", row, shape=shape_of(x)[-1:])
        known = constant_of(norm.operands[1])
        if known is None or not (known == 1).all():
            gamma = b.emit("tensor.mul", norm.operands[1], gamma)
        rewriter.replace_with(op, "nn.rms_norm", norm.operands[0], gamma, eps=norm.attrs["eps"])
        return "gains"
    return None
