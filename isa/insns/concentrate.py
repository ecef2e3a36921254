"""The concentrators: SIC merges similar sub-vectors of a tile, SEC keeps the tokens that the prompt attends to.

Source of the algorithm: "Focus: A Streaming Concentration Architecture for Efficient Vision-Language Models",
arXiv 2512.14661.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import Fault
from focusc.isa.fields import Address, Extent, Int, ext, sext, tile, uimm
from focusc.isa.fields import addr as dram
from focusc.isa.insns.base import Insn

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

__all__ = ["SecFold", "SecInit", "SecTopk", "Sic"]


class Sic(Insn, opcode=0x70, engine="sic", mnemonic="sic"):
    """Concentrate tile a: per slot of 32 columns (the last zero-padded) write count, map and unique vectors to DRAM.

    Rows row0 .. of the current sequence; those in [visual_start, visual_start + count) of `cfg.pos` take part, others
    are unique. A row links to the earlier neighbour (window of `cfg.sic` on the grid of `cfg.layout`, inside this tile)
    of greatest cosine, ties to the first in (df, dh, dw) order, if that is strictly above the threshold; groups are
    numbered in order of their root rows and hold the mean (float32 sum in order of rows, rounded to f16). Block format:
    see `ld.conc`; what a block holds beyond the count, `rows` map entries and U vectors is undefined.
    """

    a: Int = tile("source", access="r")
    addr: Address = dram("first slot's block, 64-byte aligned")
    cap: Extent = ext("rows that a block has room for")
    row0: Extent = ext("sequence row of the tile's first row")
    site: Int = uimm(24, "index in the metadata's site table", default=0)

    @staticmethod
    def execute(s: State, a: int, addr: int, cap: int, row0: int, site: int) -> None:
        s.merge(a, addr, cap, row0, site)


def _tf32(x: NDArray[np.float32]) -> NDArray[np.float32]:
    """`x` rounded to 11 significant bits, ties to even."""
    bits = x.view(np.uint32)
    odd = (bits >> np.uint32(13)) & np.uint32(1)
    return ((bits + np.uint32(0xFFF) + odd) & np.uint32(0xFFFFE000)).view(np.float32)


class SecInit(Insn, opcode=0x78, engine="sec", mnemonic="sec.init"):
    """Start an importance vector of n zeros."""

    n: Extent = ext("visual rows present")

    @staticmethod
    def execute(s: State, n: int) -> None:
        if not 0 < n <= 1 << 24:
            raise Fault("run.extent", f"an importance vector of {n} rows")
        s.importance = np.zeros(n, np.float32)


class SecFold(Insn, opcode=0x79, engine="sec", mnemonic="sec.fold"):
    """importance[col0 + j] = max(importance[col0 + j], max over i of a[i, j]); columns outside [0, n) are ignored.

    Entries are TF32 numbers: 11 significant bits (ties to even), the range of f32. Weights that differ by less than
    f16 operands resolve are ties, which `sec.topk` gives to the lower index, however a row's products were summed.
    """

    a: Int = tile("softmaxed attention weights of query rows", access="r")
    col0: Extent = sext("visual column of the tile's first column; may be negative")

    @staticmethod
    def execute(s: State, a: int, col0: int) -> None:
        x = s.source(a)
        if s.importance is None:
            raise Fault("run.config", "sec.init has not been executed")
        low, high = max(col0, 0), min(col0 + x.shape[1], len(s.importance))
        if low < high:
            part = s.importance[low:high]
            np.maximum(part, _tf32(x[:, low - col0:high - col0].max(axis=0)), out=part)


class SecTopk(Insn, opcode=0x7A, engine="sec", mnemonic="sec.topk"):
    """Keep the k most important visual rows, ties to the lower index, in their order.

    Writes i32 lists: `rows`, the kept row numbers of the current sequence (visual_start text rows, k, the rows after
    the visual ones), and `pos`, the k kept original positions, read through `cfg.pos`.
    """

    k: Extent = ext("how many")
    rows: Address = dram("row list, visual_start + k + (total - visual_start - n) entries")
    pos: Address = dram("position list, k entries")
    total: Extent = ext("rows of the current sequence")

    @staticmethod
    def execute(s: State, k: int, rows: int, pos: int, total: int) -> None:
        if s.importance is None or s.pos is None:
            raise Fault("run.config", "sec.init or cfg.pos has not been executed")
        n, start = len(s.importance), s.pos[2]
        if n != s.pos[1] or not 0 < k <= n or start + n > total:
            raise Fault("run.extent", f"keep {k} of {n} visual rows that start at row {start} of {total}; cfg.pos says "
                        f"{s.pos[1]} visual rows")
        # A stable sort of the negated values puts ties in order of their index.
        kept = np.sort(np.argsort(-s.importance, kind="stable")[:k]).astype(np.int32)
        positions = s.positions_of(start, n)[0][kept]
        head, tail = np.arange(start, dtype=np.int32), np.arange(start + n, total, dtype=np.int32)
        s.store_i32(rows, np.concatenate([head, start + kept, tail]))
        s.store_i32(pos, positions)
        s.selected(kept, positions)
