"""fuse-patch-embed: convolution of an image as a product over patches, token-major."""

from __future__ import annotations

import math

from focusc.ir.core import Module, Op
from focusc.ir.matching import both_orders, depends_on_constants, producer, rewrite, shape_of
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter


@defpass("fuse-patch-embed", fused="convolutions", bias="additions per channel merged as bias")
def fuse_patch_embed(module: Module, stats: Stats) -> Module:
    """Make `nn.patch_embed` of convolutions with constant weights over 1 to 3 axes, without groups and dilation.

    The result is [N, positions, channels]; a transpose and reshape restore the channel-major form, and cancel against
    the model's own ones in `canonicalise`.
    """
    return rewrite(rewrite(module, stats, [bias]), stats, [convolution])


def bias(op: Op, rewriter: Rewriter) -> str | None:
    """conv + one constant per channel."""
    if op.name != "tensor.add":
        return None
    for y, row in both_orders(op):
        conv = producer(y, "tensor.conv")
        if conv is None or y.use_count != 1 or conv.operands[2] is not None or y.type != op.result.type:
            continue
        channels, rank = shape_of(y)[1], len(shape_of(y))
        padded = (1,) * (rank - len(shape_of(row))) + shape_of(row)
        if padded != (1, channels, *(1,) * (rank - 2)) or not depends_on_constants(row):
            continue
        flat = rewriter.builder_before(op).emit("tensor.reshape", row, shape=(channels,))
        rewriter.replace_with(op, "tensor.conv", conv.operands[0], conv.operands[1], flat, **conv.attrs)
        return "bias"
    return None


def convolution(op: Op, rewriter: Rewriter) -> str | None:
    """conv as patch_embed, transpose, reshape."""
    if op.name != "tensor.conv":
        return None
    x, w, shift = op.operands
    assert x is not None and w is not None
    spatial = len(shape_of(x)) - 2
    dilated = any(d != 1 for d in op.attrs["dilations"])
    if spatial > 3 or op.attrs["group"] != 1 or dilated or not depends_on_constants(w):
        return None
    if shift is not None and not depends_on_constants(shift):
        return None
    kernel, stride = shape_of(w)[2:], op.attrs["strides"] or (1,) * spatial
    pads = op.attrs["pads"] if any(op.attrs["pads"]) else ()
    channels = shape_of(w)[0]
    b = rewriter.builder_before(op)
    columns = b.emit("tensor.reshape", w, shape=(channels, math.prod(shape_of(w)[1:])))
    matrix = b.emit("tensor.transpose", columns, perm=(1, 0))
    if spatial == 1:  # one row
        x = b.emit("tensor.reshape", x, shape=(*shape_of(x)[:2], 1, shape_of(x)[2]))
        kernel, stride, pads = (1, *kernel), (1, *stride), (0, pads[0], 0, pads[1]) if pads else ()
    y = b.emit("nn.patch_embed", x, matrix, shift, kernel=kernel, stride=stride, pads=pads)
    turned = b.emit("tensor.transpose", y, perm=(0, 2, 1))
    rewriter.replace(op, b.emit("tensor.reshape", turned, shape=shape_of(op.result)))
    return "fused"
