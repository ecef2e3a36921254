"""Vector commands that are functions of one tile, element by element, and the softmax's exp(a - b)."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from focusc.isa.fields import Int, Source, tile
from focusc.isa.insns.base import Insn
from focusc.isa.insns.vector_sources import F32, repeats, same, unary

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

__all__ = ["VErf", "VExp", "VExps", "VGelu", "VGeluQuick", "VGelue", "VLog", "VNeg", "VRecip", "VRsqrt", "VSigmoid",
           "VSilu", "VSqrt", "VTanh", "erf"]


def _rows(s: State, d: int, a: int, kernel: Callable[..., None], *numbers: Any) -> None:
    """`kernel(source, destination, rows, cols, *numbers)` on equal shapes, for a compiled row kernel."""
    x = s.beside(a, d)
    same(s.dest(d), x[3:])
    kernel(*x[:3], *s.place(d), *numbers)


def _gelu_tanh(x: F32, out: F32) -> None:
    t = np.multiply(x, x)
    t *= np.float32(0.044715)
    t += 1.0
    t *= x
    t *= np.float32(0.7978845608028654)
    np.tanh(t, out=t)
    t += 1.0
    t *= 0.5
    np.multiply(t, x, out=out)


def _poly(x: F32, *coefficients: float) -> F32:
    total = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        total *= x
        total += np.float32(c)
    return total


def erf(x: F32) -> F32:
    """Error function in float32, absolute error below 3e-7; minimax polynomials of N. Juffa (public, 2016)."""
    t = np.abs(x)
    square = np.multiply(x, x)
    near = _poly(np.minimum(square, 1.0), -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1,
                 1.28379166e-1)
    near *= x
    near += x
    far = _poly(np.minimum(t, 4.0), -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1,
                -6.34846687e-1, -1.28717512e-1)
    t = np.minimum(t, 4.0)
    far *= t
    far -= t
    np.exp(far, out=far)
    np.subtract(1.0, far, out=far)
    np.copysign(far, x, out=far)
    return np.where(t > 0.927734375, far, near)


def _gelu_erf(x: F32, out: F32) -> None:
    t = erf(np.multiply(x, np.float32(0.7071067811865476)))
    t += 1.0
    t *= 0.5
    np.multiply(t, x, out=out)


def _rsqrt(x: F32, out: F32) -> None:
    np.sqrt(x, out=out)
    np.reciprocal(out, out=out)


class VExps(Insn, opcode=0x45, engine="vec", mnemonic="v.exps"):
    """d = exp(a - b), the numerator of a softmax."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        x, y = s.beside(a, d), s.beside(b, d)
        same(s.dest(d), x[3:])
        flat, offset, pitch, high, wide = y
        repeats(y[3:], x[3:])
        pitch = pitch if high > 1 else 0
        if a == d:
            s.k.exps_in_place(*s.place(d)[:3], flat, offset, pitch, wide, *x[3:])
        else:
            s.k.exps_rows(*x[:3], flat, offset, pitch, wide, *s.place(d))


class VExp(Insn, opcode=0x50, engine="vec", mnemonic="v.exp"):
    """d = exp(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _rows(s, d, a, s.k.exp_rows)


class VRecip(Insn, opcode=0x51, engine="vec", mnemonic="v.recip"):
    """d = 1 / a."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, np.reciprocal)


class VRsqrt(Insn, opcode=0x52, engine="vec", mnemonic="v.rsqrt"):
    """d = 1 / sqrt(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, _rsqrt)


class VSilu(Insn, opcode=0x53, engine="vec", mnemonic="v.silu"):
    """d = a * sigmoid(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _rows(s, d, a, s.k.gated_rows, np.float32(-1))


class VGelu(Insn, opcode=0x54, engine="vec", mnemonic="v.gelu"):
    """d = 0.5 a (1 + tanh(sqrt(2/pi) (a + 0.044715 a^3))), the tanh form of GELU."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, _gelu_tanh)


class VGelue(Insn, opcode=0x55, engine="vec", mnemonic="v.gelue"):
    """d = 0.5 a (1 + erf(a / sqrt 2)), the exact GELU."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, _gelu_erf)


class VGeluQuick(Insn, opcode=0x56, engine="vec", mnemonic="v.gelu_quick"):
    """d = a * sigmoid(1.702 a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _rows(s, d, a, s.k.gated_rows, np.float32(-1.702))


class VTanh(Insn, opcode=0x57, engine="vec", mnemonic="v.tanh"):
    """d = tanh(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, np.tanh)


class VSigmoid(Insn, opcode=0x58, engine="vec", mnemonic="v.sigmoid"):
    """d = 1 / (1 + exp(-a))."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _rows(s, d, a, s.k.sigmoid_rows)


class VNeg(Insn, opcode=0x59, engine="vec", mnemonic="v.neg"):
    """d = -a."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, np.negative)


class VSqrt(Insn, opcode=0x5C, engine="vec", mnemonic="v.sqrt"):
    """d = sqrt(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, np.sqrt)


class VLog(Insn, opcode=0x5D, engine="vec", mnemonic="v.log"):
    """d = ln(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, np.log)


class VErf(Insn, opcode=0x5E, engine="vec", mnemonic="v.erf"):
    """d = erf(a), the error function."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        unary(s, d, a, lambda x, out: np.copyto(out, erf(x)))
