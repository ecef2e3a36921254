"""Timing in pieces, each distinct command lowered once, gives exactly what stepping through a whole trace gives."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from focusc.isa import Program
from focusc.isa.errors import IsaError
from focusc.isa.insns import LdAct, LdWgt, Loop, Mma, Tile, VAdd, VExp
from focusc.isa.insns.sequencer import Addi, Endl, Li
from focusc.isa.machine import Machine
from focusc.isa.sequencer import expand_chunks
from focusc.isa.stats import stats
from focusc.isa.timing import simulate
from tests.isa.test_timing_properties import programs
from tests.isa.timing_programs import concentrated, counts, machine, program

MODELS = ("scalesim", "pipelined")
FOCUS = machine()


def same(found: Program, hardware: Machine, recorded: Any, array: str) -> int:
    """Both ways agree in every number of the statistics; returns the cycles."""
    whole = simulate(found, hardware, recorded, array)
    pieces = simulate(found, hardware, recorded, array, detail=False)
    assert whole.detail and not pieces.detail
    a, b = (stats(found, hardware, recorded, timing) for timing in (whole, pieces))
    exact = set(a) - {"energy_mj", "energy_by_component_mj", "nodes"}
    assert {key: b[key] for key in exact} == {key: a[key] for key in exact}
    for key in ("energy_mj", "energy_by_component_mj"):  # sums of floats in another order
        assert b[key] == pytest.approx(a[key], rel=1e-12)
    assert len(a["nodes"]) == len(b["nodes"])
    for one, other in zip(a["nodes"], b["nodes"], strict=True):
        assert other["macs_array"] == one["macs_array"]
        assert [other[k] for k in ("cycles", "occupancy", "energy_mj")] == pytest.approx(
            [one[k] for k in ("cycles", "occupancy", "energy_mj")], rel=1e-9
        )
    assert pieces.commands == len(whole.trace) == whole.commands
    return whole.cycles


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(programs(), st.sampled_from(MODELS), st.integers(1, 9))
def test_random_programs_in_pieces_of_any_length(
    monkeypatch: pytest.MonkeyPatch, found: Program, array: str, chunk: int
) -> None:
    monkeypatch.setattr("focusc.isa.timing.expand_chunks", functools.partial(expand_chunks, chunk=chunk))
    same(found, FOCUS, None, array)


@pytest.mark.parametrize("array", MODELS)
@pytest.mark.parametrize("chunk", [2, 5, 1 << 16])
def test_concentrated_programs(monkeypatch: pytest.MonkeyPatch, array: str, chunk: int) -> None:
    monkeypatch.setattr("focusc.isa.timing.expand_chunks", functools.partial(expand_chunks, chunk=chunk))
    same(concentrated(64, 3, 96, times=4), FOCUS, counts(64, 10, 64, 33), array)


@pytest.mark.parametrize("rows", [16, 64])
def test_slices_of_weights_are_as_deep_as_those_of_the_activation(rows: int) -> None:
    """On an array of other rows than a slot's 32 columns, dense and concentrated products cut weights differently."""
    hardware = machine(array={"rows": rows, "cols": 32})
    same(concentrated(64, 3, 96, times=2), hardware, counts(64, 10, 64, 33), "pipelined")
    text = [
        Tile(t=0, off=0, rows=8, cols=32, pitch=32),
        LdWgt(addr=0, k=96, n=32, stride=64),
        LdAct(addr=0, rows=8, cols=96, stride=192),
        Mma(t=0, k=96),
    ]
    same(program(text), hardware, None, "scalesim")


def loop_of(rounds: int) -> Program:
    """A product, a vector command and a moving address, `rounds` times."""
    return program(
        [
            Tile(t=0, off=0, rows=100, cols=64, pitch=64),
            Li(rd=1, imm=0),
            Loop(count=rounds),
            LdAct(addr=0, rows=100, cols=96, stride=192),
            LdWgt(addr=4096, k=96, n=64, stride=128),
            Mma(t=0, k=96, acc=1),
            VExp(d=0, a=0),
            VAdd(d=0, a=0, b=0),
            Addi(rd=1, rs=1, imm=64),
            Endl(),
        ]
    )


def test_a_loop_is_lowered_once() -> None:
    short, long = (simulate(loop_of(n), FOCUS, detail=False) for n in (10, 1000))
    assert len(short.trace) == len(long.trace) == 5
    assert long.commands == 5000
    assert long.cycles > 90 * short.cycles
    assert int(long.work.sums()[0].sum()) == 5000


def test_progress_is_told_and_a_long_program_is_stopped() -> None:
    seen: list[int] = []
    simulate(loop_of(50), FOCUS, detail=False, progress=seen.append)
    assert seen == [250]
    with pytest.raises(IsaError, match="executes more than 100 commands"):
        simulate(loop_of(50), FOCUS, detail=False, max_commands=100)


def test_a_recording_must_fit_in_pieces_too() -> None:
    found = concentrated(64, 2, 32)
    for recorded, message in (
        (counts(64, 10), "with slots 1, the program has 2"),
        (counts(60, 10, 20), "with rows 60, the program has 64"),
        (counts(64, 10, 65), "65 unique vectors of 64 rows"),
        (None, "depends on unique counts"),
    ):
        with pytest.raises(IsaError, match=message):
            simulate(found, FOCUS, recorded, detail=False)
    twice = counts(64, 10, 20)
    twice.add(np.array([1, 1], np.int32), 0, 64, 64)
    with pytest.raises(IsaError, match="2 executions of `sic` were recorded, the program does 1"):
        simulate(found, FOCUS, twice, detail=False)


def test_a_stream_must_be_fed_before_it_is_taken() -> None:
    found = program([Tile(t=0, off=0, rows=8, cols=32, pitch=32), Mma(t=0, k=32)])
    with pytest.raises(IsaError, match="takes from the activation stream before the load"):
        simulate(found, FOCUS, detail=False)
