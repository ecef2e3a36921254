"""Vector commands: float32 on tiles of the output buffer, executed by the special-function unit.

A source `a` has the destination's shape. A second source `b` has as many rows or one, and a number of columns that
divides the destination's; it repeats (one column is a scalar per row, [rows x hd] repeats over heads). Any source may be
`s`, the head of the activation stream, which is taken; with two `s`, `a` is taken first.
"""

from __future__ import annotations

from focusc.isa.fields import R, f32, flag, sext, tile, uimm
from focusc.isa.insns.base import Insn

__all__ = ["Fwd", "VAdd", "VAddi", "VCopy", "VDiv", "VExp", "VExps", "VFill", "VGelu", "VGeluQuick", "VGelue", "VLd",
           "VMask", "VMax", "VMaxi", "VMul", "VMuli", "VNeg", "VRecip", "VRmax", "VRot", "VRsqrt", "VRsum", "VRsumsq",
           "VSigmoid", "VSilu", "VSub", "VTanh"]

MASKED = -3.4028235e38
"""What a masked score becomes: the most negative float32, as in common attention implementations."""


class VAdd(Insn, opcode=0x40, engine="vec", mnemonic="v.add"):
    """d = a + b."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    b: int = tile("source, broadcast", access="rs")


class VSub(Insn, opcode=0x41, engine="vec", mnemonic="v.sub"):
    """d = a - b."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    b: int = tile("source, broadcast", access="rs")


class VMul(Insn, opcode=0x42, engine="vec", mnemonic="v.mul"):
    """d = a * b."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    b: int = tile("source, broadcast", access="rs")


class VMax(Insn, opcode=0x43, engine="vec", mnemonic="v.max"):
    """d = max(a, b)."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    b: int = tile("source, broadcast", access="rs")


class VDiv(Insn, opcode=0x44, engine="vec", mnemonic="v.div"):
    """d = a / b."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    b: int = tile("source, broadcast", access="rs")


class VExps(Insn, opcode=0x45, engine="vec", mnemonic="v.exps"):
    """d = exp(a - b), the numerator of a softmax."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    b: int = tile("source, broadcast", access="rs")


class VAddi(Insn, opcode=0x48, engine="vec", mnemonic="v.addi"):
    """d = a + imm."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    imm: float = f32("scalar")


class VMuli(Insn, opcode=0x49, engine="vec", mnemonic="v.muli"):
    """d = a * imm."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    imm: float = f32("scalar")


class VMaxi(Insn, opcode=0x4A, engine="vec", mnemonic="v.maxi"):
    """d = max(a, imm)."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")
    imm: float = f32("scalar")


class VExp(Insn, opcode=0x50, engine="vec", mnemonic="v.exp"):
    """d = exp(a)."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VRecip(Insn, opcode=0x51, engine="vec", mnemonic="v.recip"):
    """d = 1 / a."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VRsqrt(Insn, opcode=0x52, engine="vec", mnemonic="v.rsqrt"):
    """d = 1 / sqrt(a)."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VSilu(Insn, opcode=0x53, engine="vec", mnemonic="v.silu"):
    """d = a * sigmoid(a)."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VGelu(Insn, opcode=0x54, engine="vec", mnemonic="v.gelu"):
    """d = 0.5 a (1 + tanh(sqrt(2/pi) (a + 0.044715 a^3))), the tanh form of GELU."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VGelue(Insn, opcode=0x55, engine="vec", mnemonic="v.gelue"):
    """d = 0.5 a (1 + erf(a / sqrt 2)), the exact GELU."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VGeluQuick(Insn, opcode=0x56, engine="vec", mnemonic="v.gelu_quick"):
    """d = a * sigmoid(1.702 a)."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VTanh(Insn, opcode=0x57, engine="vec", mnemonic="v.tanh"):
    """d = tanh(a)."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VSigmoid(Insn, opcode=0x58, engine="vec", mnemonic="v.sigmoid"):
    """d = 1 / (1 + exp(-a))."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VNeg(Insn, opcode=0x59, engine="vec", mnemonic="v.neg"):
    """d = -a."""

    d: int = tile("destination", access="w")
    a: int = tile("source", access="rs")


class VCopy(Insn, opcode=0x5A, engine="vec", mnemonic="v.copy"):
    """d = a, broadcast like a second source (rows 1 or equal, columns divide)."""

    d: int = tile("destination", access="w")
    a: int = tile("source, broadcast", access="rs")


class VFill(Insn, opcode=0x5B, engine="vec", mnemonic="v.fill"):
    """d = imm everywhere."""

    d: int = tile("destination", access="w")
    imm: float = f32("value; an infinity is allowed")


class VRsum(Insn, opcode=0x60, engine="vec", mnemonic="v.rsum"):
    """d[i, 0] = sum over j of a[i, j]; with `acc` added to what d holds."""

    d: int = tile("destination, one column", access="rw")
    a: int = tile("source", access="rs")
    acc: int = flag("accumulate")


class VRmax(Insn, opcode=0x61, engine="vec", mnemonic="v.rmax"):
    """d[i, 0] = max over j of a[i, j]; with `acc` also with what d holds."""

    d: int = tile("destination, one column", access="rw")
    a: int = tile("source", access="rs")
    acc: int = flag("accumulate")


class VRsumsq(Insn, opcode=0x62, engine="vec", mnemonic="v.rsumsq"):
    """d[i, 0] = sum over j of a[i, j]^2; with `acc` added to what d holds."""

    d: int = tile("destination, one column", access="rw")
    a: int = tile("source", access="rs")
    acc: int = flag("accumulate")


class VMask(Insn, opcode=0x63, engine="vec", mnemonic="v.mask"):
    """Causal mask in place: d[i, j] = -3.4028235e38 where col0 + j > row0 + i."""

    d: int = tile("scores", access="rw")
    row0: int | R = sext("query row (plus keys before the first query) of the tile's first row")
    col0: int | R = sext("key column of the tile's first column")


class VRot(Insn, opcode=0x64, engine="vec", mnemonic="v.rot"):
    """Rotate pairs within each group of `width` columns: d = [-x2, x1] of halves [x1, x2].

    With `interleaved` the pairs are neighbours: d[2i] = -a[2i+1], d[2i+1] = a[2i].
    """

    d: int = tile("destination; must not overlap the source", access="w")
    a: int = tile("source", access="rs")
    width: int = uimm(16, "columns to a group (head), even; divides the columns")
    interleaved: int = flag("pairs are neighbours")


class VLd(Insn, opcode=0x65, engine="vec", mnemonic="v.ld"):
    """Take the head of the activation stream into tile d."""

    d: int = tile("destination", access="w")


class Fwd(Insn, opcode=0x66, engine="vec", mnemonic="fwd"):
    """Round tile a to f16 and push it onto the activation stream (P of P @ V)."""

    a: int = tile("source", access="r")
