"""Utilisation, and area and power."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.backends.cost.tables import area_power, figures, workload_of
from focusc.backends.trace import SITES, Trace
from focusc.backends.trace_synth import CORRELATION, synthesize
from focusc.report.reproduce.figures import Table
from focusc.report.reproduce.runs import ACCOUNTINGS, Runs

__all__ = ["area", "tile_shares", "utilisation"]

RUN: Final = ("llava-video-7b", "videomme", "focus")
PUBLISHED_MEAN: Final = 0.922
"""Mean utilisation of a tile in the legend of figure 13 of Focus, HPCA 2026 (arXiv 2512.14661)."""
FEWEST: Final = 10
"""Tiles with fewer unique vectors were left out there."""
SPREADS: Final = (0.0, CORRELATION)
"""Correlations of the synthetic traces: 0 is like tossing coins; the other is fitted to the published mean."""
ORDERS: Final = ("interleaved", "consecutive", "by slot")
COMPRESSION: Final = 1.8875
"""Mean retained over unique vectors in the published row of `RUN`."""
PARTS: Final = {
    "Systolic Array": "array", "Cosine Similarity (SIC)": "sic_cosine", "L2 Norm (SIC)": "sic_norm",
    "Max Unit (SIC)": "sic_max", "Average Update (SIC)": "sic_average", "Accumulator (SIC)": "sic_scatter",
    "Max Unit (SEC)": "sec_max", "Importance Vector Buffer (SEC)": "sec_importance", "FP16 Exp (SFU)": "exp",
    "FP16 Sqrt (SFU)": "sqrt", "FP16 Reciprocal (SFU)": "recip", "FP16 Mul (SFU)": "mul", "FP16 Add (SFU)": "add",
    "input": "activation", "wgt": "weights", "concentrate_out": "partial", "output": "output", "layouter": "layouter",
    "similarity_map": "map", "similarity_table": "table", "dram": "dram",
}
"""Parts of Focus as the published breakdown calls them, and as we do."""


def utilisation(runs: Runs) -> Table:
    """MACs over what the array could do, by accelerator; and how full the tiles of a synthetic trace are."""
    made = Table("utilisation", "Utilisation of the array, and of tiles", ("what", "of"), {
        "utilisation": ("utilisation", 1.0)})
    for accelerator in ("systolic", "adaptiv", "cmc", "focus-sec", "focus"):
        for accounting in runs.accountings:
            found = [_array(runs, (*run, accelerator), accounting) for run in runs.videos]
            made.add(("array, mean of video runs", accelerator), "utilisation", "1",
                     float(np.mean([f[0] for f in found])), float(np.mean([f[1] for f in found])),
                     "matched" if accelerator == "focus" else "exact", accounting)
    row = runs.rows[RUN]
    bins = np.linspace(0, 1, 101)
    made.extra["bins"] = bins
    made.extra["counts"] = {}
    for spread in SPREADS:
        trace = synthesize(workload_of(row), compression=COMPRESSION, correlation=spread)
        for order in ORDERS:
            shares = tile_shares(trace, order)
            name = f"correlation {spread:g}, {order}"
            made.extra["counts"][name] = np.histogram(shares, bins)[0]
            made.add(("tiles, mean", name), "utilisation", "1", PUBLISHED_MEAN, float(shares.mean()),
                     "fitted" if order == "by slot" and spread == CORRELATION else "synthetic",
                     "published")
    made.notes += [
        f"Tiles: n / (n + 32) for a tile and slot with n >= {FEWEST} unique vectors, on a synthetic trace of "
        f"{RUN[0]}, {RUN[1]}, compression {COMPRESSION} as published. The published mean is of the authors' trace.",
        "interleaved: token t is in tile t mod the number of tiles, as in the published figure, so that all are "
        "equally long; consecutive: tiles of 1024 tokens and a rest, as the machine works; by slot: as interleaved, "
        f"where a slot is as similar in all its tiles. Correlation {CORRELATION} is fitted to that."]
    return made


def _array(runs: Runs, key: tuple[str, str, str], accounting: str) -> tuple[float, float]:
    """(published, ours): MACs over cycles times the cells of the array. The dense rows were published without MACs, so
    theirs are the dense MACs of another row of the run."""
    cost, row = runs.cost(key, accounting), runs.rows[key]
    macs = row["macs"] or runs.rows[(*key[:2], "focus")]["dense_macs"]
    ours = cost.macs or cost.dense_macs or runs.cost((*key[:2], "focus"), accounting).dense_macs
    cells = cost.macs_per_cycle
    return macs / (row["compute_cycles"] + row["stall_cycles"]) / cells, ours / cost.cycles / cells


def tile_shares(trace: Trace, order: str, *, seed: int = 0) -> NDArray[np.float64]:
    """n / (n + 32) of every layer, site, tile and slot with at least `FEWEST` unique vectors n: the share of an array
    pass in which a tile streams.

    `order` is one of `ORDERS`. `interleaved` deals the tokens of a slot to tiles of equal length, wherever they were;
    each unique vector is equally likely in every place. `by slot` takes the share of unique vectors of a slot's first
    tile for all its tiles, which then differ between slots alone; dealing in turn cannot hide such a difference.
    """
    rng = np.random.default_rng(seed)
    found: list[NDArray[Any]] = []
    for layer in range(trace.layers):
        for site in SITES:
            unique = trace.unique_of(layer, site).astype(np.int64)
            rows = trace.tile_rows(layer, site)
            if order == "interleaved":
                unique = _dealt(rng, unique.sum(axis=0), int(rows.sum()), len(unique))
            elif order == "by slot":
                unique = np.repeat(unique[:1] / rows[0] * (rows.sum() / len(rows)), len(rows), axis=0)
            found.append(unique.reshape(-1))
    counts = np.concatenate(found).astype(float)
    counts = counts[counts >= FEWEST]
    return counts / (counts + 32)


def _dealt(rng: np.random.Generator, unique: NDArray[np.int64], rows: int, tiles: int) -> NDArray[np.int64]:
    """Unique vectors [tiles, slots] after `rows` tokens were dealt to `tiles` tiles in turn."""
    left, out = unique.copy(), []
    for i in range(tiles):
        size = (rows - i + tiles - 1) // tiles
        rest = sum((rows - j + tiles - 1) // tiles for j in range(i, tiles))
        drawn = rng.hypergeometric(left, rest - left, size)
        out.append(drawn)
        left = left - drawn
    return np.array(out)


def area(runs: Runs) -> Table:
    """Area, power and capacity of the accelerators, and area, power and energy of Focus by part."""
    made = Table("area-power", "Area, power and buffers", ("accelerator", "part"), {
        "area_mm2": ("area (mm2)", 1.0), "power_mw": ("power (mW)", 1.0), "capacity_kib": ("buffers (KiB)", 1.0),
        "energy_mj": ("energy (J)", 1e-3)})
    said = {row["accelerator"]: row for row in figures("area_power")}
    for accounting in runs.accountings:
        for row in area_power(ACCOUNTINGS[accounting]):
            for quantity, unit in (("area_mm2", "mm2"), ("power_mw", "mW"), ("capacity_kib", "KiB")):
                made.add((row["accelerator"], "all on chip"), quantity, unit, said[row["accelerator"]][quantity],
                         row[quantity], "exact", accounting)
    for row in figures("breakdown"):
        for accounting in runs.accountings:
            _part(made, runs, row, accounting)
    made.notes.append(f"Energies are of {RUN[0]}, {RUN[1]}; the power of DRAM is its mean over that run. Power on "
                      "chip is peak power of buffers and rated power of logic in both accountings.")
    return made


def _part(table: Table, runs: Runs, row: dict[str, Any], accounting: str) -> None:
    cost, name = runs.cost(RUN, accounting), PARTS[row["part"]]
    if name == "dram":
        power = cost.dram_mj / cost.time_s
        table.add(("focus", "dram"), "power_mw", "mW", row["power_mw"], power, "matched", accounting)
        energy = cost.dram_mj
    else:
        for quantity, unit, parts in (("area_mm2", "mm2", cost.area_mm2_by_part),
                                      ("power_mw", "mW", cost.power_mw_by_part)):
            table.add(("focus", name), quantity, unit, row[quantity], parts[name], "exact", accounting)
        energy = {**cost.sram_mj_by_buffer, **cost.core_mj_by_component}[name]
    table.add(("focus", name), "energy_mj", "mJ", row["energy_mj"], energy, "matched", accounting)
