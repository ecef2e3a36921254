"""Synthetic traces: the schedule of a workload with a given compression and spatial correlation.

The number of similar vectors of an m-tile and slot is beta-binomial: any two of its vectors are similar with the same
probability 1 - 1 / compression, and whether they are is correlated by `correlation`. At 0 tiles differ as coin tosses
do; towards 1 a tile is nearly all similar or all unique, which is what still background and motion look like. Sums are
then set right, so that each layer and site has exactly the compression asked for, as far as whole vectors go.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from focusc.backends.trace import SITES, Trace
from focusc.backends.workload import VECTOR, Workload
from focusc.ir.diagnostics import fail

__all__ = ["CORRELATION", "site_widths", "synthesize"]

Ints = NDArray[np.int64]
CORRELATION = 0.16
"""The default: with the published compression (1.8875, LLaVA-Video on VideoMME) it gives the published mean utilisation
of tiles, 0.922, if all of the spread is between slots (docs/traces.md; `focusc reproduce utilisation` prints it)."""


def site_widths(workload: Workload) -> tuple[int, ...]:
    """Columns of the activation at each site."""
    w = workload
    return (w.width, w.q_width, w.q_width, w.width, w.ffn)


def synthesize(workload: Workload, *, compression: float, correlation: float = CORRELATION, seed: int = 0,
               m: int = 1024, links: bool = False) -> Trace:
    """A trace of `workload` whose linear sites and queries have `compression` = retained / unique vectors.

    correlation in [0, 1); m rows in an m-tile. With `links` the whole link table is made too: similar tokens link to a
    neighbour one frame, row or column before, and the counts follow from it (a token without a neighbour in its tile
    stays unique, so the compression can be smaller than asked for). The same seed gives the same trace. CompileError
    `trace.synth` for values out of range.
    """
    if not workload.visual_tokens:
        raise fail("trace.synth", f"workload {workload.name} has no visual tokens", hint="choose one with a grid")
    for name, value, good, allowed in (
        ("compression", compression, 1 <= compression <= m, f"1 to m = {m}"),
        ("correlation", correlation, 0 <= correlation < 1, "at least 0, less than 1"),
        ("seed", seed, seed >= 0, "at least 0"),
        ("m", m, 1 <= m <= 1 << 16, f"1 to {1 << 16}"),
    ):
        if not good:
            raise fail("trace.synth", f"{name} is {value:g}, expected {allowed}")
    slots = np.array([-(-width // VECTOR) for width in site_widths(workload)], np.int64)
    retained = np.array([[before] * 3 + [after] * 2 for before, after in workload.retained()], np.int64)
    tables: list[Ints] = []
    linked: list[Ints] = []
    for (layer, column), total in np.ndenumerate(retained):
        rng = np.random.default_rng([seed, layer, column])
        if links:
            table, found = _linked(workload, rng, int(total), int(slots[column]), compression, correlation, m)
            linked.append(found.reshape(-1))
        else:
            table = _counts(rng, int(total), int(slots[column]), compression, correlation, m)
        tables.append(table)
    unique = np.concatenate([table.reshape(-1) for table in tables])
    sums = np.array([table.sum() for table in tables], np.int64).reshape(retained.shape)
    source = {"kind": "synthetic", "workload": workload.name, "compression": compression, "correlation": correlation,
              "seed": seed}
    return Trace(
        workload.name, workload.visual_tokens, m, np.ones(len(SITES), np.int64), slots, retained,
        (workload.visual_tokens - retained) * slots, retained * slots - sums, unique.astype(np.int32),
        np.concatenate(linked).astype(np.int32) if links else None, source)


def _tile_rows(total: int, m: int) -> Ints:
    return np.minimum(m, total - np.arange(0, total, m, dtype=np.int64))


def _counts(rng: np.random.Generator, total: int, slots: int, compression: float, correlation: float, m: int) -> Ints:
    """Unique vectors [tiles, slots] of `total` retained tokens."""
    rows = np.repeat(_tile_rows(total, m)[:, None], slots, axis=1)
    share = 1 - 1 / compression
    if share <= 0:
        return rows
    if correlation > 0:
        scale = (1 - correlation) / correlation
        # the beta distribution of a share near 0 or 1 cannot be drawn from: numpy divides 0 by 0
        drawn = rng.beta(max(share * scale, 1e-9), max((1 - share) * scale, 1e-9), rows.shape)
        chance = np.clip(np.where(np.isnan(drawn), share, drawn), 0.0, 1.0)
    else:
        chance = np.full(rows.shape, share)
    similar = rng.binomial(rows - 1, chance)  # the first token of a tile has nothing to resemble
    _settle(rng, similar, rows - 1, round(total * slots * share))
    return rows - similar


def _settle(rng: np.random.Generator, values: Ints, most: Ints, target: int) -> None:
    """Change values between 0 and `most` evenly until they add up to `target`, or to as much as fits."""
    target = min(target, int(most.sum()))
    flat, top = values.reshape(-1), most.reshape(-1)
    while (missing := target - int(flat.sum())) != 0:
        room = np.flatnonzero(flat < top if missing > 0 else flat > 0)
        step = abs(missing) // len(room)
        if step == 0:
            room = rng.permutation(room)[:abs(missing)]
            step = 1
        flat[room] = np.minimum(flat[room] + step, top[room]) if missing > 0 else np.maximum(flat[room] - step, 0)


def _linked(workload: Workload, rng: np.random.Generator, total: int, slots: int, compression: float,
            correlation: float, m: int) -> tuple[Ints, Ints]:
    """(unique vectors [tiles, slots], roots [total, slots]) of retained tokens at random places of the grid."""
    kept = np.sort(rng.permutation(workload.visual_tokens)[:total])
    number = np.full(workload.visual_tokens, -1, np.int64)
    number[kept] = np.arange(total)
    tile = np.arange(total) // m
    parent = np.full(total, -1, np.int64)
    for stride in workload.strides[::-1]:  # the frame before wins over the row, the row over the column
        at = np.flatnonzero(kept >= stride)
        found = number[kept[at] - stride]
        good = (found >= 0) & (tile[np.maximum(found, 0)] == tile[at])
        parent[at[good]] = found[good]
    able = parent >= 0
    wanted = _counts(rng, total, slots, compression, correlation, m)
    # tokens that resemble their neighbour do so in many slots at once
    noise = rng.random((total, slots)) * (1 - correlation) + rng.random((total, 1)) * correlation
    noise[~able] = -1.0
    roots = np.repeat(np.arange(total)[:, None], slots, axis=1)
    unique = np.zeros_like(wanted)
    for i, start in enumerate(range(0, total, m)):
        stop = min(total, start + m)
        rows = stop - start
        order = np.argsort(-noise[start:stop], axis=0, kind="stable")
        rank = np.empty_like(order)
        np.put_along_axis(rank, order, np.arange(rows)[:, None], axis=0)
        similar = (rank < np.minimum(rows - wanted[i], able[start:stop].sum())) & able[start:stop, None]
        roots[start:stop] = np.where(similar, parent[start:stop, None], roots[start:stop])
        unique[i] = rows - similar.sum(axis=0)
    while True:
        jumped = np.take_along_axis(roots, roots, axis=0)
        if np.array_equal(jumped, roots):
            return unique, roots
        roots = jumped
