"""The two models of the same machine: compiled programs against the closed form, operation by operation.

`python benchmarks/crosscheck.py [--workload W] [--frames N] [--layers N] [--compression C]` compiles the workload
dense, with SEC alone and with SEC and SIC, times each without data (array model `scalesim`), and prints array cycles,
MACs and DRAM bytes of every operation beside those of the corrected cost model: the difference, what the named causes
explain, and what is left. docs/cost_models.md holds its output.
"""

from __future__ import annotations

import argparse
import dataclasses

from rich.console import Console

from focusc.backends.cost import load_accelerator
from focusc.backends.cost.crosscheck import CAUSES, Comparison, cross_check
from focusc.backends.hardware import load_hardware
from focusc.backends.prefill import build
from focusc.backends.trace_program import site_counts
from focusc.backends.trace_synth import synthesize
from focusc.backends.workload import Workload, load_workload
from focusc.driver.compiler import compile_model
from focusc.driver.options import CompileOptions
from focusc.report.tables import table

METHODS = {"dense": ("systolic", "none"), "sec": ("focus", "sec"), "focus": ("focus", "focus")}


def compared(workload: Workload, method: str, compression: float) -> list[Comparison]:
    """All comparisons of one method."""
    target, concentrate = METHODS[method]
    options = CompileOptions.load(None, target=target, concentrate=concentrate)
    program = compile_model(build(workload), options, weights=False).program
    trace = None if method == "dense" else synthesize(workload, compression=compression)
    counts = site_counts(trace, program) if trace is not None and method == "focus" else None
    return cross_check(program, load_hardware(target), workload, trace, counts, load_accelerator(target))


def show(method: str, rows: list[Comparison], console: Console) -> None:
    """One table."""
    names = ("op", "quantity", "program (10^9)", "closed form (10^9)", "difference %", "explained", "left %")
    made = table(method, *names, left=2)
    for row in rows:
        causes = ", ".join(f"{name} {100 * size / row.model:+.2f}" for name, size in row.causes.items()
                           if row.model and abs(size) > 5e-5 * row.model)
        made.add_row(row.op, row.quantity, f"{row.program / 1e9:.4f}", f"{row.model / 1e9:.4f}",
                     f"{100 * row.difference:+.2f}", causes, f"{100 * row.residual:+.2f}")
    console.print(made)


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workload", default="llava-video-7b")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--compression", type=float, default=1.8875)
    parser.add_argument("--methods", default=",".join(METHODS))
    given = parser.parse_args()
    workload = load_workload(given.workload)
    if given.frames:
        workload = workload.with_frames(given.frames)
    if given.layers:
        workload = dataclasses.replace(workload, layers=given.layers)
    console = Console(width=150)
    worst = 0.0
    for method in given.methods.split(","):
        rows = compared(workload, method, given.compression)
        show(method, rows, console)
        worst = max(worst, *(abs(row.residual) for row in rows))
    for name, text in CAUSES.items():
        console.print(f"{name}: {text}")
    console.print(f"largest difference that no cause explains: {100 * worst:.2f} %")


if __name__ == "__main__":
    main()
