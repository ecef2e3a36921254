"""The array models against their closed forms."""

from __future__ import annotations

import pytest

from focusc.isa.timing import simulate
from tests.isa.timing_programs import array_cycles, concentrated, counts, fast, gemm, machine, parts_add_up

SHAPES = [(32, 32), (64, 16), (16, 64), (8, 128), (4, 8)]


@pytest.mark.parametrize("rows", [1, 2, 31, 32, 33, 500, 1023, 1024])
def test_one_scalesim_pass_costs_u_plus_93(rows: int) -> None:
    assert array_cycles(simulate(gemm(rows, 32, 32), machine(), array="scalesim")) == rows + 93


@pytest.mark.parametrize(("r", "c"), SHAPES)
@pytest.mark.parametrize("rows", [1, 40, 512])
def test_one_pass_of_any_array_costs_u_plus_2r_plus_c_minus_3(r: int, c: int, rows: int) -> None:
    timing = simulate(gemm(rows, r, c), machine(array={"rows": r, "cols": c}), array="scalesim")
    assert array_cycles(timing) == rows + 2 * r + c - 3


@pytest.mark.parametrize(("r", "c"), SHAPES)
@pytest.mark.parametrize(("rows", "k", "n"), [(100, 96, 96), (64, 100, 70), (7, 33, 1), (300, 512, 160)])
def test_scalesim_passes_do_not_overlap(r: int, c: int, rows: int, k: int, n: int) -> None:
    timing = simulate(gemm(rows, k, n, times=3), machine(array={"rows": r, "cols": c}), array="scalesim")
    passes = -(-k // r) * -(-n // c) * 3
    assert array_cycles(timing) == passes * (rows + 2 * r + c - 3)
    assert timing.busy["mxu"] == passes * rows
    assert parts_add_up(timing)


def test_an_isolated_pass_costs_the_same_in_both_models() -> None:
    program, hardware = gemm(200, 32, 32, store=True), machine()
    scalesim, pipelined = (simulate(program, hardware, array=array) for array in ("scalesim", "pipelined"))
    assert scalesim.cycles == pipelined.cycles


@pytest.mark.parametrize("rows", [1, 16, 31, 32, 33, 200, 1024])
def test_pipelined_passes_cost_max_u_32_in_steady_state(rows: int) -> None:
    few, many = (simulate(gemm(rows, 32 * deep, 96), fast(), array="pipelined").cycles for deep in (4, 24))
    assert many - few == 20 * 3 * max(rows, 32)


def test_pipelined_burst_pays_one_fill_and_one_drain() -> None:
    timing = simulate(gemm(1024, 32 * 50, 32), fast(), array="pipelined")
    assert timing.stalls["mxu"]["fill"] == 32
    # two commands to issue before, one cycle to start, then 50 passes, then the last result leaves 61 cycles later
    assert timing.cycles == pytest.approx(50 * 1024 + 32 + 61, abs=8)


def test_a_bandwidth_bound_array_waits_for_dram() -> None:
    slow = machine(dram={"bytes_per_s": 500_000_000 * 4})
    timing = simulate(gemm(256, 1024, 32), slow, array="pipelined")
    assert timing.stalls["mxu"]["dram"] + timing.stalls["mxu"]["weight"] > timing.busy["mxu"]
    assert timing.cycles >= (256 * 1024 * 2 + 1024 * 32 * 2) / 4


@pytest.mark.parametrize(("rows", "unique"), [(1024, 1), (1024, 100), (1024, 512), (1024, 1024), (64, 10)])
def test_concentrated_passes_stream_unique_vectors_only(rows: int, unique: int) -> None:
    slots = 2
    timing = simulate(concentrated(rows, slots, 32), machine(), counts(rows, *[unique] * slots), array="scalesim")
    assert array_cycles(timing) == slots * (unique + 93)
    assert timing.scatter_cycles == slots * rows / 2


def test_scatter_overlaps_with_the_array_through_two_buffers() -> None:
    rows, slots = 256, 3
    recorded = counts(rows, *[32] * slots)
    once, thrice = (
        simulate(concentrated(rows, slots, 32, times), fast(), recorded, array="pipelined") for times in (1, 21)
    )
    # U = 32 a pass, but 128 cycles to scatter its 256 rows: the scatter sets the pace
    assert thrice.cycles - once.cycles == pytest.approx(20 * slots * rows / 2, abs=8)
    assert thrice.stalls["mxu"]["scatter"] > 0.9 * 20 * slots * (rows / 2 - 32)


def test_scatter_is_free_where_half_of_the_vectors_are_unique() -> None:
    rows, slots = 256, 3
    timing = simulate(concentrated(rows, slots, 32, 10), fast(), counts(rows, *[128] * slots), array="pipelined")
    assert timing.stalls["mxu"]["scatter"] <= 2


def test_a_small_array_takes_a_slot_in_several_passes() -> None:
    hardware = machine(array={"rows": 16, "cols": 64})
    timing = simulate(concentrated(128, 2, 64), hardware, counts(128, 40, 50), array="scalesim")
    assert array_cycles(timing) == 2 * (40 + 93) + 2 * (50 + 93)


def test_an_unknown_array_model_is_refused() -> None:
    with pytest.raises(Exception, match="one of scalesim, pipelined"):
        simulate(gemm(8, 8, 8), machine(), array="magic")
