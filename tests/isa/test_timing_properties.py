"""Properties of timing that hold for any program."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.isa import Insn, IsaError, Program
from focusc.isa.insns import Endl, Fence, Fwd, LdAct, LdWgt, Loop, Mma, St, Tile, VAdd, VExp, VLd, VMuli, VSilu
from focusc.isa.timing import ENGINES, Timing, simulate
from tests.isa.timing_programs import array_cycles, concentrated, counts, machine, parts_add_up, program

FEW = settings(max_examples=40, deadline=None)
FOCUS = machine()
MODELS = st.sampled_from(["scalesim", "pipelined"])


@st.composite
def programs(draw: st.DrawFn) -> Program:
    """Random commands on four tiles, some of which overlap; every stream item is taken."""
    text: list[Insn] = []
    shape = {}
    for t in range(4):
        rows, cols = draw(st.sampled_from([1, 16, 64, 200])), draw(st.sampled_from([1, 32, 40, 96]))
        pitch = cols + draw(st.sampled_from([0, 32]))
        text.append(Tile(t=t, off=draw(st.integers(0, 200)) * 64, rows=rows, cols=cols, pitch=pitch))
        shape[t] = rows, cols
    for _ in range(draw(st.integers(1, 12))):
        t = draw(st.integers(0, 3))
        rows, cols = shape[t]
        kind = draw(st.integers(0, 6))
        if kind == 0:
            k = draw(st.sampled_from([8, 32, 100, 256]))
            times = draw(st.integers(1, 3))
            text += [
                Loop(count=times),
                LdAct(addr=0, rows=rows, cols=k, stride=2 * k),
                LdWgt(addr=4096, k=k, n=cols, stride=2 * cols),
                Mma(t=t, k=k, acc=draw(st.integers(0, 1))),
                Endl(),
            ]
        elif kind == 1:
            text += [Fwd(a=t), LdWgt(addr=64, k=cols, n=cols, stride=2 * cols), Mma(t=t, k=cols)]
        elif kind == 2:
            text.append(draw(st.sampled_from([VExp(d=t, a=t), VSilu(d=t, a=t), VMuli(d=t, a=t, imm=2.0)])))
        elif kind == 3:
            text += [LdAct(addr=0, rows=rows, cols=cols, stride=2 * cols), VLd(d=t)]
        elif kind == 4:
            text += [LdAct(addr=0, rows=rows, cols=cols, stride=2 * cols), VAdd(d=t, a=t, b="s")]
        elif kind == 5:
            text.append(Fence(act=draw(st.integers(0, 1)), wgt=draw(st.integers(0, 1)), store=draw(st.integers(0, 1))))
        else:
            text.append(St(a=t, addr=1 << 20, stride=2 * cols))
    return program(text)


@FEW
@given(programs(), MODELS)
def test_every_engine_accounts_for_every_cycle(found: Program, array: str) -> None:
    timing = simulate(found, FOCUS, array=array)
    assert parts_add_up(timing)
    assert timing.cycles >= max(timing.busy.values())
    assert timing.span.min() >= 0 and timing.span.sum() == pytest.approx(timing.cycles)


@FEW
@given(programs(), MODELS)
def test_commands_run_after_their_issue_and_in_order_on_each_engine(found: Program, array: str) -> None:
    timing = simulate(found, FOCUS, array=array)
    assert (timing.start >= timing.issue - 1e-9).all() and (timing.end >= timing.start - 1e-9).all()
    assert timing.end.max() <= timing.cycles
    engine = timing.work.table[:, 1]
    for number in range(1, len(ENGINES)):
        starts = timing.start[engine == number]
        assert (np.diff(starts) >= -1e-9).all()


@FEW
@given(programs())
def test_pipelining_never_occupies_the_array_longer(found: Program) -> None:
    scalesim, pipelined = (simulate(found, FOCUS, array=array) for array in ("scalesim", "pipelined"))
    assert array_cycles(pipelined) <= array_cycles(scalesim)
    assert pipelined.busy["mxu"] == scalesim.busy["mxu"]


@FEW
@given(programs(), MODELS)
def test_simulation_repeats_itself(found: Program, array: str) -> None:
    first, second = simulate(found, FOCUS, array=array), simulate(found, FOCUS, array=array)
    assert first.cycles == second.cycles and first.stalls == second.stalls
    assert np.array_equal(first.start, second.start)


@FEW
@given(
    st.lists(st.integers(1, 128), min_size=3, max_size=3), st.lists(st.integers(0, 127), min_size=3, max_size=3), MODELS
)
def test_more_compression_never_costs_more_array_cycles(unique: list[int], less: list[int], array: str) -> None:
    fewer = [max(1, u - d) for u, d in zip(unique, less, strict=True)]
    many, few = (simulate(concentrated(128, 3, 40, 3), FOCUS, counts(128, *u), array=array) for u in (unique, fewer))
    assert few.busy["mxu"] <= many.busy["mxu"]
    if array == "scalesim":
        assert array_cycles(few) <= array_cycles(many)
    assert few.busy["lda"] <= many.busy["lda"]


@pytest.mark.parametrize("array", ["scalesim", "pipelined"])
def test_time_falls_with_the_unique_count(array: str) -> None:
    cycles = [
        simulate(concentrated(256, 4, 96, 5), FOCUS, counts(256, *[u] * 4), array=array).cycles
        for u in (256, 192, 128, 96)
    ]
    assert all(later < earlier for earlier, later in pairwise(cycles))


def _dependent(gap: int) -> Timing:
    text = [
        Tile(t=0, off=0, rows=128, cols=96, pitch=96),
        Tile(t=1, off=gap, rows=128, cols=96, pitch=96),
        LdAct(addr=0, rows=128, cols=32, stride=64),
        LdWgt(addr=0, k=32, n=96, stride=192),
        Mma(t=0, k=32),
        VExp(d=1, a=1),
    ]
    return simulate(program(text), FOCUS)


def test_a_vector_command_waits_for_the_tile_it_overlaps() -> None:
    waiting, free = _dependent(64), _dependent(128 * 96 * 4)
    assert waiting.start[-1] >= waiting.end[-2]
    assert free.start[-1] < free.end[-2]
    assert waiting.stalls["vec"]["tile"] > 0 and free.stalls["vec"]["tile"] == 0


def test_side_by_side_windows_of_one_wide_tile_do_not_wait() -> None:
    text = [
        Tile(t=0, off=0, rows=64, cols=32, pitch=96),
        Tile(t=1, off=128, rows=64, cols=32, pitch=96),
        LdAct(addr=0, rows=64, cols=32, stride=64),
        LdWgt(addr=0, k=32, n=32, stride=64),
        Mma(t=0, k=32),
        VExp(d=1, a=1),
    ]
    timing = simulate(program(text), FOCUS)
    assert timing.stalls["vec"]["tile"] == 0


@pytest.mark.parametrize("flag", ["act", "wgt", "store"])
def test_a_fence_makes_its_channel_wait_for_the_store(flag: str) -> None:
    head: list[Insn] = [Tile(t=0, off=0, rows=128, cols=96, pitch=96), VExp(d=0, a=0), St(a=0, addr=0, stride=192)]
    tail: list[Insn] = [
        LdAct(addr=0, rows=128, cols=32, stride=64),
        LdWgt(addr=0, k=32, n=96, stride=192),
        Mma(t=0, k=32),
        Tile(t=1, off=1 << 16, rows=1, cols=1, pitch=1),
        St(a=1, addr=1 << 20, stride=64),
    ]
    plain, fenced = (simulate(program(head + middle + tail), FOCUS) for middle in ([], [Fence(**{flag: 1})]))
    engine = {"act": "lda", "wgt": "ldw", "store": "st"}[flag]
    assert plain.stalls[engine]["fence"] == 0
    if flag != "store":  # the store engine is in order anyway
        assert fenced.stalls[engine]["fence"] > 0
    at = {"act": 3, "wgt": 4, "store": 6}[flag]
    assert fenced.start[at] >= fenced.end[1]


def test_a_store_fence_waits_for_earlier_loads() -> None:
    text = [
        Tile(t=0, off=0, rows=512, cols=32, pitch=32),
        Tile(t=1, off=1 << 17, rows=1, cols=1, pitch=1),
        LdAct(addr=0, rows=512, cols=64, stride=128),
        Fence(store=1),
        St(a=1, addr=0, stride=64),
        LdWgt(addr=0, k=64, n=32, stride=64),
        Mma(t=0, k=64),
    ]
    timing = simulate(program(text), FOCUS)
    assert timing.start[2] >= timing.end[0]
    assert timing.stalls["st"]["fence"] > 0


def test_a_full_queue_stalls_the_sequencer() -> None:
    text = [Tile(t=0, off=0, rows=64, cols=96, pitch=96), Loop(count=40), VExp(d=0, a=0), Endl()]
    deep, shallow = (simulate(program(text), machine(queue_depth=depth)) for depth in (64, 2))
    assert deep.stalls["seq"]["queue"] == 0 and shallow.stalls["seq"]["queue"] > 0
    assert deep.cycles == shallow.cycles  # one engine: its work is the same


def test_loads_that_can_never_be_taken_in_time_are_a_deadlock() -> None:
    load = LdAct(addr=0, rows=1024, cols=64, stride=128)
    text = [
        Tile(t=0, off=0, rows=1024, cols=64, pitch=64),
        Loop(count=5),
        load,
        Endl(),
        Loop(count=5),
        VLd(d=0),
        Endl(),
    ]
    with pytest.raises(IsaError, match="no progress") as caught:
        simulate(program(text), machine(queue_depth=2))
    assert "ld.act" in caught.value.render()
    assert simulate(program(text), machine(queue_depth=8)).cycles > 0
