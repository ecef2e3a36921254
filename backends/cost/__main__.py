"""`python -m focusc.backends.cost`: how far the published accounting is from the published figures, and its time."""

from __future__ import annotations

import time

from focusc.backends.cost.interface import SITES
from focusc.backends.cost.tables import area_power, blocks, figures, headline, matched_trace, recompute, results
from focusc.backends.cost.vectors import vectors


def main() -> None:
    """Print the largest relative error of each group of rows, the headline and the processor time."""
    focus = [row for row in figures("results") if row["accelerator"].startswith("focus") and "sec" not in
             row["accelerator"]]
    traces = {id(row): matched_trace(row) for row in focus}
    start = time.process_time()
    rows = results(lambda workload, row: traces.get(id(row)))
    seconds = time.process_time() - start
    for name in ("systolic", "adaptiv", "cmc", "focus-sec"):
        found = [c for c in rows if c.published["accelerator"] == name]
        _print(f"{name}, {len(found)} rows, exact", [
            {k: v for k, v in c.errors.items() if name != "focus-sec" or k != "activation_bytes"} for c in found])
    _print("block 1x1x1, exact", [c.errors for c in blocks(lambda workload, row: None) if c.kind == "exact"])
    _print("vector sizes, 6 rows, from their own counts", [
        {k: getattr(ours, k) / row[k] - 1 if row[k] else float(getattr(ours, k)) for k in row if k != "accuracy"}
        for row, ours in vectors()])
    said = {row["accelerator"]: row for row in figures("area_power")}
    _print("area, power, capacity", [{k: found[k] / said[found["accelerator"]][k] - 1 for k in (
        "area_mm2", "power_mw", "capacity_kib")} for found in area_power()])
    _print(f"focus, {len(focus)} rows, matched traces", [c.errors for c in rows if c.kind == "synthetic"])
    for key, value in headline().items():
        print(f"headline {key.replace('_', ' ')}: {value:.4f}")
    print(f"{len(rows)} rows: {seconds:.2f} s of processor time")
    row = focus[0]
    start = time.process_time()
    found = recompute(row, trace=traces[id(row)])
    print(f"one trace of {found.compute_by_op.shape[0]} layers, {len(SITES)} sites, 11648 tokens: "
          f"{time.process_time() - start:.3f} s of processor time")


def _print(title: str, errors: list[dict[str, float]]) -> None:
    keys = [k for k in errors[0] if k != "compression_ratio"]
    worst = {key: max((abs(e[key]) for e in errors if key in e), default=0.0) for key in keys}
    print(f"{title}: largest relative error " + ", ".join(f"{key} {value:.1e}" for key, value in worst.items()))


if __name__ == "__main__":
    main()
