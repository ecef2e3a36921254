"""Speed-up and energy, the headline, the ablation and the traffic: ratios between runs."""

from __future__ import annotations

from typing import Any

from focusc.backends.cost.tables import area_power, figures
from focusc.report.reproduce.figures import Number, Table, joined, mean, ratio_of
from focusc.report.reproduce.results import means
from focusc.report.reproduce.runs import ACCOUNTINGS, Runs

__all__ = ["ablation", "headline", "speedup", "traffic"]

METHODS = ("gpu", "gpu-framefusion", "adaptiv", "cmc", "focus-sec", "focus")


def speedup(runs: Runs) -> Table:
    """Time and energy of the dense array over those of every other, on the nine video runs."""
    made = Table("speedup", "Speed-up and energy against the dense array, video", ("workload", "dataset", "method"), {
        "speedup": ("speed-up over dense", 1.0), "energy_ratio": ("energy, dense over", 1.0)})
    for run in runs.videos:
        for method in METHODS:
            for accounting in runs.accountings:
                for name, quantity in (("speedup", "time_s"), ("energy_ratio", "energy_mj")):
                    found = ratio_of(runs.number((*run, "systolic"), quantity, accounting),
                                     runs.number((*run, method), quantity, accounting))
                    made.add((*run, method), name, "x", *found, accounting)
    means(made, METHODS, "speedup", "energy_ratio", geometric=True)
    return made


def headline(runs: Runs) -> Table:
    """Focus over each other method: geometric means over the nine video runs; area and power over the dense array."""
    made = Table("headline", "Headline: Focus over the others, video", ("against",), {
        "speedup": ("speed-up", 1.0), "energy_ratio": ("energy ratio", 1.0), "area_overhead_percent": ("area (%)", 1.0),
        "power_overhead_percent": ("power (%)", 1.0)})
    said = {row["accelerator"]: row for row in figures("area_power")}
    for accounting in runs.accountings:
        for other in ("systolic", "adaptiv", "cmc", "focus-sec", "gpu", "gpu-framefusion"):
            for name, quantity in (("speedup", "time_s"), ("energy_ratio", "energy_mj")):
                found = [ratio_of(runs.number((*run, other), quantity, accounting),
                                  runs.number((*run, "focus"), quantity, accounting)) for run in runs.videos]
                made.add((other,), name, "x", mean((f[0] for f in found), geometric=True),
                         mean((f[1] for f in found), geometric=True), joined(*(f[2] for f in found)), accounting)
        ours = {row["accelerator"]: row for row in area_power(ACCOUNTINGS[accounting])}
        for name, key in (("area_overhead_percent", "area_mm2"), ("power_overhead_percent", "power_mw")):
            old, new = (100 * (rows["focus"][key] / rows["systolic"][key] - 1) for rows in (said, ours))
            made.add(("systolic",), name, "%", old, new, "exact", accounting)
    made.notes.append("The corrected dense array has no buffers of the similarity concentrator, so Focus adds more.")
    return made


def ablation(runs: Runs) -> Table:
    """From the dense array over CMC and pruning to Focus, LLaVA-Video: geometric means over its three data sets."""
    made = Table("ablation", "Ablation, LLaVA-Video 7B", ("step",), {"speedup": ("speed-up", 1.0)})
    mine = [run for run in runs.videos if run[0] == "llava-video-7b"]
    steps = (("systolic", "cmc"), ("cmc", "focus-sec"), ("focus-sec", "focus"), ("systolic", "focus-sec"),
             ("systolic", "focus"))
    for below, above in steps:
        for accounting in runs.accountings:
            found = [ratio_of(runs.number((*run, below), "cycles", accounting),
                              runs.number((*run, above), "cycles", accounting)) for run in mine]
            made.add((f"{above} over {below}",), "speedup", "x", mean((f[0] for f in found), geometric=True),
                     mean((f[1] for f in found), geometric=True), joined(*(f[2] for f in found)), accounting)
    return made


def traffic(runs: Runs) -> Table:
    """DRAM bytes and activation bytes over those of the dense array: geometric means over data sets and models."""
    made = Table("traffic", "Traffic relative to the dense array, video", ("workload", "method"), {
        "dram": ("DRAM bytes", 1.0), "activation": ("activation bytes", 1.0)})
    models = list(dict.fromkeys(run[0] for run in runs.videos))
    methods = ("adaptiv", "cmc", "focus-sec", "focus")
    for model in models:
        pairs = [run for run in runs.videos if run[0] == model]
        for method in methods:
            for accounting in runs.accountings:
                for name, quantity in (("dram", "dram_bytes"), ("activation", "activation_bytes")):
                    found = [ratio_of(runs.number((*run, method), quantity, accounting),
                                      runs.number((*run, "systolic"), quantity, accounting)) for run in pairs]
                    made.add((model, method), name, "1", mean((f[0] for f in found), geometric=True),
                             mean((f[1] for f in found), geometric=True), joined(*(f[2] for f in found)), accounting)
    for method in methods:
        for accounting in runs.accountings:
            for name in ("dram", "activation"):
                mine = [n for n in made.numbers if (n.keys["method"], n.quantity, n.accounting) == (
                    method, name, accounting) and n.keys["workload"] in models]
                made.add(("mean", method), name, "1", *_means(mine), joined(*(n.provenance for n in mine)), accounting)
    made.notes.append("Activation bytes are the published counter: inputs of every product, attention scores in full.")
    return made


def _means(numbers: list[Number]) -> tuple[Any, Any]:
    return tuple(mean((getattr(n, name) for n in numbers), geometric=True)  # type: ignore[return-value]
                 for name in ("published", "computed"))
