"""The tensor dialect: comparisons, logic, selection."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.checks import broadcast, floating, same_dtype, tensor
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]

_A = np.array([[1.5, -2.0, 0.5], [3.0, np.nan, 2.0]], np.float32)
_B = np.array([2.0, -2.0, 0.25], np.float32)
_P = np.array([[True, False, True], [False, False, True]])
_Q = np.array([True, True, False])


class Comparison(Op):
    """Base: two operands of one element type, broadcast, bool out."""

    __slots__ = ()

    x = operand()
    y = operand()

    @staticmethod
    def infer(x: Type, y: Type) -> Type:
        a, b = tensor(x, "x"), tensor(y, "y")
        same_dtype(a, b, "x, y")
        return TensorType(broadcast(a.shape, b.shape), "bool")

    @staticmethod
    def examples() -> Examples:
        return [([_A, _B], {})]


@defop("tensor.equal")
class Equal(Comparison):
    """x == y."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.equal(x, y)


@defop("tensor.greater")
class Greater(Comparison):
    """x > y."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.greater(x, y)


@defop("tensor.greater_equal")
class GreaterEqual(Comparison):
    """x >= y."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.greater_equal(x, y)


@defop("tensor.less")
class Less(Comparison):
    """x < y."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.less(x, y)


@defop("tensor.less_equal")
class LessEqual(Comparison):
    """x <= y."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.less_equal(x, y)


class Logic(Op):
    """Base: two bool operands, broadcast."""

    __slots__ = ()

    x = operand()
    y = operand()

    @staticmethod
    def infer(x: Type, y: Type) -> Type:
        return TensorType(broadcast(_bool(x, "x").shape, _bool(y, "y").shape), "bool")

    @staticmethod
    def examples() -> Examples:
        return [([_P, _Q], {})]


def _bool(type_: Type, what: str) -> TensorType:
    found = tensor(type_, what)
    if found.dtype != "bool":
        raise InferError(f"{what} is {found}, expected bool", code="type.dtype")
    return found


@defop("tensor.and")
class And(Logic):
    """Both."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.logical_and(x, y)


@defop("tensor.or")
class Or(Logic):
    """Either or both."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.logical_or(x, y)


@defop("tensor.xor")
class Xor(Logic):
    """Exactly one."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.logical_xor(x, y)


@defop("tensor.not")
class Not(Op):
    """The opposite."""

    __slots__ = ()

    x = operand()

    @staticmethod
    def infer(x: Type) -> Type:
        return _bool(x, "x")

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.logical_not(x)

    @staticmethod
    def examples() -> Examples:
        return [([_P], {})]


class Bitwise(Op):
    """Base: two integer operands of one type, broadcast."""

    __slots__ = ()

    x = operand()
    y = operand()

    @staticmethod
    def infer(x: Type, y: Type) -> Type:
        a, b = _integer(x, "x"), _integer(y, "y")
        same_dtype(a, b, "x, y")
        return TensorType(broadcast(a.shape, b.shape), a.dtype)

    @staticmethod
    def examples() -> Examples:
        return [([np.array([[12, -7], [3, 0]]), np.array([10, 6])], {})]


def _integer(type_: Type, what: str) -> TensorType:
    found = tensor(type_, what)
    if found.dtype[0] not in "iu":
        raise InferError(f"{what} is {found}, expected integers", code="type.dtype")
    return found


@defop("tensor.bitwise_and")
class BitwiseAnd(Bitwise):
    """Both, bit by bit."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.bitwise_and(x, y)


@defop("tensor.bitwise_or")
class BitwiseOr(Bitwise):
    """Either or both, bit by bit."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.bitwise_or(x, y)


@defop("tensor.bitwise_xor")
class BitwiseXor(Bitwise):
    """Exactly one, bit by bit."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.bitwise_xor(x, y)


@defop("tensor.bitwise_not")
class BitwiseNot(Op):
    """The opposite, bit by bit."""

    __slots__ = ()

    x = operand()

    @staticmethod
    def infer(x: Type) -> Type:
        return _integer(x, "x")

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.bitwise_not(x)

    @staticmethod
    def examples() -> Examples:
        return [([np.array([[12, -7], [3, 0]])], {})]


@defop("tensor.isnan")
class IsNan(Op):
    """True where x is not a number."""

    __slots__ = ()

    x = operand()

    @staticmethod
    def infer(x: Type) -> Type:
        return TensorType(floating(tensor(x, "x"), "x").shape, "bool")

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.isnan(x)

    @staticmethod
    def examples() -> Examples:
        return [([_A], {})]


@defop("tensor.where")
class Where(Op):
    """x where the condition holds, else y; all three broadcast."""

    __slots__ = ()

    condition = operand(doc="bool")
    x = operand()
    y = operand()

    @staticmethod
    def infer(condition: Type, x: Type, y: Type) -> Type:
        a, b = tensor(x, "x"), tensor(y, "y")
        same_dtype(a, b, "x, y")
        return TensorType(broadcast(_bool(condition, "condition").shape, a.shape, b.shape), a.dtype)

    @staticmethod
    def evaluate(condition: Array, x: Array, y: Array) -> Array:
        return np.where(condition, x, y)

    @staticmethod
    def examples() -> Examples:
        return [([_P, _A, np.array(0, np.float32)], {})]


@defop("tensor.trilu")
class Trilu(Op):
    """The upper (or lower) triangle of the last two axes, zeros elsewhere; `k` shifts the diagonal."""

    __slots__ = ()

    x = operand()
    k: int = attr(int, 0)
    upper: bool = attr(bool, True)

    @staticmethod
    def infer(x: Type, *, k: int, upper: bool) -> Type:
        found = tensor(x, "x")
        if found.rank < 2:
            raise InferError(f"x is {found}, expected at least two axes", code="type.shape")
        return found

    @staticmethod
    def evaluate(x: Array, *, k: int, upper: bool) -> Array:
        return np.triu(x, k) if upper else np.tril(x, k)

    @staticmethod
    def examples() -> Examples:
        x = np.arange(12, dtype=np.float32).reshape(3, 4)
        return [([x], {}), ([x], {"k": 1, "upper": False}), ([x > 3], {"k": -1})]
