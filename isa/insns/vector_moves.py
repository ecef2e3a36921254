"""Vector commands that place elements: copies, fills, rotations, and the ends of the activation stream."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from focusc.isa.errors import Fault
from focusc.isa.fields import Float, Int, Source, f32, f32_value, flag, tile, uimm
from focusc.isa.insns.base import Insn
from focusc.isa.insns.vector_sources import same

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

__all__ = ["Fwd", "VCopy", "VFill", "VLd", "VRot"]


class VCopy(Insn, opcode=0x5A, engine="vec", mnemonic="v.copy"):
    """d = a, broadcast like a second source (rows 1 or equal, columns divide)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        x = s.source(a)
        out = s.dest(d)
        if x.shape[0] not in (1, out.shape[0]) or out.shape[1] % x.shape[1]:
            raise Fault("run.shape", f"a source of {x.shape[0]}x{x.shape[1]} does not repeat over "
                        f"{out.shape[0]}x{out.shape[1]}")
        if x.shape[1] in (1, out.shape[1]):
            np.copyto(out, x)
        else:
            np.copyto(out.reshape(out.shape[0], -1, x.shape[1]), x[:, None, :])


class VFill(Insn, opcode=0x5B, engine="vec", mnemonic="v.fill"):
    """d = imm everywhere."""

    d: Int = tile("destination", access="w")
    imm: Float = f32("value; an infinity is allowed")

    @staticmethod
    def execute(s: State, d: int, imm: int) -> None:
        s.dest(d)[:] = f32_value(imm)


class VRot(Insn, opcode=0x64, engine="vec", mnemonic="v.rot"):
    """Rotate pairs within each group of `width` columns: d = [-x2, x1] of halves [x1, x2].

    With `interleaved` the pairs are neighbours: d[2i] = -a[2i+1], d[2i+1] = a[2i].
    """

    d: Int = tile("destination; may be the source", access="w")
    a: Source = tile("source", access="rs")
    width: Int = uimm(16, "columns to a group (head), even; divides the columns")
    interleaved: Int = flag("pairs are neighbours", default=0)

    @staticmethod
    def execute(s: State, d: int, a: int, width: int, interleaved: int) -> None:
        x = s.source(a)
        out = s.dest(d)
        same(out, x.shape)
        rows, cols = x.shape
        if width < 2 or width % 2 or cols % width:
            raise Fault("run.shape", f"groups of {width} columns do not divide {cols} columns into pairs")
        x3, out3 = x.reshape(rows, -1, width), out.reshape(rows, -1, width)
        first, second = ((slice(0, width, 2), slice(1, width, 2)) if interleaved
                         else (slice(0, width // 2), slice(width // 2, width)))
        turned = np.negative(x3[..., second])
        out3[..., second] = x3[..., first]
        out3[..., first] = turned


class VLd(Insn, opcode=0x65, engine="vec", mnemonic="v.ld"):
    """Take the head of the activation stream into tile d."""

    d: Int = tile("destination", access="w")

    @staticmethod
    def execute(s: State, d: int) -> None:
        x = s.source(-1)
        out = s.dest(d)
        same(out, x.shape)
        np.copyto(out, x)


class Fwd(Insn, opcode=0x66, engine="vec", mnemonic="fwd"):
    """Round tile a to f16 and push it onto the activation stream (P of P @ V)."""

    a: Int = tile("source", access="r")

    @staticmethod
    def execute(s: State, a: int) -> None:
        s.forward(a)
