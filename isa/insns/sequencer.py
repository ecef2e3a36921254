"""Sequencer instructions: scalar registers, hardware loops, ordering, tile windows and configuration descriptors.

None of them touches data. The sequencer executes them at once and in order; commands capture what they need (addresses,
counts, tile windows) when they are issued. `cfg.*` and `fence` stay visible in the command trace.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from focusc.isa.errors import Fault
from focusc.isa.fields import (
    Address,
    Choice,
    Extent,
    Float,
    Int,
    Register,
    enum,
    ext,
    f32,
    f32_value,
    flag,
    reg,
    simm,
    tile,
    uimm,
)
from focusc.isa.fields import addr as dram
from focusc.isa.insns.base import Insn

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

__all__ = ["Add", "Addi", "CfgConvIn", "CfgConvWin", "CfgLayout", "CfgPos", "CfgSic", "DTYPES", "Divi", "Endl", "Fence",
           "Halt", "Host", "Li", "Loop", "Max", "Min", "Mov", "Mul", "Muli", "Nop", "Sub", "Tile", "Trap"]

DTYPES = ("f16", "bf16", "i8", "f32")
"""Element types of streams and stores, in encoding order."""


class Nop(Insn, opcode=0x01, engine="seq", mnemonic="nop"):
    """Nothing."""


class Li(Insn, opcode=0x02, engine="seq", mnemonic="li"):
    """rd = imm."""

    rd: Register = reg("destination; writes to r0 are lost")
    imm: Int = simm(64, "the value")


class Mov(Insn, opcode=0x03, engine="seq", mnemonic="mov"):
    """rd = rs."""

    rd: Register = reg("destination")
    rs: Register = reg("source")


class Add(Insn, opcode=0x04, engine="seq", mnemonic="add"):
    """rd = rs + rt, modulo 2^64 as all scalar arithmetic."""

    rd: Register = reg("destination")
    rs: Register = reg("source")
    rt: Register = reg("source")


class Addi(Insn, opcode=0x05, engine="seq", mnemonic="addi"):
    """rd = rs + imm."""

    rd: Register = reg("destination")
    rs: Register = reg("source")
    imm: Int = simm(48, "added")


class Sub(Insn, opcode=0x06, engine="seq", mnemonic="sub"):
    """rd = rs - rt."""

    rd: Register = reg("destination")
    rs: Register = reg("source")
    rt: Register = reg("source")


class Mul(Insn, opcode=0x07, engine="seq", mnemonic="mul"):
    """rd = rs * rt."""

    rd: Register = reg("destination")
    rs: Register = reg("source")
    rt: Register = reg("source")


class Muli(Insn, opcode=0x08, engine="seq", mnemonic="muli"):
    """rd = rs * imm."""

    rd: Register = reg("destination")
    rs: Register = reg("source")
    imm: Int = simm(48, "factor")


class Divi(Insn, opcode=0x16, engine="seq", mnemonic="divi"):
    """rd = floor(rs / imm): trip counts of loops whose extent is a register."""

    rd: Register = reg("destination")
    rs: Register = reg("source")
    imm: Int = uimm(24, "divisor; 0 gives 0")


class Min(Insn, opcode=0x09, engine="seq", mnemonic="min"):
    """rd = min(rs, rt), signed."""

    rd: Register = reg("destination")
    rs: Register = reg("source")
    rt: Register = reg("source")


class Max(Insn, opcode=0x0A, engine="seq", mnemonic="max"):
    """rd = max(rs, rt), signed."""

    rd: Register = reg("destination")
    rs: Register = reg("source")
    rt: Register = reg("source")


class Loop(Insn, opcode=0x0B, engine="seq", mnemonic="loop"):
    """Repeat up to the matching `endl` `count` times; 0 skips the body. Loops nest at least 8 and at most 16 deep."""

    count: Extent = ext("trip count, read once on entry")


class Endl(Insn, opcode=0x0C, engine="seq", mnemonic="endl"):
    """End of the innermost loop's body."""


class Fence(Insn, opcode=0x0D, engine="seq", mnemonic="fence"):
    """Order DRAM accesses. Commands of the named channels issued later wait for earlier accesses to complete.

    act, wgt: later activation (lda) / weight (ldw) loads wait for all earlier writes to DRAM (st, sic, sec). store:
    later commands that write DRAM (st, sic, sec) wait for all earlier reads and writes.
    """

    act: Int = flag("later activation loads wait", default=0)
    wgt: Int = flag("later weight loads wait", default=0)
    store: Int = flag("later writers wait", default=0)

    @staticmethod
    def execute(s: State, act: int, wgt: int, store: int) -> None:
        s.fence(act, wgt, store)


class Host(Insn, opcode=0x17, engine="seq", mnemonic="host"):
    """Let the host run a segment of the program: it reads the segment's inputs in DRAM and writes its outputs there.

    It is a fence for everything: it waits until all commands before it are complete, and later ones wait for it. The
    segments (tensors, source nodes, ONNX model) are data of the program.
    """

    segment: Int = uimm(16, "number of the segment")

    @staticmethod
    def execute(s: State, segment: int) -> None:
        s.host(segment)


class Halt(Insn, opcode=0x0E, engine="seq", mnemonic="halt"):
    """End of the program; stands exactly once, as the last instruction."""


class Trap(Insn, opcode=0x0F, engine="seq", mnemonic="trap"):
    """Stop with a fault that carries `code`: a place that a correct program does not reach."""

    code: Int = uimm(16, "number shown to the user")


class Tile(Insn, opcode=0x10, engine="seq", mnemonic="tile"):
    """Define descriptor t as a window of the output buffer: rows x cols float32 elements, `pitch` elements to a row."""

    t: Int = tile("descriptor", access="w")
    off: Extent = ext("byte offset in the output buffer, a multiple of 64")
    rows: Extent = ext("rows")
    cols: Extent = ext("columns")
    pitch: Extent = ext("elements from one row to the next, >= cols")


class CfgLayout(Insn, opcode=0x11, engine="seq", mnemonic="cfg.layout"):
    """The token grid: F x H x W visual tokens; the linear index of (f,h,w) is f*sf + h*sh + w*sw."""

    f: Int = uimm(24, "frames")
    h: Int = uimm(24, "rows")
    w: Int = uimm(24, "columns")
    sf: Int = uimm(32, "frame stride")
    sh: Int = uimm(32, "row stride")
    sw: Int = uimm(32, "column stride")

    @staticmethod
    def execute(s: State, f: int, h: int, w: int, sf: int, sh: int, sw: int) -> None:
        if 0 in (f, h, w, sf, sh, sw):
            raise Fault("run.config", "the grid and its strides must not be 0")
        s.layout = (f, h, w, sf, sh, sw)


class CfgSic(Insn, opcode=0x12, engine="seq", mnemonic="cfg.sic"):
    """Parameters of the similarity concentrator."""

    bf: Int = uimm(4, "window in frames")
    bh: Int = uimm(4, "window in rows")
    bw: Int = uimm(4, "window in columns")
    vector: Int = uimm(16, "width of a sub-vector; the concentrated format holds 32", default=32)
    threshold: Float = f32("link when the cosine is strictly greater", kw_only=True)
    boundary: Choice = enum("linear", "grid", default="linear", kw_only=True,
                            doc="index arithmetic at the edges of the grid")
    chase: Choice = enum("root", "published", default="root", kw_only=True,
                         doc="to the root, or at most F rounds of pointer doubling")

    @staticmethod
    def execute(s: State, bf: int, bh: int, bw: int, vector: int, threshold: int, boundary: int, chase: int) -> None:
        if 0 in (bf, bh, bw) or vector != 32:
            raise Fault("run.config", f"window {bf} x {bh} x {bw} of vectors of {vector}: expected at least "
                        "1 x 1 x 1, of 32")
        s.sic = (bf, bh, bw, f32_value(threshold), boundary, chase)


class CfgPos(Insn, opcode=0x13, engine="seq", mnemonic="cfg.pos"):
    """The visual rows of the current sequence: rows visual_start .. visual_start+count, and their positions.

    The list holds one i32 per visual row: its raster index before any pruning, ascending. With `identity` nothing has
    been pruned and the list is not read. SIC and SEC read the list when they execute.
    """

    addr: Address = dram("i32 list, 4-byte aligned")
    count: Extent = ext("visual rows present")
    visual_start: Extent = ext("first visual row")
    identity: Int = flag("position = row - visual_start", default=0)

    @staticmethod
    def execute(s: State, addr: int, count: int, visual_start: int, identity: int) -> None:
        s.pos = (addr, count, visual_start, identity)


class CfgConvIn(Insn, opcode=0x14, engine="seq", mnemonic="cfg.conv.in"):
    """The input of `ld.patch`: contiguous [N, C, D, H, W]; a two-dimensional input has D = 1."""

    c: Int = uimm(24, "channels")
    d: Int = uimm(24, "depth (frames)")
    h: Int = uimm(24, "height")
    w: Int = uimm(24, "width")
    dtype: Choice = enum(*DTYPES, default="f16", doc="element type")

    @staticmethod
    def execute(s: State, c: int, d: int, h: int, w: int, dtype: int) -> None:
        s.conv_in = (c, d, h, w, dtype)


class CfgConvWin(Insn, opcode=0x15, engine="seq", mnemonic="cfg.conv.win"):
    """The window of `ld.patch`: kernel, strides, leading pads (zeros) and the output extent in d, h, w."""

    kd: Int = uimm(8, "kernel depth")
    kh: Int = uimm(8, "kernel height")
    kw: Int = uimm(8, "kernel width")
    sd: Int = uimm(8, "stride in depth")
    sh: Int = uimm(8, "stride in height")
    sw: Int = uimm(8, "stride in width")
    pd: Int = uimm(8, "zeros before the first frame")
    ph: Int = uimm(8, "zeros before the first row")
    pw: Int = uimm(8, "zeros before the first column")
    od: Int = uimm(24, "output depth")
    oh: Int = uimm(24, "output height")
    ow: Int = uimm(24, "output width")

    @staticmethod
    def execute(s: State, kd: int, kh: int, kw: int, sd: int, sh: int, sw: int, pd: int, ph: int, pw: int, od: int,
                oh: int, ow: int) -> None:
        s.conv_win = (kd, kh, kw, sd, sh, sw, pd, ph, pw, od, oh, ow)
