"""Timeline files: both formats parse, say what happened, and respect window and limit."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from focusc.isa import DebugEntry, IsaError, Program
from focusc.isa.timeline import choose, write_timeline
from focusc.isa.timing import Timing, simulate
from tests.isa.timing_programs import concentrated, counts, gemm, machine


@pytest.fixture
def example() -> tuple[Program, Timing]:
    found = concentrated(64, 2, 40, 3)
    found.debug.append(DebugEntry("nn.linear", "/q/MatMul", "layers.0.q", "nn.linear"))
    found.debug_index[:] = 0
    return found, simulate(found, machine(), counts(64, 10, 20))


def chrome(path: Path, example: tuple[Program, Timing], **options: Any) -> dict[str, Any]:
    found, timing = example
    write_timeline(path, found, machine(), timing, **options)
    return json.loads(path.read_text())


def test_chrome_json_names_engines_instructions_and_nodes(tmp_path: Path, example: tuple[Program, Timing]) -> None:
    data = chrome(tmp_path / "t.json", example)
    events = data["traceEvents"]
    threads = {e["args"]["name"] for e in events if e["name"] == "thread_name"}
    assert {"mxu: systolic array", "st: stores", "sic: similarity concentrator"} <= threads
    slices = [e for e in events if e["ph"] == "X"]
    assert {"mma  layers.0.q", "sic  layers.0.q"} <= {e["name"] for e in slices}
    assert len([e for e in slices if e["name"].startswith("mma")]) == 3
    assert all(e["dur"] >= 0 for e in slices)
    counters = {e["name"] for e in events if e["ph"] == "C"}
    assert counters == {"DRAM read (GB/s)", "DRAM write (GB/s)", "array (GMAC/s)", "live unique vectors (vectors)"}
    live = [e["args"]["vectors"] for e in events if e["ph"] == "C" and e["name"].startswith("live")]
    assert live == [30.0]


def test_slices_of_one_engine_do_not_overlap(tmp_path: Path, example: tuple[Program, Timing]) -> None:
    slices = [e for e in chrome(tmp_path / "t.json", example)["traceEvents"] if e["ph"] == "X"]
    for engine in range(8):
        mine = sorted((e["ts"], e["ts"] + e["dur"]) for e in slices if e["tid"] == engine)
        assert all(later[0] >= earlier[1] - 1e-9 for earlier, later in pairwise(mine))


def test_traffic_curves_hold_every_byte(tmp_path: Path, example: tuple[Program, Timing]) -> None:
    from focusc.isa.counters import count

    _, timing = example
    counted = count(timing.trace, timing.work, machine())
    curve = [e for e in chrome(tmp_path / "t.json", example)["traceEvents"] if e["name"] == "DRAM read (GB/s)"]
    step = (curve[1]["ts"] - curve[0]["ts"]) * 1e-6
    assert sum(e["args"]["GB/s"] for e in curve) * 1e9 * step == pytest.approx(int(counted.dram_read.sum()))


def test_perfetto_protobuf_holds_the_same_slices(tmp_path: Path, example: tuple[Program, Timing]) -> None:
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import Trace, TrackEvent

    found, timing = example
    write_timeline(tmp_path / "t.pftrace", found, machine(), timing)
    trace = Trace()
    trace.ParseFromString((tmp_path / "t.pftrace").read_bytes())
    names = {entry.iid: entry.name for packet in trace.packet for entry in packet.interned_data.event_names}
    begins = [p for p in trace.packet if p.track_event.type == TrackEvent.TYPE_SLICE_BEGIN]
    ends = [p for p in trace.packet if p.track_event.type == TrackEvent.TYPE_SLICE_END]
    expected = [e for e in chrome(tmp_path / "t.json", example)["traceEvents"] if e["ph"] == "X"]
    assert len(begins) == len(ends) == len(expected)
    assert sorted(names[p.track_event.name_iid] for p in begins) == sorted(e["name"] for e in expected)
    assert [p.timestamp for p in begins] == [round(e["ts"] * 1000) for e in expected]
    tracks = {p.track_descriptor.name for p in trace.packet if p.HasField("track_descriptor")}
    assert {"vec: vector unit", "lda: activation loads", "DRAM read"} <= tracks
    notes = {n.name: n.string_value for n in begins[0].track_event.debug_annotations}
    assert notes["node"] == "layers.0.q /q/MatMul"


@pytest.mark.parametrize("ending", ["t.json", "t.pftrace"])
def test_a_limit_keeps_the_longest_slices(tmp_path: Path, example: tuple[Program, Timing], ending: str) -> None:
    found, timing = example
    everything = choose(timing)
    few = choose(timing, limit=4)
    assert few.dropped == len(everything.command) - 4
    assert (few.end - few.start).min() >= sorted(everything.end - everything.start)[-4] - 1e-9
    assert write_timeline(tmp_path / ending, found, machine(), timing, limit=4) == few.dropped


def test_a_window_keeps_what_it_overlaps(example: tuple[Program, Timing]) -> None:
    _, timing = example
    low, high = timing.cycles * 0.4, timing.cycles * 0.5
    slices = choose(timing, (low, high))
    assert 0 < len(slices.command) < len(choose(timing).command)
    assert (slices.end >= low).all() and (slices.start <= high).all()


def test_another_ending_is_refused_and_nothing_is_written(tmp_path: Path) -> None:
    found = gemm(8, 8, 8)
    with pytest.raises(IsaError, match=r"\.pftrace"):
        write_timeline(tmp_path / "t.txt", found, machine(), simulate(found, machine()))
    with pytest.raises(IsaError, match="cannot write"):
        write_timeline(tmp_path / "no" / "t.json", found, machine(), simulate(found, machine()))
    assert list(tmp_path.iterdir()) == []
