"""fuse-attention: matmul, scale, mask, softmax, matmul as one token-major `nn.attention`."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.masks import Mask, own_mask, resolve, unmasked
from focusc.ir.matching import constant_of, factors, producer, rewrite, scalar_of, shape_of
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Builder, Rewriter
from focusc.ir.views import Axis, View, emit, merged, regrouped, view_of


@defpass("fuse-attention", fused="attentions found", causal="of these, with a causal mask", grouped="of these, with "
         "key/value heads shared by query heads", masked="of these, with a mask operand", masks="mask operands "
         "simplified", kept="softmax products left because of their operands")
def fuse_attention(module: Module, stats: Stats) -> Module:
    """Make `nn.attention` of softmax(scale * q @ k^T + mask) @ v.

    The scale may be on either operand, on both or on the scores. Constant masks, also those that are operands of an
    attention already, are recognised by their values: all allowed, causal, a sliding window, a choice of keys; any
    other mask is an operand. Repeated key/value heads become grouped-query attention. Heads move into the last axis;
    the transposes that this needs cancel against the model's own in `canonicalise`.
    """

    def attention(op: Op, rewriter: Rewriter) -> str | None:
        found = match(op)
        made = None if found is None else replace(op, found, rewriter)
        if found is None or made is None:
            return None
        stats["causal"] += made.attrs["causal"]
        stats["masked"] += made.operands[3] is not None
        stats["grouped"] += found.kv_heads < found.heads
        return "fused"

    out = rewrite(module, stats, [attention, simplified])
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
    masks: tuple[Mask, ...]
    guarded: bool


def match(op: Op) -> Found | None:
    """The attention that ends in `op`, or None."""
    if op.name != "tensor.matmul":
        return None
    weights = _weights(op.operands[0])
    value = op.operands[1]
    if weights is None or value is None or len(shape_of(op.result)) not in (3, 4):
        return None
    softmax, guarded = weights
    if softmax.attrs["axis"] % len(shape_of(softmax.result)) != len(shape_of(softmax.result)) - 1:
        return None
    assert softmax.operands[0] is not None
    peeled = _peel(softmax.operands[0])
    if peeled is None or any(v is None for v in peeled.product.operands):
        return None
    (q_scale, query), (k_scale, key) = (_scaled(v) for v in peeled.product.operands if v is not None)
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
    total = peeled.scale * q_scale * k_scale
    if total <= 0 or any(len(o.axes) != 4 for o in (q, k, v)):
        return None
    return Found(q, k, v, heads, kv_heads, total, peeled.masks, guarded)


def _weights(value: Value | None) -> tuple[Op, bool] | None:
    """The softmax behind attention weights, and whether a guard follows it that turns NaN rows into zeros."""
    guard = producer(value, "tensor.where")
    if guard is None:
        softmax = producer(value, "tensor.softmax")
        return None if softmax is None else (softmax, False)
    condition, kept, other = guard.operands
    test = producer(condition, "tensor.equal", "tensor.not", "tensor.isnan")
    inner = producer(test.operands[0], "tensor.isnan") if test is not None and test.name == "tensor.not" else test
    for weights, rest in ((kept, other), (other, kept)):
        softmax = producer(weights, "tensor.softmax")
        if scalar_of(rest) == 0 and inner is not None and inner.operands[0] is weights and softmax is not None:
            return softmax, True
    return None


@dataclass(frozen=True, slots=True)
class Peeled:
    """Scores taken apart: scale * product, with the masks that are applied to it."""

    scale: float
    product: Op
    masks: tuple[Mask, ...]


def _peel(scores: Value, scale: float = 1.0, masks: tuple[Mask, ...] = (), depth: int = 8) -> Peeled | None:
    """The q @ k^T product behind the scores; a mask that adds numbers cannot be scaled afterwards."""
    product = producer(scores, "tensor.matmul")
    if product is not None:
        return Peeled(scale, product, masks)
    if not depth:
        return None
    number, found = factors(scores, 1)
    if len(found) == 1 and found[0][1] == 1 and found[0][0] is not scores:
        return _peel(found[0][0], scale * number, masks, depth - 1)
    for inner, mask in unmasked(scores):
        if scale == 1 or (scale > 0 and (mask.allowed is not None or mask.fill is not None)):
            peeled = _peel(inner, scale, (*masks, mask), depth - 1)
            if peeled is not None:
                return peeled
    return None


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


def replace(op: Op, found: Found, rewriter: Rewriter) -> Op | None:
    """Put the token-major attention in the place of `op`, with the operands and the result moved as needed."""
    b = rewriter.builder_before(op)
    operands = [_token_major(b, x) for x in (found.q, found.k, found.v)]
    if any(x is None for x in operands):
        return None
    batch, heads, rows, _ = found.q.shape
    mask = resolve(found.masks, (batch, heads, rows, found.k.shape[2]), b, zeros=found.guarded)
    if mask is None:
        return None
    made = b.create("nn.attention", *operands, mask.mask, heads=heads, kv_heads=found.kv_heads, scale=found.scale,
                    causal=mask.causal, window=mask.window)
    apart = b.emit("tensor.reshape", made.result, shape=(batch, rows, heads, found.v.shape[3]))
    turned = b.emit("tensor.transpose", apart, perm=(0, 2, 1, 3))
    rewriter.replace(op, b.emit("tensor.reshape", turned, shape=shape_of(op.result)))
    return made


def simplified(op: Op, rewriter: Rewriter) -> str | None:
    """The mask operand of an attention in its simplest form."""
    q, k, v, mask, positions = op.operands if op.name == "nn.attention" else (None,) * 5
    if q is None or k is None or mask is None or positions is not None:
        return None
    found = own_mask(mask)
    if found.allowed is None and (found.fill is not None or producer(mask, "tensor.where") is None):
        return None
    scores = (shape_of(q)[0], op.attrs["heads"], shape_of(q)[1], shape_of(k)[1])
    b = rewriter.builder_before(op)
    new = resolve([found], scores, b, zeros=True, causal=op.attrs["causal"], window=op.attrs["window"])
    if new is None or new.mask is mask or _same(new.mask, mask):
        return None
    rewriter.replace_with(op, "nn.attention", q, k, v, new.mask,
                          **{**op.attrs, "causal": new.causal, "window": new.window})
    return "masks"


def _same(a: Value | None, b: Value) -> bool:
    """True for constants of one type and value."""
    x, y = constant_of(a), constant_of(b)
    return x is not None and y is not None and x.dtype == y.dtype and np.array_equal(x, y)


def _token_major(b: Builder, x: Operand) -> Value | None:
    """[B, rows, heads * columns]."""
    batch, heads, rows, columns = x.axes
    return emit(b, x.base, (batch, rows, (*heads, *columns)))
