"""The costs behind the tables, each computed once: all 72 runs, traces of the Focus rows, the two accountings."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from focusc.backends.cost import CORRECTED, PUBLISHED, Accounting, Cost
from focusc.backends.cost.tables import figures, matched_trace, recompute
from focusc.report.reproduce.figures import Number

__all__ = ["ACCELERATORS", "ACCOUNTINGS", "QUANTITIES", "Runs"]

ACCOUNTINGS: Final[Mapping[str, Accounting]] = {"published": PUBLISHED, "corrected": CORRECTED}
QUANTITIES: Final = {
    "cycles": "cycles", "compute_cycles": "cycles", "stall_cycles": "cycles", "time_s": "s", "macs": "MAC",
    "dense_macs": "MAC", "dram_bytes": "byte", "activation_bytes": "byte", "compression_ratio": "1",
    "dram_mj": "mJ", "sram_mj": "mJ", "core_mj": "mJ", "energy_mj": "mJ",
}
"""Quantities of a run and their units."""
ACCELERATORS: Final = ("systolic", "adaptiv", "cmc", "focus-sec", "focus", "focus-int8")
"""Accelerators of the results; focus-sec prunes only, focus-int8 has the trace of the 8-bit model."""

Key = tuple[str, str, str]


class Runs:
    """Published rows by (workload, dataset, accelerator), and their costs in any accounting, computed on demand."""

    def __init__(self, accountings: Sequence[str]) -> None:
        self.accountings = tuple(accountings)
        self.rows: dict[Key, dict[str, Any]] = {
            (r["workload"], r["dataset"], r["accelerator"]): r for r in figures("results")}
        self.gpu: dict[Key, dict[str, Any]] = {(r["workload"], r["dataset"], r["method"]): r for r in figures("gpu")}
        self._traces: dict[tuple[str, str, float], Any] = {}
        self._costs: dict[tuple[Key, str], Cost] = {}
        self.seconds = 0.0
        """Processor time spent in the cost models, matching of traces included."""

    @property
    def runs(self) -> list[tuple[str, str]]:
        """(workload, dataset) of all runs, videos first."""
        return list(dict.fromkeys(key[:2] for key in self.rows))

    @property
    def videos(self) -> list[tuple[str, str]]:
        """The nine runs on video; those have every accelerator."""
        return [run for run in self.runs if (*run, "cmc") in self.rows]

    @property
    def images(self) -> list[tuple[str, str]]:
        """The six runs on images."""
        return [run for run in self.runs if (*run, "cmc") not in self.rows]

    def trace(self, row: Mapping[str, Any], run: tuple[str, str] | None = None) -> Any:
        """The uniform trace whose MACs are those of the published row of Focus, on its run or `run`."""
        workload, dataset = run or (row["workload"], row["dataset"])
        key = (workload, dataset, float(row["macs"]))
        if key not in self._traces:
            start = time.process_time()
            self._traces[key] = matched_trace(
                {"workload": workload, "dataset": dataset, "accelerator": "focus", "macs": row["macs"]})
            self.seconds += time.process_time() - start
        return self._traces[key]

    def cost(self, key: Key, accounting: str) -> Cost:
        """The cost of a row of the results."""
        if (key, accounting) not in self._costs:
            row = self.rows[key]
            trace = self.trace(row) if key[2] in ("focus", "focus-int8") else None
            start = time.process_time()
            self._costs[key, accounting] = recompute(row, ACCOUNTINGS[accounting], trace=trace)
            self.seconds += time.process_time() - start
        return self._costs[key, accounting]

    def number(self, key: Key, quantity: str, accounting: str) -> Number:
        """One figure of a run; of a GPU its time and energy are quoted."""
        keys: dict[str, str] = {"workload": key[0], "dataset": key[1], "accelerator": key[2]}
        unit = QUANTITIES[quantity]
        if key[2].startswith("gpu"):
            return Number(keys, quantity, unit, float(self.gpu[key][quantity]), None, "quoted")
        value = getattr(self.cost(key, accounting), quantity)
        return Number(keys, quantity, unit, published(self.rows[key], quantity),
                      None if value is None else float(value), kind(key[2], quantity, accounting), accounting)


def published(row: Mapping[str, Any], quantity: str, clock_hz: float = 500e6) -> float | None:
    """A figure of a published row, sums included; None where the table has none."""
    cycles = row["compute_cycles"] + row["stall_cycles"]
    energy = row["dram_mj"] + row["sram_mj"] + row["core_mj"]
    sums = {"cycles": cycles, "time_s": cycles / clock_hz, "energy_mj": energy}
    value = sums.get(quantity, row.get(quantity))
    return None if value is None else float(value)


def kind(accelerator: str, quantity: str, accounting: str) -> str:
    """Provenance of a computed figure of a run."""
    if accelerator == "focus-sec":  # what is similar does not matter but to this counter, which ignores that
        return "synthetic" if quantity == "activation_bytes" else "exact"
    if not accelerator.startswith("focus") or quantity == "dense_macs":
        return "exact"
    return "fitted" if quantity == "macs" and accounting == "published" else "matched"
