"""All 72 runs, and accuracy beside sparsity: of videos, of 8-bit models, of images."""

from __future__ import annotations

from collections.abc import Iterable

from focusc.backends.cost.tables import figures
from focusc.report.reproduce.figures import Number, Table, joined, mean, ratio_of
from focusc.report.reproduce.runs import QUANTITIES, Runs

__all__ = ["accuracy", "images", "int8", "results"]

SHOWN_ACCURACY = {"accuracy": ("accuracy", 1.0), "sparsity_percent": ("sparsity (%)", 1.0)}


def results(runs: Runs) -> Table:
    """The published table of results, every figure of every row."""
    made = Table("results", "Results of all runs", ("workload", "dataset", "accelerator"), {
        "cycles": ("cycles (10^9)", 1e-9), "macs": ("MACs (10^12)", 1e-12), "dram_bytes": ("DRAM (GB)", 1e-9),
        "energy_mj": ("energy (J)", 1e-3)})
    for key in runs.rows:
        for accounting in runs.accountings:
            made.numbers += [runs.number(key, quantity, accounting) for quantity in QUANTITIES
                             if quantity != "compression_ratio" or key[2].startswith("focus")]
    for accounting in runs.accountings:
        made.notes.append(f"{accounting}: {worst(made, accounting)}")
    made.notes.append(f"{len(runs.rows)} rows: {runs.seconds / len(runs.accountings):.2f} s of processor time in each "
                      "accounting, matching of traces included")
    return made


def worst(table: Table, accounting: str) -> str:
    """The largest relative error of each accelerator over what is shown."""
    parts: list[str] = []
    for accelerator in dict.fromkeys(n.keys["accelerator"] for n in table.numbers):
        mine = [n for n in table.numbers if n.keys["accelerator"] == accelerator and n.accounting == accounting
                and n.quantity in ("cycles", "dram_bytes", "energy_mj") and n.error is not None]
        top = max(mine, key=lambda n: abs(n.error or 0.0))
        value = top.error or 0.0
        parts.append(f"{accelerator} {'0' if abs(value) < 1e-12 else f'{100 * value:+.1f} %'}")
    return "largest error of cycles, DRAM bytes and energy: " + ", ".join(parts)


def sparsity(runs: Runs, key: tuple[str, str, str], accounting: str) -> Number:
    """Per cent of the dense MACs that a run leaves out, both counted by the same accounting."""
    published, computed, provenance = ratio_of(runs.number(key, "macs", accounting),
                                               runs.number(key, "dense_macs", accounting))
    if runs.number(key, "macs", accounting).provenance == "fitted":
        provenance = "fitted"
    keys: dict[str, str] = {"workload": key[0], "dataset": key[1], "method": key[2]}
    old, new = (None if v is None else 100 * (1 - v) for v in (published, computed))
    return Number(keys, "sparsity_percent", "%", old, new, provenance, accounting)


def _accuracy(runs: Runs, name: str, title: str, pairs: list[tuple[str, str]], methods: dict[str, str]) -> Table:
    """Accuracy (`methods`: column of the published table -> accelerator, or empty) and sparsity, with means."""
    made = Table(name, title, ("workload", "dataset", "method"), SHOWN_ACCURACY)
    quoted = {(r["workload"], r["dataset"]): r for r in figures("accuracy")}
    for run in pairs:
        for column, accelerator in methods.items():
            if column in quoted[run]:
                unit = "score" if run[1] == "mme" else "%"
                made.add((*run, column), "accuracy", unit, quoted[run][column], None, "quoted")
            if accelerator:
                found = (sparsity(runs, (*run, accelerator), accounting) for accounting in runs.accountings)
                made.numbers += [_renamed(n, column) for n in found]
    means(made, methods, "accuracy", "sparsity_percent")
    return made


def _renamed(n: Number, method: str) -> Number:
    return Number({**n.keys, "method": method}, n.quantity, n.unit, n.published, n.computed, n.provenance, n.accounting)


def means(table: Table, methods: Iterable[str], *quantities: str, geometric: bool = False) -> None:
    """Append a row of means over all runs for each method; scores and per cent are not averaged together."""
    for method in methods:
        for quantity in quantities:
            for accounting in ("", *table.accountings()):
                mine = [n for n in table.numbers if n.keys["method"] == method and n.quantity == quantity
                        and n.accounting == accounting]
                if mine and len({n.unit for n in mine}) == 1:
                    kinds = {n.provenance for n in mine}
                    label = "geometric mean" if geometric else "mean"
                    table.add((label, "all", method), quantity, mine[0].unit,
                              mean((n.published for n in mine), geometric=geometric),
                              mean((n.computed for n in mine), geometric=geometric),
                              kinds.pop() if len(kinds) == 1 else joined(*kinds), accounting)


def accuracy(runs: Runs) -> Table:
    """Accuracy and computation sparsity on video."""
    made = _accuracy(runs, "accuracy", "Accuracy and sparsity on video", runs.videos, {
        "dense": "", "framefusion": "", "adaptiv": "adaptiv", "cmc": "cmc", "focus-sec": "focus-sec", "focus": "focus"})
    made.notes.append("The MACs of Focus are what its traces are fitted to, so its sparsity is no prediction.")
    return made


def int8(runs: Runs) -> Table:
    """8-bit models: accuracy, sparsity, cycles and energy beside those of 16 bits."""
    made = _accuracy(runs, "int8", "8-bit models on video", runs.videos, {
        "dense": "", "int8_dense": "", "focus": "focus", "int8_focus": "focus-int8"})
    made.shown = {**SHOWN_ACCURACY, "cycles": ("cycles (10^9)", 1e-9), "energy_mj": ("energy (J)", 1e-3)}
    for run in runs.videos:
        for method, accelerator in (("focus", "focus"), ("int8_focus", "focus-int8")):
            for accounting in runs.accountings:
                made.numbers += [_method(runs.number((*run, accelerator), quantity, accounting), method)
                                 for quantity in ("cycles", "energy_mj")]
    made.notes.append("8 bits change the trace alone: bytes an element, cycles and energies are those of 16 bits.")
    return made


def _method(n: Number, method: str) -> Number:
    keys = {"workload": n.keys["workload"], "dataset": n.keys["dataset"], "method": method}
    return Number(keys, n.quantity, n.unit, n.published, n.computed, n.provenance, n.accounting)


def images(runs: Runs) -> Table:
    """Images: accuracy, sparsity, and speed-up and energy against the dense array."""
    methods = {"dense": "", "adaptiv": "adaptiv", "focus": "focus"}
    made = _accuracy(runs, "images", "Images", runs.images, methods)
    made.shown = {**SHOWN_ACCURACY, "speedup": ("speed-up over dense", 1.0),
                  "energy_ratio": ("energy, dense over", 1.0)}
    for run in runs.images:
        for method in ("adaptiv", "focus"):
            for accounting in runs.accountings:
                for name, quantity in (("speedup", "cycles"), ("energy_ratio", "energy_mj")):
                    found = ratio_of(runs.number((*run, "systolic"), quantity, accounting),
                                     runs.number((*run, method), quantity, accounting))
                    made.add((*run, method), name, "x", *found, accounting)
    means(made, ("adaptiv", "focus"), "speedup", "energy_ratio", geometric=True)
    return made
