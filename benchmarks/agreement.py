"""`make agreement`: the figures that say how far the stages of one compile agree with each other.

1. The imported module in the interpreter (f32) against onnxruntime.
2. The dense program on the emulator (f16 storage) against onnxruntime, on held-out questions.
3. The focus program on the emulator against the interpreter of the concentrated IR: answers, and, given the same input
   activations (what SIC compares, the keys that SEC scores), every link of SIC and every selection of SEC.
4. Timing: one isolated array pass, pipelined against scalesim, array occupancy on the large GEMMs.
5. Size of the program when the number of visual tokens doubles.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import Decoder

from focusc.driver import CompileOptions, compile_model, export, load_model
from focusc.driver.comparison import Sample, held_out, reference, top1
from focusc.driver.compiler import FRONT, Compilation
from focusc.driver.execution import Runner
from focusc.driver.passes import run_pipeline
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


def interpreter_against_onnxruntime(model: Path, samples: Sequence[Sample]) -> dict[str, Any]:
    """Largest relative error of the imported and of the fused module."""
    session = reference(model)
    imported = load_model(model)
    fused = run_pipeline(imported, FRONT).module
    found: dict[str, Any] = {"samples": len(samples)}
    for name, module in (("imported", imported), ("fused", fused)):
        run = Executor(module)
        pairs = [(run(sample.inputs), session(sample.inputs)) for sample in samples]
        found[name] = max(relative(a[key], b[key]) for a, b in pairs for key in b)
    return found


def dense_against_onnxruntime(model: Path, compilation: Compilation, samples: Sequence[Sample]) -> dict[str, Any]:
    """Top-1 agreement and relative error of the logits."""
    session, runner = reference(model), Runner(compilation.program, compilation.machine)
    same, errors = 0, []
    for sample in samples:
        expected, found = session(sample.inputs), runner.outputs(sample.inputs)
        same += top1(expected) == top1(found)
        errors += [relative(found[key], expected[key]) for key in expected]
    return {
        "samples": len(samples),
        "top1": same / len(samples),
        "error_mean": float(np.mean(errors)),
        "error_max": float(np.max(errors)),
    }


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
        session = Emulator(program, observe=self).session(inputs)
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


def timing(compilation: Compilation, sample: Sample) -> dict[str, Any]:
    """Cycles under both array models, and the array's occupancy on GEMMs with at least 1 M multiply-accumulates."""
    runner = Runner(compilation.program, compilation.machine)
    stats = {array: runner.run(sample.inputs, array=array).stats for array in ("scalesim", "pipelined")}
    large = [
        node for node in stats["pipelined"]["nodes"] if node["op"] == "nn.linear" and node["macs_array"] >= 1_000_000
    ]
    weight = sum(node["array_cycles"] for node in large)
    return {
        "overhead_cycles": compilation.machine.array.overhead_cycles,
        "scalesim": stats["scalesim"]["cycles"],
        "pipelined": stats["pipelined"]["cycles"],
        "ratio": stats["scalesim"]["cycles"] / stats["pipelined"]["cycles"],
        "occupancy": sum(node["occupancy"] * node["array_cycles"] for node in large) / max(weight, 1),
        "large_gemms": len(large),
    }


def size(folder: Path) -> dict[str, Any]:
    """Bytes of the program's text for a synthetic decoder with 8 and with 16 frames, dense and focus.

    Constants are left out: the tables of rotary positions grow with the sequence, and would be in any program.
    """
    found: dict[str, Any] = {}
    for method in ("none", "focus"):
        sizes = []
        for frames in (8, 16):
            shape = Decoder(width=192, layers=6, heads=6, kv_heads=2, mlp=384, frames=frames, rows=12, columns=12)
            path = shape.write(folder / f"size{frames}.onnx")
            program = compile_model(path, CompileOptions.load(concentrate=method)).program
            target = folder / "size.fbin"
            program.save(target)
            sizes.append(
                {
                    "tokens": shape.visual,
                    "text": program.text.nbytes,
                    "file_without_constants": target.stat().st_size - len(program.const),
                }
            )
        found[method] = {
            "sizes": sizes,
            "text_growth": sizes[1]["text"] / sizes[0]["text"] - 1,
            "growth": sizes[1]["file_without_constants"] / sizes[0]["file_without_constants"] - 1,
        }
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--samples", type=int, default=200)
    parser.add_argument(
        "--decided", type=int, default=20, help="samples whose SIC links and SEC selections are compared"
    )
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        model = Path(name) / "demo.onnx"
        export("demo", model)
        samples = list(held_out(model, options.samples))
        dense = compile_model(model, CompileOptions.load(concentrate="none"))
        focus = compile_model(model, CompileOptions.load(concentrate="focus"))
        found = {
            "interpreter": interpreter_against_onnxruntime(model, samples[:10]),
            "dense": dense_against_onnxruntime(model, dense, samples),
            "focus": focus_against_interpreter(focus, samples, options.decided),
            "timing": timing(focus, samples[0]),
            "size": size(Path(name)),
        }
    if options.json:
        json.dump(found, sys.stdout, indent=1)
        return
    _show(found)


def _show(found: dict[str, Any]) -> None:
    def line(text: str, value: str, goal: str, reached: bool) -> None:
        print(f"{text:<74}{value:>14}   {goal:<12}{'reached' if reached else 'MISSED'}")

    one, two, three, four = found["interpreter"], found["dense"], found["focus"], found["timing"]
    worst = max(one["imported"], one["fused"])
    line("interpreter (f32) against onnxruntime, largest relative error", f"{worst:.1e}", "<= 1e-5", worst <= 1e-5)
    count = f"{two['samples']} questions"
    line(
        f"dense program against onnxruntime, same answer ({count})",
        f"{two['top1']:.1%}",
        ">= 99.5 %",
        two["top1"] >= 0.995,
    )
    line("  relative error of its logits: mean", f"{two['error_mean']:.1e}", "<= 1e-2", two["error_mean"] <= 1e-2)
    line("  relative error of its logits: largest", f"{two['error_max']:.1e}", "<= 1e-2", two["error_max"] <= 1e-2)
    line(
        f"focus program against the interpreter, same answer ({count})",
        f"{three['top1']:.1%}",
        ">= 98 %",
        three["top1"] >= 0.98,
    )
    line(
        f"  SIC links, given the same inputs ({three['sic_links']:,})",
        f"{three['sic_agreement']:.4%}",
        ">= 99.9 %",
        three["sic_agreement"] >= 0.999,
    )
    tied = (three["sic_agreement"] * three["sic_links"] + three["sic_ties"]) / max(three["sic_links"], 1)
    line("    counting candidates whose cosines agree to 1e-6 as the same", f"{tied:.4%}", ">= 99.9 %", tied >= 0.999)
    line(
        f"  SEC selections, given the same inputs ({three['sec_selections']:,})",
        f"{three['sec_agreement']:.4%}",
        ">= 99.9 %",
        three["sec_agreement"] >= 0.999,
    )
    line(
        "overhead of an isolated array pass, cycles",
        f"{four['overhead_cycles']}",
        "= 93",
        four["overhead_cycles"] == 93,
    )
    line(
        f"scalesim over pipelined cycles ({four['scalesim']:,} / {four['pipelined']:,})",
        f"{four['ratio']:.2f}x",
        ">= 1.2x",
        four["ratio"] >= 1.2,
    )
    line(
        f"array occupancy on {four['large_gemms']} large GEMMs",
        f"{four['occupancy']:.1%}",
        ">= 90 %",
        four["occupancy"] >= 0.9,
    )
    for method, sizes in found["size"].items():
        label = "dense" if method == "none" else method
        tokens = " to ".join(f"{item['tokens']:,}" for item in sizes["sizes"])
        line(
            f"growth of the {label} binary, {tokens} visual tokens",
            f"{sizes['growth']:.2%}",
            "< 5 %",
            sizes["growth"] < 0.05,
        )


if __name__ == "__main__":
    main()
