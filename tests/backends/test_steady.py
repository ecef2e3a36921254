"""Timing of compiled programs: loops in a steady state are counted, and every figure is that of walking them."""

from __future__ import annotations

import dataclasses

import pytest

from focusc.backends.hardware import load_hardware
from focusc.backends.prefill import build
from focusc.backends.trace_program import site_counts
from focusc.backends.trace_synth import synthesize
from focusc.backends.workload import load_workload
from focusc.driver.compiler import compile_model
from focusc.driver.options import CompileOptions
from focusc.isa.sequencer import expand_chunks
from focusc.isa.stats import stats
from focusc.isa.timing import simulate
from focusc.isa.timing_repeats import find_repeats


@pytest.mark.parametrize(("target", "concentrate"), [("systolic", "none"), ("focus", "sec"), ("focus", "focus")])
@pytest.mark.parametrize("links", [False, True])
def test_a_decoder_takes_the_same_cycles_walked_and_counted(target: str, concentrate: str, links: bool) -> None:
    base = load_workload("llava-video-7b").with_frames(12)
    workload = dataclasses.replace(
        base, layers=1, width=256, heads=2, kv_heads=1, head_size=128, ffn=640, vocab=0, schedule="0:0.6"
    )
    options = CompileOptions.load(None, target=target, concentrate=concentrate)
    program, machine = compile_model(build(workload), options, weights=False).program, load_hardware(target)
    counts = None
    if concentrate == "focus":
        counts = site_counts(synthesize(workload, compression=1.9, links=links), program)
    left_out = [part.executed - len(part) for part in expand_chunks(program, repeats=find_repeats(program))]
    assert sum(left_out) > 1000
    for array in ("scalesim", "pipelined"):
        walked, counted = (simulate(program, machine, counts, array, detail=detail) for detail in (True, False))
        assert counted.commands == walked.commands
        a, b = (stats(program, machine, counts, timing) for timing in (walked, counted))
        for key in set(a) - {"energy_mj", "energy_by_component_mj", "nodes"}:
            assert b[key] == a[key], key
        assert b["energy_mj"]["total"] == pytest.approx(a["energy_mj"]["total"], rel=1e-12)
