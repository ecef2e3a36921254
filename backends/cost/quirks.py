"""The quirk table: what each habit of the published accounting is worth, measured one at a time.

`python -m focusc.backends.cost.quirks` prints it; `--write FILE` puts it between the markers of a Markdown page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from focusc.backends.cost.accounting import CORRECTED, PUBLISHED, Accounting, Quirk
from focusc.backends.cost.hardware import ACCELERATORS
from focusc.backends.cost.result import Cost
from focusc.backends.cost.tables import figures, headline, matched_trace, recompute, recomputed_headline

__all__ = ["Effect", "case", "effects", "markdown", "survivors"]

START: Final = "<!-- quirks: python -m focusc.backends.cost.quirks -->"
END: Final = "<!-- end of quirks -->"
RUN: Final = ("llava-video-7b", "videomme")
"""The workload of the table."""


FIGURES: Final = ("cycles", "macs", "dram_bytes", "energy_mj")


@dataclass(frozen=True)
class Effect:
    """Per cent by which the `FIGURES` change when one quirk is left out of published, or put into corrected."""

    quirk: Quirk
    accelerator: str
    left_out: tuple[float, ...]
    put_in: tuple[float, ...]


def case(accelerator: str) -> Callable[[Accounting], Cost]:
    """The run of the table on one accelerator (`focus-sec` is pruning alone), by accounting.

    The trace of Focus has the schedule and one compression at all sites, chosen so that the published accounting does
    the published number of MACs: the figures depend on the authors' trace only through sums that this fixes.
    """
    row = next(r for r in figures("results") if (r["workload"], r["dataset"], r["accelerator"]) == (*RUN, accelerator))
    trace = matched_trace(row) if accelerator == "focus" else None
    return lambda accounting: recompute(row, accounting, trace=trace)


def effects() -> list[Effect]:
    """Every quirk on every accelerator that it touches; those of Focus that need it are measured without similarity."""
    out: list[Effect] = []
    for name in (*ACCELERATORS, "focus-sec"):
        run = case(name)
        published, corrected = run(PUBLISHED), run(CORRECTED)
        for quirk in Quirk:
            alone = quirk is Quirk.IDLE_SIC_CHARGED
            if name.split("-")[0] in quirk.models and alone == (name == "focus-sec"):
                out.append(Effect(quirk, name, _change(published, run(PUBLISHED.without(quirk))),
                                  _change(corrected, run(CORRECTED.adding(quirk)))))
    return out


def _change(base: Cost, other: Cost) -> tuple[float, ...]:
    pairs = [(getattr(base, name), getattr(other, name)) for name in FIGURES]
    return tuple(100 * (b / a - 1) if a else 0.0 if a == b else float("nan") for a, b in pairs)


def survivors() -> list[dict[str, Any]]:
    """Published against corrected: cycles, bytes, energy and area of each accelerator, and Focus over the others."""
    runs = {name: case(name) for name in (*ACCELERATORS, "focus-sec")}
    both = {name: (run(PUBLISHED), run(CORRECTED)) for name, run in runs.items()}
    out: list[dict[str, Any]] = []
    for name, pair in both.items():
        row: dict[str, Any] = {"accelerator": name}
        for title, c, focus in zip(("published", "corrected"), pair, both["focus"], strict=True):
            row[title] = {"cycles": c.cycles, "dram_bytes": c.dram_bytes, "energy_mj": c.energy_mj,
                          "area_mm2": c.area_mm2, "speedup": c.cycles / focus.cycles,
                          "energy_ratio": c.energy_mj / focus.energy_mj}
        out.append(row)
    return out


def _percent(value: float) -> str:
    if value != value:
        return "from 0"
    return "0" if abs(value) < 5e-7 else f"{value:+.2f}" if abs(value) >= 0.005 else f"{value:+.1e}"


def markdown() -> str:
    """The tables as Markdown: what the quirks are, what each is worth, what is left of one run and of the headline."""
    lines = ["| quirk | published | corrected |", "|---|---|---|"]
    lines += [f"| `{q.label}` | {q.published} | {q.corrected} |" for q in Quirk]
    lines += ["", "| quirk | accelerator | cycles | MACs | DRAM bytes | energy | cycles, put in | MACs, put in | "
              "DRAM bytes, put in | energy, put in |", "|---|---|" + "---:|" * 8]
    for e in sorted(effects(), key=lambda e: (list(Quirk).index(e.quirk), e.accelerator)):
        numbers = " | ".join(_percent(v) for v in (*e.left_out, *e.put_in))
        lines.append(f"| {e.quirk.label} | {e.accelerator} | {numbers} |")
    lines += ["", "| accelerator | accounting | cycles (10^9) | DRAM bytes (10^9) | energy (J) | area (mm2) | "
              "Focus is faster by | energy ratio |", "|---|---|---:|---:|---:|---:|---:|---:|"]
    for row in survivors():
        for title in ("published", "corrected"):
            r = row[title]
            lines.append(f"| {row['accelerator']} | {title} | {r['cycles'] / 1e9:.2f} | {r['dram_bytes'] / 1e9:.1f} | "
                         f"{r['energy_mj'] / 1e3:.2f} | {r['area_mm2']:.4f} | {r['speedup']:.3f}x | "
                         f"{r['energy_ratio']:.3f}x |")
    columns = (headline(), recomputed_headline(PUBLISHED), recomputed_headline(CORRECTED))
    lines += ["", "| geometric mean of nine video runs | published rows | published, matched traces | corrected, "
              "matched traces |", "|---|---:|---:|---:|"]
    for key in columns[0]:
        unit = " %" if key.endswith("percent") else "x"
        lines.append(f"| {key.removesuffix('_percent').replace('_', ' ')} | "
                     + " | ".join(f"{c[key]:.3f}{unit}" for c in columns) + " |")
    return "\n".join(lines)


def main() -> None:
    """Print the tables, or write them into a page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", type=Path, help="page with the two marker lines")
    path = parser.parse_args().write
    text = markdown()
    if path is None:
        print(text)
        return
    page = path.read_text(encoding="utf-8")
    before, rest = page.split(START, 1)
    path.write_text(f"{before}{START}\n\n{text}\n\n{END}{rest.split(END, 1)[1]}", encoding="utf-8")


if __name__ == "__main__":
    main()
