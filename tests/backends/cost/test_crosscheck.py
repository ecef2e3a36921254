"""Compiled programs against the closed form: every difference has a named cause, on any small decoder."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from functools import cache
from typing import Any

import hypothesis
import pytest
from hypothesis import settings
from hypothesis import strategies as st

from focusc.backends.cost import crosscheck, load_accelerator
from focusc.backends.cost.crosscheck import CAUSES, Check, Comparison, cross_check
from focusc.backends.cost.crosscheck.program import Executed, Part, Whole, execute
from focusc.backends.cost.crosscheck.sides import Sides
from focusc.backends.hardware import load_hardware
from focusc.backends.prefill import build
from focusc.backends.trace_program import site_counts
from focusc.backends.trace_synth import synthesize
from focusc.backends.workload import Workload, load_workload
from focusc.driver.compiler import compile_model
from focusc.driver.options import CompileOptions
from focusc.isa.counters import count
from focusc.isa.energy import energy
from focusc.isa.timing import simulate

METHODS = {"dense": ("systolic", "none"), "sec": ("focus", "sec"), "focus": ("focus", "focus")}
LINEAR = ("q_proj", "k_proj", "v_proj", "o_proj", "gate, up", "down_proj")
LEFT = 0.02
"""What causes may leave of a figure that follows from shapes and tiles alone."""
WAITED = 0.03
"""What they may leave of cycles: short sequences wait more at the ends of tiles, which have no cause of their own."""


def given(workload: Workload, method: str, compression: float = 1.9, *, links: bool = False) -> tuple[Any, ...]:
    """What `cross_check` takes."""
    target, concentrate = METHODS[method]
    options = CompileOptions.load(None, target=target, concentrate=concentrate)
    program = compile_model(build(workload), options, weights=False).program
    trace = None if method == "dense" else synthesize(workload, compression=compression, links=links)
    counts = site_counts(trace, program) if trace is not None and method == "focus" else None
    return program, load_hardware(target), workload, trace, counts, load_accelerator(target)


def checked(workload: Workload, method: str, compression: float = 1.9) -> Check:
    return cross_check(*given(workload, method, compression))


def small(frames: int, heads: int, kv_heads: int, ffn: int, head_size: int = 128) -> Workload:
    base = load_workload("llava-video-7b").with_frames(frames)
    return dataclasses.replace(base, layers=2, width=head_size * heads, heads=heads, kv_heads=kv_heads,
                               head_size=head_size, ffn=ffn, vocab=0, schedule="1:0.5")  # fmt: skip


@cache
def medium(method: str) -> Check:
    """Two layers of the 7B model on few frames, pruned in the first, so that rotary tables are cut too."""
    workload = load_workload("llava-video-7b").with_frames(8)
    return checked(dataclasses.replace(workload, layers=2, schedule="0:0.5"), method)


def row(check: Check, op: str, quantity: str) -> Comparison:
    return next(r for r in check.rows if (r.op, r.quantity) == (op, quantity))


@pytest.mark.parametrize("method", METHODS)
def test_every_difference_has_a_named_cause(method: str) -> None:
    check = medium(method)
    operations = {r.op for r in check.rows}
    assert {*LINEAR, "attention", "norm", "total", "energy"} <= operations
    assert ("select" in operations) == (method != "dense")
    for r in check.rows:
        most = WAITED if r.quantity == "cycles" else LEFT
        assert abs(r.residual) < most, (r.op, r.quantity, r.residual)
        assert set(r.causes) <= set(CAUSES)


@pytest.mark.parametrize("method", METHODS)
def test_rows_sum_to_the_program(method: str) -> None:
    """What the operations and what lies outside the layers did is all that the program did; so is its energy."""
    sides = given(small(4, 2, 1, 256), method)
    program, machine, counts, check = sides[0], sides[1], sides[4], cross_check(*sides)
    timing = simulate(program, machine, counts, "scalesim", detail=False)
    counters = count(timing.trace, timing.work, machine)
    assert row(check, "total", "cycles").program == pytest.approx(timing.cycles, abs=1)
    assert row(check, "total", "DRAM read").program == counters.dram_read.sum()
    assert row(check, "total", "DRAM written").program == counters.dram_write.sum()
    spent = sum(r.program for r in check.rows if r.op == "energy")
    assert spent == pytest.approx(energy(machine, counters, timing).total)
    assert sum(check.waits_program.values()) + timing.busy["mxu"] + timing.stalls["mxu"]["fill"] == timing.cycles


def test_linear_layers_agree_without_a_cause_where_tiles_are_alike() -> None:
    workload = dataclasses.replace(small(5, 4, 2, 1024), text_before=0)
    for r in checked(workload, "focus").rows:
        if r.op in LINEAR and r.op != "gate, up" and r.quantity in ("array cycles", "MACs", "DRAM read, weights"):
            assert abs(r.difference) < LEFT, (r.op, r.quantity)


def test_rotary_embedding_of_narrow_heads_is_no_pass_of_its_own() -> None:
    wide, narrow = (row(checked(small(4, 4, 2, 512, head_size=size), "dense"), "k_proj", "DRAM written")
                    for size in (128, 64))  # fmt: skip
    assert "rotary apart" in wide.causes
    assert wide.program == 2 * wide.model
    assert not narrow.causes
    assert narrow.program == narrow.model


def test_what_is_gathered_once_is_charged_once() -> None:
    """The closed form sends the product of gate and up through SIC, not both; attention's sums pass the scatter."""
    check = medium("focus")
    for op in ("q_proj", "attention", "gate, up", "norm"):
        assert row(check, op, "on chip, layouter").difference == pytest.approx(0, abs=1e-9)
    partial = row(check, "attention", "on chip, partial")
    assert partial.model > 0
    assert abs(partial.residual) < 1e-3


@cache
def executed(method: str) -> tuple[tuple[Any, ...], Executed]:
    """A small cross-check's arguments, and what its program does."""
    sides = given(small(6, 2, 1, 256), method)
    return sides, execute(sides[0], sides[1], sides[4])


def falsified(monkeypatch: pytest.MonkeyPatch, method: str, wrong: Callable[[Executed], Executed]) -> Check:
    """The cross-check of a program that did something else than it did."""
    sides, true = executed(method)
    monkeypatch.setattr(crosscheck, "execute", lambda *_: wrong(true))
    return cross_check(*sides)


PARTS = {"attention": ("scores", "values"), "q_proj": ("q_proj",), "gate, up": ("gate_proj", "up_proj")}


@pytest.mark.parametrize("method", ["dense", "focus"])
@pytest.mark.parametrize("op", PARTS)
@pytest.mark.parametrize(("count", "times", "quantity"), [
    ("rows", 3, "array cycles"), ("passes", 5, "array cycles"), ("macs", 2, "MACs"),
    ("activation", 2, "DRAM read, activation"), ("weights", 2, "DRAM read, weights")])  # fmt: skip
def test_no_cause_explains_a_program_that_does_more(
    monkeypatch: pytest.MonkeyPatch, method: str, op: str, count: str, times: int, quantity: str
) -> None:
    """Causes are not computed from what the program counted: wrong counts are left over, in energy too."""

    def wrong(true: Executed) -> Executed:
        def part(name: str, found: Part) -> Part:
            return dataclasses.replace(found, **{count: times * getattr(found, count)}) if name in PARTS[op] else found

        return dataclasses.replace(true, parts={key: part(key[1], found) for key, found in true.parts.items()})

    true, check = falsified(monkeypatch, method, lambda true: true), falsified(monkeypatch, method, wrong)
    assert abs(row(true, op, quantity).residual) < LEFT
    assert row(check, op, quantity).causes == row(true, op, quantity).causes
    assert row(check, op, quantity).residual > 10 * LEFT
    if quantity in ("array cycles", "MACs"):
        assert row(check, "total", quantity).residual > LEFT


@pytest.mark.parametrize("method", ["dense", "focus"])
@pytest.mark.parametrize("op", ["attention", "q_proj", "up_proj"])
def test_no_cause_explains_a_program_that_moves_more(monkeypatch: pytest.MonkeyPatch, method: str, op: str) -> None:
    """The same of whole kernels: cycles, bytes written, and every on-chip buffer."""

    def wrong(true: Executed) -> Executed:
        def whole(name: str, found: Whole) -> Whole:
            twice = {buffer: 2 * moved for buffer, moved in found.sram.items()}
            return found if name != op else dataclasses.replace(
                found, cycles=2 * found.cycles, written=2 * found.written, sram=twice, apart=())  # fmt: skip

        return dataclasses.replace(true, wholes={key: whole(key[1], found) for key, found in true.wholes.items()})

    true, check = falsified(monkeypatch, method, lambda true: true), falsified(monkeypatch, method, wrong)
    label = "gate, up" if op == "up_proj" else op
    for r in (r for r in check.rows if r.op == label and (r.quantity in ("cycles", "DRAM written")
                                                          or r.quantity.startswith("on chip"))):  # fmt: skip
        before = row(true, label, r.quantity)
        assert r.causes == before.causes
        if r.program > before.program:
            assert r.residual > before.residual + 5 * LEFT, r.quantity


def test_vectors_of_a_block_are_those_of_the_link_table_if_there_is_one() -> None:
    workload = small(6, 2, 1, 256)
    estimated, linked = (cross_check(*given(workload, "focus", 3.0, links=links)) for links in (False, True))
    for quantity in ("array cycles", "DRAM read, activation"):
        first, second = row(estimated, "attention", quantity), row(linked, "attention", quantity)
        assert first.causes["vectors of a block"] != second.causes["vectors of a block"]
        assert abs(second.residual) < LEFT


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("head_size", [64, 128])
def test_kernels_apart_follow_from_shapes(monkeypatch: pytest.MonkeyPatch, method: str, head_size: int) -> None:
    made: list[Sides] = []
    monkeypatch.setattr(crosscheck, "Sides", lambda *given: made.append(Sides(*given)) or made[-1])
    for frames in (2, 9):
        workload = dataclasses.replace(small(frames, 4, 2, 256, head_size), schedule="0:0.5")
        checked(workload, method)
        s = made[-1]
        for layer in range(workload.layers):
            for op in ("q_proj", "k_proj", "v_proj", "attention", "o_proj", "up_proj", "down_proj", "select"):
                assert sorted(s.apart(layer, op)) == sorted(s.executed.whole(layer, op).apart), (layer, op)


@settings(max_examples=6, deadline=None)
@hypothesis.given(
    frames=st.integers(1, 12),
    heads=st.sampled_from([(2, 1), (4, 4), (6, 2)]),
    head_size=st.sampled_from([64, 96, 128]),
    ffn=st.sampled_from([256, 800, 1536]),
    compression=st.floats(1.0, 6.0),
    method=st.sampled_from(sorted(METHODS)),
)
def test_random_small_decoders(
    frames: int, heads: tuple[int, int], head_size: int, ffn: int, compression: float, method: str
) -> None:
    """MACs of linear layers and bytes of weights are equal; DRAM bytes within 2 % of the causes, or half a kilobyte."""
    for r in checked(small(frames, *heads, ffn, head_size), method, compression).rows:
        if r.op == "energy" or not (r.quantity in ("array cycles", "MACs") or r.quantity.startswith("DRAM")):
            continue
        left = abs(r.program - r.model - sum(r.causes.values()))
        assert left <= max(LEFT * max(r.model, r.program), 512), (r.op, r.quantity, r.residual)
        if r.quantity == "MACs" and r.op in LINEAR:
            assert r.program == pytest.approx(r.model, rel=1e-9)
