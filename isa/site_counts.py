"""Unique vectors by place instead of by execution: what a trace says of a program's concentration sites.

A site is an activation of a decoder layer; its visual rows are cut into m-tiles, its columns into slots of 32. The
program's site table (`meta["sites"]`) says where each tile's blocks lie in DRAM, so that an executed `sic` finds its
counts by its address. Text rows of a tile are unique of themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import IsaError
from focusc.isa.program import Program, conc_block

__all__ = ["KEYS", "Sites", "SiteCounts", "distinct", "sites_of"]

Ints = NDArray[np.int64]
KEYS: Final = ("layer", "site", "tokens", "retained", "rows", "slots", "visual_start", "m", "first", "address", "cap")
"""What the site table says of each site: numbers all, but `site`."""
_NUMBERS: Final = tuple(key for key in KEYS if key not in ("layer", "site"))


@dataclass(frozen=True, slots=True)
class Sites:
    """The site table as arrays, one entry a site: visual rows are [visual_start, visual_start + retained) of `rows`;
    the first m-tile of the buffer has `first` rows, the others `m`; blocks have room for `cap` rows."""

    layer: tuple[int, ...]
    site: tuple[str, ...]
    tokens: Ints
    retained: Ints
    rows: Ints
    slots: Ints
    visual_start: Ints
    m: Ints
    first: Ints
    address: Ints
    cap: Ints


def sites_of(program: Program) -> Sites:
    """The program's site table; IsaError `counts.sites` if it is missing or incomplete."""
    table: list[dict[str, Any]] = list(program.meta.get("sites", ()))
    columns: dict[str, Ints] = {}
    for key in _NUMBERS:
        values = [row.get(key) for row in table]
        wrong = [i for i, value in enumerate(values) if type(value) is not int or not 0 <= value < 1 << 48]
        if wrong:
            raise IsaError("counts.sites", f"site {wrong[0]} of the program's table: {key} is {values[wrong[0]]!r}, "
                           "expected a number", hint="compile the model again with this focusc")
        columns[key] = np.array(values, np.int64)
    return Sites(tuple(int(row.get("layer", 0)) for row in table), tuple(str(row.get("site", "")) for row in table),
                 **columns)


def distinct(unique: Ints, rows: Ints, taken: Ints) -> Ints:
    """Unique vectors that `taken` of a tile's `rows` are expected to refer to, where the tile has `unique` of them.

    If the rows were dealt at random to groups of equal size g = rows / unique, a group is missed by all rows taken with
    a probability close to (1 - taken / rows)^g. Exact where all rows are taken or all vectors are unique; used only
    where a trace has no link table.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        missed = (1 - taken / np.maximum(rows, 1)) ** (rows / np.maximum(unique, 1))
    found = np.rint(unique * (1 - missed)).astype(np.int64)
    return np.where(taken > 0, np.clip(found, 1, np.maximum(1, np.minimum(unique, taken))), 0)


@dataclass(frozen=True)
class SiteCounts:
    """Unique visual vectors of every site of a program.

    unique: int32, all [m-tiles, slots] tables one after another; start: where each site's table begins. `exact(site,
    first, stop)`, if known, gives the distinct vectors int[slots] that the retained tokens [first, stop) of one m-tile
    refer to; without it they are estimated (`distinct`).
    """

    sites: Sites
    unique: NDArray[np.int32]
    start: Ints
    exact: Callable[[int, int, int], NDArray[np.integer[Any]]] | None = None

    def place(self, site: Ints, address: Ints, row0: Ints) -> tuple[Ints, Ints]:
        """(m-tile of the visual rows, first slot) of executed `sic`s from site number, block address and first row."""
        s = self.sites
        block = (address - s.address[site]) // conc_block(s.cap[site])
        tile = np.maximum(row0 - s.visual_start[site], 0) // s.m[site]
        return tile, block % s.slots[site]

    def tiles(self, site: int) -> Iterator[tuple[Ints, int, int]]:
        """Every m-tile of a site's buffer: unique vectors of each slot (text rows included), rows, visual rows."""
        s = self.sites
        slots, total = int(s.slots[site]), int(s.rows[site])
        row0, here = 0, int(s.first[site])
        number = np.array([site])
        while row0 < total:
            rows = min(here, total - row0)
            first, stop = (int(v[0]) for v in self.visual(number, np.array([row0]), np.array([rows])))
            unique = np.full(slots, rows - (stop - first), np.int64)
            if stop > first:
                tile = max(row0 - int(s.visual_start[site]), 0) // int(s.m[site])
                at = int(self.start[site]) + tile * slots
                unique += self.unique[at:at + slots]
            yield unique, rows, stop - first
            row0, here = row0 + rows, int(s.m[site])

    def visual(self, site: Ints, row0: Ints, rows: Ints) -> tuple[Ints, Ints]:
        """[first, stop) of the visual rows within tiles that start at sequence row `row0` and have `rows`."""
        low = self.sites.visual_start[site]
        high = low + self.sites.retained[site]
        first = np.clip(low - row0, 0, rows)
        return first, np.maximum(first, np.clip(high - row0, 0, rows))
