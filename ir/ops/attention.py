"""nn.attention: multi-head attention with shared key/value heads, over token-major operands."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.concentrated import Concentrated, dense
from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.checks import floating, rows_of, tensor
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]

ROWS = 128
"""Query rows scored at once: small, so that scores stay in the cache and a causal block skips the keys behind it."""


@defop("nn.attention")
class Attention(Op):
    """softmax(scale * q @ k^T) @ v per head; query head h reads key/value head h // (heads / kv_heads).

    Heads lie side by side in the last axis. With `causal`, row i sees keys j <= i + (S - T). `q` may be concentrated.
    """

    __slots__ = ()

    q = operand(doc="[B, T, heads * hd]")
    k = operand(doc="[B, S, kv_heads * hd]")
    v = operand(doc="[B, S, kv_heads * hd]")
    heads: int = attr(int, minimum=1)
    kv_heads: int = attr(int, minimum=1)
    scale: float = attr(float)
    causal: bool = attr(bool, False)

    @staticmethod
    def infer(q: Type, k: Type, v: Type, *, heads: int, kv_heads: int, scale: float, causal: bool) -> Type:
        queries, keys, values = floating(rows_of(q, "q"), "q"), tensor(k, "k"), tensor(v, "v")
        if queries.rank != 3 or keys.rank != 3 or values.rank != 3:
            raise InferError(
                f"q, k, v are {queries}, {keys}, {values}; expected [B, T, heads * hd], [B, S, kv_heads * hd] twice",
                code="type.shape",
            )
        if heads % kv_heads or queries.shape[2] % heads:
            raise InferError(
                f"{heads} heads over {kv_heads} key/value heads and {queries.shape[2]} columns do not divide",
                code="attr.value",
            )
        width = queries.shape[2] // heads
        if keys.shape != (queries.shape[0], keys.shape[1], kv_heads * width):
            raise InferError(
                f"k is {keys}, expected batch {queries.shape[0]} and {kv_heads} heads of {width}", code="type.shape"
            )
        if values.shape[:2] != keys.shape[:2] or values.shape[2] % kv_heads:
            raise InferError(f"v is {values}, expected the rows of k ({keys}) and {kv_heads} heads", code="type.shape")
        if {queries.dtype, keys.dtype, values.dtype} != {queries.dtype}:
            raise InferError(
                f"q, k, v have element types {queries.dtype}, {keys.dtype}, {values.dtype}, expected one",
                code="type.dtype",
            )
        if causal and keys.shape[1] < queries.shape[1]:
            raise InferError(
                f"causal attention of {queries.shape[1]} rows over {keys.shape[1]} keys leaves rows without keys",
                code="type.shape",
            )
        return TensorType((*queries.shape[:2], heads * (values.shape[2] // kv_heads)), queries.dtype)

    @staticmethod
    def evaluate(
        q: Array | Concentrated, k: Array, v: Array, *, heads: int, kv_heads: int, scale: float, causal: bool
    ) -> Array:
        queries, keys, values = (np.asarray(dense(x), dtype=np.float32) for x in (q, k, v))
        batch, rows, columns = queries.shape
        width, wide = columns // heads, values.shape[2] // kv_heads
        out = np.empty((batch, rows, heads * wide), np.float32)
        group = heads // kv_heads
        for b in range(batch):
            for h in range(heads):
                g = h // group
                head = queries[b, :, h * width : (h + 1) * width] * np.float32(scale)
                key = keys[b, :, g * width : (g + 1) * width]
                value = values[b, :, g * wide : (g + 1) * wide]
                attend(head, key, value, causal, out[b, :, h * wide : (h + 1) * wide])
        return out.astype(q.dtype, copy=False)

    @staticmethod
    def examples() -> list[tuple[list[Any], dict[str, Any]]]:
        r = np.random.default_rng(0)
        q, k, v = (r.standard_normal(s).astype("f4") for s in ((2, 3, 16), (2, 5, 8), (2, 5, 8)))
        attrs = {"heads": 4, "kv_heads": 2, "scale": 0.5}
        return [([q, k, v], attrs), ([q, k, v], {**attrs, "causal": True})]


def attend(q: Array, k: Array, v: Array, causal: bool, out: Array) -> None:
    """One head: out[T, hd] = softmax(q @ k^T) @ v, in blocks of query rows; keys beyond a causal block are skipped."""
    rows, offset = len(q), len(k) - len(q)
    for start in range(0, rows, ROWS):
        stop = min(start + ROWS, rows)
        seen = stop + offset if causal else len(k)
        score = q[start:stop] @ k[:seen].T
        if causal:
            above = np.arange(seen)[None, :] > np.arange(start, stop)[:, None] + offset
            np.copyto(score, np.float32(-np.inf), where=above)
        score -= score.max(axis=1, keepdims=True)
        np.exp(score, out=score)
        total = score.sum(axis=1, keepdims=True)
        y = score @ v[:seen]
        y /= total
        out[start:stop] = y
