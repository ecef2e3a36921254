"""Multiply-accumulates of ops, from their types alone."""

from __future__ import annotations

import math
from collections.abc import Callable

from focusc.ir.core import Op
from focusc.ir.types import ConcentratedType, TensorType

Shape = tuple[int, ...]


def macs(op: Op) -> int:
    """Multiply-accumulates of one execution, without concentration; 0 for an op that is no matrix product.

    An attention counts the (query, key) pairs that its diagonal and its window leave.
    """
    count = COUNTS.get(op.name)
    return count(op) if count is not None else 0


def _shape(op: Op, index: int) -> Shape:
    value = op.operands[index]
    assert value is not None and isinstance(value.type, TensorType | ConcentratedType)
    return value.type.shape


def _result(op: Op) -> Shape:
    type_ = op.results[0].type
    assert isinstance(type_, TensorType)
    return type_.shape


def _linear(op: Op) -> int:
    return math.prod(_shape(op, 0)[:-1]) * math.prod(_shape(op, 1))


def _matmul(op: Op) -> int:
    return math.prod(_result(op)) * _shape(op, 0)[-1]


def _convolution(op: Op) -> int:
    """Every output element is a dot product with one filter [channels of its group, kernel...]."""
    return math.prod(_result(op)) * math.prod(_shape(op, 1)[1:])


def _attention(op: Op) -> int:
    q, k, v = (_shape(op, i) for i in range(3))
    a = op.attrs
    heads, length, keys = a["heads"], q[-2], k[-2]
    own = range(keys - length, keys)  # the key at which each row stands
    first = [max(at - a["window"] + 1, 0) if a["window"] else 0 for at in own]
    last = [at + 1 if a["causal"] else keys for at in own]
    pairs = sum(max(high - low, 0) for low, high in zip(first, last, strict=True))
    return math.prod(q[:-2]) * pairs * (q[-1] + v[-1] * heads // a["kv_heads"])


COUNTS: dict[str, Callable[[Op], int]] = {
    "nn.linear": _linear,
    "nn.patch_embed": lambda op: math.prod(_result(op)) * _patch(op),
    "nn.attention": _attention,
    "tensor.matmul": _matmul,
    "tensor.conv": _convolution,
}
"""By op name: every op whose work is products of two operands summed up."""


def _patch(op: Op) -> int:
    """Length of the dot products of a patch embedding: its weight is [n, k] or [n, channels, kernel...]."""
    return math.prod(_shape(op, 1)) // _result(op)[-1]
