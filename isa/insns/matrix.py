"""The matrix command."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from focusc.isa.errors import Fault
from focusc.isa.fields import Extent, Int, ext, flag, tile
from focusc.isa.insns.base import Insn

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

__all__ = ["Mma"]


class Mma(Insn, opcode=0x30, engine="mxu", mnemonic="mma"):
    """t (+)= activations [rows x k] @ weights [k x cols], taking both stream heads; f32 accumulation.

    Runs as one pass per 32-wide k-slice and 32-column group, of `rows` vectors if the activations are dense and of the
    slice's U unique vectors (then scattered through the map into the tile) if they are concentrated.
    """

    t: Int = tile("accumulator; its rows and cols are the product's", access="rw")
    k: Extent = ext("reduction length")
    acc: Int = flag("add to the tile instead of overwriting it", default=0)

    @staticmethod
    def execute(s: State, t: int, k: int, acc: int) -> None:
        left, right = s.pop_act(), s.pop_wgt()
        a, w = left.data, right.data
        out = s.update(t) if acc else s.dest(t)
        if left.conc and 0 < a.shape[1] - k < 32:
            a = a[:, :k]  # the last slot is padded with zeros
        if a.shape != (out.shape[0], k) or w.shape != (k, out.shape[1]):
            raise Fault("run.shape", f"activations {a.shape[0]}x{a.shape[1]} @ weights {w.shape[0]}x{w.shape[1]} with "
                        f"k={k} do not give the tile's {out.shape[0]}x{out.shape[1]}")
        if left.dtype == "f32" or right.dtype == "f32":
            raise Fault("run.type", "the array multiplies f16, bf16 and i8; an operand was loaded as f32")
        if acc:
            np.add(out, s.product(a, w, s.temporary(out.shape[0], out.shape[1])), out=out)
        elif (product := s.product(a, w, out)) is not out:
            np.copyto(out, product)
