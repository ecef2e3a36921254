# ruff: noqa: E501  (golden messages and small programs read better on one line)
"""Expansion against a Python transcription of the sequencer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.isa import Addr, Insn, IsaError, Program, R, expand
from focusc.isa.insns import (
    INSNS,
    Add,
    Addi,
    Divi,
    Endl,
    Fence,
    Halt,
    LdAct,
    LdWgt,
    Li,
    Loop,
    Max,
    Min,
    Mma,
    Mov,
    Mul,
    Muli,
    Nop,
    Sub,
    Tile,
    Trap,
    VAdd,
)
from focusc.isa.sequencer import expand_chunks


def transcribe(text: list[Insn]) -> list[tuple[int, list[Any]]]:
    """(pc, resolved fields) of every command; tiles as their window."""
    scalars, tiles, out, steps = [0] * 64, {}, [], 0
    loops: list[list[int]] = []
    wrap = lambda v: (v + (1 << 63)) % (1 << 64) - (1 << 63)  # noqa: E731
    value = lambda v: wrap(scalars[v[0]] + v[1]) if isinstance(v, tuple) else v  # noqa: E731
    pc = 0
    while not isinstance(text[pc], Halt):
        insn: Any = text[pc]
        steps += 1
        kind = type(insn)
        if kind is Loop:
            if value(insn.count) == 0:
                depth = 1
                while depth:
                    pc += 1
                    depth += isinstance(text[pc], Loop) - isinstance(text[pc], Endl)
            else:
                loops.append([pc, value(insn.count)])
        elif kind is Endl:
            loops[-1][1] -= 1
            if loops[-1][1]:
                pc = loops[-1][0]
            else:
                loops.pop()
        elif kind is Tile:
            tiles[insn.t] = (value(insn.off), value(insn.rows), value(insn.cols), value(insn.pitch))
        elif kind in (Li, Mov, Add, Addi, Sub, Mul, Muli, Min, Max, Divi):
            a = insn.imm if kind is Li else scalars[insn.rs]
            b = scalars[insn.rt] if hasattr(insn, "rt") else getattr(insn, "imm", 0)
            result = {Li: a, Mov: a, Add: a + b, Addi: a + b, Sub: a - b, Mul: a * b, Muli: a * b, Min: min(a, b),
                      Max: max(a, b), Divi: a // b if b else 0}[kind]
            if insn.rd:
                scalars[insn.rd] = wrap(result)
        elif kind is not Nop:
            row = []
            for name, item in insn.fields.items():
                v = getattr(insn, name)
                row.append(tiles[v] if item.kind == "tile" and v != 31 else -1 if item.kind == "tile"
                           else item.choices.index(v) if item.kind == "enum" else value(v))
            out.append((pc, row))
        pc += 1
    return out


REGISTER = st.integers(0, 5)
SMALL = st.integers(-50, 50)
SIMPLE = st.one_of(
    st.builds(Li, REGISTER, SMALL | st.just((1 << 63) - 1)), st.builds(Mov, REGISTER, REGISTER),
    st.builds(Add, REGISTER, REGISTER, REGISTER), st.builds(Addi, REGISTER, REGISTER, SMALL),
    st.builds(Sub, REGISTER, REGISTER, REGISTER), st.builds(Mul, REGISTER, REGISTER, REGISTER),
    st.builds(Muli, REGISTER, REGISTER, SMALL), st.builds(Min, REGISTER, REGISTER, REGISTER),
    st.builds(Divi, REGISTER, REGISTER, st.integers(0, 9)), st.builds(Max, REGISTER, REGISTER, REGISTER), st.just(Nop()),
    st.builds(lambda t, n: Tile(t, 64 * n, n + 1, 2, 2), st.integers(0, 3), st.integers(0, 3)),
    st.builds(lambda r, o: LdAct(Addr(r, o), 2, 3, 4), REGISTER, SMALL),
    st.builds(lambda r: LdWgt(Addr(r, 8), 2, 3, 4, 1, "i8"), REGISTER),
    st.builds(lambda t: Mma(t, 2, 1), st.integers(0, 3)), st.builds(lambda a, b: VAdd(a, b, "s"), st.integers(0, 3), st.integers(0, 3)),
    st.just(Fence(act=1)))
BODY = st.recursive(st.lists(SIMPLE, max_size=6), lambda inner: st.builds(
    lambda before, count, body, after: [*before, Loop(count), *body, Endl(), *after],
    st.lists(SIMPLE, max_size=3), st.integers(0, 3), inner, st.lists(SIMPLE, max_size=3)), max_leaves=4)
SETUP = [Tile(t, 0, 1, 1, 1) for t in range(4)]


@settings(max_examples=150, deadline=None)
@given(BODY)
def test_expansion_is_the_transcription(body: list[Insn]) -> None:
    text = [*SETUP, *body, Halt()]
    expected = transcribe(text)
    trace = expand(Program(text))
    for chunks in ([trace], list(expand_chunks(Program(text), 3))):
        found = []
        for part in chunks:
            for pc, op, row in zip(part.pc.tolist(), part.op.tolist(), part.fields.tolist(), strict=True):
                items = list(INSNS[op].fields.values())
                found.append((pc, [tuple(part.tiles[v].tolist()) if f.kind == "tile" and v >= 0 else v
                                   for f, v in zip(items, row, strict=False)]))
        assert found == expected


def test_slots_count_sequencer_steps() -> None:
    trace = expand(Program([Nop(), Tile(1, 0, 1, 1, 1), Loop(2), VAdd(1, 1, 1), Endl(), Halt()]))
    assert trace.slot.tolist() == [3, 5] and len(trace.tiles) == 1 and trace.first == 0


def test_a_register_trip_count_and_many_chunks_agree() -> None:
    text = [Li(1, 5000), Tile(1, 0, 1, 1, 1), Li(2, 0), Loop(R(1)), Tile(2, R(2), 1, 1, 1), Addi(2, 2, 64), VAdd(2, 1, 1),
            Endl(), Halt()]
    chunks = list(expand_chunks(Program(text), 100))
    assert [len(c) for c in chunks] == [100] * 50 and [c.first for c in chunks] == list(range(0, 5000, 100))
    assert all(c.tiles[c.fields[i, 1]].tolist() == [0, 1, 1, 1] for c in chunks for i in (0, 99))
    merged = expand(Program(text))
    assert (merged.tiles[merged.fields[:, 0]][:, 0] == 64 * np.arange(5000)).all()


@pytest.mark.parametrize(("text", "message"), [
    ([VAdd(1, 1, 1), Halt()], "pc 0: v.add t1, t1, t1: error[run.tile]: tile t1 is used but not defined\n"
                              "  hint: execute `tile` for it first"),
    ([Loop(1), Halt()], "pc 0: error[program.loop]: loop without an endl"),
    ([Endl(), Halt()], "pc 0: error[program.endl]: endl without a loop"),
    ([Nop()], "error[program.halt]: the last instruction is not halt\n  hint: end the program with `halt`"),
    ([Halt(), Halt()], "pc 0: error[program.halt]: halt stands before the end of the program"),
    ([Loop(1)] * 17 + [Endl()] * 17 + [Halt()], "pc 16: error[program.nest]: loops are nested more than 16 deep"),
    ([Li(3, -2), Loop(R(3)), Endl(), Halt()], "pc 1: loop r3: error[run.negative]: count is -2, expected a number >= 0"),
    ([Trap(7), Halt()], "pc 0: trap 7: error[run.trap]: trap 7 was reached"),
    ([Tile(1, 5, 1, 1, 1), Halt()],
     "pc 0: tile t1, off=5, rows=1, cols=1, pitch=1: error[run.window]: tile window off=5, rows=1, cols=1, pitch=1\n"
     "  hint: off is a multiple of 64, rows and cols are not 0, pitch is at least cols"),
    ([Loop(1 << 23), Loop(1 << 23), Endl(), Endl(), Halt()],
     "pc 2: endl: error[run.runaway]: the program executes more than 100,000 steps of the sequencer\n"
     "  hint: check the trip counts of its loops, or raise max_steps"),
    ([Loop(1 << 23), Fence(act=1), Endl(), Halt()],
     "pc 1: fence act: error[run.runaway]: the program executes more than 1,000 commands\n"
     "  hint: check the trip counts of its loops, or raise max_commands"),
])
def test_faults(text: list[Insn], message: str) -> None:
    with pytest.raises(IsaError) as caught:
        expand(Program(text), max_commands=1000, max_steps=100_000)
    assert caught.value.render() == message


def test_a_trace_has_a_byte_budget() -> None:
    found = Program([Loop(1 << 20), Fence(act=1), Endl(), Halt()])
    with pytest.raises(IsaError) as caught:
        expand(found, max_bytes=1 << 20)
    assert caught.value.code == "run.trace" and "1,048,576 bytes" in caught.value.message
    assert expand(found, max_commands=1 << 20).nbytes <= 256 << 20


def test_pausing_the_sequencer_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    text = [Li(1, 0), Loop(300), Tile(1, R(1), 1, 1, 1), Addi(1, 1, 64), Nop(), VAdd(1, 1, 1), Endl(), Halt()]
    whole = expand(Program(text))
    for quantum in (1, 2, 7, 1000):
        monkeypatch.setattr("focusc.isa.sequencer._QUANTUM", quantum)
        parts = expand(Program(text))
        assert (parts.slot == whole.slot).all() and (parts.pc == whole.pc).all()
        assert (parts.tiles[parts.fields[:, 0]] == whole.tiles[whole.fields[:, 0]]).all()


def test_an_empty_loop_without_end_is_stopped() -> None:
    text = [Li(1, 1 << 62), Loop(R(1)), Endl(), Halt()]
    with pytest.raises(IsaError, match="steps of the sequencer"):
        expand(Program(text), max_steps=1 << 25)
