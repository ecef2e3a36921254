"""Descriptions of the accelerators: derived ones, shipped ones, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources
from pathlib import Path
from types import SimpleNamespace

import pytest

from focusc.backends.cost import (
    ACCELERATORS,
    CORRECTED,
    PUBLISHED,
    Accounting,
    CodecSparsity,
    Options,
    Quirk,
    TokenSparsity,
    cost,
    load_accelerator,
    parse_accelerator,
)
from focusc.backends.cost.quirks import END, START, markdown
from focusc.backends.cost.sram import cacti
from focusc.backends.cost.tables import figures
from focusc.backends.cost.uniform import uniform_trace
from focusc.backends.cost.vectors import VectorCounts, vector_point
from focusc.backends.hardware import load_hardware
from focusc.backends.workload import Workload
from focusc.isa.errors import IsaError
from tests.messages import check_messages
from tests.unchecked import unchecked

SMALL = Workload("small", 2, 256, 8, 2, 512, 1500, (10, 10, 15), 40, head_size=32, schedule="0:0.4")


def text(name: str) -> str:
    return resources.files("focusc.backends").joinpath(name, f"{name}.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", ACCELERATORS)
def test_every_figure_of_a_shipped_accelerator_has_a_source(name: str) -> None:
    found = load_accelerator(name)
    assert found.name == found.model == name
    tables = [found, found.array, found.tiles, found.sfu, found.dram, found.energy, *found.buffers.values(),
              *found.components.values()]
    assert all(len(table.source) > 10 for table in tables) and found.macros_source


def test_compile_targets_are_not_described_twice() -> None:
    for name in ("focus", "systolic"):
        machine, found = load_hardware(name), load_accelerator(name)
        assert found.array == machine.array and found.macros == machine.macros and found.dram == machine.dram
        assert dict(machine.buffers.items()) == found.buffers and found.capacity_bytes == machine.buffer_bytes
        assert (found.tiles.m, found.tiles.n, found.tiles.k) == (1024, 96, 32)
        assert sum(found.buffer_figures(b).peak_mw for b in found.buffers) + found.logic_mw == pytest.approx(
            machine.power_mw, rel=1e-12)


def test_the_dense_array_without_the_concentrators_buffers() -> None:
    published, corrected = (cost(SMALL, None, load_accelerator("systolic"), accounting=a)
                            for a in (PUBLISHED, CORRECTED))
    assert published.area_mm2 - corrected.area_mm2 == pytest.approx(0.2067)
    assert published.capacity_bytes - corrected.capacity_bytes == 16384 + 2048 + 65536


@pytest.mark.parametrize(
    ("name", "old", "new", "expected"),
    [
        ("adaptiv", "rows = 64", "rows = 0", "array.rows: found 0, expected greater than 0"),
        ("adaptiv", "rows = 64", "row = 64", "array.row: unknown key"),
        ("adaptiv", "elements_per_cycle = 64", "", "merger.elements_per_cycle: missing"),
        ("adaptiv", "area_mm2 = 0.016", "area_mm2 = -0.016", "macros.512x128.area_mm2: found -0.016"),
        ("adaptiv", "voltage_v = 0.81", "voltage_v = 810", "voltage_v: found 810"),
        ("adaptiv", "clock_hz = 500_000_000", "clock_hz = 500", "clock_hz: found 500, expected greater than or equal"),
        ("adaptiv", "clock_hz = 500_000_000", 'clock_hz = "500 MHz"', "clock_hz: found '500 MHz'"),
        ("adaptiv", "m = 256", "m = 512", "buffers.activation.bytes: found 262144, expected at least 524288"),
        ("adaptiv", "n = 256", "n = 300", "buffers.weights.bytes: found 262144, expected at least 307200"),
        ("adaptiv", "n = 256", "n = 300", "buffers.output.bytes: found 262144, expected at least 307200"),
        ("adaptiv", 'macros = { "512x128" = 32 }', 'macros = { "512x64" = 32 }', "found ['512x64'], expected some of"),
        ("adaptiv", 'macros = { "512x128" = 32 }', 'macros = { "512x128" = 31 }', "more than its macros hold"),
        ("adaptiv", "capacity_bytes = 786_432", "capacity_bytes = 800_000", "more than all macros hold (786432)"),
        ("adaptiv", 'model = "adaptiv"', 'model = "cmc"', "merger: found, but model cmc has none"),
        ("adaptiv", 'model = "adaptiv"', 'model = "cmc"', "codec: missing"),
        ("adaptiv", 'model = "adaptiv"', 'model = "tpu"', "model: found 'tpu', expected 'focus', 'systolic'"),
        ("adaptiv", 'engine = "merge"', 'engine = "marge"', "components.merge.engine: found 'marge'"),
        ("adaptiv", "count = 192", "count = 0", "components.exp.count: found 0"),
        ("adaptiv", "[buffers.output]", "[buffers.result]", "buffers.output: missing"),
        ("cmc", "lanes = 64", "lanes = 64.5", "codec.lanes: found 64.5"),
        ("cmc", "bytes_per_s = 68_719_476_736", "bytes_per_s = 64", "dram.bytes_per_s: found 64"),
        ("cmc", "idle_fraction = 0.1", "idle_fraction = 10", "energy.idle_fraction: found 10"),
    ],
)
def test_what_a_description_may_not_say(name: str, old: str, new: str, expected: str) -> None:
    assert old in text(name)
    with pytest.raises(IsaError) as caught:
        parse_accelerator(text(name).replace(old, new, 1), "mine.toml")
    assert caught.value.code == "hardware.description"
    assert expected in caught.value.message and caught.value.render().startswith("mine.toml")


def test_a_finding_carries_its_line() -> None:
    source = text("cmc").replace("engines = 16", "engines = -16")
    line = source[: source.index("engines = -16")].count("\n") + 1
    with pytest.raises(IsaError, match=f"codec.engines: found -16.*line {line}"):
        parse_accelerator(source, "mine.toml")


def test_an_unknown_accelerator_lists_all_four(tmp_path: Path) -> None:
    with pytest.raises(IsaError, match="no hardware description 'tpu'") as caught:
        load_accelerator("tpu")
    assert "focus, systolic, adaptiv, cmc" in caught.value.render()
    path = tmp_path / "mine.toml"
    path.write_text(text("cmc"), encoding="utf-8")
    assert load_accelerator(path) == load_accelerator("cmc")


def test_a_buffer_too_small_for_the_tile_of_a_run() -> None:
    focus = load_accelerator("focus")
    with pytest.raises(IsaError, match=r"tiles of m = 2048 rows do not fit: buffers\.activation of focus") as caught:
        cost(SMALL, uniform_trace(SMALL), focus, options=Options(m=2048))
    assert caught.value.code == "cost.tile"
    assert cost(SMALL, uniform_trace(SMALL), focus, options=Options(m=2048, sram=cacti(2048))).cycles > 0


def test_a_compile_target_too_small_to_stage_a_tile() -> None:
    tiny = text("focus").replace("bytes = 131_072", "bytes = 64", 1)
    with pytest.raises(IsaError, match=r"buffers\.activation\.bytes: found 64, too small.*line") as caught:
        parse_accelerator(tiny, "tiny.toml")
    assert caught.value.code == "hardware.description"


def test_figures_of_other_buffers_are_refused() -> None:
    with pytest.raises(IsaError, match="the buffer figures lack frame, kv, qs") as caught:
        cost(SMALL, CodecSparsity(0, 0, 0), load_accelerator("cmc"), options=Options(sram=cacti(1024)))
    assert caught.value.code == "cost.sram"


def test_traces_of_another_kind_or_workload_are_refused() -> None:
    other = Workload("other", 2, 512, 8, 2, 512, 1500, (10, 10, 15), 40, head_size=64, schedule="0:0.4")
    deeper = Workload("deeper", 3, 256, 8, 2, 512, 1500, (10, 10, 15), 40, head_size=32)
    longer = Workload("longer", 2, 256, 8, 2, 512, 1600, (10, 10, 16), 40, head_size=32)
    cases = [
        ("systolic", SMALL, TokenSparsity(0.5), r"is a share of merged tokens \(TokenSparsity\), expected None"),
        ("adaptiv", SMALL, None, "the trace is None, expected a share of merged tokens"),
        ("cmc", SMALL, TokenSparsity(0.5), r"merged tokens \(TokenSparsity\), expected shares of copied rows"),
        ("focus", SMALL, None, "the trace is None, expected the vectors counted by layer and site"),
        ("focus", SMALL, TokenSparsity(0.5), r"merged tokens \(TokenSparsity\), expected the vectors counted"),
        ("focus", other, uniform_trace(SMALL), "site q_proj has 8 vectors a row, the workload other has 16"),
        ("focus", deeper, uniform_trace(SMALL), "site q_proj has 2 layers, the workload deeper has 3"),
        ("focus", longer, uniform_trace(SMALL), "site q_proj has 1500 visual tokens, the workload longer has 1600"),
    ]
    for name, workload, trace, expected in cases:
        with pytest.raises(IsaError, match=expected) as caught:
            cost(workload, trace, load_accelerator(name))
        assert caught.value.code == "cost.trace"


def test_the_codec_needs_whole_frames() -> None:
    odd = SimpleNamespace(name="odd", layers=1, width=64, heads=2, kv_heads=2, head_size=32, ffn=64,
                          visual_tokens=1501, grid=(10, 10, 15), text_tokens=4)
    with pytest.raises(IsaError, match="1501 visual tokens are no whole number of tokens for each of 10 frames"):
        cost(unchecked(odd), CodecSparsity(0, 0, 0), load_accelerator("cmc"))


def test_text_alone_is_for_the_dense_array() -> None:
    words = Workload("words", 1, 64, 2, 2, 64, 0, (0, 0, 0), 100, head_size=32)
    with pytest.raises(IsaError, match="no visual tokens"):
        cost(words, TokenSparsity(0.5), load_accelerator("adaptiv"))
    assert cost(words, None, load_accelerator("systolic"), accounting=CORRECTED).macs > 0
    with pytest.raises(IsaError, match="no rows"):
        cost(words, None, load_accelerator("systolic"))


CHOICES = pytest.mark.parametrize(
    ("make", "code", "expected"),
    [
        (lambda: TokenSparsity(1.0), "counts.range", "tokens is 1.0"),
        (lambda: CodecSparsity(0.1, -0.1, 0.1), "counts.range", "query is -0.1"),
        (lambda: Options(block=0), "cost.options", "block is 0"),
        (lambda: Options(m=-1), "cost.options", "m is -1"),
        (lambda: Options(array=unchecked("magic")), "cost.options", "array is 'magic'"),
        (lambda: cacti(1000), "cost.sram", "m = 1000 with 2 scatter accumulators"),
        (lambda: figures("prices"), "cost.table", "no published table 'prices'"),
        (lambda: Accounting.named("creative"), "cost.accounting", "no accounting 'creative'"),
        (lambda: vector_point(12, VectorCounts(10, 5, 5)), "cost.options", "vector is 12"),
    ],
)


def test_messages(request: pytest.FixtureRequest) -> None:
    words = Workload("words", 1, 64, 2, 2, 64, 0, (0, 0, 0), 100, head_size=32)
    cases = {expected: make for make, _, expected in CHOICES.args[1]}
    cases["no visual tokens"] = lambda: cost(words, TokenSparsity(0.5), load_accelerator("adaptiv"))
    cases["no rows"] = lambda: cost(words, None, load_accelerator("systolic"))
    for name, trace in (("focus", None), ("focus", TokenSparsity(0.5)), ("adaptiv", None), ("cmc", [0.5]),
                        ("systolic", uniform_trace(SMALL))):
        cases[f"{name}, trace {type(trace).__name__}"] = lambda name=name, trace=trace: cost(
            SMALL, trace, load_accelerator(name))  # type: ignore[arg-type]
    cases["tile"] = lambda: cost(SMALL, uniform_trace(SMALL), load_accelerator("focus"), options=Options(m=2048))
    check_messages("cost", cases, request)


@CHOICES
def test_choices_out_of_range(make: Callable[[], object], code: str, expected: str) -> None:
    with pytest.raises(IsaError, match=expected) as caught:
        make()
    assert caught.value.code == code


PAGE = Path(__file__).parents[3] / "docs" / "cost_models.md"


def test_the_docs_show_what_the_command_prints() -> None:
    shown = PAGE.read_text(encoding="utf-8").split(START, 1)[1].split(END, 1)[0]
    assert shown.strip() == markdown(), "run python -m focusc.backends.cost.quirks --write docs/cost_models.md"


def test_every_quirk_has_its_line_in_the_docs() -> None:
    table = PAGE.read_text(encoding="utf-8").split("| quirk | published | corrected |", 1)[1].split("\n\n", 1)[0]
    rows = [line.split("|") for line in table.splitlines() if line.startswith("| `")]
    documented = {row[1].strip(" `"): (row[2].strip(), row[3].strip()) for row in rows}
    assert documented == {quirk.label: (quirk.published, quirk.corrected) for quirk in Quirk}
