"""Stream commands: loads that push onto the activation and the weight stream, and stores.

Each stream is a queue: the i-th consumer takes the i-th load. Loads take their data when they execute in program order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from focusc.isa.errors import Fault
from focusc.isa.fields import Address, Choice, Extent, Int, Source, enum, ext, flag, tile
from focusc.isa.fields import addr as dram
from focusc.isa.insns.base import Insn
from focusc.isa.insns.sequencer import DTYPES

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

__all__ = ["LdAct", "LdConc", "LdIdx", "LdPatch", "LdWgt", "St", "StIdx"]


class LdAct(Insn, opcode=0x20, engine="lda", mnemonic="ld.act"):
    """Push a dense block of rows onto the activation stream."""

    addr: Address = dram("first element")
    rows: Extent = ext("rows")
    cols: Extent = ext("elements to a row")
    stride: Extent = ext("bytes from one row to the next")
    dtype: Choice = enum(*DTYPES, default="f16", doc="element type in DRAM")

    @staticmethod
    def execute(s: State, addr: int, rows: int, cols: int, stride: int, dtype: int) -> None:
        s.push_act(s.load(addr, rows, cols, stride, DTYPES[dtype]))


class LdConc(Insn, opcode=0x21, engine="lda", mnemonic="ld.conc"):
    """Push a concentrated tile of `slots` * 32 columns onto the activation stream.

    Slot j is the block at addr + j * (64 + ceil64(2*cap) + 64*cap): u32 count U of unique vectors, padded to 64 bytes;
    u16 number of the unique vector of each row (cap entries), padded to 64; f16 unique vectors of 32 (cap entries).
    The rows are row0 .. row0+rows of the tile; a part of a tile streams the vectors that its rows refer to, and U
    counts those. Moves 4 + 2*rows + 64*U bytes per slot.
    """

    addr: Address = dram("first slot's block, 64-byte aligned")
    rows: Extent = ext("rows")
    slots: Extent = ext("slots of 32 columns")
    cap: Extent = ext("rows that a block has room for")
    row0: Extent = ext("first row within the tile", default=0)

    @staticmethod
    def execute(s: State, addr: int, rows: int, slots: int, cap: int, row0: int) -> None:
        s.push_act(s.load_conc(addr, rows, slots, cap, row0))


class LdIdx(Insn, opcode=0x22, engine="lda", mnemonic="ld.idx"):
    """Push rows chosen by an i32 list onto the activation stream: row i is row list[i] of the table."""

    addr: Address = dram("table's row 0")
    list: Address = dram("i32 list, 4-byte aligned")
    rows: Extent = ext("rows to load, entries to read from the list")
    cols: Extent = ext("elements to a row")
    stride: Extent = ext("bytes from one row of the table to the next")
    limit: Extent = ext("rows of the table; an index outside 0..limit-1 is a fault")
    dtype: Choice = enum(*DTYPES, default="f16", doc="element type in DRAM")

    @staticmethod
    def execute(s: State, addr: int, list: int, rows: int, cols: int, stride: int, limit: int, dtype: int) -> None:
        s.push_act(s.load_rows(addr, s.index(list, rows, limit), cols, stride, DTYPES[dtype]))


class LdPatch(Insn, opcode=0x23, engine="lda", mnemonic="ld.patch"):
    """Push convolution patches (im2col rows) onto the activation stream, by address generation.

    Row r is output position row0 + r = ((n*OD + od)*OH + oh)*OW + ow; its columns run over (c, kd, kh, kw), the input
    element at (od*SD - PD + kd, ...), zero outside the input.
    """

    addr: Address = dram("input element 0")
    row0: Extent = ext("first output position")
    rows: Extent = ext("output positions")
    k: Extent = ext("columns, C*KD*KH*KW")

    @staticmethod
    def execute(s: State, addr: int, row0: int, rows: int, k: int) -> None:
        if s.conv_in is None or s.conv_win is None:
            raise Fault("run.config", "cfg.conv.in or cfg.conv.win has not been executed")
        *size, dtype = s.conv_in
        kernel, stride, pad, extent = (s.conv_win[i:i + 3] for i in range(0, 12, 3))
        if k != size[0] * kernel[0] * kernel[1] * kernel[2]:
            raise Fault("run.extent", f"k is {k}, but the window has {size[0]} x {kernel} columns")
        if not rows * k * extent[0] * extent[1] * extent[2]:
            raise Fault("run.extent", f"patches of {rows} rows x {k} columns over {extent} output positions")
        s.extent(rows, k)
        image = size[0] * size[1] * size[2] * size[3]
        images = (row0 + rows - 1) // (extent[0] * extent[1] * extent[2]) + 1
        item = s.load(addr, 1, images * image, 0, DTYPES[dtype])
        out = np.empty((rows, k), np.float32)
        s.k.patches(np.ascontiguousarray(item.data).reshape(-1), 0, row0, rows, tuple(size), kernel, stride, pad,
                    extent, out)
        item.data, item.low, item.high = out, 0, 0
        s.push_act(item)


class LdWgt(Insn, opcode=0x28, engine="ldw", mnemonic="ld.wgt"):
    """Push a panel [k x n] onto the weight stream; with `trans` it is stored as [n x k] (K of Q @ K^T)."""

    addr: Address = dram("first element")
    k: Extent = ext("rows of the panel (reduction)")
    n: Extent = ext("columns of the panel")
    stride: Extent = ext("bytes from one stored row to the next")
    trans: Int = flag("stored transposed", default=0)
    dtype: Choice = enum(*DTYPES, default="f16", doc="element type in DRAM")

    @staticmethod
    def execute(s: State, addr: int, k: int, n: int, stride: int, trans: int, dtype: int) -> None:
        if trans:
            item = s.load(addr, n, k, stride, DTYPES[dtype])
            item.data = item.data.T
        else:
            item = s.load(addr, k, n, stride, DTYPES[dtype])
        s.push_wgt(item)


class St(Insn, opcode=0x80, engine="st", mnemonic="st"):
    """Store a tile (or the stream head) to DRAM, rounded to the element type (nearest even; i8 saturates)."""

    a: Source = tile("source", access="rs")
    addr: Address = dram("first element")
    stride: Extent = ext("bytes from one row to the next")
    dtype: Choice = enum(*DTYPES, default="f16", doc="element type in DRAM")

    @staticmethod
    def execute(s: State, a: int, addr: int, stride: int, dtype: int) -> None:
        s.store(a, addr, stride, DTYPES[dtype])


class StIdx(Insn, opcode=0x81, engine="st", mnemonic="st.idx"):
    """Store rows of a tile (or the stream head) to rows chosen by an i32 list: row i goes to row list[i]."""

    a: Source = tile("source", access="rs")
    addr: Address = dram("destination's row 0")
    list: Address = dram("i32 list, 4-byte aligned")
    stride: Extent = ext("bytes from one row of the destination to the next")
    limit: Extent = ext("rows of the destination; an index outside 0..limit-1 is a fault")
    dtype: Choice = enum(*DTYPES, default="f16", doc="element type in DRAM")

    @staticmethod
    def execute(s: State, a: int, addr: int, list: int, stride: int, limit: int, dtype: int) -> None:
        flat, offset, pitch, rows, cols = s.flat(a)
        for i, row in enumerate(s.index(list, rows, limit).tolist()):
            s.store_row(flat, offset + i * pitch, addr + row * stride, cols, DTYPES[dtype])
