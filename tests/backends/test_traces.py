"""Traces: made, written, read, refused, recorded, and what a program takes from them."""

from __future__ import annotations

import dataclasses
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.backends import compile_module, load_hardware
from focusc.backends.trace import IR_SITE, SITES, Trace
from focusc.backends.trace_file import load, save
from focusc.backends.trace_masks import import_masks
from focusc.backends.trace_program import record, site_counts
from focusc.backends.trace_synth import synthesize
from focusc.driver import simulate
from focusc.driver.execution import Result, counts_for, run
from focusc.ir import CompileError, PassManager
from focusc.isa.errors import IsaError
from focusc.isa.site_counts import distinct
from tests.arrays import save_arrays
from tests.backends.models import Shape, inputs, vlm
from tests.backends.test_workload import compiled, small
from tests.messages import check_messages

TRACE = synthesize(small("long"), compression=2.0, correlation=0.2, m=64)


def changed(trace: Trace = TRACE, **tables: Any) -> Trace:
    """The trace with some entries replaced: `name={index: value}` or a whole value."""
    fields: dict[str, Any] = {}
    for name, change in tables.items():
        if isinstance(change, dict):
            array = getattr(trace, name).copy()
            for index, value in change.items():
                array[index] = value
            fields[name] = array
        else:
            fields[name] = change
    return dataclasses.replace(trace, **fields, where="t.npz")


# ---- synthetic


@settings(max_examples=25, deadline=None)
@given(st.floats(1, 20), st.floats(0, 0.95), st.integers(0, 1 << 30), st.sampled_from([16, 64, 1024]))
def test_a_synthetic_trace_has_the_compression_asked_for(
    compression: float, correlation: float, seed: int, m: int
) -> None:
    trace = synthesize(small("long"), compression=min(compression, m), correlation=correlation, seed=seed, m=m)
    vectors = trace.retained * trace.columns
    most = vectors - trace.tiles * trace.columns  # the first token of a tile is always unique
    wanted = np.minimum(np.rint(vectors * (1 - 1 / min(compression, m))), most)
    assert (trace.similar == wanted).all()
    assert (trace.zero == (trace.tokens - trace.retained) * trace.columns).all()
    trace.check(small("long"))


def test_the_same_seed_gives_the_same_trace_and_another_another() -> None:
    one, same, other = (synthesize(small("long"), compression=2.0, seed=seed, m=64) for seed in (3, 3, 4))
    assert one.unique is not None and same.unique is not None and other.unique is not None
    assert np.array_equal(one.unique, same.unique) and not np.array_equal(one.unique, other.unique)


def test_correlation_spreads_the_tiles() -> None:
    def spread(correlation: float) -> float:
        trace = synthesize(small("long"), compression=2.0, correlation=correlation, m=64)
        return float(np.std(trace.unique_of(0, "q_proj") / trace.tile_rows(0, "q_proj")[:, None]))

    assert spread(0.0) < spread(0.3) < spread(0.8)


def test_links_lead_to_roots_of_the_same_tile() -> None:
    trace = synthesize(small("long"), compression=2.0, correlation=0.5, m=64, links=True)
    for layer in range(trace.layers):
        for site in SITES:
            roots = trace.links_of(layer, site)
            assert roots.shape == (trace.retained[layer, SITES.index(site)], trace.columns[SITES.index(site)])
            per_tile = [len(np.unique(roots[a : a + 64, 0])) for a in range(0, len(roots), 64)]
            assert per_tile == trace.unique_of(layer, site)[:, 0].tolist()


SYNTHETIC = pytest.mark.parametrize(
    ("given_", "message"),
    [
        ({"compression": 0.9}, "compression is 0.9, expected 1 to m = 1024"),
        ({"compression": 2, "correlation": 1.0}, "correlation is 1, expected at least 0, less than 1"),
        ({"compression": 2, "seed": -1}, "seed is -1, expected at least 0"),
        ({"compression": 1, "m": 0}, "compression is 1, expected 1 to m = 0"),
    ],
)


@SYNTHETIC
def test_parameters_out_of_range(given_: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        synthesize(small(), **given_)


# ---- files


@pytest.mark.parametrize("links", [False, True])
def test_a_file_keeps_everything(tmp_path: Path, links: bool) -> None:
    trace = synthesize(small(), compression=1.5, links=links)
    save(tmp_path / "t.npz", trace)
    found = load(tmp_path / "t.npz")
    assert found.counts is None and found.trace is not None
    for field in dataclasses.fields(Trace):
        if field.name != "where":
            a, b = getattr(trace, field.name), getattr(found.trace, field.name)
            assert np.array_equal(a, b) if isinstance(a, np.ndarray) else a == b, field.name
    assert found.trace.where == str(tmp_path / "t.npz")


BROKEN: dict[str, tuple[dict[str, Any], str]] = {
    "unique > retained": ({"unique": {5: 65}}, r"trace.unique\]: unique\[layer 0, q_proj, tile 2, slot 1\]: found 65 "
                          "unique vectors, expected 1 to the 64"),
    "no unique row in a tile": ({"unique": {0: 0}}, "tile 0, slot 0.: found 0 unique vectors, expected 1 to the 64"),
    "sums": ({"unique": {0: 1, 2: 1}}, "the counts add up to"),
    "similar": ({"similar": {(0, 0): 7}}, "expected 473: retained vectors less the 7 similar"),
    "length": ({"unique": np.ones(3, np.int32)}, r"trace.shape\]: unique: found int32\[3\], expected int32\["),
    "type": ({"unique": np.ones(3)}, r"unique: found float64\[3\], expected int32"),
    "slots": ({"slots": {0: 3}}, r"(zero|similar|unique)"),
    "too many": ({"retained": {(0, 0): 300}}, r"retained\[layer 0, q_proj\]: found 300 tokens, expected 1 to 240"),
    "none": ({"retained": {(1, 3): 0}}, r"retained\[layer 1, gate_proj\]: found 0 tokens"),
    "inside a layer": ({"retained": {(0, 1): 200}}, r"retained\[layer 0, query\]: found 200 tokens, expected 240 as at "
                       "q_proj: tokens are dropped only between o_proj and gate_proj"),
    "come back": ({"retained": {(0, 3): 100, (0, 4): 100}}, r"retained\[layer 1, q_proj\]: found 240 tokens, expected "
                  "at most the 100 before"),
    "between layers": ({"retained": {(1, 0): 200, (1, 1): 200, (1, 2): 200}}, "expected the 240 that layer 0 leaves"),
    "pruned not zero": ({"zero": {(1, 3): 0}}, r"zero\[layer 1, gate_proj\]: found 0 vectors, expected 240 to 480"),
    "negative": ({"similar": {(0, 0): -1}}, r"similar\[layer 0, q_proj\]: found -1 vectors, expected 0 to 480"),
    "too much": ({"zero": {(0, 0): 480}}, "together more than the 480 there are"),
    "m": ({"m": 0}, "m: found 0, expected at least 1"),
    "heads": ({"heads": {1: 0}}, "expected at least 1 everywhere"),
    "layers": ({"retained": np.zeros((0, 5), np.int64)}, "retained: found int64"),
    "tables": ({"zero": np.zeros((2, 4), np.int64)}, r"zero: found int64\[2, 4\], expected int64\[2, 5\]"),
}  # fmt: skip


@pytest.mark.parametrize("case", BROKEN)
def test_parts_that_contradict_each_other(case: str) -> None:
    tables, message = BROKEN[case]
    with pytest.raises(CompileError, match=message) as caught:
        changed(**tables)
    assert caught.value.render().startswith("t.npz: error[trace.")


def test_messages(request: pytest.FixtureRequest, tmp_path: Path) -> None:
    """The whole message of every case of this file that needs no program."""
    cases: dict[str, Callable[[], object]] = {
        case: lambda tables=tables: changed(**tables) for case, (tables, _) in BROKEN.items()
    }
    for given_, _ in SYNTHETIC.args[1]:
        cases[f"synthetic {given_}"] = lambda given_=given_: synthesize(small(), **given_)
    words = dataclasses.replace(small(), grid=(0, 0, 0), visual_tokens=0, schedule="")
    cases["synthetic, of text"] = lambda: synthesize(words, compression=1.0)
    for number, (drop, arrays, _) in enumerate(FILES.args[1]):
        cases[f"file {number}"] = lambda drop=drop, arrays=arrays: load(file_with(tmp_path, drop, **arrays))
    cases["links"] = lambda: changed(linked(), links={0: 1})
    cases["no links"] = lambda: TRACE.links_of(0, "q_proj")
    cases["workload"] = lambda: TRACE.check(small())
    check_messages("trace", cases, request, hide=re.escape(str(tmp_path) + os.sep))


def linked() -> Trace:
    return synthesize(small("long"), compression=2.0, m=64, links=True)


@pytest.mark.parametrize(
    ("index", "value", "message"),
    [
        (0, 1, "token 0, slot 0.: found root 1, expected 0 to 0: a token of the same m-tile, not later"),
        (2 * 64, 0, "token 64, slot 0.: found root 0, expected 64 to 64"),
    ],
)
def test_links_out_of_place(index: int, value: int, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        changed(linked(), links={index: value})


def test_links_that_are_no_roots_or_too_few() -> None:
    trace = linked()
    roots = trace.links_of(0, "q_proj")[:, 0]
    numbers = np.arange(len(roots))
    linked_ = int(np.flatnonzero(roots != numbers)[0])
    with pytest.raises(CompileError, match="roots, expected as many as `unique` says"):
        changed(trace, links={2 * linked_: linked_})
    later = next(int(n) for n in numbers[linked_ + 1 :] if roots[n] == n and n // 64 == linked_ // 64)
    with pytest.raises(CompileError, match="which is linked itself"):
        changed(trace, links={2 * later: linked_})


def file_with(tmp_path: Path, drop: tuple[str, ...] = (), **arrays: Any) -> Path:
    save(tmp_path / "t.npz", TRACE)
    with np.load(tmp_path / "t.npz") as found:
        data = {name: found[name] for name in found.files if name not in drop}
    np.savez(tmp_path / "t.npz", **{**data, **arrays})
    return tmp_path / "t.npz"


FILES = pytest.mark.parametrize(
    ("drop", "arrays", "message"),
    [
        (("focusc_trace",), {}, "not a trace: the array focusc_trace is missing"),
        ((), {"focusc_trace": np.int64(9)}, "trace format 9, this tool reads 1"),
        (("zero",), {}, "zero: the array is missing"),
        ((), {"zeros": np.zeros(3)}, "zeros: not an array of a trace"),
        ((), {"slots": np.ones(5)}, r"slots: found float64\[5\], expected whole numbers with 1 axis"),
        ((), {"tokens": np.ones(2)}, r"tokens: found float64\[2\], expected one whole number"),
        ((), {"workload": np.int64(3)}, r"workload: found int64\[\], expected one text"),
        ((), {"source": np.array("[1]")}, "source: found a JSON list, expected an object"),
        ((), {"source": np.array("{")}, "source: not JSON"),
    ],
)


@FILES
def test_files_that_are_no_traces(tmp_path: Path, drop: tuple[str, ...], arrays: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        load(file_with(tmp_path, drop, **arrays))


def test_junk(tmp_path: Path) -> None:
    for content in (b"", b"junk", b"PK\3\4" + bytes(100)):
        (tmp_path / "t.npz").write_bytes(content)
        with pytest.raises(CompileError, match="not a trace"):
            load(tmp_path / "t.npz")
    np.save(tmp_path / "t.npy", np.zeros(3))
    with pytest.raises(CompileError, match="one array without a name"):
        load(tmp_path / "t.npy")
    np.savez(tmp_path / "p.npz", x=np.array([{}], object))
    with pytest.raises(CompileError, match="not a trace"):
        load(tmp_path / "p.npz")


# ---- masks


def masks(trace: Trace) -> dict[str, np.ndarray]:
    """Masks that a trace with links comes from; which tokens were pruned is arbitrary: the last ones."""
    found: dict[str, np.ndarray] = {}
    for column, site in enumerate(SITES):
        shape = (trace.layers, 1, trace.tokens, int(trace.slots[column]))
        zero, similar = np.zeros(shape, bool), np.zeros(shape, bool)
        for layer in range(trace.layers):
            kept = int(trace.retained[layer, column])
            zero[layer, 0, kept:] = True
            roots = trace.links_of(layer, site)
            similar[layer, 0, :kept] = roots != np.arange(kept)[:, None]
        found |= {f"{site}.mask_zero": zero, f"{site}.mask_similar": similar}
    return found


def test_masks_give_back_the_trace(tmp_path: Path) -> None:
    trace = linked()
    save_arrays(tmp_path / "m.npz", masks(trace))
    found = import_masks(tmp_path / "m.npz", m=64)
    for name in ("heads", "slots", "retained", "zero", "similar", "unique"):
        assert np.array_equal(getattr(found, name), getattr(trace, name)), name
    assert found.source["kind"] == "imported"


def test_an_accidental_zero_vector_is_unique_and_counted(tmp_path: Path) -> None:
    trace = linked()
    data = masks(trace)
    data["q_proj.mask_zero"][0, 0, 0, 0] = True  # the first token is a root
    save_arrays(tmp_path / "m.npz", data)
    found = import_masks(tmp_path / "m.npz", m=64)
    assert found.unique is not None and trace.unique is not None and np.array_equal(found.unique, trace.unique)
    assert found.zero[0, 0] == trace.zero[0, 0] + 1
    assert found.active[0, 0] == trace.active[0, 0] - 1


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("q_proj.mask_zero", None, "q_proj.mask_zero: the array is missing"),
        ("strange", np.zeros(2, bool), "strange: not a mask"),
        ("query.mask_similar", np.zeros((2, 1, 240, 2), np.int8), r"query.mask_similar: found int8\[2, 1, 240, 2\]"),
        ("query.mask_similar", np.zeros((2, 1, 240, 3), bool), r"expected \[2, 1, 240, 2\] as query.mask_zero"),
        ("gate_proj.mask_similar", np.ones((2, 1, 240, 2), bool), "the vector is zero too; expected at most one"),
        ("down_proj.mask_zero", np.ones((2, 1, 240, 3), bool), "all tokens are pruned, expected at least one to stay"),
        ("query.mask_similar", np.ones((2, 1, 240, 2), bool), "found 0 unique vectors, expected 1 to the 64"),
    ],
)
def test_masks_that_are_wrong(tmp_path: Path, name: str, change: np.ndarray | None, message: str) -> None:
    data = masks(linked())
    if change is None:
        del data[name]
    else:
        data[name] = change
    if name == "down_proj.mask_zero":
        data["down_proj.mask_similar"] = np.zeros_like(change)
    save_arrays(tmp_path / "m.npz", data)
    with pytest.raises(CompileError, match=message):
        import_masks(tmp_path / "m.npz", m=64)


# ---- programs


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"m": 32}, "(trace.shape|m: found 32, the program has 64 rows in an m-tile)"),
        ({"workload_": {"width": 128}}, r"slots\[layer 0, q_proj\]: found 1 x 4 slots, the program has 2 slots"),
        ({"workload_": {"schedule": ""}}, r"retained\[layer 1, gate_proj\]: found 240 tokens, the program has 120"),
        ({"workload_": {"layers": 3}}, "retained: found 3 layers, the program has 2 that concentrate"),
        ({"frames": 10}, "tokens: found 120, the program has 240 visual tokens"),
        ({"unique": None}, "the trace has sums only, no counts per tile and slot"),
    ],
)
def test_a_trace_of_another_program(change: dict[str, Any], message: str) -> None:
    program = compiled(small("long"), m=64)
    workload = small("long")
    if "frames" in change:
        workload = workload.with_frames(change["frames"])
    if "workload_" in change:
        head = {"head_size": 64} if "width" in change["workload_"] else {}
        workload = dataclasses.replace(workload, **change["workload_"], **head)
    trace = synthesize(workload, compression=2.0, m=change.get("m", 64))
    if "unique" in change:
        trace = changed(trace, unique=None)
    with pytest.raises(CompileError, match=message):
        site_counts(trace, program)


def test_the_trace_of_another_workload_is_refused() -> None:
    with pytest.raises(CompileError, match=r"trace.workload\]: tokens: found 240, workload small has 24"):
        TRACE.check(small())


def recorded(method: dict[str, Any], **options: int) -> tuple[Result, dict[str, np.ndarray]]:
    shape = Shape(grid=(6, 4, 4), layers=2)
    module = PassManager(
        "concentrate{" + ",".join(f"{key}={value}" for key, value in method.items()) + "}"
    ).run(vlm(shape))
    program = compile_module(module, load_hardware("focus"), options=options)
    x = inputs(shape)
    return run(program, x), x


METHOD = {"method": "focus", "schedule": "[1:0.5]", "threshold": "0.6", "m": 32}


def test_a_recording_replays_exactly_and_its_tables_say_the_same(tmp_path: Path) -> None:
    result, _ = recorded(METHOD, m=32)
    result.save_trace(tmp_path / "t.npz")
    found = load(tmp_path / "t.npz")
    assert found.trace is not None and found.counts is not None and found.trace.source["kind"] == "recorded"
    replayed = simulate(result.program, tmp_path / "t.npz")
    assert {key: replayed[key] for key in ("cycles", "macs", "dram_bytes", "sites", "stalls_by_engine")} == {
        key: result.stats[key] for key in ("cycles", "macs", "dram_bytes", "sites", "stalls_by_engine")
    }
    for row in result.stats["sites"]:
        column = list(IR_SITE.values()).index(row["site"])
        table = found.trace.unique_of(row["layer"], SITES[column])
        assert int(table.sum()) == row["unique"] and row["retained"] == found.trace.retained[row["layer"], column]
    # by site instead of by execution: the same, but for loads of part of a tile, which are estimated
    tables = simulate(result.program, found.trace)
    assert tables["sites"] == result.stats["sites"]
    if not found.counts.partial:
        assert tables["cycles"] == result.stats["cycles"]
    assert tables["cycles"] == pytest.approx(result.stats["cycles"], rel=0.02)


def test_a_recording_of_another_build_is_used_by_its_tables(tmp_path: Path) -> None:
    result, _ = recorded(METHOD, m=32)
    result.save_trace(tmp_path / "t.npz")
    other, _ = recorded(METHOD, m=32, n=32)
    assert other.program.text.tolist() != result.program.text.tolist()
    found = simulate(other.program, tmp_path / "t.npz")
    assert found["sites"] == other.stats["sites"]


def test_a_program_that_concentrates_some_sites_only_is_recorded_by_execution(tmp_path: Path) -> None:
    result, _ = recorded({**METHOD, "sites": "[qkv_in]"}, m=32)
    assert record(result.program, result.counts) is None
    result.save_trace(tmp_path / "t.npz")
    assert load(tmp_path / "t.npz").trace is None
    assert simulate(result.program, tmp_path / "t.npz")["cycles"] == result.stats["cycles"]


def test_a_program_that_concentrates_needs_a_trace() -> None:
    program = compiled(small("long"), m=64)
    with pytest.raises(IsaError, match="its timing depends on unique counts"):
        simulate(program)
    assert counts_for(program, None) is None


def test_links_make_partial_loads_exact() -> None:
    """Blocks of query rows smaller than an m-tile: what they refer to follows from the link table."""
    workload = small("long")
    trace = synthesize(workload, compression=3.0, correlation=0.3, m=64, links=True)
    counts = site_counts(trace, compiled(workload, m=64))
    assert counts is not None and counts.exact is not None
    site = next(i for i, name in enumerate(counts.sites.site) if name == "query")
    roots = trace.links_of(counts.sites.layer[site], "query")
    for first, stop in ((0, 64), (10, 30), (70, 71)):
        assert counts.exact(site, first, stop).tolist() == [len(np.unique(r)) for r in roots[first:stop].T]


@given(st.integers(1, 1024), st.integers(1, 1024), st.integers(0, 1024))
def test_the_estimate_of_partial_loads(rows: int, unique: int, taken: int) -> None:
    unique, taken = min(unique, rows), min(taken, rows)
    a = np.array
    found = int(distinct(a([unique]), a([rows]), a([taken]))[0])
    assert found <= min(unique, taken) and (found >= 1) == (taken > 0)
    assert int(distinct(a([unique]), a([rows]), a([rows]))[0]) == unique
    assert int(distinct(a([rows]), a([rows]), a([taken]))[0]) == taken
