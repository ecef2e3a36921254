"""The published tables, row by row: what follows from the workload alone is equal, not close."""

from __future__ import annotations

import time
from collections.abc import Mapping
from types import FunctionType

import pytest

from focusc.backends.cost.__main__ import main as report
from focusc.backends.cost.interface import SITES
from focusc.backends.cost.tables import (
    accumulators,
    area_power,
    blocks,
    figures,
    headline,
    matched_trace,
    recompute,
    results,
    tile_rows,
    workload_of,
)
from focusc.backends.cost.uniform import uniform_trace
from focusc.backends.cost.vectors import vectors

EXACT = [row for row in figures("results") if row["accelerator"] in ("systolic", "adaptiv", "cmc", "focus-sec")]
LAST_DIGIT = 1e-15  # the tables were written with 16 digits, from sums in another order


def name(row: Mapping[str, object]) -> str:
    return f"{row['accelerator']}-{row['workload']}-{row['dataset']}"


def test_the_table_is_complete() -> None:
    rows = figures("results")
    count = {a: sum(r["accelerator"] == a for r in rows) for a in {r["accelerator"] for r in rows}}
    assert count == {"systolic": 15, "adaptiv": 15, "cmc": 9, "focus-sec": 9, "focus": 15, "focus-int8": 9}
    assert len(EXACT) == 48


@pytest.mark.parametrize("row", EXACT, ids=name)
def test_a_row_is_equal(row: dict[str, float]) -> None:
    ours = recompute(row)
    assert ours.compute_cycles == row["compute_cycles"]
    assert ours.stall_cycles == row["stall_cycles"]
    for key in ("macs", "dense_macs", "dram_bytes"):
        assert getattr(ours, key) == pytest.approx(row[key], rel=LAST_DIGIT, abs=0), key
    for key in ("dram_mj", "sram_mj", "core_mj"):
        assert getattr(ours, key) == pytest.approx(row[key], rel=1e-9, abs=0), key
    if row["accelerator"] == "focus-sec":
        assert ours.compression_ratio == 1.0  # its activation_bytes need the authors' trace of similar vectors
    else:
        assert ours.activation_bytes == row["activation_bytes"]


def test_the_block_of_one_token_is_equal() -> None:
    [found] = [c for c in blocks(lambda workload, row: None) if c.kind == "exact"]
    assert found.published["block"] == [1, 1, 1]
    assert {key: error for key, error in found.errors.items() if abs(error) > 1e-15} == {}
    assert set(found.errors) >= {"cycles", "stall_cycles", "macs", "dram_bytes", "activation_bytes", "energy_mj"}


def test_vector_sizes_follow_from_their_own_counts() -> None:
    for row, ours in vectors():
        for key in row:
            if key != "accuracy":
                assert getattr(ours, key) == pytest.approx(row[key], rel=1e-12), (row["vector"], key)


def test_area_and_power_to_six_digits() -> None:
    published = {row["accelerator"]: row for row in figures("area_power")}
    for found in area_power():
        row = published[found["accelerator"]]
        for key in ("area_mm2", "power_mw", "capacity_kib"):
            assert found[key] == pytest.approx(row[key], rel=1e-6), (found["accelerator"], key)


def test_the_breakdown_of_focus_part_by_part() -> None:
    focus = next(found for found in area_power() if found["accelerator"] == "focus")
    areas = sorted(row["area_mm2"] for row in figures("breakdown") if row["area_mm2"])
    assert sorted(focus["area_mm2_by_part"].values()) == pytest.approx(areas, rel=1e-9)
    powers = sorted(row["power_mw"] for row in figures("breakdown") if row["part"] != "dram")
    assert sorted(focus["power_mw_by_part"].values()) == pytest.approx(powers, rel=1e-9)


def test_headline_of_the_published_rows() -> None:
    found = headline()
    expected = {
        "speedup_over_systolic": 4.466, "speedup_over_adaptiv": 2.602, "speedup_over_cmc": 2.350,
        "speedup_over_focus-sec": 1.372, "speedup_over_gpu": 7.896, "speedup_over_gpu-framefusion": 2.370,
        "energy_ratio_systolic": 4.669, "energy_ratio_adaptiv": 2.977, "energy_ratio_cmc": 3.292,
        "energy_ratio_focus-sec": 1.419, "energy_ratio_gpu": 17.115, "energy_ratio_gpu-framefusion": 5.134,
        "area_overhead_percent": 2.77, "power_overhead_percent": 2.21,
    }
    assert {key: round(found[key], 2 if "percent" in key else 3) for key in expected} == expected


def test_rows_that_need_a_trace_are_quoted_without_one_and_compared_with_one() -> None:
    quoted = [c for c in results() if c.kind == "quoted"]
    assert len(quoted) == 24 and all(c.ours is None and c.errors == {} for c in quoted)
    for found in results(lambda workload, row: uniform_trace(workload, row["compression_ratio"])):
        if found.kind == "synthetic":
            assert found.errors["dense_macs"] == 0
            assert abs(found.errors["compression_ratio"]) < 0.02  # a float32 mean over floors
            assert abs(found.errors["cycles"]) < 0.16


def test_a_matched_trace_does_the_published_macs() -> None:
    for row in figures("results"):
        if row["accelerator"] == "focus":
            ours = recompute(row, trace=matched_trace(row))
            assert ours.macs == pytest.approx(row["macs"], rel=0.01), name(row)


@pytest.mark.parametrize("table", [accumulators, tile_rows, blocks])
def test_design_space_tables_have_one_entry_a_published_row(table: FunctionType) -> None:
    found = table(lambda workload, row: uniform_trace(workload, row["compression_ratio"]))
    assert len(found) == {"accumulators": 5, "tile_rows": 7, "blocks": 9}[table.__name__]
    assert all(c.errors["dense_macs"] == 0 for c in found)
    assert all(abs(c.errors["cycles"]) < 0.15 for c in found)  # same schedule and mean compression, another spread


def test_the_report_says_how_exact_the_rows_are(capsys: pytest.CaptureFixture[str]) -> None:
    report()
    printed = capsys.readouterr().out
    for line in ("systolic, 15 rows, exact", "adaptiv, 15 rows", "cmc, 9 rows", "focus-sec, 9 rows", "block 1x1x1"):
        assert f"{line}" in printed
    exact = [line for line in printed.splitlines() if "exact" in line]
    assert len(exact) == 5 and all("compute_cycles 0.0e+00, stall_cycles 0.0e+00" in line for line in exact)
    matched = next(line for line in printed.splitlines() if "matched traces" in line)
    worst = {part.split()[-2]: float(part.split()[-1]) for part in matched.split("error ")[1].split(", ")}
    assert worst["cycles"] < 0.045 and worst["dram_bytes"] < 0.019 and worst["energy_mj"] < 0.022  # as the docs say


def test_a_large_trace_and_the_whole_table_are_cheap() -> None:
    """Processor time, since the machine is shared: 0.5 s a trace, 5 s for all 72 rows."""
    traces = {name(row): uniform_trace(workload_of(row), row.get("compression_ratio", 1.0))
              for row in figures("results")}
    start = time.process_time()
    assert len(results(lambda workload, row: traces[name(row)])) == 72
    assert time.process_time() - start < 5
    row = next(r for r in figures("results") if r["accelerator"] == "focus")
    assert len(SITES) == 5 and workload_of(row).visual_tokens == 11648
    start = time.process_time()
    recompute(row, trace=traces[name(row)])
    assert time.process_time() - start < 0.5
