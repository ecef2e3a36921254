"""Traces for people: tables on the terminal, and one figure of four panels."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Group, RenderableType

from focusc.report.numbers import count, percent, ratio
from focusc.report.tables import pairs, table

if TYPE_CHECKING:
    from focusc.backends.trace import Trace

_BARS = " ▁▂▃▄▅▆▇█"


def trace_table(facts: Mapping[str, Any], *, every: bool = False) -> RenderableType:
    """The head of a trace, and each site's compression and spread of tiles; with `every` layer by layer too."""
    source = facts["source"]
    rows = [
        ("workload", facts["workload"] or "(not said)"),
        ("made", " ".join(f"{key} {value}" if key != "kind" else str(value) for key, value in sorted(
            source.items(), key=lambda item: item[0] != "kind")) or "(not said)"),
        ("layers", str(facts["layers"])),
        ("visual tokens", count(facts["tokens"])),
        ("m-tile", f"{facts['m']} tokens"),
        ("compression", f"{ratio(facts['compression'])}  (retained / unique, mean over layers and sites)"),
        ("link table", "yes" if facts["links"] else "no"),
    ]
    kept = [(row["layer"], row["retained"]) for row in facts["sites"] if row["site"] == "gate_proj"]
    steps = [f"{layer}: {count(left)}" for i, (layer, left) in enumerate(kept) if i == 0 or left != kept[i - 1][1]]
    rows.append(("tokens left, by layer", ", ".join(steps)))
    if "path" in facts:
        rows.append(("file", f"{facts['path']} ({count(facts['bytes'])} bytes)"))
    if "plot" in facts:
        rows.append(("plot", facts["plot"]))
    return Group(pairs("", rows), *([_layers(facts)] if every else []), _sites(facts))


def _sites(facts: Mapping[str, Any]) -> RenderableType:
    made = table("by site", "site", "slots", "similar vectors", "compression", "tiles", "unique / rows, 0 to 1")
    for name in dict.fromkeys(row["site"] for row in facts["sites"]):
        mine = [row for row in facts["sites"] if row["site"] == name]
        vectors = sum(row["retained"] * row["slots"] for row in mine)
        bins = np.sum([row.get("occupancy", [0] * 10) for row in mine], axis=0)
        made.add_row(
            name,
            str(mine[0]["slots"]),
            percent(sum(row["similar"] for row in mine) / vectors),
            ratio(float(np.mean([row["compression"] for row in mine]))),
            count(sum(row.get("tiles", 0) for row in mine)),
            _spark(bins),
        )
    return made


def _layers(facts: Mapping[str, Any]) -> RenderableType:
    made = table("by layer", "layer", "site", "retained", "compression", "unique: mean", "min", "max", left=2)
    for row in facts["sites"]:
        unique = row.get("unique", {})
        cells = [f"{unique[key]:.0f}" if unique else "" for key in ("mean", "min", "max")]
        made.add_row(str(row["layer"]), row["site"], count(row["retained"]), ratio(row["compression"]), *cells)
    return made


def _spark(bins: Any) -> str:
    """A histogram in ten characters."""
    top = max(int(np.max(bins)), 1)
    return "".join(_BARS[0 if n == 0 else max(1, round(8 * n / top))] for n in bins)


def draw(trace: Trace, path: str | os.PathLike[str]) -> None:
    """One figure: tokens left by layer, compression by layer and site, occupancy of tiles, unique vectors by slot."""
    import io

    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    from focusc.backends.trace import SITES
    from focusc.driver.files import atomic_writer

    figure, axes = pyplot.subplots(2, 2, figsize=(9, 6), constrained_layout=True)
    colours = pyplot.get_cmap("viridis")(np.linspace(0, 0.85, len(SITES)))
    layers = np.arange(trace.layers)
    left, ratios, occupancy, over = axes[0, 0], axes[0, 1], axes[1, 0], axes[1, 1]
    left.step(layers, trace.retained[:, 3], where="post", color="black")
    left.set(xlabel="layer", ylabel="visual tokens left", ylim=(0, None))
    found = trace.compression()
    for column, site in enumerate(SITES):
        ratios.plot(layers, found[:, column], ".-", color=colours[column], label=site, linewidth=1)
    ratios.set(xlabel="layer", ylabel="retained / unique", ylim=(0.95, None))
    ratios.legend(frameon=False, fontsize=7)
    if trace.unique is not None:
        for column, site in enumerate(SITES):
            share = [trace.unique_of(i, site) / trace.tile_rows(i, site)[:, None] for i in range(trace.layers)]
            flat = np.concatenate([s.reshape(-1) for s in share])
            occupancy.hist(flat, np.linspace(0, 1, 41), density=True, histtype="step", color=colours[column])
            means = np.array([s.mean(axis=0) for s in share]).mean(axis=0)
            over.plot(np.linspace(0, 1, len(means)), means, color=colours[column], linewidth=0.8)
    occupancy.set(xlabel="unique / rows of a tile", ylabel="density of tiles", xlim=(0, 1))
    over.set(xlabel="position in the row (slot / slots)", ylabel="unique / rows, mean", ylim=(0, 1))
    figure.suptitle(f"{trace.workload or 'trace'}: {trace.tokens} visual tokens, m = {trace.m}", fontsize=10)
    buffer = io.BytesIO()
    figure.savefig(buffer, format=Path(path).suffix[1:].lower(), dpi=150)
    pyplot.close(figure)
    with atomic_writer(path) as file:
        file.write(buffer.getvalue())
