"""Vector commands that combine two tiles, or a tile and a number, element by element."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from focusc.isa.fields import Float, Int, Source, f32, f32_value, tile
from focusc.isa.insns.base import Insn
from focusc.isa.insns.vector_sources import binary, unary

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

__all__ = ["VAdd", "VAddi", "VDiv", "VMax", "VMaxi", "VMin", "VMini", "VMul", "VMuli", "VSub"]


class VAdd(Insn, opcode=0x40, engine="vec", mnemonic="v.add"):
    """d = a + b."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        binary(s, d, a, b, np.add)


class VSub(Insn, opcode=0x41, engine="vec", mnemonic="v.sub"):
    """d = a - b."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        binary(s, d, a, b, np.subtract)


class VMul(Insn, opcode=0x42, engine="vec", mnemonic="v.mul"):
    """d = a * b."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        binary(s, d, a, b, np.multiply)


class VMax(Insn, opcode=0x43, engine="vec", mnemonic="v.max"):
    """d = max(a, b)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        binary(s, d, a, b, np.maximum)


class VDiv(Insn, opcode=0x44, engine="vec", mnemonic="v.div"):
    """d = a / b."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        binary(s, d, a, b, np.divide)


class VMin(Insn, opcode=0x47, engine="vec", mnemonic="v.min"):
    """d = min(a, b)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        binary(s, d, a, b, np.minimum)


class VAddi(Insn, opcode=0x48, engine="vec", mnemonic="v.addi"):
    """d = a + imm."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    imm: Float = f32("scalar")

    @staticmethod
    def execute(s: State, d: int, a: int, imm: int) -> None:
        value = np.float32(f32_value(imm))
        unary(s, d, a, lambda x, out: np.add(x, value, out=out))


class VMuli(Insn, opcode=0x49, engine="vec", mnemonic="v.muli"):
    """d = a * imm."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    imm: Float = f32("scalar")

    @staticmethod
    def execute(s: State, d: int, a: int, imm: int) -> None:
        value = np.float32(f32_value(imm))
        unary(s, d, a, lambda x, out: np.multiply(x, value, out=out))


class VMaxi(Insn, opcode=0x4A, engine="vec", mnemonic="v.maxi"):
    """d = max(a, imm)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    imm: Float = f32("scalar")

    @staticmethod
    def execute(s: State, d: int, a: int, imm: int) -> None:
        value = np.float32(f32_value(imm))
        unary(s, d, a, lambda x, out: np.maximum(x, value, out=out))


class VMini(Insn, opcode=0x4B, engine="vec", mnemonic="v.mini"):
    """d = min(a, imm)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    imm: Float = f32("scalar")

    @staticmethod
    def execute(s: State, d: int, a: int, imm: int) -> None:
        value = np.float32(f32_value(imm))
        unary(s, d, a, lambda x, out: np.minimum(x, value, out=out))
