"""Compiled programs against the closed form: every difference has a named cause, on any small decoder."""

from __future__ import annotations

import dataclasses

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.backends.cost import load_accelerator
from focusc.backends.cost.crosscheck import CAUSES, Comparison, cross_check
from focusc.backends.hardware import load_hardware
from focusc.backends.prefill import build
from focusc.backends.trace_program import site_counts
from focusc.backends.trace_synth import synthesize
from focusc.backends.workload import Workload, load_workload
from focusc.driver.compiler import compile_model
from focusc.driver.options import CompileOptions

METHODS = {"dense": ("systolic", "none"), "sec": ("focus", "sec"), "focus": ("focus", "focus")}
LEFT = 0.02
"""What causes may leave of an operation's figure."""


def checked(workload: Workload, method: str, compression: float = 1.9) -> list[Comparison]:
    target, concentrate = METHODS[method]
    options = CompileOptions.load(None, target=target, concentrate=concentrate)
    program = compile_model(build(workload), options, weights=False).program
    trace = None if method == "dense" else synthesize(workload, compression=compression)
    counts = site_counts(trace, program) if trace is not None and method == "focus" else None
    return cross_check(program, load_hardware(target), workload, trace, counts, load_accelerator(target))


def small(frames: int, heads: int, kv_heads: int, ffn: int, schedule: str = "1:0.5") -> Workload:
    base = load_workload("llava-video-7b").with_frames(frames)
    return dataclasses.replace(base, layers=2, width=128 * heads, heads=heads, kv_heads=kv_heads, head_size=128,
                               ffn=ffn, vocab=0, schedule=schedule)  # fmt: skip


@pytest.mark.parametrize("method", METHODS)
def test_every_difference_has_a_named_cause(method: str) -> None:
    rows = checked(small(10, 4, 2, 1024), method)
    operations = {row.op for row in rows}
    assert {"q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj", "attention"} <= operations
    assert ("select" in operations) == (method != "dense")
    for row in rows:
        assert row.program > 0 and row.model > 0
        assert abs(row.residual) < LEFT, (row.op, row.quantity, row.residual)
        assert set(row.causes) <= set(CAUSES)


def test_linear_layers_agree_without_a_cause_where_tiles_are_alike() -> None:
    workload = dataclasses.replace(small(5, 4, 2, 1024), text_before=0)
    for row in checked(workload, "focus"):
        if row.op in ("q_proj", "k_proj", "v_proj", "o_proj", "down_proj") and row.quantity != "activation bytes":
            assert abs(row.difference) < LEFT, (row.op, row.quantity)


@settings(max_examples=6, deadline=None)
@given(
    frames=st.integers(1, 12),
    heads=st.sampled_from([(2, 1), (4, 4), (6, 2)]),
    ffn=st.sampled_from([256, 800, 1536]),
    compression=st.floats(1.0, 6.0),
    method=st.sampled_from(sorted(METHODS)),
)
def test_random_small_decoders(
    frames: int, heads: tuple[int, int], ffn: int, compression: float, method: str
) -> None:
    """MACs of linear layers and bytes of weights are equal; the rest within 2 % of the causes, or half a kilobyte."""
    for row in checked(small(frames, *heads, ffn), method, compression):
        left = abs(row.program - row.model - sum(row.causes.values()))
        assert left <= max(LEFT * row.model, 512), (row.op, row.quantity, row.residual)
        if row.quantity == "MACs" and row.op != "attention":
            assert row.program == pytest.approx(row.model, rel=1e-9)
