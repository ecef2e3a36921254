"""The tensor dialect: elementwise arithmetic, comparisons and casts, with ONNX's meaning (numpy broadcasting)."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops import activations
from focusc.ir.ops.checks import broadcast, floating, same_dtype, tensor
from focusc.ir.types import DTYPES, TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]

_A = np.array([[1.5, -2.0, 0.25], [3.0, -0.5, 2.0]], np.float32)
_B = np.array([2.0, -1.0, 0.5], np.float32)
_I = np.array([[7, -7, 5], [-8, 9, 2]], np.int64)
_J = np.array([[2, 2, -3], [3, -4, 2]], np.int64)


class Binary(Op):
    """Base: two operands of one element type, broadcast."""

    __slots__ = ()

    x = operand()
    y = operand()

    @staticmethod
    def infer(x: Type, y: Type) -> Type:
        a, b = tensor(x, "x"), tensor(y, "y")
        same_dtype(a, b, "x, y")
        if a.dtype == "bool":
            raise InferError("x, y are bool, expected numbers", code="type.dtype", hint="insert tensor.cast")
        return TensorType(broadcast(a.shape, b.shape), a.dtype)

    @staticmethod
    def examples() -> Examples:
        return [([_A, _B], {}), ([_I, _J], {})]


@defop("tensor.add")
class Add(Binary):
    """x + y."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return x + y


@defop("tensor.sub")
class Sub(Binary):
    """x - y."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return x - y


@defop("tensor.mul")
class Mul(Binary):
    """x * y."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return x * y


@defop("tensor.div")
class Div(Binary):
    """x / y; integers are rounded towards zero."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        if np.issubdtype(x.dtype, np.floating):
            return x / y
        if not np.all(y):
            raise InferError("integer division by zero", code="run.value")
        quotient = x // y
        return quotient + ((x % y != 0) & ((x < 0) != (y < 0))).astype(x.dtype)


@defop("tensor.mod")
class Mod(Op):
    """Remainder: with the sign of y (as Python), or of x if `fmod` (as C)."""

    __slots__ = ()

    x = operand()
    y = operand()
    fmod: bool = attr(bool, False)

    @staticmethod
    def infer(x: Type, y: Type, *, fmod: bool) -> Type:
        return Binary.infer(x, y)

    @staticmethod
    def evaluate(x: Array, y: Array, *, fmod: bool) -> Array:
        return np.fmod(x, y) if fmod else np.mod(x, y)

    @staticmethod
    def examples() -> Examples:
        return [([_I, _J], {}), ([_I, _J], {"fmod": True}), ([_A, _B], {"fmod": True}), ([_A, _B], {})]


@defop("tensor.max")
class Max(Binary):
    """The larger one; NaN if either is."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.maximum(x, y)


@defop("tensor.min")
class Min(Binary):
    """The smaller one; NaN if either is."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        return np.minimum(x, y)


@defop("tensor.pow")
class Pow(Op):
    """x to the power y, in the element type of x; the exponent may have another one."""

    __slots__ = ()

    x = operand()
    y = operand()

    @staticmethod
    def infer(x: Type, y: Type) -> Type:
        a, b = tensor(x, "x"), tensor(y, "y")
        if "bool" in (a.dtype, b.dtype):
            raise InferError("an operand is bool, expected numbers", code="type.dtype")
        return TensorType(broadcast(a.shape, b.shape), a.dtype)

    @staticmethod
    def evaluate(x: Array, y: Array) -> Array:
        if y.size == 1 and y.ndim <= x.ndim and y.reshape(-1)[0] == 2:
            return x * x
        if np.issubdtype(x.dtype, np.integer) and np.any(y < 0):
            return np.power(x.astype(np.float64), y).astype(x.dtype)
        return np.power(x, y).astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [([np.abs(_A), _B], {}), ([_A, np.array(2.0, np.float32)], {}), ([_A, np.array(3, np.int64)], {})]


class Unary(Op):
    """Base: one operand of numbers, same type out."""

    __slots__ = ()

    x = operand()

    @staticmethod
    def infer(x: Type) -> Type:
        found = tensor(x, "x")
        if found.dtype == "bool":
            raise InferError("x is bool, expected numbers", code="type.dtype")
        return found

    @staticmethod
    def examples() -> Examples:
        return [([_A], {}), ([_I], {})]


class FloatUnary(Unary):
    """Base: one floating operand, same type out."""

    __slots__ = ()

    @staticmethod
    def infer(x: Type) -> Type:
        return floating(tensor(x, "x"), "x")

    @staticmethod
    def examples() -> Examples:
        return [([_A], {}), ([np.abs(_A).astype(np.float16)], {})]


@defop("tensor.neg")
class Neg(Unary):
    """-x."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.negative(x)


@defop("tensor.abs")
class Abs(Unary):
    """The absolute value."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.abs(x)


@defop("tensor.sign")
class Sign(Unary):
    """-1, 0 or 1."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.sign(x)


@defop("tensor.sqrt")
class Sqrt(FloatUnary):
    """The square root; NaN below zero."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.sqrt(x)


@defop("tensor.reciprocal")
class Reciprocal(FloatUnary):
    """1 / x."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.reciprocal(x)


@defop("tensor.exp")
class Exp(FloatUnary):
    """e to the power x."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.exp(x)


@defop("tensor.log")
class Log(FloatUnary):
    """The natural logarithm; NaN below zero."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.log(x)


@defop("tensor.sigmoid")
class Sigmoid(FloatUnary):
    """1 / (1 + exp(-x))."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return activations.sigmoid(x)


@defop("tensor.tanh")
class Tanh(FloatUnary):
    """The hyperbolic tangent."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.tanh(x)


@defop("tensor.erf")
class Erf(FloatUnary):
    """The error function."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return activations.erf(x)


@defop("tensor.cos")
class Cos(FloatUnary):
    """The cosine of x in radians."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.cos(x)


@defop("tensor.sin")
class Sin(FloatUnary):
    """The sine of x in radians."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.sin(x)


@defop("tensor.floor")
class Floor(FloatUnary):
    """The largest whole number not above x."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.floor(x)


@defop("tensor.ceil")
class Ceil(FloatUnary):
    """The smallest whole number not below x."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.ceil(x)


@defop("tensor.round")
class Round(FloatUnary):
    """The nearest whole number, halves to even."""

    __slots__ = ()

    @staticmethod
    def evaluate(x: Array) -> Array:
        return np.rint(x)


@defop("tensor.gelu")
class TensorGelu(Op):
    """x * Phi(x), exact or by tanh."""

    __slots__ = ()

    x = operand()
    approximate: str = attr(str, "none", one_of=("none", "tanh"))

    @staticmethod
    def infer(x: Type, *, approximate: str) -> Type:
        return floating(tensor(x, "x"), "x")

    @staticmethod
    def evaluate(x: Array, *, approximate: str) -> Array:
        wide = x if x.dtype == np.float64 else x.astype(np.float32, copy=False)
        return activations.gelu(wide, approximate).astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [([_A], {}), ([_A], {"approximate": "tanh"})]


@defop("tensor.cast")
class Cast(Op):
    """x in another element type: floats to integers truncate, numbers to bool compare with zero."""

    __slots__ = ()

    x = operand()
    to: str = attr(str, one_of=tuple(DTYPES))

    @staticmethod
    def infer(x: Type, *, to: str) -> Type:
        return TensorType(tensor(x, "x").shape, to)

    @staticmethod
    def evaluate(x: Array, *, to: str) -> Array:
        return x.astype(DTYPES[to])

    @staticmethod
    def examples() -> Examples:
        return [([_A], {"to": "i64"}), ([_I], {"to": "f16"}), ([_A], {"to": "bool"})]
