"""What emulator and interpreter decide on one concentrated program: links of SIC and selections of SEC, given the same
inputs (what SIC compares, the keys that SEC scores). For `agreement.py` and `families.py`.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from focusc.driver.comparison import Sample, top1
from focusc.driver.compiler import Compilation
from focusc.driver.execution import Runner, host_of
from focusc.ir import Executor, Module, Op, TensorType
from focusc.ir.concentration import similarity
from focusc.isa import Program
from focusc.isa.emulator import Emulator, SicEvent, TopkEvent
from focusc.isa.insns import LdWgt, SecInit

Array = np.ndarray[Any, np.dtype[Any]]


def relative(found: Array, expected: Array) -> float:
    """Norm of the difference over the norm of what was expected."""
    difference = found.astype(np.float64) - expected.astype(np.float64)
    return float(np.linalg.norm(difference) / np.linalg.norm(expected.astype(np.float64)))


@dataclass
class Watch:
    """What the emulator decided in one run, by (layer, site) and by order of selection."""

    sites: list[dict[str, Any]]
    rows: dict[tuple[int, str], list[SicEvent]] = field(default_factory=dict)
    kept: list[TopkEvent] = field(default_factory=list)
    keys: list[Array] = field(default_factory=list)
    """The keys of each selection as they lay in memory, f16 values."""

    def __call__(self, event: SicEvent | TopkEvent) -> None:
        if isinstance(event, TopkEvent):
            self.kept.append(event)
        else:
            site = self.sites[event.site]
            self.rows.setdefault((site["layer"], site["site"]), []).append(event)

    def run(self, program: Program, module: Module, inputs: Mapping[str, Array]) -> None:
        """Execute the program of `module`; the first weight load after a `sec.init` says where the keys lie."""
        keys = [op.operands[1] for op in _importances(module)]
        shapes = [key.type.shape for key in keys if key is not None and isinstance(key.type, TensorType)]
        session = Emulator(program, observe=self, host=host_of(program)).session(inputs)
        started = False
        for _, opcode, fields in session.commands():
            if opcode == SecInit.opcode:
                started = True
            elif started and opcode == LdWgt.opcode:
                address, stride = fields[0], fields[3]
                shape = shapes[len(self.keys)]
                self.keys.append(session.state.mem.load(address, shape[-2], shape[-1], stride, "f16").copy())
                started = False

    def parts(self, layer: int, site: str) -> Iterator[tuple[int, SicEvent]]:
        """The events of a site with the first slot of each: tiles of the same rows follow each other by columns."""
        done: dict[int, int] = {}
        for event in self.rows[layer, site]:
            slot = done.get(event.row0, 0)
            yield slot, event
            done[event.row0] = slot + len(event.links)

    def values(self, layer: int, site: str, shape: tuple[int, ...]) -> Array:
        """The activation that was gathered at a site, put together from its tiles."""
        out = np.zeros((shape[-2], shape[-1]), np.float32)
        for slot, event in self.parts(layer, site):
            rows, columns = event.x.shape
            out[event.row0 : event.row0 + rows, 32 * slot : 32 * slot + columns] = event.x
        return out.reshape(shape)

    def links(self, layer: int, site: str, rows: int) -> Array:
        """[rows, slots]: sequence row that each vector linked to."""
        slots = max(slot + len(event.links) for slot, event in self.parts(layer, site))
        out = np.repeat(np.arange(rows)[:, None], slots, axis=1)
        for slot, event in self.parts(layer, site):
            count, length = event.links.shape
            out[event.row0 : event.row0 + length, slot : slot + count] = event.links.T + event.row0
        return out


def focus_against_interpreter(compilation: Compilation, samples: Sequence[Sample], decided: int) -> dict[str, Any]:
    """Answers on all samples; links and selections given the same inputs on the first `decided` of them."""
    runner, free = Runner(compilation.program, compilation.machine), Executor(compilation.concentrated)
    same, errors = 0, []
    for sample in samples:
        expected, found = free(sample.inputs), runner.outputs(sample.inputs)
        same += top1(expected) == top1(found)
        errors += [relative(found[key], np.asarray(expected[key])) for key in found]
    decisions = {"links": 0, "links_same": 0, "links_tied": 0, "kept": 0, "kept_same": 0}
    for sample in samples[:decided]:
        watch = Watch(compilation.program.meta["sites"])
        watch.run(compilation.program, compilation.concentrated, sample.inputs)
        _compare_decisions(compilation.concentrated, sample.inputs, watch, decisions)
    return {
        "samples": len(samples),
        "top1": same / len(samples),
        "error_mean": float(np.mean(errors)),
        "sic_links": decisions["links"],
        "sic_agreement": decisions["links_same"] / max(decisions["links"], 1),
        "sic_ties": decisions["links_tied"],
        "sec_selections": decisions["kept"],
        "sec_agreement": decisions["kept_same"] / max(decisions["kept"], 1),
    }


def _importances(module: Module) -> list[Op]:
    """The ops that rank tokens, in order."""
    return [op for op in module.walk() if op.name == "sec.importance"]


def _compare_decisions(module: Module, inputs: Mapping[str, Array], watch: Watch, found: dict[str, int]) -> None:
    """Run the interpreter with the emulator's activations put in its way at every site and wherever keys are scored;
    compare what both decide."""
    positions: dict[int, Array] = {}
    selections = iter(watch.kept)
    gathers = {op.operands[0]: op for op in module.walk() if op.name == "sic.gather"}
    scored = {op.operands[1]: keys for op, keys in zip(_importances(module), watch.keys, strict=True)}

    def observe(op: Op, results: tuple[Any, ...]) -> None:
        for value, array in zip(op.results, results, strict=True):
            gather = gathers.get(value)
            if gather is not None:  # from here on the interpreter continues with what the emulator had
                a = gather.attrs
                np.copyto(array, watch.values(a["layer"], a["site"], array.shape))
                _compare_links(gather, array, positions, watch, found)
            if value in scored:
                np.copyto(array, scored[value].reshape(array.shape))
        if op.name == "sec.select":
            event = next(selections)
            chosen = np.asarray(results[1])
            found["kept"] += len(chosen)
            found["kept_same"] += len(np.intersect1d(chosen, event.positions))
            visual = results[0][(results[0] >= 0)]
            start = module.attrs["layout"]["visual"][0]
            visual[start : start + len(chosen)] = start + event.kept
            np.copyto(results[0], visual)
            np.copyto(results[1], event.positions)
            positions[id(op.results[1])] = np.array(event.positions)

    Executor(module, observe)(inputs)


def _compare_links(gather: Op, x: Array, positions: dict[int, Array], watch: Watch, found: dict[str, int]) -> None:
    a = gather.attrs
    start, count = a["visual_start"], a["visual_len"]
    source = gather.operands[1]
    where = np.arange(count) if source is None else positions[id(source)]
    window = similarity.Window(
        tuple(a["grid"]),
        tuple(a["strides"]),
        tuple(a["block"]),
        a["vector"],
        a["threshold"],
        a["boundary"],
        a["chase"],
        a["m"],
    )
    rows = x.reshape(-1, x.shape[-1])
    parts = similarity.split(rows[start : start + count], a["vector"])
    expected = similarity.cosine_links(parts, similarity.pairs(where, window), a["threshold"])
    emulated = watch.links(a["layer"], a["site"], len(rows))[start : start + count] - start
    found["links"] += expected.size
    found["links_same"] += int((expected == emulated).sum())
    found["links_tied"] += _ties(parts, expected, emulated)


def _ties(parts: Array, one: Array, other: Array) -> int:
    """Decisions that differ only in which of two equally similar candidates (to 1e-6, float32 rounding) was taken."""
    row, slot = np.nonzero(
        (one != other) & (one != np.arange(len(one))[:, None]) & (other != np.arange(len(one))[:, None])
    )
    unit = parts / np.maximum(np.linalg.norm(parts, axis=-1, keepdims=True), 1e-30)
    first = (unit[row, slot] * unit[one[row, slot], slot]).sum(-1)
    second = (unit[row, slot] * unit[other[row, slot], slot]).sum(-1)
    return int((np.abs(first - second) <= 1e-6).sum())
