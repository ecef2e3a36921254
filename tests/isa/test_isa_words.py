# ruff: noqa: E501  (golden messages and small programs read better on one line)
"""Encoding: a bijection between instructions, words and text, derived from the declarations."""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.isa import INSNS, Insn, IsaError, Program, R, assemble, decode, encode
from focusc.isa.fields import f32_bits, f32_text
from focusc.isa.insns import Add, CfgSic, Halt, LdAct, Li, Mma, VAddi, decode_word
from focusc.isa.predecode import predecode
from focusc.isa.reference import reference
from tests.isa.strategies import CLASSES, insns
from tests.unchecked import unchecked


@settings(max_examples=300, deadline=None)
@given(insns())
def test_word_round_trip(insn: Insn) -> None:
    assert decode(insn.encode()) == [insn]
    assert decode(encode([insn, insn])) == [insn, insn]


@settings(max_examples=200, deadline=None)
@given(st.lists(insns([c for c in CLASSES if c.mnemonic not in ("loop", "endl", "halt", "host")]), min_size=1, max_size=8))
def test_text_round_trip(body: list[Insn]) -> None:
    text = "\n".join(map(str, [*body, Halt()]))
    assert assemble(text).insns == [*body, Halt()]


@pytest.mark.parametrize("cls", CLASSES, ids=lambda c: c.mnemonic)
def test_every_class_has_a_text_that_assembles(cls: type[Insn]) -> None:
    fills = {"addr": (3, 64), "tile": 1, "f32": 0.5, "reg": 2}
    values = {n: (f.choices[-1] if f.choices else 1 if f.kind == "flag" else fills.get(f.kind, 7))
              for n, f in cls.fields.items()}
    insn = cls(**values)
    tail = {"loop": ["endl", "halt"], "halt": []}.get(cls.mnemonic, ["halt"])
    head = ["loop 1"] if cls.mnemonic == "endl" else []
    segments = ['.host {"inputs":[],"outputs":[],"nodes":[]}'] * 8 if cls.mnemonic == "host" else []
    program = assemble("\n".join([*segments, *head, str(insn), *tail]))
    assert program.insns[len(head)] == insn


def mutated() -> st.SearchStrategy[tuple[int, int, int, int]]:
    """Words near legal ones: an instruction with a few bits flipped."""
    return st.builds(lambda insn, flips: tuple(
        lane ^ sum(1 << (bit % 64) for bit in set(flips) if bit // 64 == i) for i, lane in enumerate(insn.lanes())),
        insns(), st.lists(st.integers(0, 255), max_size=3))


@settings(max_examples=500, deadline=None)
@given(mutated() | st.tuples(*[st.integers(0, (1 << 64) - 1)] * 4))
def test_a_word_is_canonical_or_illegal(lanes: tuple[int, int, int, int]) -> None:
    words = np.array([lanes, Halt().lanes()], np.uint64)
    try:
        insn = decode_word(lanes)
    except IsaError:
        with pytest.raises(IsaError):
            predecode(Program(words))
        return
    assert insn.lanes() == lanes
    if insn.mnemonic not in ("loop", "endl", "halt", "host"):
        pre = predecode(Program(words))
        for column, (name, item) in enumerate(insn.fields.items()):
            value: Any = getattr(insn, name)
            if item.kind == "enum":
                register, number = 0, item.choices.index(value)
            elif item.kind == "f32":
                register, number = 0, f32_bits(value)
            elif item.kind == "reg":
                register, number = value, 0
            else:
                register, number = value if isinstance(value, tuple) else (0, value)
            assert (pre.regs[0, column], pre.imms[0, column]) == (register, number)


def test_declarations_do_not_overlap_and_are_documented() -> None:
    for cls in INSNS.values():
        seen = 0xFF
        for item in cls.fields.values():
            bits = item.mask << (64 * item.lane + item.low)
            assert not seen & bits and bits >> 256 == 0
            assert item.low + item.bits <= 64, "a field straddles a lane"
            seen |= bits
            assert item.doc or item.kind == "enum", f"{cls.mnemonic}.{item.name} says nothing"
        assert cls.__doc__


def test_every_command_has_a_meaning() -> None:
    without = {cls.mnemonic for cls in INSNS.values() if cls.meaning() is None}
    assert without == {"divi", "nop", "li", "mov", "add", "addi", "sub", "mul", "muli", "min", "max", "loop", "endl", "halt",
                       "trap", "tile"}


def test_reference_manual_is_generated_from_the_declarations(request: pytest.FixtureRequest) -> None:
    path = request.config.rootpath / "docs" / "isa.md"
    assert path.read_text(encoding="utf-8") == reference(), "run python -m focusc.isa.reference"


@given(st.floats(width=32, allow_nan=False))
def test_float_text_is_shortest_and_exact(value: float) -> None:
    text = f32_text(value)
    assert struct.pack("<f", float(text)) == struct.pack("<f", value)
    assert len(text) <= len(repr(value)) + 2


@pytest.mark.parametrize(("make", "message"), [
    (lambda: Mma(t=31, k=1), "error[insn.operand]: mma: operand t is 's', expected a tile descriptor 0..30 (the stream can "
                             "only be a vector source)"),
    (lambda: unchecked(Mma)(t=1), "error[insn.operand]: mma: operand k is missing\n  hint: operands: t, k, acc"),
    (lambda: unchecked(Mma)(t=1, k=float("nan")), "error[insn.operand]: mma: operand k is nan, expected an integer or R(n)"),
    (lambda: unchecked(Mma)(t=1, k=float("inf")), "error[insn.operand]: mma: operand k is inf, expected an integer or R(n)"),
    (lambda: unchecked(Mma)(t=1, k=1, j=2), "error[insn.operand]: mma: operand j given, which it does not have\n"
                                 "  hint: operands: t, k, acc"),
    (lambda: unchecked(Mma)(1, 2, t=1), "error[insn.operand]: mma: operand t given, twice\n  hint: operands: t, k, acc"),
    (lambda: unchecked(Mma)(1, 2, 0, 3), "error[insn.operand]: mma has 3 operands, not 4"),
    (lambda: unchecked(CfgSic)(2, 2, 2, 32, 0.9), "error[insn.operand]: cfg.sic has 4 operands beside the 3 that are given by name, "
                                       "not 5"),
    (lambda: Mma(t=1, k=1 << 24), "error[insn.operand]: mma: operand k is 16777216, expected an integer or R(n) in "
                                  "0..16777215"),
    (lambda: unchecked(Mma)(t=1, k=1.5), "error[insn.operand]: mma: operand k is 1.5, expected an integer or R(n)"),
    (lambda: Add(1, R(2, 3), 4), "error[insn.operand]: add: operand rs is R(index=2, offset=3), expected a plain register"),
    (lambda: Li(64, 0), "error[insn.operand]: li: operand rd is 64, expected a register in 0..63"),
    (lambda: VAddi(1, 2, float("nan")), "error[insn.operand]: v.addi: operand imm is nan, expected a number that is not NaN"),
    (lambda: LdAct(0, 1, 1, 2, "f64"), "error[insn.operand]: ld.act: operand dtype is 'f64', expected one of f16, bf16, i8, "
                                       "f32"),
    (lambda: decode_word((0xFE, 0, 0, 0), 3), "pc 3: error[text.opcode]: no instruction has opcode 0xfe"),
    (lambda: decode_word((0x0E | 1 << 40, 0, 0, 0), 3), "pc 3: error[text.reserved]: halt: reserved bits 0x10000000000 of "
                                                        "lane 0 are set"),
    (lambda: decode(b"123"), "error[text.size]: text is 3 bytes, not a whole number of 32-byte words"),
])
def test_messages(make: Callable[[], object], message: str) -> None:
    with pytest.raises(IsaError) as caught:
        make()
    assert caught.value.render() == message


def test_instructions_are_immutable_values() -> None:
    a = Mma(t=1, k=R(5))
    assert a == Mma(t=1, k=R(5, 0)) and hash(a) == hash(Mma(1, R(5))) and a != Mma(1, 5)
    assert Mma(1, R(0, 7)) == Mma(1, 7), "r0 is zero, so the register form is not canonical"
    with pytest.raises(AttributeError):
        unchecked(a).t = 2
