"""Loops in a steady state are counted, not walked: to the same cycles, and only where rounds are really alike."""

from __future__ import annotations

import functools

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import focusc.isa.sequencer as sequencer_module
import focusc.isa.timing as timing_module
from focusc.isa import Insn, Program, R
from focusc.isa.errors import IsaError
from focusc.isa.insns import (
    Fence,
    Fwd,
    LdAct,
    LdWgt,
    Loop,
    Mma,
    St,
    Tile,
    VExp,
    VLd,
    VMask,
    VMuli,
)
from focusc.isa.insns.sequencer import Addi, Endl, Li, Min, Muli
from focusc.isa.sequencer import expand, expand_chunks
from focusc.isa.timing import ENGINES, simulate
from focusc.isa.timing_repeats import find_repeats
from focusc.isa.timing_state import State
from tests.isa.test_timing_pieces import loop_of, same
from tests.isa.timing_programs import machine, program

MODELS = ("scalesim", "pipelined")
FOCUS = machine()
MXU = ENGINES.index("mxu")


@st.composite
def nests(draw: st.DrawFn) -> Program:
    """A loop nest of random commands; addresses, and as drawn an extent or a tile, move from round to round."""
    text: list[Insn] = []
    shape = {}
    for t in range(3):
        rows, cols = draw(st.sampled_from([16, 100, 256])), draw(st.sampled_from([32, 64, 96]))
        text.append(Tile(t=t, off=draw(st.integers(0, 100)) * 64, rows=rows, cols=cols, pitch=cols))
        shape[t] = rows, cols
    moves = draw(st.sampled_from(["address", "extent", "tile"]))
    outer, inner = draw(st.integers(1, 3)), draw(st.integers(1, 40))
    text += [Li(rd=4, imm=256), Li(rd=3, imm=0), Loop(count=outer), Li(rd=1, imm=0), Li(rd=2, imm=256)]
    text.append(Loop(count=min(inner, 20)))
    for _ in range(draw(st.integers(1, 6))):
        t = draw(st.integers(0, 2))
        rows, cols = shape[t]
        kind = draw(st.integers(0, 6))
        if kind in (0, 1):
            k = draw(st.sampled_from([32, 96, 256]))
            deep = R(2) if moves == "extent" and k == 256 else k
            text += [
                LdAct(addr=(1, 0), rows=rows, cols=deep, stride=2 * k),
                LdWgt(addr=(1, 4096), k=deep, n=cols, stride=2 * cols),
                Mma(t=t, k=deep, acc=kind),
            ]
        elif kind == 2:
            text += [Fwd(a=t), LdWgt(addr=(1, 64), k=cols, n=cols, stride=2 * cols), Mma(t=t, k=cols)]
        elif kind == 3:
            text.append(
                draw(st.sampled_from([VExp(d=t, a=t), VMask(d=t, row0=R(1), col0=0), VMuli(d=t, a=t, imm=2.0)]))
            )
        elif kind == 4:
            if moves == "tile":
                text.append(Tile(t=t, off=R(3), rows=rows, cols=cols, pitch=cols))
            text += [LdAct(addr=(1, 0), rows=rows, cols=cols, stride=2 * cols), VLd(d=t)]
        elif kind == 5:
            text.append(Fence(act=draw(st.integers(0, 1)), wgt=draw(st.integers(0, 1)), store=draw(st.integers(0, 1))))
        else:
            text.append(St(a=t, addr=(1, 1 << 20), stride=2 * cols))
    # the extent r2 shrinks in the last rounds, the tile at r3 alternates between two places
    text += [Addi(rd=1, rs=1, imm=64), Muli(rd=2, rs=1, imm=-1), Addi(rd=2, rs=2, imm=1280), Min(rd=2, rs=2, rt=4)]
    text += [Muli(rd=3, rs=3, imm=-1), Addi(rd=3, rs=3, imm=131072), Endl(), Endl(), VExp(d=0, a=0)]
    return program(text)


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(nests(), st.sampled_from(MODELS), st.sampled_from([7, 40, 300, 1 << 16]))
def test_counted_rounds_take_what_walked_rounds_take(
    monkeypatch: pytest.MonkeyPatch, found: Program, array: str, chunk: int
) -> None:
    monkeypatch.setattr("focusc.isa.timing.expand_chunks", functools.partial(expand_chunks, chunk=chunk))
    same(found, FOCUS, None, array)


@settings(max_examples=60, deadline=None)
@given(nests(), st.sampled_from([7, 40, 300, 1 << 16]))
def test_left_out_rounds_add_up_to_the_whole_trace(found: Program, chunk: int) -> None:
    """Each piece says how many commands were executed; what follows comes at the step where it comes in the trace."""
    whole = expand(found)
    first = 0
    for part in expand_chunks(found, chunk, repeats=find_repeats(found)):
        assert part.first == first
        place = 0
        rows = list(range(len(part)))
        for begin, length, more, _ in part.repeats.tolist():
            at = rows.index(begin)
            assert rows[at : at + length] == list(range(begin, begin + length))
            rows[at + length : at + length] = rows[at : at + length] * more
        assert len(rows) == part.executed
        for place, row in enumerate(rows):
            assert int(part.pc[row]) == int(whole.pc[first + place])
        last = [i for i, row in enumerate(rows) if rows.count(row) == 1]
        assert [int(part.slot[rows[i]]) for i in last] == [int(whole.slot[first + i]) for i in last]
        first += part.executed
    assert first == len(whole)


def walked(found: Program, monkeypatch: pytest.MonkeyPatch) -> tuple[int, int]:
    """(array commands that the kernel stepped through, cycles)."""
    states: list[State] = []
    run = timing_module.run
    monkeypatch.setattr(timing_module, "run", lambda s: (states.append(s), run(s))[1])
    cycles = simulate(found, FOCUS, None, detail=False).cycles
    monkeypatch.undo()
    return int(states[-1].queued[MXU]), cycles


def test_a_long_loop_is_not_walked(monkeypatch: pytest.MonkeyPatch) -> None:
    steps, cycles = walked(loop_of(1000), monkeypatch)
    assert steps < 60
    assert cycles == simulate(loop_of(1000), FOCUS, None).cycles
    more_steps, more = walked(loop_of(100_000), monkeypatch)
    assert more_steps == steps
    assert (more - cycles) % 99_000 == 0  # a round takes a whole number of cycles


def rounds_of(*body: Insn, count: int = 30) -> Program:
    """A loop in which r1 moves by 64."""
    tiles = [Tile(t=t, off=65536 * t, rows=64, cols=32, pitch=32) for t in range(2)]
    return program([*tiles, Li(rd=1, imm=0), Loop(count=count), *body, Addi(rd=1, rs=1, imm=64), Endl()])


LOAD = LdAct(addr=(1, 0), rows=64, cols=32, stride=64)


@pytest.mark.parametrize(
    ("body", "kept"),
    [
        ((LOAD, VLd(d=0)), 2),
        ((LOAD, VLd(d=0), VMask(d=0, row0=R(1), col0=0)), 3),
        ((Tile(t=0, off=R(1), rows=64, cols=32, pitch=32), LOAD, VLd(d=0)), 60),  # another window each round
        ((LOAD, VLd(d=1), VExp(d=0, a=1), Tile(t=1, off=0, rows=64, cols=32, pitch=32)), 90),  # used before it is set
    ],
)
def test_which_loops_are_alike(body: tuple[Insn, ...], kept: int) -> None:
    found = rounds_of(*body)
    parts = list(expand_chunks(found, repeats=find_repeats(found)))
    assert sum(len(part) for part in parts) == kept
    assert sum(part.executed for part in parts) == len(expand(found))


def test_a_fault_in_a_round_that_is_left_out_is_found() -> None:
    text = [Tile(t=0, off=0, rows=64, cols=32, pitch=32), Li(rd=1, imm=0), Li(rd=2, imm=640), Loop(count=30)]
    text += [LdAct(addr=(1, 0), rows=64, cols=32, stride=R(2)), VLd(d=0), Addi(rd=2, rs=2, imm=-64), Endl()]
    found = program(text)
    with pytest.raises(IsaError, match="stride is -64") as whole:
        expand(found)
    with pytest.raises(IsaError) as counted:
        simulate(found, FOCUS, None, detail=False)
    assert str(counted.value) == str(whole.value)


def test_limits_count_the_rounds_that_are_left_out() -> None:
    with pytest.raises(IsaError, match="the program executes more than 2,000 commands"):
        simulate(loop_of(1000), FOCUS, None, detail=False, max_commands=2000)
    with pytest.raises(IsaError, match="the program executes more than 3,000 steps"):
        simulate(loop_of(1000), FOCUS, None, detail=False, max_steps=3000)


@pytest.mark.parametrize("array", MODELS)
def test_what_the_ledger_forgets_does_not_depend_on_how_many_rounds_are_walked(array: str) -> None:
    """More transfers in a round than the ledger remembers, and a store that is booked before most of them."""
    rows, k = 256, 48000
    text: list[Insn] = [Tile(t=0, off=0, rows=rows, cols=32, pitch=32)]
    text += [Tile(t=t, off=65536 * t, rows=64, cols=32, pitch=32) for t in (1, 2)]
    text += [Li(rd=1, imm=0), Loop(count=20)]
    for _ in range(7):
        text += [LdAct(addr=(1, 0), rows=rows, cols=k, stride=2 * k), LdWgt(addr=(1, 0), k=k, n=32, stride=64),
                 Mma(t=0, k=k, acc=1)]  # fmt: skip
    text += [St(a=1, addr=(1, 0), stride=64)] * 3
    text += [VMuli(d=0, a=0, imm=2.0), *[St(a=0, addr=(1, 0), stride=64)] * 9, *[VMuli(d=2, a=2, imm=1.0)] * 9]
    same(program([*text, Addi(rd=1, rs=1, imm=64), Endl()]), machine(queue_depth=8), None, array)


@pytest.mark.parametrize("body", [(), (Addi(rd=2, rs=2, imm=1),), (LOAD, VLd(d=0))])
def test_counting_rounds_returns_to_the_interpreter(monkeypatch: pytest.MonkeyPatch, body: tuple[Insn, ...]) -> None:
    """Every quantum of steps, so that a keyboard interrupt is served, and without writing more rounds than needed."""
    calls: list[int] = []
    step = sequencer_module._step  # pyright: ignore[reportPrivateUsage]
    monkeypatch.setattr(sequencer_module, "_step", lambda *a: (r := step(*a), calls.append(r[1]))[0])
    monkeypatch.setattr(sequencer_module, "_QUANTUM", 1000)
    found = rounds_of(*body, count=10_000)
    parts = list(expand_chunks(found, repeats=find_repeats(found)))
    assert len(calls) >= 10_000 * (len(body) + 2) // 1100
    assert max(calls) < 20
    assert sum(part.executed for part in parts) == 10_000 * sum(insn.engine != "seq" for insn in body)


def test_a_piece_leaves_out_a_bounded_number_of_commands(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that timing returns to the interpreter now and then, and tells its progress, even if it has to walk them."""
    monkeypatch.setattr(sequencer_module, "_LEFT_OUT", 500)
    found = loop_of(1000)
    parts = list(expand_chunks(found, repeats=find_repeats(found)))
    assert all(500 <= part.executed < 600 for part in parts[:-1]) and len(parts) > 8
    assert sum(part.executed for part in parts) == 5000
    same(found, FOCUS, None, "pipelined")
