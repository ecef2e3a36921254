"""The two models of the same machine: compiled programs against the closed form, operation by operation.

`python benchmarks/crosscheck.py [--workload W] [--frames N] [--layers N] [--compression C] [--all]` compiles the
workload dense, with SEC alone and with SEC and SIC, times each without data (array model `scalesim`), and prints in
Markdown the causes and a table for each: figures of every operation in the corrected cost model and in the program,
their difference, what the causes explain, and what is left. Rows that agree within 2 % are counted, not shown, without
`--all`. docs/cost_models.md holds its output.
"""

from __future__ import annotations

import argparse
import dataclasses

from focusc.backends.cost import load_accelerator
from focusc.backends.cost.crosscheck import CAUSES, Check, Comparison, cross_check
from focusc.backends.hardware import load_hardware
from focusc.backends.prefill import build
from focusc.backends.trace_program import site_counts
from focusc.backends.trace_synth import synthesize
from focusc.backends.workload import Workload, load_workload
from focusc.driver.compiler import compile_model
from focusc.driver.options import CompileOptions

METHODS = {"dense": ("systolic", "none"), "sec": ("focus", "sec"), "focus": ("focus", "focus")}
NEAR = 0.02
"""Difference up to which a row counts as agreeing."""


def compared(workload: Workload, method: str, compression: float) -> Check:
    """All comparisons of one method."""
    target, concentrate = METHODS[method]
    options = CompileOptions.load(None, target=target, concentrate=concentrate)
    program = compile_model(build(workload), options, weights=False).program
    trace = None if method == "dense" else synthesize(workload, compression=compression)
    counts = site_counts(trace, program) if trace is not None and method == "focus" else None
    return cross_check(program, load_hardware(target), workload, trace, counts, load_accelerator(target))


def cells(row: Comparison) -> list[str]:
    """One line; a percentage is of the closed form's figure, of the program's where that has none."""
    base = row.model or row.program
    scale, unit = (1e3, " (J)") if row.op == "energy" else (1e9, "")
    causes = ", ".join(f"{name} {100 * size / base:+.2f}" for name, size in row.causes.items()
                       if abs(size) >= 5e-4 * base)
    difference = f"{100 * row.difference:+.2f}" if row.model else "from 0"
    return [row.op, row.quantity + unit, f"{row.model / scale:.4f}", f"{row.program / scale:.4f}", difference, causes,
            f"{100 * row.residual:+.2f}"]


def show(method: str, check: Check, *, every: bool) -> None:
    """One table."""
    shown = [row for row in check.rows if every or abs(row.difference) > NEAR]
    print(f"\n**{method}**\n\n| op | figure (10^9) | closed form | program | difference % | causes, % | left % |")
    print("|---|---|---:|---:|---:|---|---:|")
    for row in shown:
        print("| " + " | ".join(cells(row)) + " |")
    near = [row for row in check.rows if row not in shown]
    print(f"\n{len(near)} rows agree within {100 * NEAR:.0f} %"
          + (f" (largest difference {100 * max(abs(row.difference) for row in near):.2f} %)" if near else "")
          + f"; what causes leave of any row is at most {100 * max(abs(row.residual) for row in check.rows):.2f} %.")
    for side, waits in (("closed form", check.waits_model), ("program", check.waits_program)):
        found = ", ".join(f"{cause} {cycles / 1e9:.4f}" for cause, cycles in waits.items() if cycles)
        print(f"The array waits in the {side}, 10^9 cycles: {found or 'never'}.")


def main() -> None:
    """Compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workload", default="llava-video-7b")
    parser.add_argument("--frames", type=int)
    parser.add_argument("--layers", type=int)
    parser.add_argument("--compression", type=float, default=1.8875)
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--all", action="store_true", help="show the rows that agree too")
    given = parser.parse_args()
    workload = load_workload(given.workload)
    if given.frames:
        workload = workload.with_frames(given.frames)
    if given.layers:
        workload = dataclasses.replace(workload, layers=given.layers)
    print("| cause | what it is |\n|---|---|")
    for name, text in CAUSES.items():
        print(f"| `{name}` | {text} |")
    for method in given.methods.split(","):
        show(method, compared(workload, method, given.compression), every=given.all)


if __name__ == "__main__":
    main()
