"""The matrix command."""

from __future__ import annotations

from focusc.isa.fields import R, ext, flag, tile
from focusc.isa.insns.base import Insn

__all__ = ["Mma"]


class Mma(Insn, opcode=0x30, engine="mxu", mnemonic="mma"):
    """t (+)= activations [rows x k] @ weights [k x cols], taking both stream heads; f32 accumulation.

    Runs as one pass per 32-wide k-slice and 32-column group, of `rows` vectors if the activations are dense and of the
    slice's U unique vectors (then scattered through the map into the tile) if they are concentrated.
    """

    t: int = tile("accumulator; its rows and cols are the product's", access="rw")
    k: int | R = ext("reduction length")
    acc: int = flag("add to the tile instead of overwriting it")
