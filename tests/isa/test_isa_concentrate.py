# ruff: noqa: E501  (golden messages and small programs read better on one line)
"""SIC and SEC of the emulator against the slow transcription of the algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.isa import Fault, Insn, Program
from focusc.isa.emulator import Emulator, SicEvent, TopkEvent
from focusc.isa.insns import (
    CfgLayout,
    CfgPos,
    CfgSic,
    Fence,
    LdAct,
    LdConc,
    SecFold,
    SecInit,
    SecTopk,
    Sic,
    St,
    Tile,
    VLd,
)
from focusc.isa.program import conc_block
from tests import reference_concentration as reference
from tests.isa.helpers import Layout, run
from tests.isa.strategies import Draw


def sic_program(rows: int, cols: int, positions: list[int] | None, w: reference.Window, visual_start: int = 0,
                count: int | None = None, part: tuple[int, int] | None = None) -> Program:
    """x -> sic -> ld.conc -> y (and, with `part`, those rows -> z)."""
    m = Layout()
    slots, cap = -(-cols // 32), rows + 3
    x, y = m.add("x", "input", (rows, cols)), m.add("y", "output", (rows, slots * 32))
    pos = m.add("pos", "input", (len(positions),), "i32") if positions is not None else 0
    block = m.room(slots * conc_block(cap))
    n = count if count is not None else len(positions) if positions is not None else rows
    text: list[Insn] = [
        CfgLayout(*w.grid, *w.strides),
        CfgSic(*w.block, threshold=w.threshold, boundary=w.boundary, chase=w.chase),
        CfgPos(pos, n, visual_start, int(positions is None)),
        Tile(1, 0, rows, cols, cols), LdAct(x, rows, cols, 2 * cols), VLd(1), Sic(1, block, cap, 0, 5), Fence(act=1),
        LdConc(block, rows, slots, cap), St("s", y, 64 * slots)]
    if part is not None:
        z = m.add("z", "output", (part[1], slots * 32))
        text += [LdConc(block, part[1], slots, cap, part[0]), St("s", z, 64 * slots)]
    return m.program(text)


def vectors(draw: Draw, rows: int, cols: int) -> np.ndarray:
    """Rows of small integers built from a few prototypes, so that sums are exact and links, ties and zeros are common."""
    rng = np.random.default_rng(draw(st.integers(0, 2 ** 32 - 1)))
    kinds = rng.integers(-2, 3, (draw(st.integers(1, 4)), cols))
    x = kinds[rng.integers(0, len(kinds), rows)]
    noise = rng.integers(-1, 2, (rows, cols)) * (rng.random((rows, 1)) < 0.3)
    return (x + noise).astype(np.float16)


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[int], reference.Window]:
    f, h, wide = draw(st.integers(1, 4)), draw(st.integers(1, 4)), draw(st.integers(1, 4))
    newline = draw(st.integers(0, 1))
    strides = (h * (wide + newline), wide + newline, 1)
    span = f * strides[0]
    positions = sorted(draw(st.sets(st.integers(0, span - 1), min_size=1, max_size=span)))
    block = (draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    # Thresholds that cosines of small integers hit exactly, or do not come near.
    w = reference.Window((f, h, wide), strides, block, 32, draw(st.sampled_from([0.5, 0.75, 0.9, 0.0])),
                         draw(st.sampled_from(["linear", "grid"])), draw(st.sampled_from(["root", "published"])), 1 << 20)
    return vectors(draw, len(positions), draw(st.sampled_from([8, 32, 40, 64]))), positions, w


@settings(max_examples=60, deadline=None)
@given(cases())
def test_sic_is_the_transcription(case: tuple[np.ndarray, list[int], reference.Window]) -> None:
    x, positions, w = case
    expected = reference.sic(x.astype(np.float32), positions, w, np.float16)
    seen: list[Any] = []
    rows, cols = x.shape
    result = run(sic_program(rows, cols, positions, w), {"x": x, "pos": np.array(positions)}, seen.append)
    event = seen[0]
    assert isinstance(event, SicEvent) and event.site == 5
    assert event.links.tolist() == expected.links
    assert result.counts.unique[0].tolist() == [row[0] for row in expected.unique]
    assert result.outputs["y"][:, :x.shape[1]].astype(np.float32).tolist() == expected.rows.tolist()
    assert not result.outputs["y"][:, x.shape[1]:].any()


@settings(max_examples=25, deadline=None)
@given(st.data())
def test_text_rows_stay_alone_and_parts_load(data: st.DataObject) -> None:
    w = reference.Window((1, 3, 3), (9, 3, 1), threshold=0.5, m=1 << 20)
    x = vectors(data.draw, 14, 32)
    start, count = data.draw(st.integers(0, 5)), data.draw(st.integers(0, 9))
    row0 = data.draw(st.integers(0, 13))
    rows = data.draw(st.integers(1, 14 - row0))
    result = run(sic_program(14, 32, None, w, start, count, (row0, rows)), {"x": x})
    expected = x.astype(np.float32)
    if count:
        merged = reference.sic(expected[start:start + count], list(range(count)), w, np.float16)
        expected[start:start + count] = merged.rows
        assert result.counts.unique[0].tolist() == [merged.unique[0][0] + 14 - count]
    assert result.outputs["y"].astype(np.float32).tolist() == expected.tolist()
    assert result.outputs["z"].astype(np.float32).tolist() == expected[row0:row0 + rows].tolist()
    assert len(result.counts.partial) == (rows < 14)


def test_the_image_in_memory_is_the_documented_format() -> None:
    """Count, map and vectors as bytes, read without the emulator's cache."""
    w = reference.Window((1, 1, 4), (4, 4, 1), threshold=0.9)
    x = np.zeros((4, 64), np.float16)
    x[:, :32] = [[1], [1], [2], [2]]
    x[:, 32:] = np.eye(4, 32)
    program = sic_program(4, 64, None, w)
    session = Emulator(program).session({"x": x})
    session.finish()
    block, cap = conc_block(7), 7
    mem = session.state.mem
    low = program.dram_bytes - 2 * block
    raw = mem.bytes(low, low + 2 * block)
    for slot, (count, numbers) in enumerate([(1, [0, 0, 0, 0]), (4, [0, 1, 2, 3])]):
        piece = raw[slot * block:(slot + 1) * block]
        assert piece[:4].view(np.uint32)[0] == count
        assert piece[64:72].view(np.uint16).tolist() == numbers
        found = piece[64 + 64:].view(np.float16).reshape(cap, 32)[:count]
        assert found.tolist() == (np.full((1, 32), 1.5) if slot == 0 else np.eye(4, 32)).tolist()


def test_loading_without_the_cache_gives_the_same() -> None:
    rng = np.random.default_rng(3)
    x = rng.integers(-1, 2, (30, 96)).astype(np.float16)
    w = reference.Window((2, 3, 5), (15, 5, 1), threshold=0.2)
    program = sic_program(30, 96, None, w, part=(7, 9))
    expected = run(program, {"x": x}).outputs
    session = Emulator(program).session({"x": x})
    for _, op, _ in session.commands():
        if op == LdConc.opcode:
            for tile in list(session.state._conc_tiles.values()):
                session.state._forget(tile)
    assert all((session.outputs()[name] == expected[name]).all() for name in expected)
    assert len(session.state.counts.partial) == 1


# ---------------------------------------------------------------- SEC


def topk_program(n: int, k: int, v0: int, tail: int, folds: list[tuple[np.ndarray, int]], identity: bool) -> Program:
    m = Layout()
    pos = m.add("pos", "input", (n,), "i32")
    rows_at, kept_at = m.add("rows", "output", (v0 + k + tail,), "i32"), m.add("kept", "output", (k,), "i32")
    text: list[Insn] = [CfgPos(pos, n, v0, int(identity)), SecInit(n)]
    for number, (data, col0) in enumerate(folds):
        rows, cols = data.shape
        at = m.add(f"a{number}", "input", (rows, cols), "f32")
        text += [Tile(1, 0, rows, cols, cols), LdAct(at, rows, cols, 4 * cols, "f32"), VLd(1), SecFold(1, col0)]
    return m.program([*text, SecTopk(k, rows_at, kept_at, v0 + n + tail)])


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_topk_is_the_transcription(data: st.DataObject) -> None:
    n, v0, tail = data.draw(st.integers(1, 12)), data.draw(st.integers(0, 3)), data.draw(st.integers(0, 3))
    k = data.draw(st.integers(1, n))
    rng = np.random.default_rng(data.draw(st.integers(0, 9999)))
    folds = [(rng.integers(0, 4, (data.draw(st.integers(1, 3)), data.draw(st.integers(1, 9)))).astype(np.float32) / 4,
              data.draw(st.integers(-4, n))) for _ in range(data.draw(st.integers(1, 3)))]
    positions = np.sort(rng.choice(40, n, replace=False))
    identity = data.draw(st.booleans())
    importance = [0.0] * n
    for block, col0 in folds:
        for j in range(block.shape[1]):
            if 0 <= col0 + j < n:
                importance[col0 + j] = max(importance[col0 + j], float(block[:, j].max()))
    kept = reference.select(importance, k)
    seen: list[Any] = []
    program = topk_program(n, k, v0, tail, folds, identity)
    inputs = {"pos": positions, **{f"a{i}": block for i, (block, _) in enumerate(folds)}}
    result = run(program, inputs, seen.append).outputs
    assert result["rows"].tolist() == [*range(v0), *(v0 + i for i in kept), *range(v0 + n, v0 + n + tail)]
    assert result["kept"].tolist() == (kept if identity else positions[kept].tolist())
    assert isinstance(seen[0], TopkEvent) and seen[0].kept.tolist() == kept
    assert seen[0].importance.tolist() == importance


def test_importance_has_eleven_significant_bits_and_near_ties_go_to_the_lower_index() -> None:
    """Ties to even at the half of the last place; 0.3 is rounded up, and the first of two near 0.7 is kept."""
    block = np.array([[1 + 2**-11, 1 + 3 * 2**-11, 0.3, 0.7, 0.7 + 1e-5, 2.0**-100]], np.float32)
    seen: list[Any] = []
    result = run(topk_program(6, 3, 0, 0, [(block, 0)], True), {"pos": np.arange(6), "a0": block}, seen.append).outputs
    assert seen[0].importance.tolist() == [reference.significant(float(x), 11) for x in block[0]]
    assert seen[0].importance[:2].tolist() == [1.0, 1 + 2**-9] and result["kept"].tolist() == [0, 1, 3]


@pytest.mark.parametrize(("positions", "message"), [
    ([3, 2], "run.positions"), ([-1, 2], "run.positions"), ([0, 1 << 27], "run.positions")])
def test_position_lists_are_not_trusted(positions: list[int], message: str) -> None:
    w = reference.Window((1, 1, 9), (9, 9, 1))
    with pytest.raises(Fault) as caught:
        Emulator(sic_program(2, 32, positions, w)).run({"x": np.ones((2, 32), np.float16), "pos": np.array(positions)})
    assert caught.value.code == message and caught.value.pc == 6
