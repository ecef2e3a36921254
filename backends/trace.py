"""Traces: what concentration left of every activation, independent of program and tiling.

A trace holds, for each decoder layer and site, how many visual tokens are retained, how many sub-vectors are zero or
similar to an earlier one, and (optionally) how many unique vectors each m-tile has in each 32-wide slot, or even the
whole link table. Cost models and the trace-driven simulation need nothing else of a run. docs/traces.md has the format.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.backends.workload import Workload
from focusc.ir.diagnostics import CompileError, Loc, fail
from focusc.ir.ops.sic import SITES as IR_SITES

__all__ = ["IR_SITE", "SITES", "Trace", "site_number"]

SITES = ("q_proj", "query", "o_proj", "gate_proj", "down_proj")
"""Sites by the product they feed, as the published traces call them; columns of the tables of a `Trace`."""
IR_SITE = dict(zip(SITES, IR_SITES, strict=True))
"""The same sites as the IR and the programs call them."""
_NUMBER = {name: i for i, name in enumerate(SITES)} | {name: i for i, name in enumerate(IR_SITES)}

Ints = NDArray[np.int64]
Counts = NDArray[np.int32]


def site_number(site: str) -> int:
    """Column of a site in the tables, by either of its names."""
    return _NUMBER[site]


@dataclass(frozen=True, eq=False)
class Trace:
    """Counts of one prefill: `tokens` visual tokens before pruning, m-tiles of `m` retained tokens.

    heads, slots: int64[5], heads H and 32-wide slots V per head of each site (H = 1 unless a query was compared per
    head). retained, zero, similar: int64[layers, 5], columns as `SITES`: retained tokens T; sub-vectors of the
    H x tokens x V that are zero (all those of pruned tokens, and accidental zeros); sub-vectors similar to an earlier
    one. unique: int32, all [tiles, H x V] tables one after another in order of layer and site, or None if only the sums
    are known; a tile's retained tokens are consecutive. A zero vector of a retained token is unique of itself. links:
    int32, all [T, H x V] tables in the same order, or None: the root (number among the retained tokens) of each vector.
    Text tokens are in no count. CompileError (`trace.*`) if the parts contradict each other.
    """

    workload: str
    tokens: int
    m: int
    heads: Ints
    slots: Ints
    retained: Ints
    zero: Ints
    similar: Ints
    unique: Counts | None = None
    links: Counts | None = None
    source: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """How it was made: kind (recorded, synthetic, imported) and its parameters; plain data."""
    where: str = ""
    """File it was read from, for messages."""

    def __post_init__(self) -> None:
        self._check_tables()
        self._check_schedule()
        if self.unique is not None:
            self._check_unique(self.unique)
        if self.links is not None:
            self._check_links(self.links)

    # -- access -------------------------------------------------------------------------------------------------------
    @property
    def layers(self) -> int:
        """Decoder layers."""
        return len(self.retained)

    @property
    def columns(self) -> Ints:
        """Slots of a row at each site: H x V, int64[5]."""
        return self.heads * self.slots

    @property
    def elements(self) -> Ints:
        """Sub-vectors E = H x tokens x V of each site before pruning, int64[5]."""
        return self.columns * self.tokens

    @property
    def tiles(self) -> Ints:
        """m-tiles of each layer and site, int64[layers, 5]."""
        return -(-self.retained // self.m)

    @property
    def active(self) -> Ints:
        """Sub-vectors that are neither zero nor similar, int64[layers, 5]; what the published model computes on."""
        return self.elements - self.zero - self.similar

    def check(self, workload: Workload) -> None:
        """CompileError `trace.workload` unless the trace is one of this workload, with its schedule."""
        slots = [
            -(-width // 32)
            for width in (workload.width, workload.q_width, workload.q_width, workload.width, workload.ffn)
        ]
        retained = np.array([[before] * 3 + [after] * 2 for before, after in workload.retained()], np.int64)
        for name, found, expected in (
            ("tokens", self.tokens, workload.visual_tokens),
            ("layers", self.layers, workload.layers),
            ("slots", self.columns.tolist(), slots),
        ):
            if found != expected:
                raise self._error("trace.workload", f"found {found}, workload {workload.name} has {expected}", name)
        wrong = self.retained != retained
        if wrong.any():
            i, j, place = self._at(wrong)
            raise self._error(
                "trace.workload",
                f"found {self.retained[i, j]} tokens, the schedule of {workload.name} leaves {retained[i, j]}",
                "retained" + place,
            )

    def unique_of(self, layer: int, site: str) -> Counts:
        """Unique vectors int32[tiles, H x V] of a site. CompileError if the trace has only the sums."""
        if self.unique is None:
            raise self._error("trace.unique", "the trace has sums only, no counts per tile and slot", "unique")
        return self._part(self.unique, self.tiles, layer, site_number(site))

    def links_of(self, layer: int, site: str) -> Counts:
        """Roots int32[T, H x V] of a site. CompileError if the trace has no link table."""
        if self.links is None:
            raise self._error("trace.links", "the trace has no link table", "links")
        return self._part(self.links, self.retained, layer, site_number(site))

    def tile_rows(self, layer: int, site: str) -> Ints:
        """Retained tokens of each m-tile of a site, int64[tiles]."""
        total = int(self.retained[layer, site_number(site)])
        return np.minimum(self.m, total - np.arange(0, total, self.m, dtype=np.int64))

    def compression(self) -> NDArray[np.float64]:
        """Retained rows over unique rows, float64[layers, 5]; accidental zeros count as unique."""
        vectors = self.retained * self.columns
        return vectors / np.maximum(1, vectors - self.similar)

    def _part(self, flat: Counts, rows: Ints, layer: int, site: int) -> Counts:
        sizes = (rows * self.columns).reshape(-1)
        index = layer * len(SITES) + site
        start = int(sizes[:index].sum())
        return flat[start : start + int(sizes[index])].reshape(int(rows[layer, site]), int(self.columns[site]))

    # -- checks -------------------------------------------------------------------------------------------------------
    def _error(self, code: str, message: str, array: str) -> CompileError:
        """What is wrong with an array (or a place in it), in the file that the trace was read from."""
        return fail(code, f"{array}: {message}", Loc(self.where))

    def _check_tables(self) -> None:
        if self.tokens < 1 or self.m < 1:
            name, found = ("tokens", self.tokens) if self.tokens < 1 else ("m", self.m)
            raise self._error("trace.value", f"found {found}, expected at least 1", name)
        layers = len(self.retained) if self.retained.ndim else 0
        for name, shape in (
            ("heads", (5,)),
            ("slots", (5,)),
            ("retained", (layers, 5)),
            ("zero", (layers, 5)),
            ("similar", (layers, 5)),
        ):
            found = getattr(self, name)
            if found.shape != shape or found.dtype != np.int64 or (not layers and len(shape) == 2):
                raise self._error(
                    "trace.shape",
                    f"found {found.dtype}{list(found.shape)}, expected int64"
                    f"{list(shape) if layers else '[layers, 5] with at least one layer'}",
                    name,
                )
        for name in ("heads", "slots"):
            if (getattr(self, name) < 1).any():
                raise self._error(
                    "trace.value", f"found {getattr(self, name).tolist()}, expected at least 1 everywhere", name
                )

    def _at(self, table: Any) -> tuple[int, int, str]:
        """First place where a boolean table is true: layer, column, text."""
        layer, site = (int(i) for i in np.argwhere(table)[0])
        return layer, site, f"[layer {layer}, {SITES[site]}]"

    def _check_schedule(self) -> None:
        wrong = (self.retained < 1) | (self.retained > self.tokens)
        if wrong.any():
            i, j, place = self._at(wrong)
            raise self._error(
                "trace.retained", f"found {self.retained[i, j]} tokens, expected 1 to {self.tokens}", "retained" + place
            )
        before, after = self.retained[:, :3], self.retained[:, 3:]
        for part, first in ((before, 0), (after, 3)):
            wrong = part != part[:, :1]
            if wrong.any():
                i, j = (int(v) for v in np.argwhere(wrong)[0])
                raise self._error(
                    "trace.schedule",
                    f"found {part[i, j]} tokens, "
                    f"expected {part[i, 0]} as at {SITES[first]}: tokens are dropped only between "
                    "o_proj and gate_proj",
                    f"retained[layer {i}, {SITES[first + j]}]",
                )
        flow = np.stack([before[:, 0], after[:, 0]], axis=1).reshape(-1)
        rises = np.flatnonzero(np.diff(flow) > 0)
        if rises.size:
            i = int(rises[0]) + 1
            raise self._error(
                "trace.schedule",
                f"found {flow[i]} tokens, expected at most the {flow[i - 1]} before: dropped tokens do not come back",
                f"retained[layer {i // 2}, {SITES[3 * (i % 2)]}]",
            )
        moved = np.flatnonzero(flow[2::2] != flow[1:-1:2])
        if moved.size:
            i = int(moved[0]) + 1
            raise self._error(
                "trace.schedule",
                f"found {flow[2 * i]} tokens, expected the {flow[2 * i - 1]} that layer {i - 1} leaves",
                f"retained[layer {i}, q_proj]",
            )
        pruned = (self.tokens - self.retained) * self.columns
        for name, table, low in (("zero", self.zero, pruned), ("similar", self.similar, np.zeros_like(pruned))):
            wrong = (table < low) | (table > self.elements)
            if wrong.any():
                i, j, place = self._at(wrong)
                raise self._error(
                    "trace.value",
                    f"found {table[i, j]} vectors, expected {low[i, j]} to {self.elements[j]}",
                    name + place,
                )
        wrong = self.zero + self.similar > self.elements
        if wrong.any():
            i, j, place = self._at(wrong)
            raise self._error(
                "trace.value",
                f"found {self.similar[i, j]} similar and {self.zero[i, j]} "
                f"zero vectors, together more than the {self.elements[j]} there are",
                "similar" + place,
            )

    def _check_unique(self, unique: Counts) -> None:
        sizes = self.tiles * self.columns
        self._check_flat("unique", unique, int(sizes.sum()), "tiles x slots")
        for layer in range(self.layers):
            for j, site in enumerate(SITES):
                found = self._part(unique, self.tiles, layer, j)
                rows = self.tile_rows(layer, site)[:, None]
                wrong = (found < 1) | (found > rows)
                if wrong.any():
                    tile, slot = (int(v) for v in np.argwhere(wrong)[0])
                    raise self._error(
                        "trace.unique",
                        f"found {found[tile, slot]} unique vectors, expected 1 to the {rows[tile, 0]} "
                        "retained tokens of the tile",
                        f"unique[layer {layer}, {site}, tile {tile}, slot {slot}]",
                    )
                total = int(self.retained[layer, j] * self.columns[j] - self.similar[layer, j])
                if int(found.sum()) != total:
                    raise self._error(
                        "trace.unique",
                        f"the counts add up to {found.sum()}, "
                        f"expected {total}: retained vectors less the {self.similar[layer, j]} similar",
                        f"unique[layer {layer}, {site}]",
                    )

    def _check_links(self, links: Counts) -> None:
        self._check_flat("links", links, int((self.retained * self.columns).sum()), "retained tokens x slots")
        for layer in range(self.layers):
            for j, site in enumerate(SITES):
                found = self._part(links, self.retained, layer, j)
                row = np.arange(len(found))[:, None]
                wrong = (found < row // self.m * self.m) | (found > row)
                name = f"links[layer {layer}, {site}"
                if wrong.any():
                    token, slot = (int(v) for v in np.argwhere(wrong)[0])
                    raise self._error(
                        "trace.links",
                        f"found root {found[token, slot]},"
                        f" expected {token // self.m * self.m} to {token}: a token of the same m-tile, "
                        "not later",
                        f"{name}, token {token}, slot {slot}]",
                    )
                wrong = np.take_along_axis(found, found.astype(np.int64), 0) != found
                if wrong.any():
                    token, slot = (int(v) for v in np.argwhere(wrong)[0])
                    raise self._error(
                        "trace.links",
                        f"found root {found[token, slot]}, which is linked itself; expected the end of the chain",
                        f"{name}, token {token}, slot {slot}]",
                    )
                roots = found == row
                if self.unique is not None:
                    per_tile = np.add.reduceat(roots, np.arange(0, len(found), self.m), axis=0)
                    wrong = per_tile != self._part(self.unique, self.tiles, layer, j)
                    if wrong.any():
                        tile, slot = (int(v) for v in np.argwhere(wrong)[0])
                        raise self._error(
                            "trace.links",
                            f"{per_tile[tile, slot]} roots, "
                            "expected as many as `unique` says: "
                            f"{self._part(self.unique, self.tiles, layer, j)[tile, slot]}",
                            f"{name}, tile {tile}, slot {slot}]",
                        )
                elif int(roots.sum()) != int(self.retained[layer, j] * self.columns[j] - self.similar[layer, j]):
                    raise self._error(
                        "trace.links",
                        f"{roots.sum()} roots, but `similar` leaves "
                        f"{self.retained[layer, j] * self.columns[j] - self.similar[layer, j]}",
                        name + "]",
                    )

    def _check_flat(self, name: str, flat: Counts, size: int, what: str) -> None:
        if flat.shape != (size,) or flat.dtype != np.int32:
            raise self._error(
                "trace.shape",
                f"found {flat.dtype}{list(flat.shape)}, expected int32[{size}]: {what} of all layers and sites",
                name,
            )
