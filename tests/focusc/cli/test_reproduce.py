"""`focusc reproduce`: the figures of the published tables, where each number comes from, files and bad input."""

from __future__ import annotations

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from focusc.backends.trace_synth import synthesize
from focusc.backends.workload import load_workload
from focusc.driver import InputError
from focusc.report.reproduce import TABLES, reproduce
from focusc.report.reproduce.figures import COLUMNS, PROVENANCE, Number, Table, joined, ratio_of
from focusc.report.reproduce.hardware import FEWEST, tile_shares
from focusc.report.reproduce.plots import FIGURES, draw

from .conftest import Cli

Golden = Callable[[str, str], None]


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    """All tables in both accountings."""
    return {table.name: table for table in reproduce((), ("published", "corrected"))}


def value(table: Table, keys: tuple[str, ...], quantity: str, accounting: str = "published") -> Number:
    found = table.get(keys, quantity, accounting)
    assert found is not None, f"{table.name} has no {quantity} of {keys}"
    return found


@pytest.mark.parametrize("name", TABLES)
def test_every_number_has_a_value_a_unit_and_a_provenance(tables: dict[str, Table], name: str) -> None:
    rows = list(csv.DictReader(io.StringIO(tables[name].csv())))
    assert rows
    assert tuple(rows[0]) == (*tables[name].keys, *COLUMNS)
    for row in rows:
        kinds = row["provenance"].split("+")
        assert set(kinds) <= set(PROVENANCE)
        assert row["unit"] and row["quantity"]
        assert (row["computed"] == "") == (row["provenance"] == "quoted"), row
        assert (row["accounting"] == "") == (row["computed"] == "")
        float(row["published"])
    once = [tuple(row[k] for k in (*tables[name].keys, "quantity", "accounting")) for row in rows]
    assert len(once) == len(set(once)), "a number is there twice"


def test_the_results_have_all_rows_and_those_without_a_trace_are_equal(tables: dict[str, Table]) -> None:
    numbers = [n for n in tables["results"].numbers if n.accounting == "published"]
    assert len({tuple(n.keys.values()) for n in numbers}) == 72
    exact = [n for n in numbers if n.provenance == "exact"]
    without = {n.keys["accelerator"] for n in exact if n.quantity == "cycles"}
    assert without == {"systolic", "adaptiv", "cmc", "focus-sec"}
    assert max(abs(n.error or 0.0) for n in exact) < 1e-9
    assert {n.quantity for n in numbers if n.provenance == "fitted"} == {"macs"}
    shown = [n for n in numbers if n.quantity in ("cycles", "dram_bytes", "energy_mj")]
    assert 0.01 < max(abs(n.error or 0.0) for n in shown) < 0.05


# cost_model section 7: figures computed from the published tables alone
HEADLINE = [
    ("headline", ("systolic",), "speedup", 4.466), ("headline", ("adaptiv",), "speedup", 2.602),
    ("headline", ("cmc",), "speedup", 2.350), ("headline", ("focus-sec",), "speedup", 1.372),
    ("headline", ("gpu",), "speedup", 7.896), ("headline", ("gpu-framefusion",), "speedup", 2.370),
    ("headline", ("adaptiv",), "energy_ratio", 2.977), ("headline", ("cmc",), "energy_ratio", 3.292),
    ("headline", ("gpu",), "energy_ratio", 17.115), ("headline", ("systolic",), "area_overhead_percent", 2.768),
    ("speedup", ("geometric mean", "all", "focus-sec"), "speedup", 3.254),
    ("speedup", ("geometric mean", "all", "adaptiv"), "speedup", 1.716),
    ("speedup", ("geometric mean", "all", "gpu"), "speedup", 0.566),
    ("speedup", ("llava-onevision-7b", "mvbench", "focus"), "speedup", 5.741),
    ("images", ("geometric mean", "all", "focus"), "speedup", 2.851),
    ("images", ("geometric mean", "all", "adaptiv"), "speedup", 2.147),
    ("ablation", ("cmc over systolic",), "speedup", 2.000), ("ablation", ("focus-sec over cmc",), "speedup", 1.576),
    ("ablation", ("focus over focus-sec",), "speedup", 1.436), ("ablation", ("focus over systolic",), "speedup", 4.527),
    ("accuracy", ("mean", "all", "focus"), "sparsity_percent", 80.192),
    ("accuracy", ("mean", "all", "focus-sec"), "sparsity_percent", 73.082),
    ("accuracy", ("mean", "all", "cmc"), "sparsity_percent", 48.210),
    ("accuracy", ("mean", "all", "adaptiv"), "sparsity_percent", 42.819),
    ("images", ("mean", "all", "focus"), "sparsity_percent", 70.227),
    ("traffic", ("mean", "adaptiv"), "dram", 0.443), ("traffic", ("mean", "cmc"), "dram", 0.765),
    ("traffic", ("mean", "focus"), "dram", 0.205), ("traffic", ("mean", "focus"), "activation", 0.178),
    ("traffic", ("mean", "cmc"), "activation", 0.535), ("tile-rows", ("32",), "latency", 5.594),
    ("block-size", ("1x1x1",), "latency", 1.601), ("accumulators", ("64",), "latency", 1.052),
    ("accumulators", ("160",), "buffer_area_mm2", 2.066),
    ("utilisation", ("array, mean of video runs", "focus"), "utilisation", 0.793),
    ("utilisation", ("array, mean of video runs", "systolic"), "utilisation", 0.897),
]


@pytest.mark.parametrize(("name", "keys", "quantity", "said"), HEADLINE)
def test_a_ratio_of_published_figures(tables: dict[str, Table], name: str, keys: tuple[str, ...], quantity: str,
                                      said: float) -> None:
    found = value(tables[name], keys, quantity)
    assert found.published == pytest.approx(said, abs=6e-4)
    assert found.computed == pytest.approx(said, rel=0.08)


def test_ratios_of_exact_figures_are_equal(tables: dict[str, Table]) -> None:
    found = [n for table in tables.values() for n in table.numbers
             if n.provenance == "exact" and n.accounting == "published" and n.error is not None]
    assert len(found) > 600
    wrong = [n for n in found if abs(n.error or 0.0) > 1e-9]
    assert not wrong, wrong[:3]


def test_parts_of_focus_add_up(tables: dict[str, Table]) -> None:
    table = tables["area-power"]
    parts = [key for key in table.rows() if key[0] == "focus" and key[1] not in ("all on chip", "dram")]
    for quantity in ("area_mm2", "power_mw"):
        total = value(table, ("focus", "all on chip"), quantity).computed
        assert sum(value(table, key, quantity).computed or 0.0 for key in parts) == pytest.approx(total)


def test_provenance_of_ratios() -> None:
    assert joined("exact", "exact") == "exact"
    assert joined("exact", "fitted") == "matched"
    assert joined("quoted", "matched") == "matched+quoted"
    assert joined("quoted", "exact") == "exact+quoted"
    gpu = Number({}, "time_s", "s", 8.0, None, "quoted")
    ours = Number({}, "time_s", "s", 2.0, 4.0, "matched", "published")
    assert ratio_of(gpu, ours) == (4.0, 2.0, "matched+quoted")
    assert ratio_of(gpu, gpu) == (1.0, None, "quoted")
    assert ours.error == 1.0
    with pytest.raises(InputError, match="provenance 'guessed'"):
        Number({}, "time_s", "s", 1.0, None, "guessed")


def test_tiles_are_as_full_as_their_unique_vectors_say() -> None:
    trace = synthesize(load_workload("llava-onevision-7b", "mme"), compression=1.0)
    consecutive = tile_shares(trace, "consecutive")
    rows = np.unique(np.concatenate([trace.tile_rows(i, "q_proj") for i in range(trace.layers)]))
    rows = rows[rows >= FEWEST]
    assert set(np.unique(consecutive)) <= {r / (r + 32) for r in range(1, 1025)}
    assert consecutive.max() == rows.max() / (rows.max() + 32)
    interleaved = tile_shares(trace, "interleaved")
    assert interleaved.min() >= consecutive.min()  # a rest of few tokens is dealt to all tiles
    assert np.array_equal(interleaved, tile_shares(trace, "interleaved"))


@pytest.mark.parametrize("name", TABLES)
def test_every_table_has_a_figure(tables: dict[str, Table], name: str) -> None:
    assert set(FIGURES) == set(TABLES)
    files = draw(tables[name])
    assert files["png"].startswith(b"\x89PNG")
    assert b"<svg" in files["svg"]


def test_the_terminal_shows_published_ours_and_the_mark(cli: Cli, golden: Golden) -> None:
    found = cli("reproduce", "headline", "--accounting", "both")
    assert found.status == 0
    golden("reproduce_headline", re.sub(r"\d+\.\d+ s of processor time", "<seconds>", found.out))


def test_files_are_written_whole_and_the_same_each_time(cli: Cli, tmp_path: Path) -> None:
    assert cli("reproduce", "ablation", "-o", "out/a").status == 0
    assert cli("reproduce", "ablation", "-o", "out/b", "--json").status == 0
    names = sorted(path.name for path in (tmp_path / "out" / "a").iterdir())
    assert names == ["ablation.csv", "ablation.png", "ablation.svg"]
    for name in names:
        assert (tmp_path / "out" / "a" / name).read_bytes() == (tmp_path / "out" / "b" / name).read_bytes()


def test_json_holds_the_numbers(cli: Cli) -> None:
    found = json.loads(cli("reproduce", "ablation", "--json").out)
    assert list(found["tables"]) == ["ablation"]
    assert {n["provenance"] for n in found["tables"]["ablation"]["numbers"]} == {"exact", "matched"}


def test_unknown_table(cli: Cli, golden: Golden) -> None:
    found = cli("reproduce", "resluts", "-o", "out")
    assert found.status == 1 and found.out == "" and not Path("out").exists()
    golden("reproduce_table", str(found))


def test_a_file_where_the_folder_should_be(cli: Cli, golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "out").write_text("mine")
    found = cli("reproduce", "ablation", "-o", "out")
    assert found.status == 1 and found.out == "" and (tmp_path / "out").read_text() == "mine"
    golden("reproduce_folder", str(found))


def test_unknown_accounting_is_wrong_usage(cli: Cli) -> None:
    assert cli("reproduce", "--accounting", "generous").status == 2


def test_help_names_every_table(cli: Cli) -> None:
    shown = cli("reproduce", "--help").out
    assert [name for name in TABLES if name not in shown] == []
    assert "--accounting" in shown and "--output" in shown
