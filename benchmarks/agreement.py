"""`make agreement`: the figures that say how far the stages of one compile agree with each other.

1. The imported module in the interpreter (f32) against onnxruntime.
2. The dense program on the emulator (f16 storage) against onnxruntime, on held-out questions.
3. The focus program on the emulator against the interpreter of the concentrated IR: answers, and, given the same input
   activations (what SIC compares, the keys that SEC scores), every link of SIC and every selection of SEC.
4. Timing: one isolated array pass, pipelined against scalesim, array occupancy on the large GEMMs.
5. Size of the program when the number of visual tokens doubles, three times in a row.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from decisions import focus_against_interpreter, relative
from synthetic import Decoder

from focusc.driver import CompileOptions, compile_model, export, load_model
from focusc.driver.comparison import Sample, held_out, reference, top1
from focusc.driver.compiler import FRONT, Compilation
from focusc.driver.execution import Runner
from focusc.driver.passes import run_pipeline
from focusc.ir import Executor


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
    """Bytes of the program for a synthetic decoder with 8, 16, 32 and 64 frames, dense and focus, and their growth.

    Constants are left out: the tables of rotary positions grow with the sequence, and would be in any program.
    """
    found: dict[str, Any] = {}
    for method in ("none", "focus"):
        sizes: list[dict[str, int]] = []
        for frames in (8, 16, 32, 64):
            shape = Decoder(width=192, layers=6, heads=6, kv_heads=2, mlp=384, frames=frames, rows=12, columns=12)
            path = shape.write(folder / "size.onnx")
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
        growth = {
            name: [after[key] / before[key] - 1 for before, after in pairwise(sizes)]
            for name, key in (("text_growth", "text"), ("growth", "file_without_constants"))
        }
        found[method] = {"sizes": sizes, **growth}
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
        for (before, after), growth in zip(pairwise(sizes["sizes"]), sizes["growth"], strict=True):
            line(
                f"growth of the {label} binary, {before['tokens']:,} to {after['tokens']:,} visual tokens",
                f"{growth:.2%}",
                "< 5 %",
                growth < 0.05,
            )


if __name__ == "__main__":
    main()
