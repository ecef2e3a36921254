"""LLaVA-OneVision 7B with 32 frames, without weights: export, then import + concentrate + compile; by layers.

`python benchmarks/full_size.py [--layers 2,8,28] [--frames 32]` runs `focusc export --no-weights` and `focusc compile
--no-weights` in processes of their own and prints processor time, wall time, peak memory and the size of the binary.
Time is judged by the processor's, which is what a command costs whatever else the machine does. Growth is linear if
a layer between the two largest depths costs no more than 1.5 times what one between the two smallest does.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from importlib import resources
from pathlib import Path
from typing import Any

from rich.console import Console
from scaling import measured

from focusc.report.tables import table

GOALS = {"export_cpu_s": 180.0, "export_mb": 4096.0, "compile_cpu_s": 60.0, "compile_mb": 4096.0, "binary_mb": 8.0}
"""Of the full depth: at most so much."""
GROWTH = 1.0
CONFIG = "llava_onevision_7b.json"


def chain(folder: Path, layers: int, frames: int, opset: int) -> dict[str, Any]:
    """Export and compile a decoder of so many layers behind the whole vision tower."""
    config = json.loads(resources.files("focusc.export").joinpath("configs", CONFIG).read_text(encoding="utf-8"))
    config["text_config"]["num_hidden_layers"] = layers
    source, model, program = (folder / name for name in ("config.json", "model.onnx", "model.fbin"))
    source.write_text(json.dumps(config), encoding="utf-8")
    exported = measured("export", str(source), "--no-weights", "--frames", str(frames), "--opset", str(opset),
                        "-o", str(model))
    compiled = measured("compile", str(model), "--no-weights", "-o", str(program))
    passes = {step["name"]: step.get("seconds", 0.0) for step in compiled.printed["passes"]}
    return {
        "layers": layers,
        "nodes": exported.printed["nodes"],
        "export_cpu_s": exported.cpu,
        "export_wall_s": exported.wall,
        "export_mb": exported.megabytes,
        "compile_cpu_s": compiled.cpu,
        "compile_wall_s": compiled.wall,
        "compile_mb": compiled.megabytes,
        "instructions": compiled.printed["instructions"],
        "binary_mb": os.path.getsize(program) / 1e6,
        "slowest_passes": dict(sorted(passes.items(), key=lambda item: -item[1])[:4]),
    }


def growth(rows: list[dict[str, Any]], key: str) -> float:
    """Cost at the largest depth over that at the one before it, by their layers: 1 is proportional, less is better.

    Fixed costs are in it; the cost of single layers is within the noise of torch's export.
    """
    b, c = rows[-2:]
    return c[key] / b[key] / (c["layers"] / b["layers"])


def show(rows: list[dict[str, Any]]) -> bool:
    """The table, then each figure with its goal; True if all are reached."""
    names = ("layers", "nodes", "export s", "MB", "compile s", "MB", "instructions", "binary MB")
    made = table("", *names, left=0)
    for row in rows:
        made.add_row(
            str(row["layers"]), f"{row['nodes']:,}", f"{row['export_cpu_s']:.1f} ({row['export_wall_s']:.1f})",
            f"{row['export_mb']:.0f}", f"{row['compile_cpu_s']:.1f} ({row['compile_wall_s']:.1f})",
            f"{row['compile_mb']:.0f}", f"{row['instructions']:,}", f"{row['binary_mb']:.2f}",
        )  # fmt: skip
    console = Console(width=120)
    console.print(made)
    console.print("seconds are processor time of one core, in brackets wall time; MB is the peak of the process")
    lines = [(name, rows[-1][name], goal) for name, goal in GOALS.items()]
    if len(rows) > 2:
        for key in ("export_cpu_s", "compile_cpu_s"):
            lines.append((f"{key} by layers, 1: linear", growth(rows, key), GROWTH))
    for name, value, goal in lines:
        print(f"{name:<36}{value:>10.2f}   <= {goal:<8g}{'reached' if value <= goal else 'MISSED'}")
    return all(value <= goal for _, value, goal in lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--layers", default="2,8,28")
    parser.add_argument("--frames", type=int, default=32)
    parser.add_argument("--opset", type=int, choices=(20, 23), default=23)
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the rows here")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for layers in sorted(int(v) for v in given.layers.split(",")):
        with tempfile.TemporaryDirectory() as name:
            rows.append(chain(Path(name), layers, given.frames, given.opset))
        print(f"{layers} layers done", file=sys.stderr)
    if given.json is not None:
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if show(rows) else 1)


if __name__ == "__main__":
    main()
