"""nn.attention: multi-head attention with shared key/value heads and masks, over token-major operands."""

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
    """softmax(scale * q @ k^T + mask) @ v per head; query head h reads key/value head h // (heads / kv_heads).

    Heads lie side by side in the last axis. Row i stands at position p = i + (S - T) of the keys: with `causal` it sees
    keys j <= p, with a `window` w > 0 keys j > p - w. `mask` is bool (true: the key is seen) or added to the scaled
    scores. A row that sees no key gives zeros. `q` may be concentrated.

    In a sequence that lost tokens a window counts those that were there: `positions` are where its keys stood, whole
    numbers that ascend, and a key is in the window if positions[j] > positions[p] - w.
    """

    __slots__ = ()

    q = operand(doc="[B, T, heads * hd]")
    k = operand(doc="[B, S, kv_heads * hd]")
    v = operand(doc="[B, S, kv_heads * hd]")
    mask = operand(optional=True, doc="broadcasts to [B, heads, T, S]; bool, or the element type of q")
    positions = operand(optional=True, doc="[S, 1], where the keys stood; absent: at 0, 1, ...")
    heads: int = attr(int, minimum=1)
    kv_heads: int = attr(int, minimum=1)
    scale: float = attr(float)
    causal: bool = attr(bool, False)
    window: int = attr(int, 0, minimum=0, doc="0: unlimited")

    @staticmethod
    def infer(
        q: Type,
        k: Type,
        v: Type,
        mask: Type | None,
        positions: Type | None,
        *,
        heads: int,
        kv_heads: int,
        scale: float,
        causal: bool,
        window: int,
    ) -> Type:
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
        if mask is not None:
            check_mask(tensor(mask, "mask"), (queries.shape[0], heads, queries.shape[1], keys.shape[1]), queries.dtype)
        if positions is not None:
            check_positions(positions, queries.shape[1], keys.shape[1])
        return TensorType((*queries.shape[:2], heads * (values.shape[2] // kv_heads)), queries.dtype)

    @staticmethod
    def evaluate(
        q: Array | Concentrated,
        k: Array,
        v: Array,
        mask: Array | None = None,
        positions: Array | None = None,
        *,
        heads: int,
        kv_heads: int,
        scale: float,
        causal: bool,
        window: int = 0,
    ) -> Array:
        queries, keys, values = (np.asarray(dense(x), dtype=np.float32) for x in (q, k, v))
        batch, rows, columns = queries.shape
        width, wide = columns // heads, values.shape[2] // kv_heads
        out = np.empty((batch, rows, heads * wide), np.float32)
        group = heads // kv_heads
        if positions is not None and window:
            mask, window = within(mask, positions, rows, window), 0
        masks = None if mask is None else np.broadcast_to(mask, (batch, heads, rows, keys.shape[1]))
        for b in range(batch):
            for h in range(heads):
                g = h // group
                head = queries[b, :, h * width : (h + 1) * width] * np.float32(scale)
                key = keys[b, :, g * width : (g + 1) * width]
                value = values[b, :, g * wide : (g + 1) * wide]
                own = None if masks is None else masks[b, h]
                attend(head, key, value, out[b, :, h * wide : (h + 1) * wide], causal=causal, window=window, mask=own)
        return out.astype(q.dtype, copy=False)

    @staticmethod
    def examples() -> list[tuple[list[Any], dict[str, Any]]]:
        r = np.random.default_rng(0)
        q, k, v = (r.standard_normal(s).astype("f4") for s in ((2, 3, 16), (2, 5, 8), (2, 5, 8)))
        attrs = {"heads": 4, "kv_heads": 2, "scale": 0.5}
        seen = r.random((2, 1, 1, 5)) < 0.5
        bias = r.standard_normal((4, 3, 5)).astype("f4")
        return [
            ([q, k, v, None], attrs),
            ([q, k, v, None], {**attrs, "causal": True}),
            ([q, k, v, None], {**attrs, "causal": True, "window": 2}),
            ([q, k, v, seen], attrs),
            ([q, k, v, bias], {**attrs, "window": 4}),
            ([q, k, v, seen, np.array([[0], [2], [3], [6], [7]], "f4")], {**attrs, "causal": True, "window": 3}),
        ]


def check_mask(mask: TensorType, scores: tuple[int, int, int, int], dtype: str) -> None:
    if mask.dtype not in ("bool", dtype):
        raise InferError(f"mask has element type {mask.dtype}, expected bool or {dtype}", code="type.dtype")
    if mask.rank > 4 or any(d not in (1, n) for d, n in zip(mask.shape[::-1], scores[::-1], strict=False)):
        raise InferError(f"mask is {mask}, expected a shape that broadcasts to {list(scores)}", code="type.shape")


def check_positions(positions: Type, rows: int, keys: int) -> None:
    """InferError unless these are positions of keys, among which the rows stand."""
    if floating(tensor(positions, "positions"), "positions").shape != (keys, 1):
        raise InferError(f"positions is {positions}, expected shape [{keys}, 1]: one for each key", code="type.shape")
    if keys < rows:
        raise InferError(f"{rows} rows stand at {keys} positions, expected as many at least", code="type.shape")


def within(mask: Array | None, positions: Array, rows: int, window: int) -> Array:
    """The mask (bool or added, or none) joined with a window that is counted in positions [S, 1]: [.., rows, S]."""
    near: Array = positions.reshape(1, -1) > positions[-rows:].reshape(-1, 1) - window
    if mask is None:
        return near
    return mask & near if mask.dtype == np.bool_ else np.where(near, mask, np.float32(-np.inf))


def seen_keys(rows: int, keys: int, causal: bool, window: int) -> Array:
    """bool [rows, keys]: the keys that each row sees by position, row i standing at i + (keys - rows)."""
    seen = np.tri(rows, keys, keys - rows, dtype=bool) if causal else np.ones((rows, keys), bool)
    return seen & ~np.tri(rows, keys, keys - rows - window, dtype=bool) if window else seen


def attend(
    q: Array, k: Array, v: Array, out: Array, *, causal: bool, window: int = 0, mask: Array | None = None
) -> None:
    """One head: out[T, hd] = softmax(q @ k^T + mask) @ v, in blocks of query rows; keys that no row of a block sees by
    its position are skipped. `mask` is [T, S], bool or f32."""
    rows, offset = len(q), len(k) - len(q)
    for start in range(0, rows, ROWS):
        stop = min(start + ROWS, rows)
        last = stop + offset if causal else len(k)
        first = min(max(start + offset - window + 1, 0), last) if window else 0
        score = q[start:stop] @ k[first:last].T
        if causal or window:
            key, own = np.arange(first, last)[None, :], np.arange(start, stop)[:, None] + offset
            if causal:
                np.copyto(score, np.float32(-np.inf), where=key > own)
            if window:
                np.copyto(score, np.float32(-np.inf), where=key <= own - window)
        if mask is not None:
            part = mask[start:stop, first:last]
            if part.dtype == np.bool_:
                np.copyto(score, np.float32(-np.inf), where=~part)
            else:
                score += part
        if mask is not None or last == first:
            top: Array = score.max(axis=1, keepdims=True, initial=-np.inf)
            score -= np.where(np.isneginf(top), np.float32(0), top)  # a row without keys: exp gives zeros
        else:
            score -= score.max(axis=1, keepdims=True)
        np.exp(score, out=score)
        total = score.sum(axis=1, keepdims=True)
        if mask is not None or last == first:
            total[total == 0] = 1
        y = score @ v[first:last]
        y /= total
        out[start:stop] = y
