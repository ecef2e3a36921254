"""SEC, the semantic concentrator: visual tokens that the prompt does not attend to are dropped.

Source: arXiv 2512.14661. A *position* is a token's index in the visual span before any pruning; row numbers count the
current sequence, text included. Rows stay in their original order, so causal masks need no change.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.attention import check_mask, check_positions, seen_keys, within
from focusc.ir.ops.checks import tensor
from focusc.ir.types import ConcentratedType, TensorType, TokensType, Type

Array = np.ndarray[Any, Any]


def largest(values: Array, k: int) -> Array:
    """Indices of the k largest values, ties to the lower index, ascending, i64 [k]."""
    return np.sort(np.argsort(-values, kind="stable")[:k])


def rounded(x: Array) -> Array:
    """f32 values rounded to 11 significant bits, ties to even (TF32: the precision of f16, the range of f32)."""
    bits: Array = np.asarray(x, np.float32).view(np.uint32)
    up = (bits >> np.uint32(13)) & np.uint32(1)
    return ((bits + np.uint32(0xFFF) + up) & np.uint32(0xFFFFE000)).view(np.float32)


def _span(visual_start: int, visual_len: int, rows: int) -> None:
    if visual_start + visual_len > rows:
        raise InferError(f"visual rows [{visual_start}, {visual_start + visual_len}) leave the sequence of {rows} rows")


@defop("sec.importance")
class Importance(Op):
    """How much the prompt attends to each visual token: f32 [visual_len].

    The largest weight of the softmax attention over all heads and over the last `query` rows of q [.., T, heads * hd]
    against k [.., T, kv_heads * hd]; `causal`, `mask`, `positions` and `window` are those of the attention. Controls:
    "inverse" negates it, "random" draws from (seed, layer), "uniform" makes the `keep` largest evenly spaced.

    The arithmetic is part of the definition, since what is kept hangs on it. q and k are rounded to f16, which is what
    the array multiplies. A weight is exp(s - max s) * (1 / sum), in f32, sums in any order. The result is rounded to
    TF32 (11 significant bits, ties to even): with f16 operands a smaller difference has no meaning, so it is a tie,
    and ties go to the lower index.
    """

    __slots__ = ()

    q = operand()
    k = operand()
    mask = operand(optional=True, doc="as in nn.attention")
    positions = operand(optional=True, doc="as in nn.attention")
    heads = attr(int, minimum=1)
    kv_heads = attr(int, minimum=1)
    scale = attr(float)
    causal = attr(bool, True)
    window = attr(int, 0, minimum=0, doc="as in nn.attention")
    query = attr(int, minimum=1, doc="rows at the end that ask")
    visual_start = attr(int, minimum=0)
    visual_len = attr(int, minimum=1, doc="visual rows now present")
    importance = attr(str, "attention", one_of=("attention", "random", "uniform", "inverse"))
    keep = attr(int, 0, minimum=0, doc="with uniform: how many will be kept")
    seed = attr(int, 0, minimum=0)
    layer = attr(int, 0, minimum=0)

    @staticmethod
    def infer(
        q: Type,
        k: Type,
        mask: Type | None = None,
        positions: Type | None = None,
        *,
        heads: int,
        kv_heads: int,
        query: int,
        visual_start: int,
        visual_len: int,
        **_: Any,
    ) -> Type:
        for name, t, n in (("q", q, heads), ("k", k, kv_heads)):
            if not isinstance(t, (TensorType, ConcentratedType)) or len(t.shape) < 2 or np.prod(t.shape[:-2]) != 1:
                raise InferError(f"{name} is {t}, expected [1, T, heads * head size] or without the 1")
            if t.shape[-1] % n:
                raise InferError(f"{name} is {t}: {t.shape[-1]} columns are not a multiple of {n} heads")
        assert isinstance(q, (TensorType, ConcentratedType)) and isinstance(k, (TensorType, ConcentratedType))
        if q.shape[-1] // heads != k.shape[-1] // kv_heads or heads % kv_heads or q.shape[-2] != k.shape[-2]:
            raise InferError(
                f"q is {q} with {heads} heads, k is {k} with {kv_heads}: rows and head sizes must agree, and "
                "query heads must divide among the key heads"
            )
        if query > q.shape[-2]:
            raise InferError(f"query is {query}, more than the {q.shape[-2]} rows")
        _span(visual_start, visual_len, q.shape[-2])
        if mask is not None:
            check_mask(tensor(mask, "mask"), (1, heads, q.shape[-2], k.shape[-2]), k.dtype)
        if positions is not None:
            check_positions(positions, q.shape[-2], k.shape[-2])
        return TensorType((visual_len,), "f32")

    @staticmethod
    def evaluate(
        q: Array,
        k: Array,
        mask: Array | None = None,
        positions: Array | None = None,
        *,
        heads: int,
        kv_heads: int,
        scale: float,
        causal: bool,
        window: int,
        query: int,
        visual_start: int,
        visual_len: int,
        importance: str,
        keep: int,
        seed: int,
        layer: int,
    ) -> Array:
        if importance == "random":
            return np.random.default_rng([seed, layer]).permutation(visual_len).astype(np.float32)
        if importance == "uniform":
            chosen = np.zeros(visual_len, dtype=np.float32)
            keep = min(keep, visual_len)
            chosen[((2 * np.arange(keep) + 1) * visual_len // (2 * keep)) if keep else []] = 1
            return chosen
        rows = q.shape[-2]
        size = q.shape[-1] // heads
        queries, stored = (np.asarray(x).astype(np.float16).astype(np.float32) for x in (q, k))
        asking = queries.reshape(rows, kv_heads, heads // kv_heads, size)[rows - query :]
        keys = stored.reshape(rows, kv_heads, size)
        scores = asking.transpose(1, 2, 0, 3).reshape(kv_heads, -1, size) @ keys.transpose(1, 2, 0)
        scores = scores.reshape(heads, query, rows) * np.float32(scale)
        if positions is not None and window:
            mask, window = within(mask, positions, rows, window), 0
        scores[:, ~seen_keys(rows, rows, causal, window)[rows - query :]] = -np.inf
        if mask is not None:
            asked = np.broadcast_to(mask, (1, heads, rows, rows))[0, :, rows - query :]
            scores = np.where(asked, scores, -np.inf) if mask.dtype == np.bool_ else scores + asked
        scores -= np.maximum(scores.max(axis=-1, keepdims=True), np.finfo(np.float32).min)
        np.exp(scores, out=scores)
        scores *= np.float32(1) / np.maximum(scores.sum(axis=-1, keepdims=True), np.float32(1))
        best = rounded(scores[:, :, visual_start : visual_start + visual_len].max(axis=(0, 1)))
        return -best if importance == "inverse" else best

    @staticmethod
    def examples() -> list[tuple[list[Any], dict[str, Any]]]:
        rng = np.random.default_rng(0)
        q, k = rng.standard_normal((1, 9, 64), np.float32), rng.standard_normal((1, 9, 32), np.float32)
        common: dict[str, Any] = {
            "heads": 4,
            "kv_heads": 2,
            "scale": 0.25,
            "query": 3,
            "visual_start": 1,
            "visual_len": 5,
        }
        return [
            ([q, k], common),
            ([q[0], k[0]], {**common, "importance": "inverse", "causal": False}),
            ([q, k], {**common, "importance": "random", "seed": 3}),
            ([q, k], {**common, "importance": "uniform", "keep": 2}),
            ([q, k, rng.random((4, 9, 9)) < 0.5], {**common, "window": 5}),
            ([q, k, None, np.array([[0, 1, 3, 4, 7, 8, 9, 10, 11]], "f4").T], {**common, "window": 6}),
        ]


@defop("sec.select")
class Select(Op):
    """The k most important visual tokens, ties to the lower index, in their original order.

    importance [visual_len]; positions [visual_len], absent before the first pruning. Results: `rows`, the rows of the
    current sequence that stay (all text, k visual), and `kept`, the positions of the visual ones.
    """

    __slots__ = ()

    importance = operand()
    positions = operand(optional=True)
    k = attr(int, minimum=1)
    visual_start = attr(int, minimum=0)
    visual_len = attr(int, minimum=1, doc="visual rows now present")
    rows = attr(int, minimum=1, doc="rows of the current sequence")
    layer = attr(int, 0, minimum=0)

    @staticmethod
    def infer(
        importance: Type, positions: Type | None, *, k: int, visual_start: int, visual_len: int, rows: int, layer: int
    ) -> tuple[Type, ...]:
        if importance != TensorType((visual_len,), "f32"):
            raise InferError(f"importance is {importance}, expected tensor<{visual_len}xf32>: one for each visual row")
        if positions is not None and (not isinstance(positions, TokensType) or positions.count != visual_len):
            raise InferError(f"positions is {positions}, expected tokens<{visual_len} of ...>: one for each visual row")
        if k > visual_len:
            raise InferError(f"k is {k}, more than the {visual_len} visual rows present")
        _span(visual_start, visual_len, rows)
        original = positions.of if isinstance(positions, TokensType) else visual_len
        return TokensType(rows - visual_len + k, rows), TokensType(k, original)

    @staticmethod
    def evaluate(
        importance: Array, positions: Array | None, *, k: int, visual_start: int, visual_len: int, rows: int, layer: int
    ) -> tuple[Array, Array]:
        chosen = largest(importance, k)
        where = np.arange(visual_len) if positions is None else positions
        text = np.arange(visual_start + visual_len, rows)
        kept = np.concatenate([np.arange(visual_start), chosen + visual_start, text])
        return kept.astype(np.int32), where[chosen].astype(np.int32)

    @staticmethod
    def examples() -> list[tuple[list[Any], dict[str, Any]]]:
        ties = np.array([1, 3, 3, 0, 3], dtype=np.float32)
        return [([ties, None], {"k": 2, "visual_start": 1, "visual_len": 5, "rows": 9})]


@defop("sec.compact")
class Compact(Op):
    """The rows `rows` of x along `axis`: what stays of a tensor that has one row for each token."""

    __slots__ = ()

    x = operand()
    rows = operand()
    axis = attr(int, -2)

    @staticmethod
    def infer(x: Type, rows: Type, *, axis: int) -> Type:
        if not isinstance(x, TensorType) or not -x.rank <= axis < x.rank:
            raise InferError(f"x is {x}, expected a tensor with axis {axis}")
        if not isinstance(rows, TokensType) or rows.of != x.shape[axis]:
            raise InferError(f"rows is {rows}, expected tokens<... of {x.shape[axis]}> for axis {axis} of {x}")
        shape = list(x.shape)
        shape[axis] = rows.count
        return TensorType(tuple(shape), x.dtype)

    @staticmethod
    def evaluate(x: Array, rows: Array, *, axis: int) -> Array:
        return np.take(x, rows, axis=axis)


@defop("sec.subset")
class Subset(Op):
    """A choice of visual tokens made at compile time: the controls that drop frames or patches before the first layer.

    `positions` ascend. Results: `rows` of the sequence that stay, and `kept`, the positions as data.
    """

    __slots__ = ()

    positions = attr(tuple, of=int)
    visual_start = attr(int, minimum=0)
    visual_len = attr(int, minimum=1)
    rows = attr(int, minimum=1, doc="rows of the sequence before")

    @staticmethod
    def infer(*, positions: tuple[int, ...], visual_start: int, visual_len: int, rows: int) -> tuple[Type, ...]:
        _span(visual_start, visual_len, rows)
        if (
            list(positions) != sorted(set(positions))
            or not positions
            or positions[0] < 0
            or positions[-1] >= visual_len
        ):
            raise InferError(f"positions must ascend within the {visual_len} visual tokens, and be at least one")
        return TokensType(rows - visual_len + len(positions), rows), TokensType(len(positions), visual_len)

    @staticmethod
    def evaluate(*, positions: tuple[int, ...], visual_start: int, visual_len: int, rows: int) -> tuple[Array, Array]:
        kept = np.array(positions, dtype=np.int32)
        text = np.arange(visual_start + visual_len, rows)
        stay = np.concatenate([np.arange(visual_start), kept + visual_start, text])
        return stay.astype(np.int32), kept

    @staticmethod
    def examples() -> list[tuple[list[Any], dict[str, Any]]]:
        return [([], {"positions": (0, 2, 3), "visual_start": 2, "visual_len": 5, "rows": 9})]
