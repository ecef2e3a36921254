"""How compile and simulate grow: time and memory for a 7B workload from 1k to 64k visual tokens, and by layers.

`python benchmarks/scaling.py [--tokens 1000,2000,...] [--layers 7,14,28]` runs every command of the chain in a process
of its own (`focusc workload`, `compile --no-weights`, `trace synth`, `simulate`) and prints its processor time (what it
costs, whatever else the machine does), wall time and peak memory. The first simulation compiles the timing kernel; one
is run before.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.console import Console

from focusc.backends.hardware import load_hardware
from focusc.backends.workload import load_workload
from focusc.report.tables import table

TOKENS = (1000, 2000, 4000, 8000, 11648, 16000, 32000, 64000)
LAYERS = (7, 14, 28)


@dataclass(frozen=True)
class Cost:
    """Processor and wall seconds, peak MB, and what the command printed as JSON."""

    cpu: float
    wall: float
    megabytes: float
    printed: Any


def measured(*arguments: str) -> Cost:
    """Run `focusc ARGUMENTS --json` and measure it; its own message ends the benchmark if it fails."""
    import time

    started = time.perf_counter()
    process = subprocess.Popen([sys.executable, "-m", "focusc", *arguments, "--json"], stdout=subprocess.PIPE)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(process.returncode)
    wall = time.perf_counter() - started
    return Cost(usage.ru_utime + usage.ru_stime, wall, usage.ru_maxrss / 1024, json.loads(text))


def hardware(folder: Path, tokens: int) -> str:
    """The target `focus`, with an importance buffer that holds the visual tokens if its own does not."""
    machine = load_hardware("focus")
    if tokens <= machine.sec.importance_entries:
        return "focus"
    from importlib import resources

    text = resources.files("focusc.backends").joinpath("focus", "focus.toml").read_text(encoding="utf-8")
    old = f"importance_entries = {machine.sec.importance_entries:_}"
    if old not in text:
        old = f"importance_entries = {machine.sec.importance_entries}"
    assert old in text and tomllib.loads(text)
    path = folder / "focus-wide.toml"
    path.write_text(text.replace(old, f"importance_entries = {tokens}"), encoding="utf-8")
    return str(path)


def chain(folder: Path, workload: str, frames: int, layers: int, compression: float, array: str) -> dict[str, Any]:
    """All commands for one size."""
    found = load_workload(workload).with_frames(frames)
    size = ["--frames", str(frames), "--layers", str(layers)]
    fir, fbin, npz = (str(folder / name) for name in ("w.fir", "w.fbin", "t.npz"))
    measured("workload", workload, *size, "-o", fir)
    compiled = measured("compile", fir, "--no-weights", "--target", hardware(folder, found.visual_tokens), "-o", fbin)
    made = measured("trace", "synth", "--workload", workload, *size, "--compression", str(compression), "-o", npz)
    timed = measured("simulate", fbin, "--trace", npz, "--array", array)
    return {
        "visual_tokens": found.visual_tokens,
        "layers": layers,
        "instructions": compiled.printed["instructions"],
        "binary_bytes": os.path.getsize(fbin),
        "compile_cpu_s": compiled.cpu,
        "compile_wall_s": compiled.wall,
        "compile_mb": compiled.megabytes,
        "synth_cpu_s": made.cpu,
        "commands": timed.printed["commands"],
        "array_passes": timed.printed["array_passes"],
        "simulate_cpu_s": timed.cpu,
        "simulate_wall_s": timed.wall,
        "simulate_mb": timed.megabytes,
        "cycles": timed.printed["cycles"],
        "macs": timed.printed["macs_array"],
        "array_bound": timed.printed["macs_array"] / 1024 / timed.printed["cycles"],
    }


def show(rows: list[dict[str, Any]]) -> None:
    """One table of all sizes."""
    names = ("visual tokens", "layers", "instructions", "binary KB", "compile s", "MB", "commands", "array passes",
             "simulate s", "MB", "us/command", "Gcycles", "MACs/1024 of cycles")
    made = table("", *names, left=0)
    for row in rows:
        made.add_row(
            f"{row['visual_tokens']:,}", str(row["layers"]), f"{row['instructions']:,}",
            f"{row['binary_bytes'] / 1024:.0f}", f"{row['compile_cpu_s']:.1f} ({row['compile_wall_s']:.1f})",
            f"{row['compile_mb']:.0f}", f"{row['commands']:,}", f"{row['array_passes']:,}",
            f"{row['simulate_cpu_s']:.1f} ({row['simulate_wall_s']:.1f})", f"{row['simulate_mb']:.0f}",
            f"{1e6 * row['simulate_cpu_s'] / row['commands']:.2f}", f"{row['cycles'] / 1e9:.2f}",
            f"{100 * row['array_bound']:.1f} %",
        )  # fmt: skip
    console = Console(width=170)
    console.print(made)
    console.print("seconds are processor time of one core, in brackets wall time; MB is the peak of the process")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--workload", default="llava-video-7b")
    parser.add_argument("--tokens", default=",".join(map(str, TOKENS)))
    parser.add_argument("--layers", default=",".join(map(str, LAYERS)), help="at 64 frames")
    parser.add_argument("--compression", type=float, default=1.8875)
    parser.add_argument("--array", default="pipelined", choices=("scalesim", "pipelined"))
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    base = load_workload(given.workload)
    per_frame = base.visual_tokens // base.frames
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        chain(folder, given.workload, 1, 1, given.compression, given.array)  # compiles the kernel, if need be
        for tokens in (int(v) for v in given.tokens.split(",") if v):
            frames = max(1, round(tokens / per_frame))
            rows.append(chain(folder, given.workload, frames, base.layers, given.compression, given.array))
            print(f"{rows[-1]['visual_tokens']} tokens done", file=sys.stderr)
        for layers in (int(v) for v in given.layers.split(",") if v):
            rows.append(chain(folder, given.workload, base.frames, layers, given.compression, given.array))
            print(f"{layers} layers done", file=sys.stderr)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    show(rows)


if __name__ == "__main__":
    main()
