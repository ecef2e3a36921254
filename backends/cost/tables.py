"""The published tables, and the same figures from the cost models: one function a table.

Published figures are in `published/*.toml`. What follows from the workload alone is recomputed exactly; what needs the
authors' traces is computed on a trace that the caller gives.
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import cache
from importlib import resources
from typing import Any, Final, Literal

from focusc.backends.cost.accounting import PUBLISHED, Accounting
from focusc.backends.cost.hardware import ACCELERATORS, Accelerator, load_accelerator
from focusc.backends.cost.interface import CodecSparsity, TokenSparsity, Trace, TraceCounts
from focusc.backends.cost.model import cost
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import Cost
from focusc.backends.cost.sram import cacti
from focusc.backends.cost.uniform import uniform_trace
from focusc.backends.workload import Workload, load_workload
from focusc.isa.errors import IsaError

__all__ = ["Compared", "accumulators", "area_power", "blocks", "compare", "figures", "headline",
           "matched_trace", "recompute", "recomputed_headline", "results",
           "tile_rows", "with_accumulators", "workload_of"]

TABLES: Final = ("results", "sparsity", "gpu", "accuracy", "tile_rows", "blocks", "accumulators", "vectors",
                 "breakdown", "area_power")
Traces = Callable[[Workload, Mapping[str, Any]], TraceCounts | None]
"""Gives the trace of a workload for a published row, or None if there is none."""
Kind = Literal["exact", "synthetic", "quoted"]


@cache
def figures(table: str) -> tuple[dict[str, Any], ...]:
    """Rows of a published table (`TABLES`). Raises IsaError(`cost.table`)."""
    if table not in TABLES:
        raise IsaError("cost.table", f"there is no published table {table!r}; there are {', '.join(TABLES)}")
    text = resources.files("focusc.backends.cost.published").joinpath(f"{table}.toml").read_text("utf-8")
    return tuple(tomllib.loads(text)["rows"])


def workload_of(row: Mapping[str, Any]) -> Workload:
    """The shipped workload of a published row."""
    return _workload(row["workload"], row["dataset"])


@cache
def _workload(name: str, dataset: str) -> Workload:
    return load_workload(name, dataset)


@dataclass(frozen=True)
class Compared:
    """A published row, ours if it could be computed, and how: `exact`, on a `synthetic` trace, or only `quoted`."""

    published: Mapping[str, Any]
    ours: Cost | None
    kind: Kind

    @property
    def errors(self) -> dict[str, float]:
        """Relative error of each figure; empty if the row is only quoted. 0 where both are 0."""
        return {} if self.ours is None else compare(self.published, self.ours)


def compare(row: Mapping[str, Any], ours: Cost) -> dict[str, float]:
    """Relative error of each figure that a published row and a cost have in common, and of the sums over them."""
    pairs = {key: (getattr(ours, key), row[key]) for key in row if isinstance(getattr(ours, key, None), int | float)}
    pairs["cycles"] = (ours.cycles, row["compute_cycles"] + row["stall_cycles"])
    pairs["energy_mj"] = (ours.energy_mj, row["dram_mj"] + row["sram_mj"] + row["core_mj"])
    return {key: (found - said) / said if said else float(found != 0) for key, (found, said) in pairs.items()}


@cache
def _hardware(name: str) -> Accelerator:
    return load_accelerator(name)


def recompute(row: Mapping[str, Any], accounting: Accounting = PUBLISHED, *, trace: TraceCounts | None = None,
              options: Options | None = None) -> Cost:
    """The cost of one row of `results`. Rows of Focus need a trace; IsaError(`cost.trace`) without one."""
    workload, name = workload_of(row), row["accelerator"]
    given: Trace = trace
    if name in ("adaptiv", "cmc"):
        shares = next(r for r in figures("sparsity") if (r["workload"], r["dataset"]) == (row["workload"],
                                                                                          row["dataset"]))
        given = TokenSparsity(shares["tokens"]) if name == "adaptiv" else CodecSparsity(
            shares["linear"], shares["query"], shares["score"])
    elif name == "focus-sec":
        given = trace or uniform_trace(workload)
        options = options or Options(similarity=False, m=512, sram=cacti(512))
    elif name == "systolic":
        given = None
    return cost(workload, given, _hardware(name.split("-")[0]), accounting=accounting, options=options)


def results(traces: Traces | None = None, accounting: Accounting = PUBLISHED) -> list[Compared]:
    """All 72 rows: exact but for those of Focus, which are computed on `traces` or else only quoted."""
    out: list[Compared] = []
    for row in figures("results"):
        if row["accelerator"] in ("focus", "focus-int8"):
            trace = traces(workload_of(row), row) if traces else None
            out.append(Compared(row, recompute(row, accounting, trace=trace), "synthetic") if trace is not None
                       else Compared(row, None, "quoted"))
        else:
            out.append(Compared(row, recompute(row, accounting), "exact"))
    return out


def matched_trace(row: Mapping[str, Any]) -> TraceCounts:
    """A uniform trace with the schedule of a Focus row, compressed so that the published MACs come out.

    MACs are a + b / compression but for rounding, so two evaluations are enough.
    """
    workload = workload_of(row)
    one, two = (recompute(row, trace=uniform_trace(workload, c)).macs for c in (1.0, 2.0))
    b = 2 * (one - two)
    return uniform_trace(workload, max(1.0, b / max(row["macs"] - (one - b), 1.0)))


def recomputed_headline(accounting: Accounting) -> dict[str, float]:
    """`headline` over rows that we compute: the baselines' own, those of Focus on `matched_trace`."""
    rows = [row for row in figures("results") if row["accelerator"] != "focus-int8"]
    videos = {(r["workload"], r["dataset"]) for r in rows if r["accelerator"] == "focus-sec"}
    out: list[dict[str, Any]] = []
    for row in rows:
        if (row["workload"], row["dataset"]) in videos:
            trace = matched_trace(row) if row["accelerator"] == "focus" else None
            c = recompute(row, accounting, trace=trace)
            out.append({**row, **{key: getattr(c, key) for key in (
                "compute_cycles", "stall_cycles", "dram_mj", "sram_mj", "core_mj")}})
    return headline(out, accounting)


def _mean(ratios: Iterable[float]) -> float:
    """Geometric mean."""
    logs = [math.log(r) for r in ratios]
    return math.exp(sum(logs) / len(logs))


def headline(rows: Iterable[Mapping[str, Any]] | None = None, accounting: Accounting = PUBLISHED) -> dict[str, float]:
    """Speed-up and energy ratio of Focus over the others, geometric means over the nine video runs; area and power.

    From published rows by default; any rows with `workload`, `dataset`, `accelerator`, cycles and energies will do.
    Area and power are those of `accounting`.
    """
    rows = list(figures("results") if rows is None else rows)
    videos = [(r["workload"], r["dataset"]) for r in rows if r["accelerator"] == "focus-sec"]
    cycles = {(r["workload"], r["dataset"], r["accelerator"]): r["compute_cycles"] + r["stall_cycles"] for r in rows}
    energy = {(r["workload"], r["dataset"], r["accelerator"]): r["dram_mj"] + r["sram_mj"] + r["core_mj"] for r in rows}
    gpu = {(r["workload"], r["dataset"], r["method"]): (r["time_s"], r["energy_mj"]) for r in figures("gpu")}
    clock = _hardware("focus").clock_hz
    out: dict[str, float] = {}
    for other in ("systolic", "adaptiv", "cmc", "focus-sec"):
        out[f"speedup_over_{other}"] = _mean(cycles[*v, other] / cycles[*v, "focus"] for v in videos)
        out[f"energy_ratio_{other}"] = _mean(energy[*v, other] / energy[*v, "focus"] for v in videos)
    for other in ("gpu", "gpu-framefusion"):
        out[f"speedup_over_{other}"] = _mean(gpu[*v, other][0] * clock / cycles[*v, "focus"] for v in videos)
        out[f"energy_ratio_{other}"] = _mean(gpu[*v, other][1] / energy[*v, "focus"] for v in videos)
    sizes = {r["accelerator"]: r for r in area_power(accounting)}
    out["area_overhead_percent"] = 100 * (sizes["focus"]["area_mm2"] / sizes["systolic"]["area_mm2"] - 1)
    out["power_overhead_percent"] = 100 * (sizes["focus"]["power_mw"] / sizes["systolic"]["power_mw"] - 1)
    return out


def area_power(accounting: Accounting = PUBLISHED) -> list[dict[str, Any]]:
    """Area, on-chip power and buffers of each accelerator, recomputed from its description."""
    workload = _workload("llava-video-7b", "videomme")
    traces: dict[str, Trace] = {"systolic": None, "adaptiv": TokenSparsity(0.5), "cmc": CodecSparsity(0.5, 0.5, 0.5),
                                "focus": uniform_trace(workload)}
    out: list[dict[str, Any]] = []
    for name in ACCELERATORS:
        found = cost(workload, traces[name], _hardware(name), accounting=accounting)
        out.append({"accelerator": name, "area_mm2": found.area_mm2, "power_mw": found.power_mw,
                    "capacity_kib": found.capacity_bytes / 1024, "area_mm2_by_part": found.area_mm2_by_part,
                    "power_mw_by_part": found.power_mw_by_part})
    return out


def with_accumulators(hardware: Accelerator, count: int) -> Accelerator:
    """Focus with another number of scatter accumulators, logic included."""
    assert hardware.sic is not None
    parts = {**hardware.components}
    parts["sic_scatter"] = parts["sic_scatter"].model_copy(update={"count": count})
    sic = hardware.sic.model_copy(update={"scatter_accumulators": count})
    return hardware.model_copy(update={"components": parts, "sic": sic})


def _sweep(table: str, traces: Traces, point: Callable[[Workload, Mapping[str, Any], TraceCounts], Cost],
           exact: Callable[[Mapping[str, Any]], bool]) -> list[Compared]:
    workload = _workload("llava-video-7b", "videomme")
    out: list[Compared] = []
    for row in figures(table):
        known = exact(row)
        trace = uniform_trace(workload) if known else traces(workload, row)
        ours = None if trace is None else point(workload, row, trace)
        out.append(Compared(row, ours, "exact" if known else "synthetic" if ours else "quoted"))
    return out


def blocks(traces: Traces, accounting: Accounting = PUBLISHED) -> list[Compared]:
    """The block-size table; its 1x1x1 row follows from the schedule alone.

    The published runs charge the sum of the three block sizes as compared tokens (the main run charges their product).
    """
    def point(workload: Workload, row: Mapping[str, Any], trace: TraceCounts) -> Cost:
        compared = sum(row["block"]) if accounting is PUBLISHED else math.prod(row["block"])
        return cost(workload, trace, _hardware("focus"), accounting=accounting, options=Options(block=compared))

    return _sweep("blocks", traces, point, lambda row: row["block"] == [1, 1, 1])


def tile_rows(traces: Traces, accounting: Accounting = PUBLISHED) -> list[Compared]:
    """The table of rows m of a tile, with buffers by CACTI."""
    def point(workload: Workload, row: Mapping[str, Any], trace: TraceCounts) -> Cost:
        options = Options(m=row["m"], sram=cacti(row["m"]))
        return cost(workload, trace, _hardware("focus"), accounting=accounting, options=options)

    return _sweep("tile_rows", traces, point, lambda row: False)


def accumulators(traces: Traces, accounting: Accounting = PUBLISHED) -> list[Compared]:
    """The table of scatter accumulators, with buffers by CACTI."""
    def point(workload: Workload, row: Mapping[str, Any], trace: TraceCounts) -> Cost:
        count = row["scatter_accumulators"]
        options = replace(Options(), sram=cacti(1024, count))
        return cost(workload, trace, with_accumulators(_hardware("focus"), count), accounting=accounting,
                    options=options)

    return _sweep("accumulators", traces, point, lambda row: False)
