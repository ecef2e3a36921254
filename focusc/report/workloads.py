"""Tables of workloads."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Group, RenderableType

from focusc.report.numbers import count
from focusc.report.tables import pairs, table


def workload_list(found: Sequence[Mapping[str, Any]]) -> RenderableType:
    """One line for each workload."""
    made = table("", "workload", "layers", "width", "heads", "kv heads", "ffn", "grid", "visual tokens", "variants")
    for w in found:
        made.add_row(
            w["name"],
            *(str(w[key]) for key in ("layers", "width", "heads", "kv_heads", "ffn")),
            "x".join(map(str, w["grid"])),
            count(w["visual_tokens"]),
            " ".join(w["variants"]),
        )
    return made


def workload_table(facts: Mapping[str, Any]) -> RenderableType:
    """The sizes of one workload, and the visual tokens that its schedule leaves."""
    names = ("layers", "width", "heads", "kv_heads", "head_size", "ffn", "vocab", "visual_tokens", "text_tokens")
    rows = [(key.replace("_", " "), str(facts[key])) for key in names]
    rows += [(key, "x".join(map(str, facts[key]))) for key in ("grid", "strides")]
    rows.append(("schedule", facts["schedule"] or "nothing is pruned"))
    steps = [
        f"layer {i}: {after}" for i, (before, after) in enumerate(facts["retained"]) if i == 0 or after != before
    ]
    rows.append(("visual tokens left", ", ".join(steps) or "none"))
    if facts.get("source"):
        rows.append(("source", facts["source"]))
    if "path" in facts:
        rows.append(("written", f"{facts['path']} ({count(facts['bytes'])} bytes, no weights)"))
    return Group(pairs(facts["name"], rows))
