"""fuse-attention: matmul, scale, mask, softmax, matmul as one token-major `nn.attention`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import both_orders, constant_of, factors, producer, rewrite, scalar_of, shape_of
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Builder, Rewriter
from focusc.ir.views import Axis, View, emit, merged, regrouped, view_of

MASKED = -1e4
"""Additive mask values up to this one forbid a key: exp of it is 0 in f32 beside any score of a trained model. Exports
use -inf, the smallest float, or -1e4 (from f16)."""


@defpass("fuse-attention", fused="attentions found", causal="of these, with a causal mask", grouped="of these, with "
         "key/value heads shared by query heads", kept="softmax products left because of their mask or operands")
def fuse_attention(module: Module, stats: Stats) -> Module:
    """Make `nn.attention` of softmax(scale * q @ k^T + mask) @ v.

    The scale may be on either operand, on both or on the scores; the mask must be constant and is recognised by its
    values (all allowed, or causal); repeated key/value heads become grouped-query attention. Heads move into the last
    axis; the transposes that this needs cancel against the model's own in `canonicalise`.
    """

    def attention(op: Op, rewriter: Rewriter) -> str | None:
        found = match(op)
        if found is None or not replace(op, found, rewriter):
            return None
        stats["causal"] += found.causal
        stats["grouped"] += found.kv_heads < found.heads
        return "fused"

    out = rewrite(module, stats, [attention])
    stats["kept"] = sum(_weights(op.operands[0]) is not None for op in out.walk() if op.name == "tensor.matmul")
    return out


@dataclass(frozen=True, slots=True)
class Operand:
    """q, k or v as a view whose four axes are batch, heads, rows, columns; `repeats` of each head follow each other."""

    base: Value
    axes: tuple[Axis, Axis, Axis, Axis]

    @property
    def shape(self) -> tuple[int, ...]:
        """[B, heads, rows, columns] of the view."""
        return tuple(math.prod(e for e, _ in axis) for axis in self.axes)


@dataclass(frozen=True, slots=True)
class Found:
    """A matched attention. k and v are without repetition."""

    q: Operand
    k: Operand
    v: Operand
    heads: int
    kv_heads: int
    scale: float
    causal: bool


def match(op: Op) -> Found | None:
    """The attention that ends in `op`, or None."""
    if op.name != "tensor.matmul":
        return None
    softmax = _weights(op.operands[0])
    value = op.operands[1]
    if softmax is None or value is None or len(shape_of(op.result)) not in (3, 4):
        return None
    if softmax.attrs["axis"] % len(shape_of(softmax.result)) != len(shape_of(softmax.result)) - 1:
        return None
    scores = softmax.operands[0]
    assert scores is not None
    masks: list[np.ndarray] = []
    scale, product = _peel(scores, masks)
    if product is None or product.operands[0] is None or product.operands[1] is None:
        return None
    (q_scale, query), (k_scale, key) = (_scaled(v) for v in product.operands if v is not None)
    causal = _causal(masks, shape_of(scores))
    if causal is None:
        return None
    split = _batch_and_heads(query)
    if split is None:
        return None
    batch, heads = split
    q, k, v = (_four(x, batch, heads) for x in (query, key, value))
    if q is None or k is None or v is None:
        return None
    k = Operand(k.base, (k.axes[0], k.axes[1], k.axes[3], k.axes[2]))
    shared = _without_repeats(k, v, heads)
    if shared is None:
        return None
    k, v, kv_heads = shared
    total = scale * q_scale * k_scale
    if total <= 0 or any(len(o.axes) != 4 for o in (q, k, v)):
        return None
    return Found(q, k, v, heads, kv_heads, total, causal)


def _weights(value: Value | None) -> Op | None:
    """The softmax behind attention weights; a guard that turns NaN rows into zeros is looked through."""
    guard = producer(value, "tensor.where")
    if guard is not None:
        condition, kept, other = guard.operands
        test = producer(condition, "tensor.equal", "tensor.not", "tensor.isnan")
        inner = producer(test.operands[0], "tensor.isnan") if test is not None and test.name == "tensor.not" else test
        for weights, rest in ((kept, other), (other, kept)):
            if scalar_of(rest) == 0 and inner is not None and inner.operands[0] is weights:
                return producer(weights, "tensor.softmax")
        return None
    return producer(value, "tensor.softmax")


def _peel(scores: Value, masks: list[np.ndarray]) -> tuple[float, Op | None]:
    """Scale and the q @ k^T product behind the scores; masks on the way are collected as what they allow (bool)."""
    scale = 1.0
    for _ in range(8):
        product = producer(scores, "tensor.matmul")
        if product is not None:
            return scale, product
        number, found = factors(scores, 1)
        if len(found) == 1 and found[0][1] == 1 and found[0][0] is not scores:
            scale, scores = scale * number, found[0][0]
            continue
        inner = _unmasked(scores, masks)
        if inner is None:
            return scale, None
        scores = inner
    return scale, None


def _unmasked(scores: Value, masks: list[np.ndarray]) -> Value | None:
    """The scores before a constant mask is applied by add, sub or where."""
    added = producer(scores, "tensor.add")
    if added is not None:
        for inner, mask in both_orders(added):
            values = constant_of(mask)
            if values is None or inner.type != scores.type:
                continue
            allowed = values > MASKED
            if (values[allowed] != 0).any():
                return None  # a bias, such as ALiBi
            masks.append(allowed)
            return inner
        return None
    chosen = producer(scores, "tensor.where")
    if chosen is None:
        return None
    condition, first, second = chosen.operands
    values = constant_of(condition)
    for inner, other, allowed in ((first, second, values), (second, first, None if values is None else ~values)):
        filled = constant_of(other)
        if allowed is not None and inner is not None and filled is not None and (filled <= MASKED).all():
            masks.append(allowed)
            return inner if inner.type == scores.type else None
    return None


def _causal(masks: list[np.ndarray], shape: tuple[int, ...]) -> bool | None:
    """True if the masks together are causal, False if they allow everything, None if they are something else."""
    rows, keys = shape[-2:]
    allowed = np.ones((1, 1), bool)
    for mask in masks:
        flat = mask.reshape((-1, *(1, 1, *mask.shape)[-2:]))
        if (flat != flat[:1]).any():
            return None  # differs between heads or batch entries
        allowed = allowed & flat[0]
    if allowed.all():
        return False
    return True if keys >= rows and np.array_equal(np.broadcast_to(allowed, (rows, keys)),
                                                   np.tri(rows, keys, keys - rows, dtype=bool)) else None


def _scaled(value: Value) -> tuple[float, Value]:
    """A multiplication by numbers taken off."""
    total = 1.0
    for _ in range(4):
        number, found = factors(value, 1)
        if len(found) != 1 or found[0][1] != 1 or found[0][0] is value or found[0][0].type != value.type:
            break
        total, value = total * number, found[0][0]
    return total, value


def _batch_and_heads(query: Value) -> tuple[int, int] | None:
    """Extents of batch and heads. A three-dimensional product has them in one axis: columns of a row are heads."""
    shape = shape_of(query)
    if len(shape) == 4:
        return shape[0], shape[1]
    view = view_of(query)
    lead, rows = view.axis(0), view.axis(1)
    heads = math.prod(e for e, stride in lead if rows and stride < rows[0][1])
    return shape[0] // heads, heads


def _four(value: Value, batch: int, heads: int) -> Operand | None:
    """The value as a view with axes batch, heads, rows, columns."""
    view: View = view_of(value, expand=True)
    if len(view.axes) == 4:
        if view.shape[0] != batch or view.shape[1] not in (1, heads):
            return None
        return Operand(view.base, view.axes)  # type: ignore[arg-type]
    if len(view.axes) != 3 or view.shape[0] != batch * heads:
        return None
    split = regrouped(view.axes[0], (batch, heads))
    return None if split is None else Operand(view.base, (*split, *view.axes[1:]))  # type: ignore[arg-type]


def _without_repeats(k: Operand, v: Operand, heads: int) -> tuple[Operand, Operand, int] | None:
    """k and v with repeated heads taken out, and the number of heads that remain; None if they repeat differently."""
    counts: set[int] = set()
    out: list[Operand] = []
    for x in (k, v):
        axis = merged(x.axes[1])
        times = axis[-1][0] if axis and axis[-1][1] == 0 else 1
        own = axis[:-1] if times > 1 else axis
        if x.shape[1] == 1:
            times = heads  # one head, broadcast by the product
        if any(stride == 0 for a in (x.axes[0], own, *x.axes[2:]) for _, stride in a):
            return None
        counts.add(heads // times)
        out.append(Operand(x.base, (x.axes[0], own, x.axes[2], x.axes[3])))
    return (out[0], out[1], counts.pop()) if len(counts) == 1 else None


def replace(op: Op, found: Found, rewriter: Rewriter) -> bool:
    """Put the token-major attention in the place of `op`, with the operands and the result moved as needed."""
    b = rewriter.builder_before(op)
    operands = [_token_major(b, x) for x in (found.q, found.k, found.v)]
    if any(x is None for x in operands):
        return False
    batch, heads, rows, _ = found.q.shape
    y = b.emit("nn.attention", *operands, heads=heads, kv_heads=found.kv_heads, scale=found.scale, causal=found.causal)
    apart = b.emit("tensor.reshape", y, shape=(batch, rows, heads, found.v.shape[3]))
    turned = b.emit("tensor.transpose", apart, perm=(0, 2, 1, 3))
    rewriter.replace(op, b.emit("tensor.reshape", turned, shape=shape_of(op.result)))
    return True


def _token_major(b: Builder, x: Operand) -> Value | None:
    """[B, rows, heads * columns]."""
    batch, heads, rows, columns = x.axes
    return emit(b, x.base, (batch, rows, (*heads, *columns)))
