"""The concentrators: SIC merges similar sub-vectors of a tile, SEC keeps the tokens that the prompt attends to.

Source of the algorithm: "Focus: A Streaming Concentration Architecture for Efficient Vision-Language Models",
arXiv 2512.14661.
"""

from __future__ import annotations

from focusc.isa.fields import Addr, R, addr as dram, ext, sext, tile, uimm
from focusc.isa.insns.base import Insn

__all__ = ["SecFold", "SecInit", "SecTopk", "Sic"]


class Sic(Insn, opcode=0x70, engine="sic", mnemonic="sic"):
    """Concentrate tile a: per slot of 32 columns (the last zero-padded) write count, map and unique vectors to DRAM.

    Rows row0 .. of the current sequence; those in [visual_start, visual_start + count) of `cfg.pos` take part, others
    are unique. A row links to the earlier neighbour (window of `cfg.sic` on the grid of `cfg.layout`, inside this tile)
    of greatest cosine, ties to the first in (df, dh, dw) order, if that is strictly above the threshold; groups are
    numbered in order of their root rows and hold the mean (float32 sum, rounded to f16). Block format: see `ld.conc`.
    """

    a: int = tile("source", access="r")
    addr: Addr = dram("first slot's block, 64-byte aligned")
    cap: int | R = ext("rows that a block has room for")
    row0: int | R = ext("sequence row of the tile's first row")
    site: int = uimm(24, "index in the metadata's site table", default=0)


class SecInit(Insn, opcode=0x78, engine="sec", mnemonic="sec.init"):
    """Start an importance vector of n zeros."""

    n: int | R = ext("visual rows present")


class SecFold(Insn, opcode=0x79, engine="sec", mnemonic="sec.fold"):
    """importance[col0 + j] = max(importance[col0 + j], max over i of a[i, j]); columns outside [0, n) are ignored."""

    a: int = tile("softmaxed attention weights of query rows", access="r")
    col0: int | R = sext("visual column of the tile's first column; may be negative")


class SecTopk(Insn, opcode=0x7A, engine="sec", mnemonic="sec.topk"):
    """Keep the k most important visual rows, ties to the lower index, in their order.

    Writes i32 lists: `rows`, the kept row numbers of the current sequence (visual_start text rows, k, the rows after the
    visual ones), and `pos`, the k kept original positions, read through `cfg.pos`.
    """

    k: int | R = ext("how many")
    rows: Addr = dram("row list, visual_start + k + (total - visual_start - n) entries")
    pos: Addr = dram("position list, k entries")
    total: int | R = ext("rows of the current sequence")
