"""Unique counts for a trace that comes in pieces: each `sic` brings its own, each `ld.conc` finds the last ones by the
address of its blocks.
"""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import SLOT, DynamicCounts
from focusc.isa.errors import IsaError
from focusc.isa.insns import LdConc, Sic
from focusc.isa.program import conc_block
from focusc.isa.sequencer import Trace
from focusc.isa.site_counts import SiteCounts, distinct

__all__ = ["UniqueFeed"]

Ints = NDArray[np.int64]
compiled: Final[Any] = nb.njit(cache=True)
_SIC: Final = list(Sic.fields)
_LOAD: Final = list(LdConc.fields)
_TILE_ROWS, _VISUAL_FIRST, _VISUAL_STOP, _SITE, _FIRST_TOKEN = range(5)


class UniqueFeed:
    """Hands out the unique counts of a program's commands in order, from a recording or from counts by site."""

    def __init__(self, counts: DynamicCounts | SiteCounts | None) -> None:
        self.counts = counts
        self.sics = 0
        self.partials = 0
        self.events = np.zeros((1 << 10, 5), np.int64)
        self.keys = np.zeros(1 << 12, np.int64)
        self.found = np.zeros((1 << 12, 2), np.int64)
        self.blocks = 0
        self.recorded = counts if isinstance(counts, DynamicCounts) else None
        if self.recorded is not None:
            self.flat = self.recorded.flat()
            self.ends = np.concatenate(([0], np.cumsum([len(item) for item in self.recorded.unique])))

    def take(self, part: Trace) -> tuple[NDArray[np.int32], Ints]:
        """(flat counts of the part's `sic` and `ld.conc`, for each command the offset of its own in them or -1).

        IsaError `timing.counts` or `counts.*` if the counts do not fit.
        """
        offsets = np.full(len(part), -1, np.int64)
        at = np.flatnonzero((part.op == Sic.opcode) | (part.op == LdConc.opcode))
        if not at.size:
            return np.zeros(0, np.int32), offsets
        if self.counts is None:
            raise IsaError("timing.counts", "the program concentrates (`sic`), so its timing depends on unique counts",
                           hint="run it, or give a trace (--trace): recorded by a run, or made by `focusc trace synth`")
        load = part.op[at] == LdConc.opcode

        def column(name: str) -> Ints:
            return part.fields[at, np.where(load, _LOAD.index(name), _SIC.index(name))].astype(np.int64)

        window = np.zeros((len(at), 4), np.int64)
        if len(part.tiles):
            window = part.tiles[np.where(load, 0, part.fields[at, 0])]
        rows = np.where(load, part.fields[at, _LOAD.index("rows")], window[:, 1])
        slots = np.where(load, part.fields[at, _LOAD.index("slots")], -(-window[:, 2] // SLOT))
        address, cap = column("addr"), column("cap")
        starts = np.concatenate(([0], np.cumsum(slots)))
        flat = np.zeros(int(starts[-1]), np.int32)
        sics = np.flatnonzero(~load)
        event = np.full(len(at), -1, np.int64)
        event[sics] = self.sics + np.arange(len(sics))
        self._write(part, at[sics], rows[sics], slots[sics], address[sics], starts[sics], flat)
        self._room(int(slots[sics].sum()))
        bad, self.blocks, fewer = _find(load, address, conc_block(cap), slots, rows, event, starts, flat, self.keys,
                                        self.found, self.events, self.blocks)
        if bad >= 0:
            self._unknown(part, int(at[bad]))
        some = np.flatnonzero(fewer)
        if some.size:
            self._partial(part, at[some], rows[some], slots[some], starts[some], event[some], flat)
        offsets[at] = starts[:-1]
        return flat, offsets

    def finish(self) -> None:
        """IsaError unless a recording was used up."""
        if self.recorded is None:
            return
        if self.sics != len(self.recorded):
            self.recorded.wrong_order(self.sics)
        if self.partials != len(self.recorded.partial):
            raise IsaError("timing.counts", f"{len(self.recorded.partial)} partial loads were recorded, the program "
                           f"does {self.partials}")

    def _unknown(self, part: Trace, command: int) -> None:
        raise IsaError("timing.counts", "a concentrated load reads a block of unknown count: no `sic` wrote it, or a "
                       "load of fewer rows was not recorded", part.place(command),
                       hint="record the trace again with this binary")

    def _room(self, more: int) -> None:
        """Keep the table of blocks at most half full."""
        size = len(self.keys)
        while self.blocks + more > size // 2:
            size *= 2
        if size > len(self.keys):
            keys, found = self.keys, self.found
            self.keys, self.found = np.zeros(size, np.int64), np.zeros((size, 2), np.int64)
            _rehash(keys, found, self.keys, self.found)

    def _write(self, part: Trace, at: Ints, rows: Ints, slots: Ints, address: Ints, starts: Ints,
               flat: NDArray[np.int32]) -> None:
        """The counts of the part's `sic`s, into `flat`, and what partial loads must know of their tiles."""
        first = self.sics
        self.sics += len(at)
        if self.sics > len(self.events):
            self.events = np.concatenate([self.events, np.zeros((max(len(self.events), len(at)), 5), np.int64)])
        here = self.events[first:self.sics]
        here[:, _TILE_ROWS] = rows
        index = np.repeat(starts, slots) + _ramp(slots)
        if self.recorded is not None:
            self.recorded.check_part(part, at, first)
            begin = int(self.ends[first])
            flat[index] = self.flat[begin:begin + len(index)]
            return
        counts = self.counts
        assert isinstance(counts, SiteCounts)
        site = part.fields[at, _SIC.index("site")]
        row0 = part.fields[at, _SIC.index("row0")]
        wrong = np.flatnonzero(site >= len(counts.start))
        if wrong.size:
            raise IsaError("counts.sites", f"`sic` names site {int(site[wrong[0]])}, the program's table has "
                           f"{len(counts.start)}", part.place(int(at[wrong[0]])))
        tile, slot = counts.place(site, address, row0)
        begin, stop = counts.visual(site, row0, rows)
        here[:, _VISUAL_FIRST], here[:, _VISUAL_STOP], here[:, _SITE] = begin, stop, site
        here[:, _FIRST_TOKEN] = tile * counts.sites.m[site]
        source = counts.start[site] + tile * counts.sites.slots[site] + slot
        some = stop > begin
        text = rows - (stop - begin)
        if bool((some & (source + slots > len(counts.unique))).any()):
            raise IsaError("counts.sites", "a `sic` writes outside the buffer that the program's site table names",
                           hint="compile the model again with this focusc")
        visual = np.where(np.repeat(some, slots),
                          counts.unique[np.where(np.repeat(some, slots), np.repeat(source, slots) + _ramp(slots), 0)]
                          if len(counts.unique) else 0, 0)
        flat[index] = visual + np.repeat(text, slots)

    def _partial(self, part: Trace, at: Ints, rows: Ints, slots: Ints, starts: Ints, event: Ints,
                 flat: NDArray[np.int32]) -> None:
        """Loads of fewer rows than were concentrated together: the unique vectors that these rows refer to."""
        if self.recorded is not None:
            for i in range(len(at)):
                known = self.recorded.partial
                if self.partials >= len(known) or len(known[self.partials]) != slots[i]:
                    self._unknown(part, int(at[i]))
                flat[starts[i]:starts[i] + slots[i]] = known[self.partials]
                self.partials += 1
            return
        counts = self.counts
        assert isinstance(counts, SiteCounts)
        row0 = part.fields[at, _LOAD.index("row0")]
        tile = self.events[event]
        first, stop = tile[:, _VISUAL_FIRST], tile[:, _VISUAL_STOP]
        low, high = np.clip(row0, first, stop), np.clip(row0 + rows, first, stop)
        visual, taken = stop - first, high - low
        index = np.repeat(starts, slots) + _ramp(slots)
        text_all, text = tile[:, _TILE_ROWS] - visual, rows - taken
        if counts.exact is None:
            unique = flat[index] - np.repeat(text_all, slots)
            flat[index] = distinct(unique, np.repeat(visual, slots), np.repeat(taken, slots)) + np.repeat(text, slots)
            return
        site = tile[:, _SITE]
        _, slot = counts.place(site, part.fields[at, _LOAD.index("addr")], np.zeros_like(site))
        for i in range(len(at)):
            token = int(tile[i, _FIRST_TOKEN] - first[i])
            found: Any = 0
            if taken[i]:
                found = counts.exact(int(site[i]), token + int(low[i]), token + int(high[i]))
                found = found[int(slot[i]):int(slot[i]) + int(slots[i])]
            flat[starts[i]:starts[i] + slots[i]] = found + int(text[i])


def _ramp(lengths: Ints) -> Ints:
    """0..n-1 for each n of `lengths`, concatenated."""
    ends = np.cumsum(lengths)
    return np.arange(int(ends[-1]) if len(ends) else 0) - np.repeat(ends - lengths, lengths)


@compiled
def _slot_of(keys: Any, key: int) -> int:
    """Place of a key in an open-addressing table: its own or the free one where it belongs."""
    mask = len(keys) - 1
    at = (key // 64 * 40503) & mask
    while keys[at] != 0 and keys[at] != key:
        at = (at + 1) & mask
    return at


@compiled
def _rehash(keys: Any, found: Any, new_keys: Any, new_found: Any) -> None:
    for i in range(len(keys)):
        if keys[i] != 0:
            at = _slot_of(new_keys, keys[i])
            new_keys[at] = keys[i]
            new_found[at, 0] = found[i, 0]
            new_found[at, 1] = found[i, 1]


@compiled
def _find(load: Any, address: Any, block: Any, slots: Any, rows: Any, event: Any, starts: Any, flat: Any, keys: Any,
          found: Any, events: Any, blocks: int) -> Any:
    """Note the counts of `sic`s by block, and give loads the last ones of theirs.

    Returns (index of the first load of an unknown block or -1, blocks known, which loads take fewer rows). `event` of a
    load becomes that of the `sic` that wrote its first block.
    """
    fewer = np.zeros(len(load), np.bool_)
    for i in range(len(load)):
        for j in range(slots[i]):
            key = address[i] + j * block[i] + 64  # 0 is no key
            at = _slot_of(keys, key)
            if load[i]:
                if keys[at] == 0:
                    return i, blocks, fewer
                height = events[found[at, 1], 0]
                if rows[i] > height:
                    return i, blocks, fewer
                if j == 0:
                    event[i] = found[at, 1]
                fewer[i] = fewer[i] or rows[i] < height
                flat[starts[i] + j] = found[at, 0]
            else:
                if keys[at] == 0:
                    keys[at] = key
                    blocks += 1
                found[at, 0] = flat[starts[i] + j]
                found[at, 1] = event[i]
    return -1, blocks, fewer
