# ruff: noqa: E501  (golden messages and small programs read better on one line)
"""The faults of the strict emulator, each with its exact message, and programs that must pass."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from focusc.isa import DebugEntry, Fault, Insn, IsaError, Program, R
from focusc.isa.emulator import Emulator
from focusc.isa.insns import (
    CfgConvIn,
    CfgConvWin,
    CfgLayout,
    CfgPos,
    CfgSic,
    Endl,
    Fence,
    Fwd,
    Halt,
    LdAct,
    LdConc,
    LdIdx,
    LdPatch,
    LdWgt,
    Li,
    Loop,
    Mma,
    SecFold,
    SecInit,
    SecTopk,
    Sic,
    St,
    StIdx,
    Tile,
    VAdd,
    VExp,
    VFill,
    VLd,
    VMuli,
    VRecip,
    VRot,
    VRsum,
)
from focusc.isa.program import conc_block
from tests.isa.helpers import HARDWARE, Layout

T1 = Tile(1, 0, 4, 8, 8)
X, Y, B, IDS = 0, 64, 128, 1152
"""Addresses: input x f16[4, 8], output y f16[4, 8], a concentrated block for 4 rows, input ids i32[4]."""


def program(text: list[Insn]) -> Program:
    m = Layout()
    assert m.add("x", "input", (4, 8)) == X and m.add("y", "output", (4, 8)) == Y
    assert m.room(1024) == B and m.add("ids", "input", (4,), "i32") == IDS
    built = m.program(text)
    return Program(built.insns, built.const, built.symbols, built.arena_bytes,
                   hardware=built.hardware, debug=[DebugEntry("ir", "/Add", "model.layers.0", "nn.linear")], debug_index=[0] * len(built.insns))


def fault(text: list[Insn], *, strict: bool = True, x: float = 1.0, ids: Any = (0, 1, 2, 3)) -> str:
    with pytest.raises(Fault) as caught:
        Emulator(program(text), strict=strict).run({"x": np.full((4, 8), x, np.float16), "ids": np.array(ids)})
    rendered = caught.value.render()
    return rendered.replace("\n  from: model.layers.0 /Add", "")


LOAD = [T1, LdAct(X, 4, 8, 16), VLd(1)]
STRICT: list[tuple[str, list[Insn], str]] = [
    ("tile_unwritten", [T1, St(1, Y, 16)],
     "pc 1: st t1, [y], stride=16: error[run.unwritten]: element [0, 0] of the source tile is read, but nothing has written it"),
    ("tile_partly_unwritten", [Tile(1, 0, 4, 4, 8), VFill(1, 0.0), T1, VExp(1, 1)],
     "pc 3: v.exp t1, t1: error[run.unwritten]: element [0, 4] of the source tile is read, but nothing has written it"),
    ("accumulate_unwritten", [T1, LdAct(X, 4, 8, 16), LdWgt(X, 8, 8, 8, 0, "i8"), Mma(1, 8, 1)],
     "pc 3: mma t1, k=8, acc: error[run.unwritten]: element [0, 0] of the source tile is read, but nothing has written it"),
    ("dram_unwritten", [LdAct(Y, 4, 8, 16)],
     "pc 0: ld.act [y], rows=4, cols=8, stride=16: error[run.unwritten]: reads DRAM byte 0x40, which nothing has written\n"
     "  hint: it belongs to y"),
    ("weights_unwritten", [LdWgt(Y + 32, 4, 8, 16, 1)],
     "pc 0: ld.wgt [y+0x20], k=4, n=8, stride=16, trans: error[run.unwritten]: reads DRAM byte 0x60, which nothing has "
     "written\n  hint: it belongs to y"),
    ("block_unwritten", [LdConc(B, 4, 1, 4)],
     "pc 0: ld.conc [0x80], rows=4, slots=1, cap=4: error[run.unwritten]: reads DRAM byte 0x80, which nothing has written"),
    ("output_unwritten", [*LOAD, St(1, Y, 16), Tile(1, 0, 1, 1, 1)][:3],
     "error[run.output]: element [0, 0] of output y was never written (64 of 64 bytes)"),
    ("overflow", [*LOAD, VMuli(1, 1, 1e5), St(1, Y, 16)],
     "pc 4: st t1, [y], stride=16: error[run.nonfinite]: the stored block becomes inf at [0, 0], from finite inputs\n"
     "  hint: check the range of the values, or scale before this"),
    ("division_by_zero", [T1, VFill(1, 0.0), VRecip(1, 1)],
     "pc 2: v.recip t1, t1: error[run.nonfinite]: the destination tile becomes inf at [0, 0], from finite inputs\n"
     "  hint: check the range of the values, or scale before this"),
    ("forward_overflow", [T1, VFill(1, 1e6), Fwd(1)],
     "pc 2: fwd t1: error[run.nonfinite]: the stream entry becomes inf at [0, 0], from finite inputs\n"
     "  hint: check the range of the values, or scale before this"),
    ("leftover", [*LOAD, St(1, Y, 16), LdAct(X, 4, 8, 16)],
     "pc 4: ld.act [x], rows=4, cols=8, stride=16: error[run.leftover]: 1 entries are left in the activation stream at halt\n"
     "  hint: every load needs one consumer"),
    ("leftover_weight", [LdWgt(X, 4, 8, 16)],
     "pc 0: ld.wgt [x], k=4, n=8, stride=16: error[run.leftover]: 1 entries are left in the weight stream at halt\n"
     "  hint: every load needs one consumer"),
    ("race_read_after_write", [*LOAD, St(1, Y, 16), LdAct(Y, 4, 8, 16)],
     "pc 4: ld.act [y], rows=4, cols=8, stride=16: error[run.race]: reads DRAM byte 0x40, which pc 3: st t1, [y], stride=16 (st) "
     "may still be writing\n  hint: nothing orders the two: put `fence act` between them"),
    ("race_wrong_fence", [*LOAD, St(1, Y, 16), Fence(act=1, store=1), LdWgt(Y, 4, 8, 16)],
     "pc 5: ld.wgt [y], k=4, n=8, stride=16: error[run.race]: reads DRAM byte 0x40, which pc 3: st t1, [y], stride=16 (st) may "
     "still be writing\n  hint: nothing orders the two: put `fence wgt` between them"),
    ("race_write_after_read", [T1, VFill(1, 1.0), LdAct(X, 4, 8, 16), St(1, X, 16)],
     "pc 3: st t1, [x], stride=16: error[run.race]: writes DRAM byte 0x0, which pc 2: ld.act [x], rows=4, cols=8, stride=16 "
     "(lda) may still be reading\n  hint: nothing orders the two: put `fence store` between them"),
    ("race_block", [CfgLayout(1, 1, 4, 4, 4, 1), CfgSic(1, 1, 2, threshold=0.9), CfgPos(0, 4, 0, 1), *LOAD,
                    Sic(1, B, 4, 0), LdConc(B, 4, 1, 4)],
     "pc 7: ld.conc [0x80], rows=4, slots=1, cap=4: error[run.race]: reads DRAM byte 0x80, which pc 6: sic t1, [0x80], cap=4, "
     "row0=0 (sic) may still be writing\n  hint: nothing orders the two: put `fence act` between them"),
    ("race_positions", [CfgLayout(1, 1, 4, 4, 4, 1), CfgSic(1, 1, 2, threshold=0.9), *LOAD, CfgPos(IDS, 4, 0),
                        SecInit(4), SecFold(1, 0), SecTopk(2, B, B + 512, 4), CfgPos(B + 512, 2, 0),
                        Tile(2, 0, 2, 8, 8), Sic(2, B + 576, 2, 0)],
     "pc 11: sic t2, [0x2c0], cap=2, row0=0: error[run.race]: reads DRAM byte 0x280, which pc 8: sec.topk k=2, [0x80], [0x280], "
     "total=4 (sec) may still be writing\n  hint: nothing orders the two: put `fence store` between them"),
]


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in STRICT], ids=[case[0] for case in STRICT])
def test_strict_faults(text: list[Insn], message: str) -> None:
    assert fault(text) == message
    if text != [LdConc(B, 4, 1, 4)]:
        # Only strict mode minds, except that a block nobody made has a map without vectors.
        Emulator(program(text)).run({"x": np.ones((4, 8), np.float16), "ids": np.arange(4)})


ALWAYS: list[tuple[str, list[Insn], str]] = [
    ("below", [LdAct(-64, 1, 8, 16)],
     "pc 0: ld.act [-0x40], rows=1, cols=8, stride=16: error[run.bounds]: a load from -0x40..-0x30 leaves memory; constants are "
     "0x0..0x0, the arena is 0x0..0x4c0"),
    ("beyond", [LdAct(X, 100, 8, 16)],
     "pc 0: ld.act [x], rows=100, cols=8, stride=16: error[run.bounds]: a load from 0x0..0x640 leaves memory; constants are "
     "0x0..0x0, the arena is 0x0..0x4c0"),
    ("store_beyond", [*LOAD, St(1, 1200, 16)],
     "pc 3: st t1, [0x4b0], stride=16: error[run.bounds]: a store to 0x4b0..0x4f0 touches no memory; the arena is 0x0..0x4c0"),
    ("odd_address", [LdAct(1, 1, 8, 16)],
     "pc 0: ld.act [x+0x1], rows=1, cols=8, stride=16: error[run.align]: address 0x1 with stride 16 is not aligned to elements "
     "of 2 bytes"),
    ("odd_block", [LdConc(32, 4, 1, 4)],
     "pc 0: ld.conc [x+0x20], rows=4, slots=1, cap=4: error[run.align]: block address 0x20 is not a multiple of 64"),
    ("overlapping_rows", [*LOAD, St(1, Y, 8)],
     "pc 3: st t1, [y], stride=8: error[run.overlap]: rows of 16 bytes are stored 8 bytes apart and overlap"),
    ("window_outside", [Tile(1, 393152, 4, 8, 8), VFill(1, 0.0)],
     "pc 1: v.fill t1, 0.0: error[run.window]: tile window of 4 x 8 (pitch 8) at byte 393152 leaves the output buffer of 393216 "
     "bytes"),
    ("underflow", [T1, VLd(1)],
     "pc 1: v.ld t1: error[run.underflow]: the activation stream is empty\n"
     "  hint: every consumer needs its own load or fwd before it in program order"),
    ("underflow_weight", [T1, LdAct(X, 4, 8, 16), Mma(1, 8)],
     "pc 2: mma t1, k=8: error[run.underflow]: the weight stream is empty\n  hint: every mma needs its own ld.wgt before it"),
    ("mma_shape", [T1, LdAct(X, 4, 8, 16), LdWgt(X, 4, 8, 16), Mma(1, 8)],
     "pc 3: mma t1, k=8: error[run.shape]: activations 4x8 @ weights 4x8 with k=8 do not give the tile's 4x8"),
    ("mma_type", [T1, LdAct(X, 4, 4, 16, "f32"), LdWgt(X, 4, 8, 0, 0, "i8"), Mma(1, 4)],
     "pc 3: mma t1, k=4: error[run.type]: the array multiplies f16, bf16 and i8; an operand was loaded as f32"),
    ("source_shape", [*LOAD, Tile(2, 1024, 4, 4, 4), VExp(2, 1)],
     "pc 4: v.exp t2, t1: error[run.shape]: a source of 4x8 for a destination of 4x4"),
    ("broadcast_shape", [*LOAD, Tile(2, 1024, 4, 3, 3), VFill(2, 0.0), VAdd(1, 1, 2)],
     "pc 5: v.add t1, t1, t2: error[run.shape]: a second source of 4x3 does not repeat over 4x8\n"
     "  hint: it needs 1 row or as many, and a number of columns that divides"),
    ("reduction_shape", [*LOAD, VRsum(1, 1)],
     "pc 3: v.rsum t1, t1: error[run.shape]: a row reduction of 4x8 into 4x8, expected 4x1"),
    ("rotation_width", [*LOAD, VRot(1, 1, 3)],
     "pc 3: v.rot t1, t1, width=3: error[run.shape]: groups of 3 columns do not divide 8 columns into pairs"),
    ("empty_load", [LdAct(X, 0, 8, 16)],
     "pc 0: ld.act [x], rows=0, cols=8, stride=16: error[run.extent]: a load of 0 rows x 8 columns; expected 1 to "
     "268,435,456 elements"),
    ("rows_beyond_cap", [LdConc(B, 5, 1, 4)],
     "pc 0: ld.conc [0x80], rows=5, slots=1, cap=4: error[run.extent]: 5 rows x 1 slots do not fit blocks for 4 rows "
     "(at most 65536)"),
    ("no_configuration", [*LOAD, Sic(1, B, 4, 0)],
     "pc 3: sic t1, [0x80], cap=4, row0=0: error[run.config]: cfg.sic has not been executed"),
    ("vector_width", [CfgSic(1, 1, 1, 16, threshold=0.5)],
     "pc 0: cfg.sic bf=1, bh=1, bw=1, vector=16, 0.5: error[run.config]: window 1 x 1 x 1 of vectors of 16: expected at least "
     "1 x 1 x 1, of 32"),
    ("zero_stride", [CfgLayout(1, 1, 1, 1, 0, 1)],
     "pc 0: cfg.layout f=1, h=1, w=1, sf=1, sh=0, sw=1: error[run.config]: the grid and its strides must not be 0"),
    ("no_importance", [*LOAD, SecFold(1, 0)],
     "pc 3: sec.fold t1, col0=0: error[run.config]: sec.init has not been executed"),
    ("keep_too_many", [CfgPos(IDS, 4, 0), SecInit(4), SecTopk(5, B, B + 512, 4)],
     "pc 2: sec.topk k=5, [0x80], [0x280], total=4: error[run.extent]: keep 5 of 4 visual rows that start at row 0 of 4; cfg.pos "
     "says 4 visual rows"),
    ("no_window", [LdPatch(X, 0, 1, 4)],
     "pc 0: ld.patch [x], row0=0, rows=1, k=4: error[run.config]: cfg.conv.in or cfg.conv.win has not been executed"),
    ("window_columns", [CfgConvIn(1, 1, 4, 8), CfgConvWin(1, 2, 2, 1, 1, 1, 0, 0, 0, 1, 3, 7), LdPatch(X, 0, 1, 5)],
     "pc 2: ld.patch [x], row0=0, rows=1, k=5: error[run.extent]: k is 5, but the window has 1 x (1, 2, 2) columns"),
]


@pytest.mark.parametrize(("text", "message"), [case[1:] for case in ALWAYS], ids=[case[0] for case in ALWAYS])
@pytest.mark.parametrize("strict", [False, True])
def test_faults_of_every_mode(text: list[Insn], message: str, strict: bool) -> None:
    assert fault(text, strict=strict) == message


@pytest.mark.parametrize("make", [lambda at: LdIdx(X, at, 4, 8, 16, 4), lambda at: StIdx(1, Y, at, 16, 4)])
@pytest.mark.parametrize("bad", [-1, 4, 1 << 30])
def test_index_outside_the_table(make: Callable[[int], Insn], bad: int) -> None:
    assert f"error[input.value]: input 'ids' is {bad} at [2], expected 0..3" in fault([*LOAD, make(IDS)],
                                                                                     ids=[0, 1, bad, 2])


@pytest.mark.parametrize("text", [[LdIdx(X, X, 4, 8, 16, 4)], [*LOAD, St(1, IDS, 16), LdIdx(X, IDS, 4, 8, 16, 4)]])
def test_index_that_no_input_gave(text: list[Insn]) -> None:
    """Two float16 ones read as one integer; the second program stores them where an input was."""
    ones = 0x3C003C00
    assert f"error[run.index]: entry 0 of the index list is {ones}, expected 0..3" in fault(text, strict=False)


BIG = 1 << 40
CONV = [CfgConvIn(1, 1, 4, 8), CfgConvWin(1, 2, 2, 1, 1, 1, 0, 0, 0, 1, 3, 7)]
HOSTILE: dict[str, list[Insn]] = {
    "ld.act f16": [LdAct(X, R(1), R(1), 0)],
    "ld.act bf16": [LdAct(X, R(1), 8, 0, "bf16")],
    "ld.act i8": [LdAct(X, R(1), 1, 0, "i8")],
    "ld.act stride": [LdAct(X, 1, 8, R(2)), VLd(1)],
    "ld.idx": [LdIdx(X, IDS, 4, R(1), 0, 4)],
    "ld.idx rows": [LdIdx(X, IDS, R(1), 8, 0, 4)],
    "ld.idx bf16": [LdIdx(X, IDS, 4, R(1), 0, 4, "bf16")],
    "ld.patch rows": [*CONV, LdPatch(X, 0, R(1), 4)],
    "ld.patch row0": [*CONV, LdPatch(X, R(2), 1, 4)],
    "ld.wgt": [LdWgt(X, R(1), R(1), 0, 1, "bf16")],
    "a stream that is never read": [Loop(1 << 22), LdAct(X, 1 << 14, 1 << 13, 0), Endl()],
}


@pytest.mark.parametrize("text", HOSTILE.values(), ids=list(HOSTILE))
def test_impossible_extents_are_faults(text: list[Insn]) -> None:
    found = fault([T1, Li(1, BIG), Li(2, 1 << 62), *text], strict=False)
    assert re.search(r"error\[run\.(extent|bounds|shape)\]", found), found


def test_many_small_entries_fill_a_stream_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focusc.isa.emulator.state.MAX_ITEM", 65 * 100)
    assert "the weight stream holds 100 entries" in fault([Loop(200), LdWgt(X, 1, 1, 0), Endl()], strict=False)


def test_rows_of_a_table_of_every_type() -> None:
    values = np.arange(32, dtype=np.float32).reshape(4, 8) - 16
    for dtype, stored in (("bf16", (values.view(np.uint32) >> 16).astype(np.uint16)), ("i8", values.astype(np.int8)),
                          ("f32", values), ("f16", values.astype(np.float16))):
        m = Layout(table=stored, ids=np.array([3, 1, 1, 2], np.int32))
        m.add("y", "output", (4, 8))
        text = [T1, LdIdx(m["table"], m["ids"], 4, 8, 8 * stored.itemsize, 4, dtype), VLd(1), St(1, m["y"], 16)]
        assert (Emulator(m.program(text)).run().outputs["y"] == values[[3, 1, 1, 2]]).all()


def test_a_map_that_was_never_made_is_refused() -> None:
    text = fault([T1, VFill(1, 7.0), St(1, B + 64, 16), Fence(act=1), LdConc(B, 4, 1, 4)], strict=False)
    assert "error[run.map]: slot 0: the map names a unique vector beyond the block's count 0" in text


def test_the_output_buffer_is_that_of_the_description() -> None:
    small = {**HARDWARE, "buffers": {**HARDWARE["buffers"], "output": {"bytes": 64}}}
    with pytest.raises(Fault, match="leaves the output buffer of 64 bytes"):
        Emulator(Layout().program([T1, VFill(1, 0.0)], hardware=small)).run()
    with pytest.raises(IsaError) as caught:
        Emulator(Layout().program([T1], hardware={})).run()
    assert caught.value.code == "program.hardware" and "buffers.output.bytes" in caught.value.message


def test_constants_are_read_only() -> None:
    m = Layout(w=np.ones(32, np.float16))
    text = [T1, VFill(1, 1.0), St(1, m["w"], 16)]
    with pytest.raises(Fault) as caught:
        Emulator(m.program(text)).run()
    assert caught.value.message == ("a store to 0x0..0x40 touches the read-only constants; the arena is 0x40..0x40")


def test_a_fault_names_the_source_node() -> None:
    with pytest.raises(Fault) as caught:
        Emulator(program([T1, VLd(1)])).run({"x": np.ones((4, 8), np.float16), "ids": np.arange(4)})
    assert caught.value.pc == 1 and caught.value.node == "model.layers.0 /Add"
    assert "\n  from: model.layers.0 /Add\n" in caught.value.render()


ORDERED: dict[str, list[Insn]] = {
    "fence": [*LOAD, St(1, Y, 16), Fence(act=1), LdAct(Y, 4, 8, 16), VLd(1)],
    "fence_store": [*LOAD, LdAct(X, 4, 8, 16), Fence(store=1), St(1, X, 16), VLd(1), St(1, Y, 16)],
    "stream_and_tile": [*LOAD, St(1, X, 16), St(1, Y, 16)],  # the store depends on the load through the tile
    "same_engine": [*LOAD, St(1, Y, 16), St(1, Y, 16)],
    "infinite_on_purpose": [Tile(2, 1024, 4, 8, 8), VFill(2, float("-inf")), VExp(2, 2), *LOAD, St(2, Y, 16)],
}


@pytest.mark.parametrize("text", ORDERED.values(), ids=ORDERED)
def test_ordered_programs_pass(text: list[Insn]) -> None:
    Emulator(program(text), strict=True).run({"x": np.ones((4, 8), np.float16), "ids": np.arange(4)})


def test_stepping_equals_running() -> None:
    built = program([*LOAD, VMuli(1, 1, 2.0), St(1, Y, 16)])
    inputs = {"x": np.ones((4, 8), np.float16), "ids": np.arange(4)}
    session = Emulator(built, strict=True).session(inputs)
    seen = [pc for pc, _, _ in session.commands()]
    assert seen == [1, 2, 3, 4] and session.executed == 4 and not session.step()
    assert (session.outputs()["y"] == Emulator(built).run(inputs).outputs["y"]).all()


GOOD = {"x": np.ones((4, 8), np.float32), "ids": np.arange(4)}
INPUTS: list[tuple[dict[str, Any], str]] = [
    ({"x": GOOD["x"]}, "error[input.missing]: input 'ids' (i32[4]) is missing\n  hint: inputs: x: f16[4, 8], ids: i32[4]"),
    ({**GOOD, "idz": 1}, "error[input.unknown]: the program has no input 'idz'\n"
                         "  hint: did you mean 'ids'? inputs: x: f16[4, 8], ids: i32[4]"),
    ({**GOOD, "x": np.ones((8, 4), np.float32)}, "error[input.shape]: input 'x' has shape [8, 4], expected [4, 8]"),
    ({**GOOD, "x": np.ones((4, 8))}, "error[input.type]: input 'x' is float64, expected float32 or float16\n"
                                     "  hint: pass x.astype(np.float32)"),
    ({**GOOD, "ids": np.ones(4, np.float32)}, "error[input.type]: input 'ids' is float32, expected integers (i32)"),
    ({**GOOD, "x": np.full((4, 8), np.nan, np.float32)},
     "error[input.value]: input 'x' is nan at [0, 0]; NaN and infinity are not allowed"),
    ({**GOOD, "x": np.full((4, 8), 7e4, np.float32)},
     "error[input.value]: input 'x' reaches 70000, which f16 cannot hold\n  hint: scale the input"),
    ({**GOOD, "ids": np.array([0, 1, 2, 1 << 40])},
     "error[input.value]: input 'ids' has values 0..1099511627776, expected -2147483648..2147483647 (i32)"),
]


@pytest.mark.parametrize(("inputs", "message"), INPUTS)
def test_wrong_inputs(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(IsaError) as caught:
        Emulator(program([])).run(inputs)
    assert caught.value.render() == message


def test_conc_block_is_the_documented_size() -> None:
    assert conc_block(4) == 64 + 64 + 256 and conc_block(33) == 64 + 128 + 33 * 64


def test_an_arena_that_does_not_fit_is_said() -> None:
    with pytest.raises(IsaError) as caught:
        Emulator(Program([T1, Halt()], arena_bytes=1 << 47, hardware=HARDWARE)).run()
    assert caught.value.code == "run.memory" and "140,737,488,355,328 bytes" in caught.value.message
