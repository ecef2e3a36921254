"""How the plots look: sizes of a two-column paper, colours that everybody can tell apart, names for people.

Bars are computed, a dash is the published figure, a diamond the corrected accounting. Hatches say on which trace.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from focusc.report.reproduce.figures import Number, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["COLOUR", "COLUMN", "NAME", "PAGE", "RC", "bars", "caption", "colour", "hatch_of", "keys_below", "label",
           "legend", "picture", "whole"]

COLUMN: Final = 3.45
"""Width of a column in inches."""
PAGE: Final = 7.1
"""Width of both columns in inches."""
RC: Final[dict[str, Any]] = {
    "font.size": 7, "axes.labelsize": 7, "axes.titlesize": 7.5, "xtick.labelsize": 6.5, "ytick.labelsize": 6.5,
    "legend.fontsize": 6.5, "legend.frameon": False, "legend.handlelength": 1.3, "legend.columnspacing": 1.0,
    "legend.handletextpad": 0.5, "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6,
    "xtick.major.width": 0.6, "ytick.major.width": 0.6, "xtick.major.size": 2, "ytick.major.size": 2.5,
    "axes.axisbelow": True, "grid.linewidth": 0.4, "grid.color": "0.85", "hatch.linewidth": 0.35,
    "lines.linewidth": 1.0, "svg.hashsalt": "focusc", "svg.fonttype": "path",
}
# Okabe and Ito's palette, and greys for what is only quoted
COLOUR: Final = {
    "systolic": "#7f7f7f", "dense": "#7f7f7f", "gpu": "#d9d9d9", "gpu-framefusion": "#a6a6a6",
    "framefusion": "#a6a6a6", "adaptiv": "#e69f00", "cmc": "#56b4e9", "focus-sec": "#009e73", "focus": "#d55e00",
    "focus-int8": "#cc79a7", "int8_focus": "#cc79a7", "int8_dense": "#0072b2",
}
CYCLE: Final = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00")
NAME: Final = {
    "systolic": "dense", "adaptiv": "AdapTiV", "cmc": "CMC", "focus-sec": "SEC only", "focus": "Focus",
    "focus-int8": "Focus, 8 bit", "int8_focus": "Focus, 8 bit", "int8_dense": "dense, 8 bit", "gpu": "GPU",
    "gpu-framefusion": "GPU + FrameFusion", "framefusion": "FrameFusion", "llava-video-7b": "LLaVA-Video",
    "llava-onevision-7b": "LLaVA-OneVision", "minicpm-v-2.6": "MiniCPM-V", "qwen2.5-vl-7b": "Qwen2.5-VL",
    "videomme": "VideoMME", "mlvu": "MLVU", "mvbench": "MVBench", "vqav2": "VQAv2", "mme": "MME",
    "mmbench": "MMBench", "geometric mean": "geo. mean",
}
HATCH: Final = (("matched", "/////", "matched trace"), ("synthetic", "xxxxx", "synthetic trace"),
                ("quoted", ".....", "quoted"))


def label(name: str) -> str:
    """A name for people."""
    return NAME.get(name, name)


def colour(name: str, index: int = 0) -> str:
    """The colour of a method, or the next of a cycle."""
    return COLOUR.get(name, CYCLE[index % len(CYCLE)])


def hatch_of(n: Number) -> str:
    """Lines for a trace that is not the authors', dots for what is quoted, in whole or in part."""
    found = n.provenance.replace("fitted", "matched").split("+")
    return "".join(hatch for name, hatch, _ in HATCH if name in found)


def bars(axes: Axes, table: Table, groups: Sequence[str], series: Sequence[str],
         number: Callable[[int, str, str], Number | None], *, factor: float = 1.0, width: float = 0.82,
         colours: Callable[[str], str] = colour) -> list[Number]:
    """Grouped bars; `number(group, series, accounting)` gives what is drawn. Returns the drawn numbers.

    The bars are of the first accounting of the table, the diamonds of the second if there is one.
    """
    accountings = table.accountings() or [""]
    one = width / len(series)
    drawn: list[Number] = []
    for i, name in enumerate(series):
        for group in range(len(groups)):
            n = number(group, name, accountings[0])
            if n is None:
                continue
            drawn.append(n)
            x = group + (i - (len(series) - 1) / 2) * one
            height = n.computed if n.computed is not None else n.published
            axes.bar(x, (height or 0.0) * factor, one * 0.92, color=colours(name), hatch=hatch_of(n), edgecolor="black",
                     linewidth=0.3)
            if n.computed is not None and n.published is not None:
                half = one * 0.44
                axes.plot([x - half, x + half], [n.published * factor] * 2, color="black", linewidth=1.1,
                          solid_capstyle="butt")
            other = number(group, name, accountings[1]) if len(accountings) > 1 else None
            if other is not None and other.computed is not None:
                axes.plot(x, other.computed * factor, marker="D", markersize=2.4, color="white",
                          markeredgecolor="black", markeredgewidth=0.6, linestyle="none")
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.55, len(groups) - 0.45)
    axes.tick_params(axis="x", length=0)
    axes.grid(axis="y")
    return drawn


def keys_below(axes: Axes, owners: Sequence[str], *, gap: float = -0.2) -> None:
    """Names under groups of ticks that have the same owner, with a line between the owners."""
    start = 0
    for i in range(1, len(owners) + 1):
        if i == len(owners) or owners[i] != owners[start]:
            axes.text((start + i - 1) / 2, gap, label(owners[start]), transform=axes.get_xaxis_transform(), ha="center",
                      va="top", fontsize=6.5, fontstyle="italic")
            if i < len(owners):
                axes.axvline(i - 0.5, ymin=-0.0, color="0.6", linewidth=0.5, linestyle=(0, (2, 2)))
            start = i


def legend(figure: Figure, table: Table, series: Iterable[str], drawn: Sequence[Number], *, columns: int = 6,
           colours: Callable[[str], str] = colour, above: Axes | None = None) -> None:
    """One legend above all panels, or above one: series, then the dashes, diamonds and hatches that occur."""
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    handles: list[Any] = [Patch(facecolor=colours(s), edgecolor="black", linewidth=0.3, label=label(s)) for s in series]
    hatches = {hatch_of(n) for n in drawn}
    kinds = [("", "exact")] if "" in hatches and len(hatches) > 1 else []
    kinds += [(hatch, text) for _, hatch, text in HATCH if any(hatch in found for found in hatches)]
    handles += [Patch(facecolor="white", edgecolor="black", linewidth=0.3, hatch=hatch, label=text)
                for hatch, text in kinds]
    if any(n.computed is not None and n.published is not None for n in drawn):
        handles.append(Line2D([], [], color="black", linewidth=1.1, label="published"))
    accountings = table.accountings()
    if len(accountings) > 1:
        handles.append(Line2D([], [], marker="D", markersize=2.4, color="white", markeredgecolor="black",
                              markeredgewidth=0.6, linestyle="none", label="corrected accounting"))
    elif accountings == ["corrected"]:
        handles.append(Line2D([], [], linestyle="none", label="bars: corrected accounting"))
    if above is not None:
        above.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.0, 1.0), ncols=columns)
    else:
        figure.legend(handles=handles, loc="outside upper center", ncols=columns)


CAPTION: Final = {
    "exact": "exact: follows from the workload and published inputs",
    "matched": "matched: on a trace made to have the published MACs",
    "fitted": "fitted: those MACs themselves",
    "synthetic": "synthetic: on a made-up trace",
    "quoted": "quoted: measured by the authors",
}
"""What a kind of number is, for the caption."""
CAPTION_SIZE: Final = 5
"""Points."""


def caption(figure: Figure, table: Table) -> None:
    """What the figure shows, in which accounting, and where its numbers come from: lines below the panels, for which
    the figure grows."""
    import textwrap

    kinds = {kind for n in table.numbers for kind in n.provenance.split("+")}
    said = [text for kind, text in CAPTION.items() if kind in kinds]
    parts = [f"Accounting: {' and '.join(table.accountings())}", *said]
    width, height = figure.get_size_inches()
    lines = textwrap.wrap(f"{table.title}. {'; '.join(parts)}.", int(width * 27))
    figure.set_size_inches(width, height + (1.25 * len(lines) + 1) * CAPTION_SIZE / 72)
    figure.supxlabel("\n".join(lines), x=0.01, ha="left", fontsize=CAPTION_SIZE, color="0.25")


def picture(figure: Figure) -> dict[str, bytes]:
    """The figure as PNG (300 dots an inch) and SVG; the same figure gives the same bytes."""
    import io

    out: dict[str, bytes] = {}
    for suffix, metadata in (("png", {"Software": None}), ("svg", {"Date": None})):
        buffer = io.BytesIO()
        figure.savefig(buffer, format=suffix, dpi=300, metadata=metadata)
        out[suffix] = buffer.getvalue()
    return out


def whole(values: Sequence[float]) -> tuple[float, float]:
    """Limits around values with a tenth of room."""
    low, high = float(np.min(values)), float(np.max(values))
    room = 0.1 * (high - low or 1)
    return low - room, high + room
