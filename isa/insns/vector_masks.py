"""Vector commands that select: by a mask that is data, or by position."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from focusc.isa.fields import Extent, Int, Source, ext, flag, sext, tile
from focusc.isa.insns.base import Insn
from focusc.isa.insns.vector_sources import F32, binary, spread

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

MASKED = -3.4028235e38
"""What a masked score becomes: the most negative float32, as in common attention implementations."""

__all__ = ["VBlend", "VMask", "VSel"]


def _select(x: F32, keep: F32, out: F32) -> None:
    """out = x where keep > 0, else MASKED; `keep` broadcasts, `out` may be x."""
    np.copyto(out, np.where(keep > 0, x, np.float32(MASKED)))


class VSel(Insn, opcode=0x46, engine="vec", mnemonic="v.sel"):
    """d = a where b > 0, else -3.4028235e38: scores hidden by a mask that is data."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast: what is kept", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        binary(s, d, a, b, _select)


class VMask(Insn, opcode=0x63, engine="vec", mnemonic="v.mask"):
    """Hide scores by position, in place: d[i, j] = -3.4028235e38 where col0 + j > row0 + i (a later key), and with a
    `window` where col0 + j <= row0 + i - window. With `inf` they become -infinity, below any score that is a number.
    """

    d: Int = tile("scores", access="rw")
    row0: Extent = sext("query row (plus keys before the first query) of the tile's first row")
    col0: Extent = sext("key column of the tile's first column")
    inf: Int = flag("hidden scores become -infinity, which is then no fault", default=0)
    window: Extent = ext("keys that a row sees, its own the last; 0: all before it", default=0)

    @staticmethod
    def execute(s: State, d: int, row0: int, col0: int, inf: int, window: int) -> None:
        if inf:
            s.expect_infinity()
        s.update(d)
        s.k.hide(*s.place(d), row0 - col0 + 1, window, np.float32(-np.inf if inf else MASKED))


class VBlend(Insn, opcode=0x67, engine="vec", mnemonic="v.blend"):
    """Select in place: d[i, j] = b[i, j] where the mask a[i, j] is 0; elsewhere d stays."""

    d: Int = tile("values", access="rw")
    a: Source = tile("mask, broadcast", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        mask, other = s.source(a), s.source(b)
        out = s.update(d)
        np.copyto(out, spread(other, out), where=spread(mask, out) == 0)
