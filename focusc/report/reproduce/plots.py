"""One figure a table."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from focusc.report.reproduce.figures import Number, Table
from focusc.report.reproduce.style import (
    COLUMN,
    PAGE,
    RC,
    bars,
    caption,
    colour,
    hatch_of,
    keys_below,
    label,
    legend,
    picture,
    whole,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]


def draw(table: Table) -> dict[str, bytes]:
    """The figure of a table: suffix (png, svg) -> bytes."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(RC):  # pyright: ignore[reportArgumentType]
        figure = FIGURES[table.name](table)
        try:
            caption(figure, table)
            return picture(figure)
        finally:
            pyplot.close(figure)


def _new(rows: int, columns: int, width: float, height: float, **options: Any) -> tuple[Figure, Any]:
    from matplotlib import pyplot

    return pyplot.subplots(rows, columns, figsize=(width, height), squeeze=False, layout="constrained", **options)


def _results(table: Table) -> Figure:
    """Relative errors of every run, by accelerator: a panel an accounting."""
    accountings = table.accountings()
    figure, axes = _new(len(accountings), 1, COLUMN, 1.0 + 1.3 * len(accountings), sharex=True)
    names = list(dict.fromkeys(n.keys["accelerator"] for n in table.numbers))
    quantities = {"cycles": "cycles", "dram_bytes": "DRAM bytes", "energy_mj": "energy"}
    for panel, accounting in zip(axes[:, 0], accountings):
        for i, quantity in enumerate(quantities):
            mine = [n for n in table.numbers if n.quantity == quantity and n.accounting == accounting]
            xs = [names.index(n.keys["accelerator"]) + (i - 1) * 0.24 for n in mine]
            spread = np.tile(np.linspace(-0.07, 0.07, 5), len(mine))[:len(mine)]
            panel.plot(np.array(xs) + spread, [100 * (n.error or 0.0) for n in mine], "o^s"[i], markersize=2.2,
                       color=colour("", i), markeredgewidth=0, alpha=0.8, label=quantities[quantity])
        panel.axhline(0, color="black", linewidth=0.5)
        panel.set(ylabel="ours / published - 1 (%)", title=f"{accounting} accounting")
        panel.set_xticks(range(len(names)), [label(n).replace(", ", ",\n") for n in names])
        panel.grid(axis="y")
    figure.legend(*axes[0, 0].get_legend_handles_labels(), loc="outside upper center", ncols=3)
    return figure


def _headline(table: Table) -> Figure:
    figure, axes = _new(1, 1, COLUMN, 2.0)
    others = [key[0] for key in table.rows()]
    series = ("speedup", "energy_ratio")
    names = {"speedup": "speed-up", "energy_ratio": "energy ratio"}

    def shade(name: str) -> str:
        return colour("", 0 if name in ("speedup", "speed-up") else 1)

    drawn = bars(axes[0, 0], table, [label(o).replace(" + ", " +\n") for o in others], series,
                 lambda g, s, a: table.get((others[g],), s, a), colours=shade)
    axes[0, 0].set(ylabel="Focus over ... (x, log scale)", yscale="log")
    axes[0, 0].set_yticks([1, 2, 3, 5, 10, 20], ["1", "2", "3", "5", "10", "20"])
    axes[0, 0].minorticks_off()
    axes[0, 0].set_ylim(1, 25)
    legend(figure, table, names.values(), drawn, columns=3, colours=shade)
    return figure


def _by_run(table: Table, *, width: float, height: float, columns: int) -> Figure:
    """Speed-up over energy: bars by run and method, the mean last."""
    quantities = {"speedup": "speed-up\nover dense (x)", "energy_ratio": "energy saving\nover dense (x)"}
    figure, axes = _new(len(quantities), 1, width, height, sharex=True)
    groups = list(dict.fromkeys((n.keys["workload"], n.keys["dataset"]) for n in table.numbers
                                if n.quantity in quantities))
    series = list(dict.fromkeys(n.keys["method"] for n in table.numbers if n.quantity in quantities))
    drawn: list[Number] = []
    for panel, (quantity, text) in zip(axes[:, 0], quantities.items()):
        def number(g: int, s: str, a: str, quantity: str = quantity) -> Number | None:
            return table.get((*groups[g], s), quantity, a)

        drawn += bars(panel, table, [label(d) if d != "all" else "" for _, d in groups], series, number)
        panel.set_ylabel(text)
    keys_below(axes[-1, 0], [w for w, _ in groups], gap=-0.17)
    for panel in axes[:-1, 0]:
        for i in range(1, len(groups)):
            if groups[i][0] != groups[i - 1][0]:
                panel.axvline(i - 0.5, color="0.6", linewidth=0.5, linestyle=(0, (2, 2)))
    legend(figure, table, series, drawn, columns=columns)
    return figure


def _speedup(table: Table) -> Figure:
    return _by_run(table, width=PAGE, height=3.4, columns=6)


def _images(table: Table) -> Figure:
    return _by_run(table, width=COLUMN + 0.3, height=3.1, columns=3)


def _accuracy(table: Table) -> Figure:
    """What accuracy a sparsity costs: a small point a run, a large one the mean."""
    figure, axes = _new(1, 1, COLUMN, 2.3)
    panel = axes[0, 0]
    accounting = table.accountings()[0]
    for method, marker in (("adaptiv", "s"), ("cmc", "^"), ("focus", "o")):
        points = []
        for workload, dataset, found in table.rows():
            dense = table.get((workload, dataset, "dense"), "accuracy", accounting)
            there = table.get((workload, dataset, method), "accuracy", accounting)
            sparse = table.get((workload, dataset, method), "sparsity_percent", accounting)
            if found == method and dataset != "all" and dense and there and sparse:
                points.append((sparse.computed or 0.0, (there.published or 0.0) - (dense.published or 0.0)))
        xs, ys = np.array(points).T
        panel.plot(xs, ys, marker, color=colour(method), markersize=3, alpha=0.75, markeredgewidth=0)
        panel.plot(xs.mean(), ys.mean(), marker, color=colour(method), markersize=6.5, markeredgecolor="black",
                   markeredgewidth=0.7, label=f"{label(method)}: {xs.mean():.1f} %, {ys.mean():+.2f}")
    panel.axhline(0, color="black", linewidth=0.5)
    panel.set(xlabel="computation sparsity (%)", ylabel="accuracy against dense\n(points, quoted)")
    panel.grid()
    panel.legend(loc="lower right", title="mean of nine runs (large)", title_fontsize=6.5, alignment="left")
    return figure


def _int8(table: Table) -> Figure:
    figure, axes = _new(2, 1, COLUMN, 3.0, sharex=True, height_ratios=(1.2, 1))
    runs = [run for run in dict.fromkeys((k[0], k[1]) for k in table.rows()) if run[1] != "all"]
    accounting = table.accountings()[0]
    for i, (method, marker) in enumerate((("dense", "o"), ("int8_dense", "D"), ("focus", "s"), ("int8_focus", "^"))):
        values = [table.get((*run, method), "accuracy", accounting) for run in runs]
        axes[0, 0].plot(np.arange(len(runs)) + (i - 1.5) * 0.16, [n.published if n else np.nan for n in values], marker,
                        color=colour(method), markersize=3.5, markeredgewidth=0.4, markeredgecolor="black",
                        label=label(method))
    axes[0, 0].set(ylabel="accuracy (%), quoted")
    axes[0, 0].grid(axis="y")
    drawn = bars(axes[1, 0], table, [label(d) for _, d in runs], ("focus", "int8_focus"),
                 lambda g, s, a: table.get((*runs[g], s), "sparsity_percent", a))
    axes[1, 0].set(ylabel="sparsity (%)", ylim=(0, 100))
    axes[1, 0].tick_params(axis="x", labelrotation=35, labelsize=6)
    keys_below(axes[1, 0], [w for w, _ in runs], gap=-0.52)
    legend(figure, table, (), drawn, columns=3)
    axes[0, 0].legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=4)
    figure.align_ylabels(axes[:, 0])
    return figure


def _ablation(table: Table) -> Figure:
    figure, axes = _new(1, 1, COLUMN * 0.8, 1.9)
    steps = ("cmc", "focus-sec", "focus")
    one = Number({"step": "systolic"}, "speedup", "x", 1.0, 1.0, "exact", "published")
    drawn = [one]
    axes[0, 0].bar(0, 1, 0.6, color=colour("systolic"), edgecolor="black", linewidth=0.3)
    from focusc.report.reproduce.style import NAME

    found = bars(axes[0, 0], table, [NAME["systolic"], *(label(s) for s in steps)], ("x",),
                 lambda g, s, a: table.get((f"{steps[g - 1]} over systolic",), "speedup", a) if g else None, width=0.6,
                 colours=lambda s: "none")
    for patch, step in zip(axes[0, 0].patches[1:], steps):
        patch.set_facecolor(colour(step))
    for i, n in enumerate((one, *found)):
        axes[0, 0].annotate(f"{n.computed:.2f}x", (i, max(n.computed or 0, n.published or 0)), (0, 3),
                            textcoords="offset points", ha="center", fontsize=6.5)
    axes[0, 0].set(ylabel="speed-up over dense (x)")
    axes[0, 0].margins(y=0.12)
    legend(figure, table, (), [*drawn, *found], columns=2)
    return figure


def _traffic(table: Table) -> Figure:
    figure, axes = _new(2, 1, COLUMN, 3.0, sharex=True)
    models = list(dict.fromkeys(k[0] for k in table.rows()))
    series = list(dict.fromkeys(k[1] for k in table.rows()))
    drawn: list[Number] = []
    for panel, quantity, text in zip(axes[:, 0], ("dram", "activation"), ("DRAM bytes", "activation bytes")):
        def number(g: int, s: str, a: str, quantity: str = quantity) -> Number | None:
            return table.get((models[g], s), quantity, a)

        drawn += bars(panel, table, [label(m) if m != "mean" else label("geometric mean") for m in models], series,
                      number)
        panel.set(ylabel=f"{text} / dense", ylim=(0, 1))
    legend(figure, table, series, drawn, columns=4)
    return figure


def _sweep(parts: dict[str, tuple[str, float]], xlabel: str) -> Callable[[Table], Figure]:
    """Panels over each other with one column of bars a row; accuracy, which is quoted, as points."""
    def make(table: Table) -> Figure:
        shown = {q: v for q, v in parts.items() if any(n.quantity == q for n in table.numbers)}
        figure, axes = _new(len(shown), 1, COLUMN, 0.7 + 1.05 * len(shown), sharex=True)
        rows = [key[0] for key in table.rows()]
        drawn: list[Number] = []
        for i, (panel, (quantity, (text, factor))) in enumerate(zip(axes[:, 0], shown.items())):
            if quantity == "accuracy":
                values = [n.published or 0.0 for r in rows if (n := table.get((r,), quantity))]
                panel.plot(range(len(values)), values, "o-", color="black", markersize=3, markerfacecolor="white")
                panel.set_ylim(*whole(values))
                panel.grid(axis="y")
            else:
                def number(g: int, s: str, a: str) -> Number | None:
                    return table.get((rows[g],), s, a)

                drawn += bars(panel, table, rows, (quantity,), number, factor=factor, width=0.6,
                              colours=lambda s, i=i: colour("", i))
                if quantity == "capacity_bytes":
                    panel.set_yscale("log")
            panel.set_ylabel(text)
        axes[-1, 0].set_xticks(range(len(rows)), rows)
        axes[-1, 0].set_xlabel(xlabel)
        figure.align_ylabels(axes[:, 0])
        legend(figure, table, (), drawn, columns=4)
        return figure

    return make


def _vectors(table: Table) -> Figure:
    figure, axes = _new(2, 1, COLUMN, 2.7, sharex=True)
    rows = [key[0] for key in table.rows()]
    base = np.zeros(len(rows))
    for i, (quantity, text) in enumerate((("array_operations", "array"), ("scatter_operations", "scatter additions"))):
        found = [table.get((r,), quantity, "published") for r in rows]
        values = np.array([n.computed if n and n.computed else 0.0 for n in found]) * 1e-9
        axes[0, 0].bar(range(len(rows)), values, 0.6, bottom=base, color=colour("", i), edgecolor="black",
                       linewidth=0.3, hatch=next((hatch_of(n) for n in found if n), ""), label=text)
        base += values
    said = [sum(n.published or 0.0 for q in ("array_operations", "scatter_operations")
                if (n := table.get((r,), q, "published"))) * 1e-9 for r in rows]
    for x, y in enumerate(said):
        axes[0, 0].plot([x - 0.3, x + 0.3], [y, y], color="black", linewidth=1.1, label="published" if x == 0 else None)
    axes[0, 0].set(ylabel="operations ($10^9$)")
    axes[0, 0].legend(loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=3)
    axes[0, 0].grid(axis="y")
    values = [n.published or 0.0 for r in rows if (n := table.get((r,), "accuracy"))]
    axes[1, 0].plot(range(len(rows)), values, "o-", color="black", markersize=3, markerfacecolor="white")
    axes[1, 0].set(ylabel="accuracy (%), quoted", xlabel="vector size (elements)", ylim=whole(values))
    axes[1, 0].grid(axis="y")
    axes[1, 0].set_xticks(range(len(rows)), rows)
    figure.align_ylabels(axes[:, 0])
    return figure


LINES: dict[str, Any] = {"interleaved": "-", "consecutive": (0, (3, 1.5)), "by slot": (0, (1, 1))}


def _utilisation(table: Table) -> Figure:
    figure, axes = _new(1, 2, PAGE, 2.1, width_ratios=(1, 1.4))
    names = [k[1] for k in table.rows() if k[0].startswith("array")]
    drawn = bars(axes[0, 0], table, [label(n) for n in names], ("utilisation",),
                 lambda g, s, a: table.get(("array, mean of video runs", names[g]), s, a), width=0.6,
                 colours=lambda s: "#bdbdbd")
    axes[0, 0].set(ylabel="MACs / (cycles x cells)", ylim=(0, 1), title="array, mean of nine video runs")
    panel = axes[0, 1]
    for i, (name, counts) in enumerate(table.extra["counts"].items()):
        n = table.get(("tiles, mean", name), "utilisation", "published")
        order = name.split(", ")[1]
        panel.stairs(100 * counts / counts.sum(), table.extra["bins"], color=colour("", i // len(LINES)),
                     linestyle=LINES[order],
                     label=f"{name}: mean {n.computed if n else 0:.3f}")
        if n is not None and i == 0:
            panel.axvline(n.published or 0, color="black", linewidth=0.8)
            panel.annotate(f"published mean {n.published:.3f} ", (n.published or 0, 0.99),
                           xycoords=("data", "axes fraction"), ha="right", va="top", fontsize=6.5)
    panel.set(xlabel="n / (n + 32), n unique vectors of a tile and slot", ylabel="tiles and slots (%)", xlim=(0.5, 1),
              title="tiles of a synthetic trace")
    panel.legend(loc="center left", frameon=True, framealpha=1.0, edgecolor="none")
    panel.grid(axis="y")
    legend(figure, table, (), drawn, columns=4)
    return figure


GROUPS = {"array": "array", "buffers": "buffers", "sfu": "vector unit", "sec": "SEC", "sic": "SIC", "dram": "DRAM"}


def _group(part: str) -> str:
    if part in ("array", "dram"):
        return part
    if part in ("exp", "sqrt", "recip", "mul", "add"):
        return "sfu"
    return part[:3] if part.startswith(("sic", "sec")) else "buffers"


def _area(table: Table) -> Figure:
    figure, axes = _new(1, 3, PAGE, 2.1, width_ratios=(1, 1, 1.25))
    there = [k[0] for k in table.rows() if k[1] == "all on chip"]
    names = sorted(there, key=("systolic", "adaptiv", "cmc", "focus").index)
    drawn: list[Number] = []
    for panel, quantity, text in zip(axes[0, :2], ("area_mm2", "power_mw"), ("area (mm$^2$)", "on-chip power (mW)")):
        def number(g: int, s: str, a: str, quantity: str = quantity) -> Number | None:
            return table.get((names[g], "all on chip"), quantity, a)

        drawn += bars(panel, table, [label(n) for n in names], ("all",), number, width=0.6, colours=lambda s: "#bdbdbd")
        panel.set_ylabel(text)
    panel = axes[0, 2]
    accounting = table.accountings()[0]
    left = np.zeros(3)
    for i, group in enumerate(GROUPS):
        values = []
        for quantity in ("area_mm2", "power_mw", "energy_mj"):
            mine = {k[1]: n.computed or 0.0 for k in table.rows() if k[1] != "all on chip" and (
                n := table.get(k, quantity, accounting))}
            total = sum(v for k, v in mine.items() if quantity == "energy_mj" or k != "dram")
            values.append(0.0 if group == "dram" and quantity != "energy_mj" else
                          100 * sum(v for k, v in mine.items() if _group(k) == group) / total)
        panel.barh([2, 1, 0], values, 0.6, left=left, color="#999999" if group == "dram" else colour("", i),
                   edgecolor="black", linewidth=0.3, label=GROUPS[group])
        left += values
    panel.set_yticks([2, 1, 0], ["area", "on-chip\npower", "energy"])
    panel.set(xlabel="share of Focus (%)", xlim=(0, 100))
    panel.tick_params(axis="y", length=0)
    panel.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3)
    legend(figure, table, (), drawn, columns=4, above=axes[0, 0])
    return figure


FIGURES: dict[str, Callable[[Table], Figure]] = {
    "results": _results,
    "headline": _headline,
    "speedup": _speedup,
    "ablation": _ablation,
    "traffic": _traffic,
    "accuracy": _accuracy,
    "int8": _int8,
    "images": _images,
    "tile-rows": _sweep({"latency": ("latency, relative\nto m = 11648", 1.0),
                         "accuracy": ("accuracy (%),\nquoted", 1.0), "capacity_bytes": ("buffers (KiB)", 1 / 1024)},
                        "rows m of a tile"),
    "vector-size": _vectors,
    "block-size": _sweep({"latency": ("latency, relative\nto 3x3x3", 1.0), "accuracy": ("accuracy (%),\nquoted", 1.0)},
                         "block (frames x rows x columns)"),
    "accumulators": _sweep({"latency": ("latency, relative\nto 160 lanes", 1.0),
                            "buffer_area_mm2": ("buffers (mm$^2$)", 1.0)},
                           "lanes of the scatter accumulators"),
    "utilisation": _utilisation,
    "area-power": _area,
}
"""Table -> its figure."""
