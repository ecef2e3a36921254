"""Attention masks by what they allow: found behind scores, combined, and recognised as causal or as a window.

The same mask has many spellings: a constant that is added, a condition with a fill value, an operand of an Attention
node. `resolve` brings all of them to the attributes `causal` and `window` and at most one mask operand.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from focusc.ir.core import Value
from focusc.ir.matching import both_orders, constant_of, dtype_of, producer, scalar_of, shape_of
from focusc.ir.ops.attention import seen_keys
from focusc.ir.rewrite import Builder

Array = np.ndarray[Any, Any]

FORBIDDEN = -1e4
"""Values up to this one forbid a key when they are added to a score: exp of it is 0 in f32 beside any score of a
trained model. Exports use -inf, the smallest float, or -1e4 (from f16)."""


@dataclass(frozen=True, slots=True)
class Mask:
    """One mask between q @ k^T and the softmax: `value` is added to the scores if `fill` is None, else it is a
    condition and scores become `fill` where it does not hold (where it holds, if `negated`)."""

    value: Value
    fill: float | None = None
    negated: bool = False

    @property
    def allowed(self) -> Array | None:
        """What it allows, if that is constant and is all that the mask does."""
        values = constant_of(self.value)
        if values is None:
            return None
        if self.fill is not None:
            return values != self.negated
        found = values > FORBIDDEN
        return None if (values[found] != 0).any() else found

    @property
    def vanishes(self) -> bool:
        """True if a forbidden score is -inf, so that a row without keys has no weights at all."""
        values = constant_of(self.value)
        lowest = self.fill if self.fill is not None else 0.0 if values is None else values.min(initial=0)
        return lowest == -np.inf


@dataclass(frozen=True, slots=True)
class Resolved:
    """What nn.attention needs: attributes, and the mask operand or None."""

    causal: bool
    window: int
    mask: Value | None


def unmasked(scores: Value) -> Iterator[tuple[Value, Mask]]:
    """The scores before a mask is applied by add or where, and that mask; several if it is not clear which is which."""
    added, chosen = producer(scores, "tensor.add"), producer(scores, "tensor.where")
    if added is not None:
        for inner, mask in both_orders(added):
            if inner.type == scores.type and constant_of(inner) is None:
                yield inner, Mask(mask)
    elif chosen is not None:
        condition, first, second = chosen.operands
        for inner, other, negated in ((first, second, False), (second, first, True)):
            fill = _single(other)
            if condition is not None and inner is not None and fill is not None and fill <= FORBIDDEN \
                    and inner.type == scores.type:
                yield inner, Mask(condition, fill, negated)


def _single(value: Value | None) -> float | None:
    """The number that a constant holds in every element."""
    values = constant_of(value)
    if values is None or not values.size or (values != values.flat[0]).any():
        return None
    return float(values.flat[0])


def resolve(masks: Sequence[Mask], scores: tuple[int, int, int, int], b: Builder, *, zeros: bool,
            causal: bool = False, window: int = 0) -> Resolved | None:
    """All masks and an attention's own `causal` and `window` as one form.

    `scores` is [B, heads, T, S]; `zeros` says that rows without keys give zeros, as they do in nn.attention. None if
    rows without keys would change their meaning.
    """
    rows, keys = scores[2:]
    constant: list[tuple[Mask, Array]] = []
    conditions: list[Value] = []
    added: list[Value] = []
    for mask in masks:
        allowed = mask.allowed
        if allowed is not None:
            constant.append((mask, _four(allowed, scores)))
        elif (condition := _condition(mask, b)) is not None:
            conditions.append(_reshaped(condition, scores, b))
        else:
            added.append(_reshaped(_addend(mask, b), scores, b))
    seen: Array = seen_keys(rows, keys, causal, window)[None, None]
    for _, allowed in constant:
        seen = seen & allowed
    if constant and not seen.any(axis=-1).all() and not (zeros and all(m.vanishes for m, _ in constant)):
        if len(constant) > 1 or constant[0][0].vanishes:
            return None
        added.append(_reshaped(_addend(constant[0][0], b), scores, b))  # such a row takes the mean of all values
        constant = []
    left: Array | None = None
    if constant:
        causal, window, left = split(seen)
    mask = None if left is None else b.constant(left)
    for condition in conditions:
        mask = condition if mask is None else b.emit("tensor.and", mask, condition)
    if added:
        total = added[0]
        for value in added[1:]:
            total = b.emit("tensor.add", total, value)
        mask = total if mask is None else b.emit("tensor.where", mask, total, b.constant(-np.inf, np.float32))
    return Resolved(causal, window, mask)


def split(seen: Array) -> tuple[bool, int, Array | None]:
    """bool [B, heads, T, S] as causal, window, and what is left: nothing, a choice of keys for all rows, or all of it.

    Axes of `seen` along which it does not vary have extent 1 in what is left, and leading ones are dropped.
    """
    for axis in (0, 1):
        if (seen == seen[(slice(None),) * axis + (slice(0, 1),)]).all():
            seen = seen[(slice(None),) * axis + (slice(0, 1),)]
    rows, keys = seen.shape[2:]
    columns: Array = np.asarray(seen.any(axis=2, keepdims=True))
    last = seen[0, 0, -1] if rows else np.ones(keys, bool)
    first = int(np.argmax(last)) if last.any() else 0
    bands = [(causal, window) for causal in ((False, True) if keys >= rows else (False,))
             for window in ((0, keys - first) if first else (0,))]
    for left in (None, _trimmed(columns)):
        for causal, window in bands:
            band = seen_keys(rows, keys, causal, window)[None, None]
            if np.array_equal(band if left is None else band & columns, seen):
                return causal, window, left
    within = 1 < rows <= keys and not (seen & ~np.tri(rows, keys, keys - rows, dtype=bool)).any()
    return within, 0, _trimmed(seen)


def _trimmed(values: Array) -> Array:
    """Without leading axes of extent 1."""
    lead = next((i for i, d in enumerate(values.shape) if d != 1), values.ndim - 1)
    return np.ascontiguousarray(values.reshape(values.shape[lead:]))


def _four(values: Array, scores: tuple[int, int, int, int]) -> Array:
    """A constant mask with axes batch, heads, rows, keys, the last two in full."""
    batch, heads, rows, keys = scores
    if values.ndim == 3 and values.shape[0] == batch * heads and values.shape[0] != heads:
        values = values.reshape(batch, heads, *values.shape[1:])
    values = values.reshape((1,) * (4 - values.ndim) + values.shape)
    return np.broadcast_to(values, (*values.shape[:2], rows, keys))


def _reshaped(value: Value, scores: tuple[int, int, int, int], b: Builder) -> Value:
    """A computed mask of batch and heads in one axis, with the two apart."""
    shape, (batch, heads) = shape_of(value), scores[:2]
    if len(shape) == 3 and shape[0] == batch * heads and shape[0] != heads:
        return b.emit("tensor.reshape", value, shape=(batch, heads, *shape[1:]))
    return value


def _condition(mask: Mask, b: Builder) -> Value | None:
    """The bool value that says the same as the mask, if it is one that leaves or removes keys."""
    if mask.fill == -np.inf:
        return b.emit("tensor.not", mask.value) if mask.negated else mask.value
    chosen = producer(mask.value, "tensor.where") if mask.fill is None else None
    if chosen is None:
        return None
    condition, first, second = chosen.operands
    if scalar_of(first) == 0 and _single(second) == -np.inf:
        return condition
    if scalar_of(second) == 0 and _single(first) == -np.inf and condition is not None:
        return b.emit("tensor.not", condition)
    return None


def _addend(mask: Mask, b: Builder) -> Value:
    """The mask as a value to add."""
    if mask.fill is None:
        return mask.value
    kept, other = b.constant(0, np.float32), b.constant(mask.fill, np.float32)
    return b.emit("tensor.where", mask.value, *((other, kept) if mask.negated else (kept, other)))


def own_mask(mask: Value) -> Mask:
    """The mask operand of an nn.attention."""
    return Mask(mask, -np.inf if dtype_of(mask) == "bool" else None)
