"""What must hold for every workload, trace and accounting."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.backends.cost import (
    ACCELERATORS,
    CORRECTED,
    OPS,
    PUBLISHED,
    Accounting,
    CodecSparsity,
    Cost,
    Options,
    Quirk,
    TokenSparsity,
    Trace,
    cost,
    load_accelerator,
)
from focusc.backends.cost.uniform import uniform_trace
from focusc.backends.workload import Workload
from focusc.isa.timing import ArrayModel

HARDWARE = {name: load_accelerator(name) for name in ACCELERATORS}
LINEAR = [op for op in OPS if op.endswith("_proj")]


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    """Small decoders with a clip and a schedule."""
    kv, group, size = draw(st.integers(1, 2)), draw(st.integers(1, 4)), 32 * draw(st.integers(1, 4))
    grid = (draw(st.integers(1, 20)), draw(st.integers(1, 9)), draw(st.integers(1, 16)))
    layers = draw(st.integers(1, 3))
    schedule = draw(st.sampled_from(["", "0:0.5", f"{layers - 1}:0.3"]))
    return Workload("small", layers, kv * group * size, kv * group, kv, draw(st.integers(1, 24)) * 32,
                    grid[0] * grid[1] * grid[2], grid, draw(st.integers(1, 80)), head_size=size, schedule=schedule)


accountings = st.one_of(
    st.sampled_from([PUBLISHED, CORRECTED]),
    st.sets(st.sampled_from(sorted(Quirk, key=lambda q: q.label))).map(lambda q: Accounting("some", frozenset(q))),
)


def trace_for(name: str, workload: Workload, left: float) -> Trace:
    """A trace that leaves about `left` of the rows or vectors."""
    gone = min(1 - left, 0.99)
    if name == "focus":
        return uniform_trace(workload, 1 / left)
    return {"systolic": None, "adaptiv": TokenSparsity(gone), "cmc": CodecSparsity(gone, gone, gone)}[name]


def run(name: str, workload: Workload, left: float, accounting: Accounting, options: Options | None = None) -> Cost:
    return cost(workload, trace_for(name, workload, left), HARDWARE[name], accounting=accounting, options=options)


@pytest.mark.parametrize("name", ACCELERATORS)
@given(workload=workloads(), left=st.floats(0.02, 1), accounting=accountings,
       array=st.sampled_from(["scalesim", "pipelined"]), similarity=st.booleans())
@settings(max_examples=40, deadline=None)
def test_parts_are_never_negative_and_sum_to_the_totals(
    name: str, workload: Workload, left: float, accounting: Accounting, array: ArrayModel, similarity: bool
) -> None:
    options = Options(array=array, similarity=similarity)
    c = run(name, workload, left, accounting, options)
    assert all((stall >= 0).all() for stall in c.stalls_by_op.values())
    assert (c.compute_by_op >= 0).all() and (c.macs_by_op >= 0).all() and c.cycles > 0
    plain = c.to_dict()
    assert plain["compute_cycles"] + plain["stall_cycles"] == pytest.approx(plain["cycles"])
    assert sum(plain["stall_cycles_by_cause"].values()) == pytest.approx(plain["stall_cycles"])
    assert sum(plain["cycles_by_op"].values()) == pytest.approx(plain["cycles"])
    moved = sum(plain["dram_read_bytes"].values()) + sum(plain["dram_write_bytes"].values())
    assert moved == pytest.approx(plain["dram_bytes"]) and float(c.dram_bytes_by_op.sum()) == pytest.approx(moved)
    assert plain["dram_mj"] + plain["sram_mj"] + plain["core_mj"] == pytest.approx(plain["energy_mj"])
    assert sum(plain["sram_mj_by_buffer"].values()) == pytest.approx(plain["sram_mj"])
    assert sum(plain["core_mj_by_component"].values()) == pytest.approx(plain["core_mj"])
    assert sum(plain["area_mm2_by_part"].values()) == pytest.approx(plain["area_mm2"])
    assert sum(plain["power_mw_by_part"].values()) == pytest.approx(plain["power_mw"])
    assert c.time_s == c.cycles / c.clock_hz and c.compute_by_op.shape == (workload.layers, len(OPS))
    assert set(c.sram_mj_by_buffer) <= set(HARDWARE[name].buffers)
    assert set(c.sram_read_bytes) <= set(HARDWARE[name].buffers) and set(c.core_mj_by_component) == set(
        HARDWARE[name].components)
    if Quirk.NEGATIVE_TOKENS not in accounting or name != "focus":
        for book in (c.dram_read_bytes, c.dram_write_bytes, c.sram_read_bytes, c.sram_write_bytes):
            assert all((amount >= 0).all() for amount in book.values())


@pytest.mark.parametrize("name", ["adaptiv", "cmc", "focus"])
@given(workload=workloads(), lefts=st.tuples(st.floats(0.02, 1), st.floats(0.02, 1)),
       accounting=st.sampled_from([PUBLISHED, CORRECTED]), array=st.sampled_from(["scalesim", "pipelined"]))
@settings(max_examples=40, deadline=None)
def test_more_compression_never_costs_more_array_cycles(
    name: str, workload: Workload, lefts: tuple[float, float], accounting: Accounting, array: ArrayModel
) -> None:
    options = Options(array=array)
    less, more = (run(name, workload, left, accounting, options) for left in sorted(lefts))
    assert (less.compute_by_op <= more.compute_by_op + 1e-6).all()
    assert (less.macs_by_op <= more.macs_by_op + 1e-6).all()


@given(workload=workloads(), accounting=st.sampled_from([PUBLISHED, CORRECTED]))
@settings(max_examples=30, deadline=None)
def test_no_accelerator_does_more_macs_than_the_dense_one(workload: Workload, accounting: Accounting) -> None:
    counted = accounting.without(Quirk.DENSE_MACS)
    dense = run("systolic", workload, 1, counted)
    for name in ("adaptiv", "cmc", "focus"):
        assert run(name, workload, 0.5, accounting).macs <= dense.macs + 1


def whole(layers: int, tiles: int) -> Workload:
    """Sizes that every tile divides: 1024-token multiples, widths of 256, groups of eight frames with 768 tokens."""
    return Workload("whole", layers, 512, 4, 4, 1024, 3072 * tiles, (32 * tiles, 8, 12), 1, head_size=128)


@pytest.mark.parametrize("name", ACCELERATORS)
@given(layers=st.integers(1, 3), tiles=st.integers(1, 3))
@settings(max_examples=6, deadline=None)
def test_both_accountings_agree_where_no_quirk_applies(name: str, layers: int, tiles: int) -> None:
    """Linear layers without remainders, without text, before the merge or codec pass of the first layer."""
    workload = whole(layers, tiles)
    exempt = {Quirk.IMAGE_TOKENS_ONLY, Quirk.NO_VECTOR_WORK, Quirk.NO_METADATA, Quirk.TAIL_PER_OP}
    some = Accounting("corrected but for text, vector work and maps", frozenset(exempt))
    published, corrected = (run(name, workload, 1, a) for a in (PUBLISHED, some))
    for op in ("k_proj", "v_proj"):
        i = OPS.index(op)
        merge = 0 if name != "adaptiv" else workload.visual_tokens * workload.width // 64
        assert (published.compute_by_op[:, i] - merge == corrected.compute_by_op[:, i]).all()
        assert (published.dense_macs_by_op[:, i] == corrected.dense_macs_by_op[:, i]).all() or name == "systolic"
        weights = published.dram_read_bytes["weights"][:, i]
        assert (weights == corrected.dram_read_bytes["weights"][:, i]).all()
    if name == "systolic":
        for op in LINEAR:
            i = OPS.index(op)
            assert (published.cycles_by_op[:, i] == corrected.cycles_by_op[:, i]).all()
            assert (published.dram_bytes_by_op[:, i] == corrected.dram_bytes_by_op[:, i]).all()
    assert published.dense_macs == corrected.dense_macs or name == "systolic"


@given(workload=workloads(), seed=st.integers(0, 99))
@settings(max_examples=20, deadline=None)
def test_counts_by_tile_change_stalls_but_not_array_cycles(workload: Workload, seed: int) -> None:
    """With `scalesim` a pass is linear in its rows, so only scatter sees how unique vectors are spread."""
    rng = np.random.default_rng(seed)
    plain = uniform_trace(workload, 2.0)
    parts = []
    for layer in range(plain.layers):
        for site in range(5):
            rows = np.minimum(plain.m, plain.retained[layer, site] - np.arange(0, plain.retained[layer, site], plain.m))
            high = np.broadcast_to(rows[:, None], (len(rows), int(plain.slots[site])))
            parts.append(rng.integers(1, high + 1).astype(np.int32))
    unique = np.concatenate([p.reshape(-1) for p in parts])
    sums = np.array([p.sum() for p in parts], np.int64).reshape(plain.layers, 5)
    similar = plain.retained * plain.slots - sums
    spread = dataclasses.replace(plain, similar=similar, unique=unique)
    mean = dataclasses.replace(plain, similar=similar)
    detailed, averaged = (cost(workload, t, HARDWARE["focus"], accounting=CORRECTED) for t in (spread, mean))
    assert np.allclose(detailed.compute_by_op, averaged.compute_by_op)
    assert detailed.stall_cycles_by_cause["scatter"] >= averaged.stall_cycles_by_cause["scatter"] - 1e-6


def test_a_quirk_is_declared_once_and_touches_what_it_says() -> None:
    labels = [quirk.label for quirk in Quirk]
    assert len(set(labels)) == len(labels) and all(set(q.models) <= set(ACCELERATORS) for q in Quirk)
    workload = Workload("small", 2, 256, 8, 2, 512, 3000, (10, 15, 20), 40, head_size=32, schedule="0:0.4")
    for name in ACCELERATORS:
        base = run(name, workload, 0.45, PUBLISHED)
        for quirk in Quirk:
            other = run(name, workload, 0.45, PUBLISHED.without(quirk))
            same = other.to_dict() | {"accounting": ""} == base.to_dict() | {"accounting": ""}
            assert same or name in quirk.models, (name, quirk.label)
