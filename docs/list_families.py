"""Writes docs/families.md: `python docs/list_families.py` exports every small instance in both opsets (2 minutes)."""

from __future__ import annotations

import tempfile
from pathlib import Path

from focusc.export.checkpoint import TESTED
from focusc.export.instances import INSTANCES, write_config
from focusc.export.vlm import OPSETS, Request, VlmReport, export_vlm

PAGE = Path(__file__).parent / "families.md"
HEAD = f"""# Model families

Every family below is exported with random weights, two decoder layers and a made-up sample, in opset 20 and in opset
23, and compared with torch on onnxruntime. Parity is the largest difference of the logits over the largest logit, on
the traced sample and on one with other pixels and other text. This page is written by `docs/list_families.py`, with
transformers {TESTED} and torch 2.13.0.

Another family works if it is made of the same parts: its layout is guessed from the placeholder tokens, and it needs
its own processor or arrays. If it cannot be exported, the message names the line of its code.
"""


def run() -> dict[tuple[str, int], VlmReport]:
    """Reports by instance name and opset."""
    reports = {}
    for instance in INSTANCES:
        for opset in OPSETS:
            with tempfile.TemporaryDirectory() as folder:
                config = write_config(instance.model_type, Path(folder) / "config.json")
                reports[instance.name, opset] = export_vlm(
                    config, Path(folder) / "model.onnx", opset=opset, random_weights=0,
                    request=Request(frames=instance.frames))
    return reports


def page(reports: dict[tuple[str, int], VlmReport]) -> str:
    """The page as text."""
    lines = [HEAD, "## Parity and size", "",
             "| model type | sample | grid | strides | nodes, opset 20 | nodes, opset 23 | parity |",
             "|---|---|---|---|---|---|---|"]
    for instance in INSTANCES:
        old, new = reports[instance.name, 20], reports[instance.name, 23]
        kind = "one image" if instance.frames is None else f"{instance.frames} frames"
        parity = max(r.max_rel for r in (old, new) if r.max_rel is not None)
        grid, strides = (", ".join(map(str, numbers)) for numbers in (new.layout.grid, new.layout.strides))
        lines.append(f"| `{instance.model_type}` | {kind} | {grid} | {strides} | {old.nodes} | {new.nodes} | "
                     f"{'below 1e-6' if parity < 1e-6 else f'{parity:.0e}'} |")
    for opset in OPSETS:
        kinds = {name: reports[name, opset].ops for name in (i.name for i in INSTANCES)}
        operators = sorted({op for ops in kinds.values() for op in ops})
        lines += ["", f"## Operators, opset {opset}", "", f"Number of nodes; {len(operators)} operator types.", "",
                  "| operator | " + " | ".join(kinds) + " |", "|---" * (len(kinds) + 1) + "|"]
        lines += [f"| {op} | " + " | ".join(str(ops.get(op, "")) for ops in kinds.values()) + " |" for op in operators]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(page(run()), encoding="utf-8")
