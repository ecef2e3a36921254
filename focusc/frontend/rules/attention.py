"""The Attention operator: `nn.attention` where its form fits, otherwise spelled out in matrix products and softmax."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from focusc.frontend.node import Node, rank, shape
from focusc.frontend.registry import rule
from focusc.ir import Value


@dataclass(frozen=True, slots=True)
class Heads:
    """Operands in [B, heads, rows, head size], and whether the node's own were three-dimensional."""

    q: Value
    k: Value
    v: Value
    flat: bool


@rule("Attention", since=23)
def attention(n: Node) -> tuple[Value | None, ...]:
    """softmax(scale * q @ k^T + mask) @ v per head, with grouped-query heads, past keys, causal and window masks."""
    n.check(not n.has(6), "no nonpad_kv_seqlen", "an external key/value cache",
            hint="export the prefill: whole sequences, without a cache to fill")
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
    causal = bool(n.attr("is_causal", 0))
    window = n.attr("left_window_size", -1) >= 0 or n.attr("right_window_size", -1) >= 0
    fits = (not causal or keys - rows == past) and not window and not n.has(3) and not n.attr("softcap", 0.0)
    if fits and not n.wants(3):
        y = _token_major(n, x, scale, causal)
        return (y, _wanted(n, 1, x.k), _wanted(n, 2, x.v))
    y, score = _spelled_out(n, x, scale, _mask(n, rows, keys, past, causal))
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


def _token_major(n: Node, x: Heads, scale: float, causal: bool) -> Value:
    """nn.attention; the transposes around it cancel against those of the model."""
    batch, heads, rows, _ = shape(x.q)
    y = n.emit("nn.attention", _merge(n, x.q), _merge(n, x.k), _merge(n, x.v), heads=heads, kv_heads=shape(x.k)[1],
               scale=scale, causal=causal)
    if x.flat:
        return y
    return n.transpose(n.reshape(y, (batch, rows, heads, shape(x.v)[3])), (0, 2, 1, 3))


def _mask(n: Node, rows: int, keys: int, past: int, causal: bool) -> Value | None:
    """Everything that is added to the scores: -inf outside the causal triangle and window, and the mask operand."""
    query, key = past + np.arange(rows)[:, None], np.arange(keys)[None, :]
    seen = np.ones((rows, keys), bool)
    left, right = int(n.attr("left_window_size", -1)), int(n.attr("right_window_size", -1))
    seen &= (key <= query) | (not causal)
    seen &= (key >= query - left) | (left < 0)
    seen &= (key <= query + right) | (right < 0)
    bias = None if seen.all() else n.constant(np.where(seen, np.float32(0), np.float32(-np.inf)))
    if not n.has(3):
        return bias
    mask = n.x(3)
    if shape(mask)[-1] < keys:  # missing keys are masked
        known = n.known(3)
        n.check(known is not None, f"a mask over all {keys} keys", f"a computed mask over {shape(mask)[-1]}")
        assert known is not None
        fill = False if known.dtype == bool else -np.inf
        pads = [(0, 0)] * (known.ndim - 1) + [(0, keys - known.shape[-1])]
        mask = n.constant(np.pad(known, pads, constant_values=fill))
    if mask.type.dtype == "bool":  # type: ignore[attr-defined]
        mask = n.emit("tensor.where", mask, n.constant(0.0, "f32"), n.constant(-np.inf, "f32"))
    return mask if bias is None else n.add(mask, bias)


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
