"""The Attention operator: `nn.attention` where its form fits, otherwise spelled out in matrix products and softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from focusc.frontend.node import Node, dtype, rank, shape
from focusc.frontend.registry import rule
from focusc.ir import Value
from focusc.ir.ops.attention import seen_keys


@dataclass(frozen=True, slots=True)
class Heads:
    """Operands in [B, heads, rows, head size], and whether the node's own were three-dimensional."""

    q: Value
    k: Value
    v: Value
    flat: bool


@dataclass(frozen=True, slots=True)
class Seen:
    """Which keys the rows see: by position (attributes of nn.attention), and by a mask, bool or added."""

    causal: bool
    window: int
    mask: Value | None


@rule("Attention", since=23)
def attention(n: Node) -> tuple[Value | None, ...]:
    """softmax(scale * q @ k^T + mask) @ v per head, with grouped-query heads, past keys, causal and window masks."""
    x = _split(n)
    past = 0
    if n.has(4):
        past = shape(n.x(4))[2]
        x = Heads(x.q, n.concat([n.x(4), x.k], 2), n.concat([n.x(5), x.v], 2), x.flat)
    heads, kv_heads = shape(x.q)[1], shape(x.k)[1]
    n.check(heads % kv_heads == 0, f"a number of query heads divisible by {kv_heads}", heads)
    scale = n.attr("scale")
    scale = 1 / math.sqrt(shape(x.q)[3]) if scale is None else float(scale)
    rows, keys = shape(x.q)[2], shape(x.k)[2]
    seen = _seen(n, rows, keys, past)
    if not n.attr("softcap", 0.0) and not n.wants(3):
        y = _token_major(n, x, scale, seen)
        return (y, _wanted(n, 1, x.k), _wanted(n, 2, x.v))
    y, score = _spelled_out(n, x, scale, _bias(n, seen, rows, keys))
    return (y, _wanted(n, 1, x.k), _wanted(n, 2, x.v), score)


def _wanted(n: Node, index: int, value: Value) -> Value | None:
    return value if n.wants(index) else None


def _split(n: Node) -> Heads:
    """The operands with the head axis apart."""
    q, k, v = n.x(0), n.x(1), n.x(2)
    if rank(q) == 4:
        return Heads(q, k, v, False)
    heads, kv_heads = int(n.attr("q_num_heads", 0)), int(n.attr("kv_num_heads", 0))
    n.check(heads > 0 and kv_heads > 0, "q_num_heads and kv_num_heads for operands of rank 3", f"{heads}, {kv_heads}")

    def apart(t: Value, count: int) -> Value:
        batch, rows, columns = shape(t)
        n.check(columns % count == 0, f"columns divisible by {count} heads", columns)
        return n.transpose(n.reshape(t, (batch, rows, count, columns // count)), (0, 2, 1, 3))

    return Heads(apart(q, heads), apart(k, kv_heads), apart(v, kv_heads), True)


def _merge(n: Node, t: Value) -> Value:
    """[B, heads, rows, size] to [B, rows, heads * size]."""
    batch, heads, rows, size = shape(t)
    return n.reshape(n.transpose(t, (0, 2, 1, 3)), (batch, rows, heads * size))


def _token_major(n: Node, x: Heads, scale: float, seen: Seen) -> Value:
    """nn.attention; the transposes around it cancel against those of the model."""
    batch, heads, rows, _ = shape(x.q)
    y = n.emit("nn.attention", _merge(n, x.q), _merge(n, x.k), _merge(n, x.v), seen.mask, heads=heads,
               kv_heads=shape(x.k)[1], scale=scale, causal=seen.causal, window=seen.window)
    if x.flat:
        return y
    return n.transpose(n.reshape(y, (batch, rows, heads, shape(x.v)[3])), (0, 2, 1, 3))


def _seen(n: Node, rows: int, keys: int, past: int) -> Seen:
    """The causal mask, the window, the lengths of a cache (input 6) and the mask operand, brought together.

    Row i stands at key `past` + i, or with lengths at length - rows + i. Where that is how nn.attention counts, causal
    mask and window are its attributes; otherwise they become conditions.
    """
    left, right = int(n.attr("left_window_size", -1)), int(n.attr("right_window_size", -1))
    causal = bool(n.attr("is_causal", 0)) or right == 0
    right = -1 if causal else right
    window = left + 1 if 0 <= left < keys - 1 else 0
    aligned = keys - rows == past and not n.has(6)
    conditions: list[Value] = []
    key = n.constant(np.arange(keys, dtype=np.int64))
    own = n.constant(past + np.arange(rows, dtype=np.int64)[:, None])
    if n.has(6):
        lengths = n.reshape(n.cast(n.x(6), "i64"), (*shape(n.x(6)), 1, 1, 1))
        own = n.add(lengths, n.constant(np.arange(-rows, 0, dtype=np.int64)[:, None]))
        conditions.append(n.emit("tensor.less", key, lengths))
    if causal and not aligned:
        conditions.append(n.emit("tensor.less_equal", key, own))
    if window and not aligned:
        conditions.append(n.emit("tensor.greater", key, n.sub(own, n.constant(window))))
    if right > 0:
        conditions.append(n.emit("tensor.less_equal", key, n.add(own, n.constant(right))))
    mask = _operand(n, keys)
    if mask is not None and dtype(mask) == "bool":
        conditions.append(mask)
    elif mask is not None and conditions:
        mask = n.emit("tensor.where", _all(n, conditions), mask, n.constant(-np.inf, "f32"))
        conditions = []
    return Seen(causal and aligned, window if aligned else 0, _all(n, conditions) if conditions else mask)


def _all(n: Node, conditions: list[Value]) -> Value:
    """The conditions joined."""
    joined = conditions[0]
    for condition in conditions[1:]:
        joined = n.emit("tensor.and", joined, condition)
    return joined


def _operand(n: Node, keys: int) -> Value | None:
    """The mask operand over all keys; those that it does not cover are masked."""
    if not n.has(3):
        return None
    mask = n.x(3)
    n.check(dtype(mask) in ("bool", "f32"), "a mask of bools or floats", dtype(mask))
    dims = shape(mask)
    if dims[-1] == keys:
        return mask
    missing = n.reshape(n.constant(-np.inf if dtype(mask) == "f32" else 0, dtype(mask)), (1,) * len(dims))
    return n.concat([mask, n.expand(missing, (*dims[:-1], keys - dims[-1]))], len(dims) - 1)


def _bias(n: Node, seen: Seen, rows: int, keys: int) -> Value | None:
    """What is added to the scores: 0 or -inf by position and condition, or the numbers of the mask."""
    conditions = [seen.mask] if seen.mask is not None and dtype(seen.mask) == "bool" else []
    if seen.causal or seen.window:
        conditions.append(n.constant(seen_keys(rows, keys, seen.causal, seen.window)))
    if not conditions:
        return seen.mask
    added = n.constant(0.0, "f32") if seen.mask is None or dtype(seen.mask) == "bool" else seen.mask
    return n.emit("tensor.where", _all(n, conditions), added, n.constant(-np.inf, "f32"))


def _spelled_out(n: Node, x: Heads, scale: float, mask: Value | None) -> tuple[Value, Value | None]:
    """Output, and the scores at the stage that `qk_matmul_output_mode` names (if wanted)."""
    times = shape(x.q)[1] // shape(x.k)[1]
    k, v = _repeat(n, x.k, times), _repeat(n, x.v, times)
    q = n.mul(x.q, n.scalar(scale, x.q))
    raw = n.emit("tensor.matmul", q, n.transpose(k, (0, 1, 3, 2)))
    cap = float(n.attr("softcap", 0.0))
    capped = raw
    if cap:
        capped = n.mul(n.emit("tensor.tanh", n.mul(capped, n.scalar(1 / cap, capped))), n.scalar(cap, capped))
    masked = capped if mask is None else n.add(capped, mask)
    weights = n.emit("tensor.softmax", masked, axis=3)
    if mask is not None:  # a row without any key gives zeros, not NaN
        weights = n.emit("tensor.where", n.emit("tensor.equal", weights, weights), weights, n.scalar(0, weights))
    y = n.emit("tensor.matmul", weights, v)
    mode = int(n.attr("qk_matmul_output_mode", 0))
    score = (raw, capped, masked, weights)[mode]
    return (_merge(n, y) if x.flat else y), score


def _repeat(n: Node, t: Value, times: int) -> Value:
    """Every key/value head repeated for its group of query heads."""
    if times == 1:
        return t
    batch, heads, rows, size = shape(t)
    wide = n.expand(n.reshape(t, (batch, heads, 1, rows, size)), (batch, heads, times, rows, size))
    return n.reshape(wide, (batch, heads * times, rows, size))
