"""The design space of Focus on LLaVA-Video 7B, VideoMME: rows of a tile, vectors, blocks, scatter accumulators."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from focusc.backends.cost.accounting import Accounting
from focusc.backends.cost.tables import Compared
from focusc.backends.cost.tables import accumulators as accumulator_rows
from focusc.backends.cost.tables import blocks as block_rows
from focusc.backends.cost.tables import tile_rows as tile_row_rows
from focusc.backends.cost.vectors import vectors as vector_rows
from focusc.report.reproduce.figures import Table, joined
from focusc.report.reproduce.runs import ACCOUNTINGS, QUANTITIES, Runs, published

__all__ = ["accumulators", "blocks", "tile_rows", "vectors"]

RUN: Final = ("llava-video-7b", "videomme")
SHOWN: Final = {"latency": ("latency", 1.0), "cycles": ("cycles (10^9)", 1e-9), "dram_bytes": ("DRAM (GB)", 1e-9),
                "energy_mj": ("energy (J)", 1e-3)}
Sweep = Callable[[Any, Accounting], list[Compared]]


def _sweep(table: Table, runs: Runs, sweep: Sweep, label: Callable[[Mapping[str, Any]], str],
           best: Callable[[Mapping[str, Any]], bool], order: Callable[[Mapping[str, Any]], Any]) -> Table:
    """Every figure of a sweep; `latency` is cycles over those of the row that `best` chooses."""
    for accounting in runs.accountings:
        found = sweep(lambda workload, row: runs.trace(row, RUN), ACCOUNTINGS[accounting])
        found.sort(key=lambda c: order(c.published))
        for point in found:
            known = point.kind == "exact"
            for quantity, unit in QUANTITIES.items():
                value = getattr(point.ours, quantity)
                kind = "exact" if known or quantity == "dense_macs" else "matched"
                fitted = quantity == "macs" and not known and accounting == "published"
                table.add((label(point.published),), quantity, unit, published(point.published, quantity),
                          None if value is None else float(value), "fitted" if fitted else kind, accounting)
            if point is found[0] and "accuracy" in point.published and accounting == runs.accountings[0]:
                for row in (c.published for c in found):
                    table.add((label(row),), "accuracy", "%", row["accuracy"], None, "quoted")
        if accounting == runs.accountings[-1]:
            relative(table, runs.accountings, next(label(c.published) for c in found if best(c.published)))
    return table


def relative(table: Table, accountings: Sequence[str], one: str) -> None:
    """Add `latency`: cycles over those of the row `one`."""
    for accounting in accountings:
        base = table.get((one,), "cycles", accounting)
        for key in table.rows():
            n = table.get(key, "cycles", accounting)
            if n is None or base is None or not (n.published and n.computed and base.published and base.computed):
                continue
            table.add(key, "latency", "1", n.published / base.published, n.computed / base.computed,
                      joined(n.provenance, base.provenance), accounting)


def tile_rows(runs: Runs) -> Table:
    """Rows m of a tile: larger tiles find more similar vectors and need larger buffers (by CACTI)."""
    made = Table("tile-rows", "Rows m of a tile", ("m",), {**SHOWN, "capacity_bytes": ("buffers (KiB)", 1 / 1024),
                                                          "accuracy": ("accuracy (%)", 1.0)})
    _sweep(made, runs, tile_row_rows, lambda row: str(row["m"]), lambda row: row["m"] == 11648, lambda row: -row["m"])
    for accounting in runs.accountings:
        for point in tile_row_rows(lambda workload, row: runs.trace(row, RUN), ACCOUNTINGS[accounting]):
            assert point.ours is not None
            made.add((str(point.published["m"]),), "capacity_bytes", "byte", point.published["capacity_bytes"],
                     point.ours.capacity_bytes, "exact", accounting)
    made.notes.append("Latency is relative to one tile for the whole sequence (m = 11648). Each row has a trace of its "
                      "own: what a larger tile finds is in the published MACs that it is fitted to.")
    return made


def blocks(runs: Runs) -> Table:
    """Sizes of the block of tokens that are compared: frames, rows, columns."""
    made = Table("block-size", "Block size", ("block",), {**SHOWN, "accuracy": ("accuracy (%)", 1.0)})
    def name(row: Mapping[str, Any]) -> str:
        return "x".join(map(str, row["block"]))

    _sweep(made, runs, block_rows, name, lambda row: row["block"] == [3, 3, 3], lambda row: row["block"])
    made.notes.append("Latency is relative to 3x3x3. 1x1x1 compares nothing, so it follows from the schedule alone.")
    return made


def accumulators(runs: Runs) -> Table:
    """Number of scatter accumulators of 32 lanes; buffers by CACTI."""
    made = Table("accumulators", "Scatter accumulators", ("lanes",), {
        **SHOWN, "buffer_area_mm2": ("buffers (mm2)", 1.0)})
    _sweep(made, runs, accumulator_rows, lambda row: str(32 * row["scatter_accumulators"]),
           lambda row: row["scatter_accumulators"] == 5, lambda row: row["scatter_accumulators"])
    for accounting in runs.accountings:
        for point in accumulator_rows(lambda workload, row: runs.trace(row, RUN), ACCOUNTINGS[accounting]):
            assert point.ours is not None
            area = sum(point.ours.area_mm2_by_part[name] for name in BUFFERS)
            made.add((str(32 * point.published["scatter_accumulators"]),), "buffer_area_mm2", "mm2",
                     point.published["buffer_area_mm2"], area, "exact", accounting)
    made.notes.append("Latency is relative to five accumulators (160 lanes).")
    return made


BUFFERS: Final = ("partial", "output")
"""The buffers whose area the published table adds up: those that the accumulators read and write."""


def vectors(runs: Runs) -> Table:
    """Vector sizes, one output projection of layer 9: shorter vectors leave fewer MACs and cost more scatter work."""
    made = Table("vector-size", "Vector size, output projection of layer 9", ("vector",), {
        "cycles": ("cycles (10^6)", 1e-6), "array_operations": ("array ops (10^9)", 1e-9),
        "scatter_operations": ("scatter ops (10^9)", 1e-9), "energy_mj": ("energy (mJ)", 1.0),
        "accuracy": ("accuracy (%)", 1.0)})
    units = {"array_operations": "op", "scatter_operations": "op", "dense_operations": "op"}
    fitted = ("array_operations", "dram_bytes", "dram_mj")
    exact = ("scatter_operations", "dense_operations")
    for row, ours in vector_rows():
        key = (str(row["vector"]),)
        for quantity in ("cycles", "compute_cycles", "stall_cycles", *units, "dram_bytes", "dram_mj", "sram_mj",
                         "core_mj", "energy_mj"):
            sums = {"cycles": ("compute_cycles", "stall_cycles"), "energy_mj": ("dram_mj", "sram_mj", "core_mj")}
            parts = sums.get(quantity, (quantity,))
            kind = "fitted" if quantity in fitted else "exact" if quantity in exact else "matched"
            made.add(key, quantity, units.get(quantity) or QUANTITIES[quantity], sum(float(row[p]) for p in parts),
                     sum(float(getattr(ours, p)) for p in parts), kind, "published")
        made.add(key, "accuracy", "%", row["accuracy"], None, "quoted")
    made.notes.append("Each row uses the unique vectors that its own published operations and bytes imply. An op of "
                      "the array is half a MAC. There is no corrected form: its bytes are those of detection alone.")
    return made
