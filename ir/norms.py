"""Parts that the two normalisations share: means over the last axis, mean squares plus epsilon, inverse roots."""

from __future__ import annotations

from focusc.ir.core import Value
from focusc.ir.matching import both_orders, factors, producer, scalar_of, shape_of


def inverse_root(value: Value, exponent: int) -> Value | None:
    """v, if value ** exponent is 1 / sqrt(v): by sqrt, or by a power of a half."""
    root = producer(value, "tensor.sqrt")
    if root is not None and exponent == -1:
        return root.operands[0]
    power = producer(value, "tensor.pow")
    if power is not None and scalar_of(power.operands[1]) == -0.5 * exponent:
        return power.operands[0]
    number, found = factors(value, 1)
    if number == 1 and len(found) == 1 and found[0] == (found[0][0], -1):
        return inverse_root(found[0][0], -exponent)
    return None


def mean_of_squares(value: Value) -> tuple[Value, float] | None:
    """(x, eps), if the value is mean(x * x over the last axis) + eps."""
    total = producer(value, "tensor.add")
    for mean, epsilon in both_orders(total) if total is not None else ():
        number = scalar_of(epsilon)
        squares = last_mean(mean)
        if number is None or squares is None or number < 0:
            continue
        x = _square_root(squares)
        if x is not None:
            return x, number
    return None


def is_last_mean(value: Value, x: Value) -> bool:
    """True if the value is the mean of x over the last axis, which is kept."""
    return last_mean(value) is x


def last_mean(value: Value) -> Value | None:
    """x, if the value is its mean over the last axis: by reduce_mean, or by reduce_sum over the extent."""
    reduced = producer(value, "tensor.reduce_mean")
    if reduced is not None:
        return reduced.operands[0] if _over_last(value, reduced.operands[0], reduced.attrs["axes"]) else None
    number, found = factors(value, 1)
    if len(found) != 1 or found[0][1] != 1:
        return None
    total = producer(found[0][0], "tensor.reduce_sum")
    if total is None or total.operands[0] is None:
        return None
    x = total.operands[0]
    if not _over_last(total.result, x, total.attrs["axes"]) or abs(number * shape_of(x)[-1] - 1) > 1e-6:
        return None
    return x


def _over_last(result: Value, x: Value | None, axes: tuple[int, ...]) -> bool:
    if x is None:
        return False
    rank = len(shape_of(x))
    return tuple(a % rank for a in axes) == (rank - 1,) and len(shape_of(result)) == rank


def _square_root(value: Value) -> Value | None:
    """x, if the value is x * x or x ** 2."""
    product = producer(value, "tensor.mul")
    if product is not None:
        return product.operands[0] if product.operands[0] is product.operands[1] else None
    power = producer(value, "tensor.pow")
    return power.operands[0] if power is not None and scalar_of(power.operands[1]) == 2 else None
