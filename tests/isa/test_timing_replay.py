"""Recorded counts: replay equals the run, files round-trip, and what does not fit is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.isa import Insn, IsaError, Program, conc_block, expand
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.emulator import Emulator
from focusc.isa.insns import CfgLayout, CfgPos, CfgSic, Fence, LdAct, LdConc, LdWgt, Mma, Sic, St, Tile, VLd
from focusc.isa.program import Symbol
from focusc.isa.timing import simulate
from tests.arrays import save_arrays
from tests.isa.timing_programs import concentrated, counts, machine, program

ROWS, SLOTS = 24, 2


def concentrating() -> Program:
    """x is gathered, multiplied concentrated, and a part of its rows once more."""
    k = 32 * SLOTS
    blocks, x, w = 0, 1 << 16, 1 << 17
    text: list[Insn] = [
        CfgLayout(f=2, h=3, w=4, sf=12, sh=4, sw=1),
        CfgSic(bf=2, bh=2, bw=2, threshold=0.9),
        CfgPos(addr=0, count=ROWS, visual_start=0, identity=1),
        Tile(t=0, off=0, rows=ROWS, cols=k, pitch=k),
        LdAct(addr=x, rows=ROWS, cols=k, stride=2 * k),
        VLd(d=0),
        Sic(a=0, addr=blocks, cap=ROWS, row0=0),
        Fence(act=1),
        Tile(t=1, off=1 << 14, rows=ROWS, cols=16, pitch=16),
        LdConc(addr=blocks, rows=ROWS, slots=SLOTS, cap=ROWS),
        LdWgt(addr=w, k=k, n=16, stride=32),
        Mma(t=1, k=k),
        Tile(t=2, off=1 << 15, rows=8, cols=16, pitch=16),
        LdConc(addr=blocks, rows=8, slots=SLOTS, cap=ROWS, row0=8),
        LdWgt(addr=w, k=k, n=16, stride=32),
        Mma(t=2, k=k),
        St(a=1, addr=1 << 18, stride=32),
    ]
    found = program(text)
    found.symbols += [
        Symbol("x", "input", "f16", (ROWS, k), x),
        Symbol("w", "input", "f16", (k, 16), w),
        Symbol("y", "output", "f16", (ROWS, 16), 1 << 18),
    ]
    assert SLOTS * conc_block(ROWS) <= x
    return found


def inputs() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(3)
    x = rng.standard_normal((ROWS, 32 * SLOTS)).astype(np.float16)
    x[12:20] = x[0:8]
    return {"x": x, "w": rng.standard_normal((32 * SLOTS, 16)).astype(np.float16)}


@pytest.mark.parametrize("array", ["scalesim", "pipelined"])
def test_replay_from_a_file_equals_the_run(tmp_path: Path, array: str) -> None:
    found = concentrating()
    run = Emulator(found, strict=True).run(inputs())
    assert [len(item) for item in run.counts.partial] == [SLOTS]
    assert run.counts.flat().max() < ROWS
    run.counts.save(tmp_path / "t.npz", found)
    loaded = DynamicCounts.load(tmp_path / "t.npz")
    here, there = (simulate(found, machine(), item, array=array) for item in (run.counts, loaded))
    assert here.cycles == there.cycles and here.stalls == there.stalls
    assert np.array_equal(here.end, there.end)
    assert loaded.to_dict() | {"digest": ""} == run.counts.to_dict()
    assert [path.name for path in tmp_path.iterdir()] == ["t.npz"]


def test_a_trace_of_another_program_is_refused(tmp_path: Path) -> None:
    counts(8, 4).save(tmp_path / "t.npz", concentrated(8, 1, 8))
    with pytest.raises(IsaError, match="record the trace again"):
        simulate(concentrated(8, 1, 9), machine(), DynamicCounts.load(tmp_path / "t.npz"))


@pytest.mark.parametrize(
    ("recorded", "message"),
    [
        (counts(8, 0), "0 unique vectors of 8 rows"),
        (counts(8, 9), "9 unique vectors of 8 rows"),
        (counts(8, -1), "-1 unique"),
        (counts(8, 4, 4), "recorded with slots 2, the program has 1"),
        (counts(7, 4), "recorded with rows 7, the program has 8"),
        (DynamicCounts(), "0 executions of `sic` were recorded"),
        (DynamicCounts([np.array([4], np.int32)], [3], [8], [8]), "recorded with site 3"),
        (DynamicCounts([np.array([4], np.int32)], [0], [8], [8], [np.array([99], np.int32)]), "partial loads have 99"),
    ],
)
def test_counts_that_do_not_fit_are_refused(recorded: DynamicCounts, message: str) -> None:
    found = concentrated(8, 1, 8)
    with pytest.raises(IsaError, match=message):
        recorded.check(found, expand(found))


def _rewrite(path: Path, change: Callable[[dict[str, np.ndarray]], None]) -> None:
    counts(8, 4).save(path)
    with np.load(path) as data:
        arrays = dict(data)
    change(arrays)
    save_arrays(path, arrays)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a: a.pop("focusc_counts"), "not a recorded trace"),
        (lambda a: a.pop("rows"), "not a recorded trace"),
        (lambda a: a.update(focusc_counts=np.int64(99)), "trace format 99"),
        (lambda a: a.update(unique=a["unique"].astype(np.float64)), "expected int32"),
        (lambda a: a.update(unique_size=np.array([7], np.int32)), "do not add up"),
        (lambda a: a.update(rows=np.zeros(3, np.int32)), "different lengths"),
        (lambda a: a.update(unique=np.array([object()], object)), "not a recorded trace"),
    ],
)
def test_a_damaged_file_is_refused(
    tmp_path: Path, change: Callable[[dict[str, np.ndarray]], None], message: str
) -> None:
    _rewrite(tmp_path / "t.npz", change)
    with pytest.raises(IsaError, match=message):
        DynamicCounts.load(tmp_path / "t.npz")


@settings(max_examples=60, deadline=None)
@given(st.binary(max_size=64), st.integers(0, 2000), st.integers(0, 255))
def test_bytes_that_are_no_trace_are_refused(
    tmp_path_factory: pytest.TempPathFactory, junk: bytes, at: int, value: int
) -> None:
    folder = tmp_path_factory.mktemp("counts")
    (folder / "junk.npz").write_bytes(junk)
    with pytest.raises(IsaError):
        DynamicCounts.load(folder / "junk.npz")
    counts(8, 4).save(folder / "t.npz")
    data = bytearray((folder / "t.npz").read_bytes())
    data[at % len(data)] = value
    (folder / "t.npz").write_bytes(data)
    try:
        DynamicCounts.load(folder / "t.npz")
    except IsaError as error:
        assert error.code.startswith("counts.")


def test_a_missing_file_and_an_unwritable_place_are_named(tmp_path: Path) -> None:
    with pytest.raises(IsaError, match="nothing"):
        DynamicCounts.load(tmp_path / "nothing.npz")
    with pytest.raises(IsaError, match="cannot write"):
        counts(8, 4).save(tmp_path / "no" / "t.npz")
