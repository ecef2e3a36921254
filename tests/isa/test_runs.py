"""Runs of vector commands in one compiled loop: the same bytes as one by one, and only where rows are independent."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from focusc.isa import Insn, Program
from focusc.isa.emulator import Emulator, runs
from focusc.isa.errors import Fault
from focusc.isa.insns import LdAct, St, Tile, VCopy, VExps, VFill, VLd, VMask, VMul, VMuli, VRmax, VRsum
from focusc.isa.sequencer import expand
from tests.isa.helpers import Layout

ROWS, COLS = 9, 16
WINDOWS = [
    (0, ROWS, COLS, COLS), (640, ROWS, COLS, COLS), (1280, ROWS, 1, 1), (1344, ROWS, 1, 1),
    (1408, ROWS, COLS, 32), (1472, ROWS, COLS, 32), (0, ROWS, 1, COLS),
    (64, ROWS, COLS, COLS), (0, 1, COLS, COLS), (0, 3, COLS, COLS),
]
"""Apart: two tiles and two columns; side by side: two; of the first tile: a column, the rows below, a row, rows."""
X = np.random.default_rng(3).standard_normal((ROWS, 160)).astype(np.float16)
WIDE, NARROW = st.sampled_from([0, 1, 4, 5, 7]), st.sampled_from([2, 3, 6])
ANY = st.integers(0, len(WINDOWS) - 1)
COMMAND = st.one_of(
    st.builds(VMuli, WIDE, WIDE, st.sampled_from([0.5, -3.0])), st.builds(VMul, WIDE, WIDE, st.one_of(WIDE, NARROW)),
    st.builds(VMul, NARROW, NARROW, NARROW), st.builds(VCopy, WIDE, WIDE), st.builds(VCopy, NARROW, NARROW),
    st.builds(VExps, WIDE, WIDE, st.one_of(WIDE, NARROW)), st.builds(VExps, NARROW, NARROW, NARROW),
    st.builds(VMask, WIDE, row0=st.integers(0, 20), col0=st.integers(0, 20), inf=st.integers(0, 1),
              window=st.sampled_from([0, 0, 5])),
    st.builds(VRmax, NARROW, WIDE, acc=st.integers(0, 1)), st.builds(VRsum, NARROW, WIDE, acc=st.integers(0, 1)),
    st.builds(VMul, WIDE, WIDE, st.just(8)), st.builds(VMuli, st.just(9), st.just(9), st.just(2.0)),
    st.builds(VFill, NARROW, st.just(1.0)),
)
SOFTMAX: list[Insn] = [
    VMuli(0, 0, 0.5), VMask(0, row0=2, col0=0), VCopy(2, 3), VRmax(2, 0, acc=1), VExps(3, 3, 2), VExps(0, 0, 2),
    VMul(3, 3, 2), VRsum(3, 0, acc=1), VMul(1, 1, 3),
]


def program(text: list[Insn]) -> Program:
    """The windows, all of them filled from `x`, then the text."""
    at = Layout()
    x, y = at.add("x", "input", (ROWS, 160)), at.add("y", "output", (ROWS, COLS))
    tiles = [Tile(t, off, rows, cols, pitch) for t, (off, rows, cols, pitch) in enumerate(WINDOWS)]
    fill = [insn for t, start in ((0, 0), (1, 16), (2, 32), (3, 33), (4, 64), (5, 80))
            for insn in (LdAct(x + 2 * start, ROWS, WINDOWS[t][2], 320), VLd(t))]
    return at.program([*tiles, *fill, *text, St(0, y, stride=2 * COLS)])


def found(text: list[Insn]) -> list[list[Insn]]:
    """The instructions of each run."""
    given_ = program(text)
    trace = expand(given_)
    fields = [row[:len(given_.insns[pc].fields)] for pc, row in zip(trace.pc.tolist(), trace.fields.tolist())]
    joined = runs.runs(trace.op.tolist(), fields, trace.tiles.tolist(), 1 << 17)
    return [[given_.insns[int(pc)] for pc in trace.pc[run.first:run.last]] for run in joined]


@given(st.lists(COMMAND, max_size=20))
@example(SOFTMAX)
@example([VMuli(0, 0, 0.5), VMuli(7, 7, 0.5), VRsum(6, 0), VExps(0, 0, 6)])
@example([VExps(2, 3, 2), VRmax(6, 0), VMul(0, 0, 6), VExps(4, 5, 4), VMul(5, 4, 5)])
def test_runs_give_the_same_bytes(text: list[Insn]) -> None:
    stepped, whole = (Emulator(program(text), helpers=0).session({"x": X}) for _ in range(2))
    while stepped.step():
        pass
    whole.finish()
    np.testing.assert_array_equal(whole.state.obuf, stepped.state.obuf)
    same = np.signbit(whole.state.obuf) == np.signbit(stepped.state.obuf)
    assert (same | np.isnan(whole.state.obuf)).all()


def test_a_softmax_is_one_run() -> None:
    assert found(SOFTMAX) == [SOFTMAX]


def test_rows_that_meet_other_rows_end_a_run() -> None:
    below, column = VMuli(7, 7, 0.5), VRsum(6, 0)
    scale, again = VMuli(0, 0, 0.5), VMuli(0, 0, 2.0)
    assert found([scale, again, below, again]) == [[scale, again]]  # t7 is t0 moved by a row
    assert found([scale, column, again]) == [[scale, column, again]]  # a column of t0 has t0's rows
    assert found([scale, again, VMul(0, 0, 8), scale]) == [[scale, again]]  # one row for all


@pytest.mark.parametrize("wrong", [VMul(0, 0, 9), VMuli(0, 4, 1.0), VMuli(0, 2, 1.0), VRsum(0, 1)])
def test_what_is_refused_is_refused_in_its_place(wrong: Insn) -> None:
    text = [VMuli(1, 1, 0.5), VMuli(1, 1, 2.0), wrong, VMuli(1, 1, 0.5)]
    if wrong == VMuli(0, 4, 1.0):
        Emulator(program(text)).run({"x": X})  # another pitch, the same shape
        return
    with pytest.raises(Fault) as caught:
        Emulator(program(text)).run({"x": X})
    assert caught.value.pc == program(text).insns.index(wrong)
