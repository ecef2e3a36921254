"""The array models against their closed forms."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusc.isa.machine import Machine
from focusc.isa.timing import simulate
from focusc.isa.timing_state import PASSES
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


def small_partial(bytes_: int) -> Machine:
    """Focus whose memory never limits, with a smaller buffer for partial sums."""
    return fast(buffers={"partial": {**machine().to_dict()["buffers"]["partial"], "bytes": bytes_}})


def test_the_scatter_sets_the_pace_where_few_vectors_are_unique() -> None:
    rows, slots, times = 256, 3, 100
    recorded = counts(rows, *[32] * slots)
    once, often = (
        simulate(concentrated(rows, slots, 32, n), fast(), recorded, array="pipelined") for n in (1, 1 + times)
    )
    # U = 32 a pass, but 128 cycles to scatter its 256 rows
    assert often.cycles - once.cycles == pytest.approx(times * slots * rows / 2, abs=8)
    # the array ends as many scatters earlier as passes with their sums (and maps) fit the buffer
    ahead, passes = min(PASSES, machine().buffers.partial.bytes // (32 * 32 * 2 + 2 * rows)), (1 + times) * slots
    assert often.stalls["mxu"]["scatter"] == pytest.approx((passes - ahead) * rows / 2 - passes * 32, abs=rows)


@pytest.mark.parametrize(("unique", "waits"), [(504, 0), (505, 1)])
@pytest.mark.parametrize("cols", [32, 96])
def test_the_map_of_a_waiting_slice_takes_room(cols: int, unique: int, waits: int) -> None:
    """Two passes of 504 vectors and a map of 512 rows are 64 KiB; one map is used by all passes of a slice."""
    rows, slots = 512, 3
    timing = simulate(concentrated(rows, slots, cols), small_partial(1 << 16), counts(rows, *[unique] * slots),
                      array="pipelined")
    assert timing.stalls["mxu"]["scatter"] == pytest.approx(waits * (slots - 1) * rows / 2, abs=4 * slots)
    assert parts_add_up(timing)


def test_partial_sums_of_passes_with_few_vectors_queue_up() -> None:
    """Passes of few vectors leave the scatter behind; passes of many let it catch up, as far as the buffer holds."""
    rows, times = 256, 20
    unique = [32] * 4 + [256] * 4
    assert sum(unique) > 8 * rows // 2  # in the mean the array takes longer than the scatter
    hardware = {size: small_partial(size) for size in (4096, machine().buffers.partial.bytes)}
    waits, cycles = [], []
    for found in hardware.values():
        timing = simulate(concentrated(rows, 8, 32, times), found, counts(rows, *unique), array="pipelined")
        waits.append(timing.stalls["mxu"]["scatter"])
        cycles.append(timing.cycles)
        assert parts_add_up(timing)
    # 4 kB hold the sums of two passes (there is always room for two): two of four short passes wait for a scatter
    assert waits[0] > 0.8 * times * 2 * (rows / 2 - 32)
    assert waits[1] <= 2
    assert cycles[0] - cycles[1] == pytest.approx(waits[0] - waits[1], rel=0.05)


@given(unique=st.lists(st.integers(1, 256), min_size=1, max_size=8), size=st.sampled_from([2048, 8192, 32768, 65536]))
def test_a_larger_partial_sum_buffer_never_costs_cycles(unique: list[int], size: int) -> None:
    program_, recorded = concentrated(256, len(unique), 32, 6), counts(256, *unique)
    small, large = (
        simulate(program_, small_partial(size * factor), recorded, array="pipelined").cycles for factor in (1, 2)
    )
    busy = 6 * sum(max(u, 32) for u in unique)
    assert max(busy, 6 * len(unique) * 128) <= large <= small


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
