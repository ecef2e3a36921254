"""The statistics of a run as plain data: what `--stats stats.json` holds. The keys are a stable contract."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.counters import Counters, by_pc, count, tensor_bytes
from focusc.isa.dynamic import DynamicCounts, program_digest
from focusc.isa.energy import Energy, energy
from focusc.isa.machine import BUFFERS, Machine
from focusc.isa.program import Program
from focusc.isa.site_counts import SiteCounts
from focusc.isa.timing import Timing

__all__ = ["STATS_VERSION", "host_totals", "site_table", "stats"]

STATS_VERSION: Final = 1


def stats(program: Program, machine: Machine, counts: DynamicCounts | SiteCounts | None,
          timing: Timing) -> dict[str, Any]:
    """Everything countable about one execution, JSON-ready.

    Top level: `cycles`, `time_s`, `energy_mj` {dram, sram, core, total}, `dram_bytes` {read, write}, the MACs below,
    `scatter_adds`, `engines` (busy cycles), `stalls` (why the array did not work: with its busy cycles they sum to
    `cycles`), `stalls_by_engine`, `sites` (see `site_table`), `nodes`, `host` (see `host_totals`), `tensors`,
    `buffer_bytes`, `energy_by_component_mj`, `array`, `array_occupancy`, `digests`.

    Multiply-accumulates, where "the decoder" is its nodes, or all nodes if none is the decoder's:

    * `macs_dense`: of the decoder without concentration, attention counted at the pairs that its mask leaves.
    * `macs`: executed by the array for the decoder, times each node's useful share. That is 1 but for causal attention,
      where the tiles on the diagonal also compute masked entries; so `macs` compares with `macs_dense`, and
      `sparsity` = 1 - `macs` / `macs_dense`.
    * `macs_decoder_array`: executed by the array for the decoder, masked entries included: `macs` plus causal waste.
    * `macs_array`: executed by the array for the whole program, vision tower and all.
    """
    counters = count(timing.trace, timing.work, machine)
    spent = energy(machine, counters, timing)
    nodes = _nodes(program, timing, counters, spent)
    decoder = [node for node in nodes if node["region"] == "decoder"] or nodes
    dense, macs = sum(node["macs_dense"] for node in decoder), sum(node["macs"] for node in decoder)
    return {
        "version": STATS_VERSION,
        "array": timing.array,
        "cycles": timing.cycles,
        "time_s": timing.time_s,
        "energy_mj": spent.to_dict(),
        "energy_by_component_mj": spent.components,
        "dram_bytes": {"read": int(counters.dram_read.sum()), "write": int(counters.dram_write.sum())},
        "macs_dense": dense,
        "macs": macs,
        "sparsity": 1 - macs / dense if dense else 0.0,
        "macs_decoder_array": sum(node["macs_array"] for node in decoder),
        "macs_array": int(counters.macs.sum()),
        "scatter_adds": int(counters.scatter_adds.sum()),
        "array_passes": int(counters.passes.sum()),
        "array_occupancy": timing.busy["mxu"] / max(timing.cycles, 1),
        "commands": timing.commands,
        "engines": dict(timing.busy),
        "stalls": dict(timing.stalls["mxu"]),
        "stalls_by_engine": {engine: dict(causes) for engine, causes in timing.stalls.items()},
        "buffer_bytes": {name: {"read": int(counters.sram[name][0].sum()), "write": int(counters.sram[name][1].sum())}
                         for name in BUFFERS},
        "sites": site_table(program, counts),
        "nodes": nodes,
        "host": host_totals(program),
        "tensors": tensor_bytes(program, timing.trace, counters),
        "target": program.target,
        "hardware": machine.name,
        "digests": {"program": program_digest(program), "hardware": machine.digest},
    }


def host_totals(program: Program) -> dict[str, Any]:
    """What the host does in one run: `segments`, `nodes`, `macs`, `share` (of all MACs that the program says it has,
    without concentration), `bytes` {in, out}, and what only a run can know, None here: `seconds` and `clipped` values.
    """
    macs = sum(segment.macs for segment in program.host)
    total = macs + sum(int(node.get("macs_dense", 0)) for node in program.meta.get("nodes", ()))
    return {
        "segments": len(program.host),
        "nodes": sum(len(segment.nodes) for segment in program.host),
        "macs": macs,
        "share": macs / total if total else 0.0,
        "bytes": {"in": sum(s.bytes for segment in program.host for s in segment.inputs),
                  "out": sum(s.bytes for segment in program.host for s in segment.outputs)},
        "seconds": None,
        "clipped": None,
    }


def site_table(program: Program, counts: DynamicCounts | SiteCounts | None) -> list[dict[str, Any]]:
    """The site table with what was found at each, over all executions.

    `unique` of `vectors` are the visual vectors; rows that are not visual are unique by definition, left out of both.
    The rest is about tiles as the array streams them, all rows included; a tile is one slot of 32 columns of one
    executed `sic`: `tiles`, `tile_unique` {mean, min, max} unique vectors, `tile_occupancy` (tiles by unique / rows in
    ten equal bins, the last one with 1), `compression` = rows / unique over all tiles (1 if there are none).
    """
    table: list[dict[str, Any]] = [{key: value for key, value in site.items() if key not in _PLACES}
                                   for site in program.meta.get("sites", ())]
    found: list[tuple[list[NDArray[Any]], list[NDArray[np.int64]]]] = [([], []) for _ in table]
    for site in table:
        site["unique"] = site["vectors"] = 0
    for number, unique, rows, linked in _executions(counts):
        if 0 <= number < len(table):
            table[number]["unique"] += int(np.sum(unique)) - len(unique) * (rows - linked)
            table[number]["vectors"] += len(unique) * linked
            found[number][0].append(unique)
            found[number][1].append(np.full(len(unique), rows, np.int64))
    for site, (uniques, heights) in zip(table, found, strict=True):
        unique = np.concatenate(uniques).astype(np.int64) if uniques else np.zeros(0, np.int64)
        rows = np.concatenate(heights) if heights else np.zeros(0, np.int64)
        total, some = int(unique.sum()), len(unique) > 0
        site["tiles"] = len(unique)
        site["tile_unique"] = {"mean": total / len(unique) if some else 0.0, "min": int(unique.min()) if some else 0,
                               "max": int(unique.max()) if some else 0}
        site["tile_occupancy"] = np.bincount(np.minimum(unique * 10 // rows, 9), minlength=10).tolist()
        site["compression"] = int(rows.sum()) / total if total else 1.0
    return table


_PLACES: Final = ("visual_start", "m", "first", "address", "cap")
"""Where a site's blocks lie, which is no statistic."""


def _executions(counts: DynamicCounts | SiteCounts | None) -> Iterator[tuple[int, NDArray[Any], int, int]]:
    """(site, unique vectors of some slots, rows of the tile, visual rows of it)."""
    if isinstance(counts, DynamicCounts):
        yield from ((site, unique, rows, linked) for unique, site, rows, linked in
                    zip(counts.unique, counts.sites, counts.rows, counts.linked, strict=True))
    elif counts is not None:
        for site in range(len(counts.start)):
            yield from ((site, unique, rows, linked) for unique, rows, linked in counts.tiles(site))


def _nodes(program: Program, timing: Timing, counters: Counters, spent: Energy) -> list[dict[str, Any]]:
    """One entry per source node that executed something or should compute something, most cycles first.

    `cycles` is the node's share of the total (they sum to it); `array_cycles` is the array's streaming time in it;
    `occupancy` is array time over the node's own span from its first array pass to its last.
    """
    length = len(program.text)
    meta: list[dict[str, Any]] = list(program.meta.get("nodes", ()))
    index = np.where(program.debug_index >= 0, program.debug_index, len(program.debug)).astype(np.int64)
    size = len(program.debug) + 1

    def per_node(values: NDArray[Any]) -> list[float]:
        sums = np.bincount(index, weights=by_pc(timing.trace, values, length).astype(np.float64), minlength=size)
        return sums.tolist()

    array = np.where(counters.rows > 0, timing.occupied, 0.0)
    columns = {
        "cycles": per_node(timing.span), "array_cycles": per_node(array), "macs_array": per_node(counters.macs),
        "read": per_node(counters.dram_read), "write": per_node(counters.dram_write),
        "energy_mj": per_node(spent.by_command), "scatter_adds": per_node(counters.scatter_adds),
    }
    inside = timing.node_span
    rows: list[dict[str, Any]] = []
    for number in range(size):
        found = meta[number] if number < len(meta) else {}
        entry = program.debug[number] if number < len(program.debug) else None
        row: dict[str, Any] = {
            "node": found.get("node", entry.node if entry else ""),
            "path": found.get("path", entry.path if entry else ""),
            "op": found.get("op", (entry.nn_op or entry.ir) if entry else "(no source)"),
            "region": found.get("region", "other"),
            "macs_dense": int(found.get("macs_dense", 0)),
            "macs": round(columns["macs_array"][number] * float(found.get("useful", 1.0))),
            "cycles": columns["cycles"][number],
            "array_cycles": round(columns["array_cycles"][number]),
            "macs_array": round(columns["macs_array"][number]),
            "scatter_adds": round(columns["scatter_adds"][number]),
            "occupancy": float(columns["array_cycles"][number] / inside[number]) if inside[number] else 0.0,
            "dram_bytes": {"read": round(columns["read"][number]), "write": round(columns["write"][number])},
            "energy_mj": columns["energy_mj"][number],
        }
        if row["macs_dense"] or row["cycles"] or row["energy_mj"]:
            rows.append(row)
    rows.sort(key=lambda row: -row["cycles"])
    return rows

