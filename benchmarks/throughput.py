"""`make bench`: how fast the emulator is, next to onnxruntime on the same model.

For each model the emulator (functional run + timing) and onnxruntime take turns; the best of several rounds counts.
GMAC/s are multiply-accumulates of the dense model over wall time, for concentrated programs too: their work counts as
what it replaces.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from synthetic import Decoder

from focusc.driver import CompileOptions, compile_model, export
from focusc.driver.comparison import held_out, reference
from focusc.driver.execution import Runner

WIDE = Decoder(width=896, layers=2, heads=14, kv_heads=2, mlp=4864, frames=8, rows=14, columns=13, prefix=14, query=30)
"""Two layers of a Qwen2-0.5B shape; 1,500 tokens."""
GOALS = {"demo, dense": 5.0, "decoder 896 x 1500, dense": 40.0}
"""GMAC/s that the emulator is to reach."""


def best(rounds: int, *work: Callable[[], object]) -> list[float]:
    """Best wall time in seconds of each piece of work, which take turns; one round before is not counted."""
    times = [float("inf")] * len(work)
    for number in range(rounds + 1):
        for index, piece in enumerate(work):
            started = time.perf_counter()
            piece()
            if number:
                times[index] = min(times[index], time.perf_counter() - started)
    return times


def measure(name: str, model: Path, inputs: dict[str, np.ndarray], concentrate: str, rounds: int) -> dict[str, Any]:
    """Throughput of one model under one method."""
    compilation = compile_model(model, CompileOptions.load(concentrate=concentrate))
    runner = Runner(compilation.program, compilation.machine)
    session = reference(model)
    macs = sum(node["macs_dense"] for node in runner.run(inputs).stats["nodes"])
    whole, functional, ort = best(
        rounds, lambda: runner.run(inputs), lambda: runner.outputs(inputs), lambda: session(inputs)
    )
    return {
        "name": name,
        "gmacs": macs / 1e9,
        "compile_s": compilation.seconds,
        "emulator_s": whole,
        "functional_s": functional,
        "onnxruntime_s": ort,
        "gmacs_per_s": macs / whole / 1e9,
        "onnxruntime_gmacs_per_s": macs / ort / 1e9,
        "ratio": whole / ort,
    }


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        demo = Path(folder) / "demo.onnx"
        export("demo", demo)
        question = next(held_out(demo, 1)).inputs
        wide = WIDE.write(Path(folder) / "wide.onnx")
        for method in ("none", "focus"):
            label = "dense" if method == "none" else method
            rows.append(measure(f"demo, {label}", demo, question, method, options.rounds))
            rows.append(measure(f"decoder 896 x {WIDE.tokens}, {label}", wide, WIDE.inputs(), method, options.rounds))
    if options.json:
        json.dump(rows, sys.stdout, indent=1)
        return
    print(f"{'model':<28}{'GMAC':>8}{'emulator':>12}{'onnxruntime':>14}{'GMAC/s':>9}{'ort':>7}{'time':>8}  goal")
    for row in sorted(rows, key=lambda item: item["name"]):
        goal = GOALS.get(row["name"])
        verdict = "" if goal is None else f"{goal:g}: {'reached' if row['gmacs_per_s'] >= goal else 'missed'}"
        emulator, ort = f"{row['emulator_s'] * 1e3:.0f} ms", f"{row['onnxruntime_s'] * 1e3:.0f} ms"
        speeds = f"{row['gmacs_per_s']:>9.1f}{row['onnxruntime_gmacs_per_s']:>7.1f}{row['ratio']:>7.2f}x"
        print(f"{row['name']:<28}{row['gmacs']:>8.2f}{emulator:>12}{ort:>14}{speeds}  {verdict}")


if __name__ == "__main__":
    main()
