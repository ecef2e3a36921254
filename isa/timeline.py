"""The timeline of an execution for ui.perfetto.dev or chrome://tracing: a track an engine, counters above them.

`write_timeline` chooses the format by the file's ending: `.pftrace` is a Perfetto protobuf trace, `.json` the Chrome
trace-event format. One slice a command, named by instruction and source node; a matrix command's slice ends when the
array takes the next one, although its drain or scatter may end later.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.counters import Counters, count
from focusc.isa.errors import IsaError
from focusc.isa.files import atomic_open
from focusc.isa.insns import ENGINES, INSNS, Sic
from focusc.isa.machine import Machine
from focusc.isa.program import Program
from focusc.isa.timing import Timing
from focusc.isa.timing_rules import Col, Kind

__all__ = ["LIMIT", "Slices", "choose", "write_timeline"]

LIMIT: Final = 200_000
"""Slices written unless told otherwise; the longest ones of every engine are kept."""
_SAMPLES: Final = 2000
_TITLES: Final = {
    "seq": "sequencer", "lda": "activation loads", "ldw": "weight loads", "mxu": "systolic array", "vec": "vector unit",
    "sic": "similarity concentrator", "sec": "semantic concentrator", "st": "stores",
}


@dataclass(frozen=True, slots=True)
class Slices:
    """What is drawn: commands, in order of start, with times in cycles; `dropped` did not fit the limit."""

    command: NDArray[np.int64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    engine: NDArray[np.int64]
    dropped: int


def choose(timing: Timing, window: tuple[float, float] | None = None, limit: int = LIMIT) -> Slices:
    """Commands that overlap `window` (cycles), at most `limit` of them: the longest; others would draw as hairlines."""
    engine = timing.work.table[:, Col.ENGINE]
    start, end = timing.start, np.maximum(timing.end, timing.start).copy()
    keep = engine > 0
    for number in range(1, len(ENGINES)):
        mine = np.flatnonzero(engine == number)
        # An engine works on one command at a time: what ends later is in its pipeline.
        end[mine[:-1]] = np.minimum(end[mine[:-1]], np.maximum(start[mine[1:]], start[mine[:-1]]))
    if window is not None:
        keep &= (end >= window[0]) & (start <= window[1])
    at = np.flatnonzero(keep)
    dropped = max(len(at) - limit, 0)
    if dropped:
        order = np.argsort(start[at] - end[at], kind="stable")
        at = np.sort(at[order[:limit]])
    at = at[np.argsort(start[at], kind="stable")].astype(np.int64)
    return Slices(at, start[at], end[at], engine[at], dropped)


def write_timeline(path: str | os.PathLike[str], program: Program, machine: Machine, timing: Timing, *,
                   window: tuple[float, float] | None = None, limit: int = LIMIT) -> int:
    """Write the timeline of a timing with `detail`; returns the number of slices left out.

    IsaError(`timeline.format`) for another ending.
    """
    ending = Path(path).suffix.lower()
    if ending not in (".pftrace", ".json"):
        raise IsaError("timeline.format", f"a timeline ends in .pftrace (Perfetto) or .json (Chrome), not {ending!r}",
                       where=os.fspath(path))
    slices = choose(timing, window, limit)
    curves = _curves(timing, count(timing.trace, timing.work, machine), window)
    names = _names(program, timing)
    nanos = 1e9 / timing.clock_hz
    with atomic_open(path) as out:
        if ending == ".json":
            out.write(_chrome(slices, curves, names, timing, nanos))
        else:
            for packet in _perfetto(slices, curves, names, timing, nanos):
                out.write(packet)
    return slices.dropped


def _names(program: Program, timing: Timing) -> dict[int, tuple[str, str, str]]:
    """By instruction: slice name, assembly text, source node."""
    found: dict[int, tuple[str, str, str]] = {}
    pcs: list[int] = np.unique(timing.trace.pc).tolist()
    for pc in pcs:
        insn, index = program.insns[pc], int(program.debug_index[pc])
        entry = program.debug[index] if index >= 0 else None
        node = (entry.path or entry.node) if entry else ""
        found[pc] = (f"{insn.mnemonic}  {node}" if node else insn.mnemonic, str(insn), program.node(pc))
    return found


Curve = tuple[str, str, NDArray[np.float64], NDArray[np.float64]]


def _curves(timing: Timing, counters: Counters, window: tuple[float, float] | None) -> list[Curve]:
    """Counter tracks as (name, unit, times in cycles, values)."""
    low, high = window if window is not None else (0.0, float(timing.cycles))
    edges = np.linspace(low, max(high, low + 1), min(_SAMPLES, max(int(high - low), 1)) + 1)
    curves: list[Curve] = []
    middle = (timing.start + np.maximum(timing.end, timing.start)) / 2
    gigabytes = timing.clock_hz / 1e9 / np.diff(edges)
    for name, moved in (("DRAM read", counters.dram_read), ("DRAM write", counters.dram_write)):
        sums, _ = np.histogram(middle, edges, weights=moved.astype(np.float64))
        curves.append((name, "GB/s", edges[:-1], sums * gigabytes))
    sums, _ = np.histogram(middle, edges, weights=counters.macs.astype(np.float64))
    curves.append(("array", "GMAC/s", edges[:-1], sums * gigabytes))
    at = np.flatnonzero(timing.trace.op == Sic.opcode)
    if len(at):
        live = timing.work.sums()[1][at].astype(np.float64)
        here = (timing.end[at] >= low) & (timing.end[at] <= high)
        order = np.argsort(timing.end[at][here], kind="stable")
        curves.append(("live unique vectors", "vectors", timing.end[at][here][order], live[here][order]))
    return curves


def _chrome(slices: Slices, curves: list[Curve], names: dict[int, tuple[str, str, str]], timing: Timing,
            nanos: float) -> bytes:
    """Chrome trace-event JSON; times in microseconds."""
    micros = nanos / 1e3
    events: list[dict[str, Any]] = [{"ph": "M", "pid": 1, "name": "process_name", "args": {"name": "accelerator"}}]
    for number, engine in enumerate(ENGINES):
        label = {"name": f"{engine}: {_TITLES[engine]}"}
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_name", "args": label})
        events.append({"ph": "M", "pid": 1, "tid": number, "name": "thread_sort_index", "args": {"sort_index": number}})
    for i, command in enumerate(slices.command.tolist()):
        pc = int(timing.trace.pc[command])
        name, text, node = names[pc]
        start, end = float(slices.start[i]), float(slices.end[i])
        events.append({"ph": "X", "pid": 1, "tid": int(slices.engine[i]), "name": name, "ts": start * micros,
                       "dur": (end - start) * micros,
                       "args": {"pc": pc, "insn": text, "node": node, "cycles": round(end - start, 3)}})
    for name, unit, times, values in curves:
        events.extend({"ph": "C", "pid": 1, "name": f"{name} ({unit})", "ts": time * micros, "args": {unit: value}}
                      for time, value in zip(times.tolist(), values.tolist(), strict=True))
    other = {"array": timing.array, "cycles": timing.cycles, "slices_left_out": slices.dropped}
    return json.dumps({"traceEvents": events, "displayTimeUnit": "ns", "otherData": other}).encode()


def _perfetto(slices: Slices, curves: list[Curve], names: dict[int, tuple[str, str, str]], timing: Timing,
              nanos: float) -> Iterator[bytes]:
    """Perfetto protobuf, in chunks of packets; names are interned once a program instruction."""
    from perfetto.protos.perfetto.trace.perfetto_trace_pb2 import TrackEvent
    from perfetto.trace_builder.proto_builder import TraceProtoBuilder  # pyright: ignore[reportMissingTypeStubs]

    sequence, root = 1, 1
    builder = TraceProtoBuilder()
    packet = builder.add_packet()
    packet.trusted_packet_sequence_id, packet.sequence_flags = sequence, 1
    packet.track_descriptor.uuid, packet.track_descriptor.name = root, f"accelerator ({timing.array})"
    for number, engine in enumerate(ENGINES):
        track = builder.add_packet().track_descriptor
        track.uuid, track.parent_uuid, track.name = root + 1 + number, root, f"{engine}: {_TITLES[engine]}"
    base = root + 1 + len(ENGINES)
    for number, (name, unit, _, _) in enumerate(curves):
        track = builder.add_packet().track_descriptor
        track.uuid, track.parent_uuid, track.name, track.counter.unit_name = base + number, root, name, unit
    packet = builder.add_packet()
    packet.trusted_packet_sequence_id, packet.sequence_flags = sequence, 2
    for pc, (name, _, _) in names.items():
        entry = packet.interned_data.event_names.add()
        entry.iid, entry.name = pc + 1, name
    yield builder.serialize()
    builder = TraceProtoBuilder()
    for i, command in enumerate(slices.command.tolist()):
        pc = int(timing.trace.pc[command])
        ends = (slices.start[i], TrackEvent.TYPE_SLICE_BEGIN), (slices.end[i], TrackEvent.TYPE_SLICE_END)
        for moment, kind in ends:
            packet = builder.add_packet()
            packet.timestamp = round(float(moment) * nanos)
            packet.trusted_packet_sequence_id, packet.sequence_flags = sequence, 2
            packet.track_event.type = kind
            packet.track_event.track_uuid = root + 1 + int(slices.engine[i])
            if kind == TrackEvent.TYPE_SLICE_BEGIN:
                packet.track_event.name_iid = pc + 1
                for key, text in (("insn", names[pc][1]), ("node", names[pc][2])):
                    note = packet.track_event.debug_annotations.add()
                    note.name, note.string_value = key, text
                note = packet.track_event.debug_annotations.add()
                note.name, note.int_value = "pc", pc
        if i % 4096 == 4095:
            yield builder.serialize()
            builder = TraceProtoBuilder()
    for number, (_, _, times, values) in enumerate(curves):
        for time, value in zip(times.tolist(), values.tolist(), strict=True):
            packet = builder.add_packet()
            packet.timestamp, packet.trusted_packet_sequence_id = round(time * nanos), sequence
            packet.track_event.type, packet.track_event.track_uuid = TrackEvent.TYPE_COUNTER, base + number
            packet.track_event.double_counter_value = value
    yield builder.serialize()


assert Kind.CONFIG == 0 and all(cls.engine in ENGINES for cls in INSNS.values())
