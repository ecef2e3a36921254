"""Traces and programs: the counts that a program's commands need from a trace, and the trace that a run leaves."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.backends.trace import IR_SITE, SITES, Trace, site_number
from focusc.ir.diagnostics import CompileError, Loc, fail
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.errors import IsaError
from focusc.isa.insns.concentrate import Sic
from focusc.isa.program import Program
from focusc.isa.sequencer import expand_chunks
from focusc.isa.site_counts import SiteCounts, Sites, sites_of

__all__ = ["record", "site_counts"]


def site_counts(trace: Trace, program: Program) -> SiteCounts | None:
    """The counts of a program's sites; None if it concentrates nothing.

    CompileError `trace.program` names the array, what the trace has and what the program has where they differ in
    layers, tokens, retained tokens, m-tiles or slots.
    """
    sites = sites_of(program)
    if not sites.layer:
        return None
    where = Loc(trace.where)

    def differ(array: str, found: object, has: object, what: str) -> CompileError:
        return fail("trace.program", f"{array}: found {found}, the program has {has} {what}", where,
                    hint="make the trace for the workload and schedule that the program was compiled from")

    layers = max(sites.layer) + 1
    if trace.layers != layers:
        raise differ("retained", f"{trace.layers} layers", layers, "that concentrate")
    start: list[int] = []
    offset, parts = 0, []
    for i, (layer, name) in enumerate(zip(sites.layer, sites.site, strict=True)):
        if name not in IR_SITE.values():
            raise fail("trace.program", f"the program concentrates at {name!r}, of which a trace knows nothing", where)
        column = site_number(name)
        place = f"[layer {layer}, {SITES[column]}]"
        if trace.tokens != int(sites.tokens[i]):
            raise differ("tokens", trace.tokens, int(sites.tokens[i]), "visual tokens")
        if trace.m != int(sites.m[i]):
            raise differ("m", trace.m, int(sites.m[i]), "rows in an m-tile")
        if int(trace.columns[column]) != int(sites.slots[i]):
            raise differ(f"slots{place}", f"{trace.heads[column]} x {trace.slots[column]} slots", int(sites.slots[i]),
                         "slots of 32 columns")
        if int(trace.retained[layer, column]) != int(sites.retained[i]):
            raise differ("retained" + place, f"{trace.retained[layer, column]} tokens", int(sites.retained[i]),
                         "retained tokens")
        found = trace.unique_of(layer, SITES[column])
        start.append(offset)
        parts.append(found.reshape(-1))
        offset += found.size
    exact = _Exact(trace, sites) if trace.links is not None else None
    return SiteCounts(sites, np.concatenate(parts), np.array(start, np.int64), exact)


class _Exact:
    """Distinct vectors that some consecutive retained tokens refer to, from the link table; each answer is kept."""

    def __init__(self, trace: Trace, sites: Sites) -> None:
        self.trace, self.sites = trace, sites
        self.known: dict[tuple[int, int, int], Any] = {}

    def __call__(self, site: int, first: int, stop: int) -> Any:
        key = site, first, stop
        if key not in self.known:
            links = self.trace.links_of(self.sites.layer[site], self.sites.site[site])
            ordered = np.sort(links[first:stop], axis=0)
            self.known[key] = 1 + (np.diff(ordered, axis=0) != 0).sum(axis=0)
        return self.known[key]


def record(program: Program, counts: DynamicCounts) -> Trace | None:
    """The trace of a run, by site; None if the program's sites are not those of a decoder with all five in some layer.

    Accidental zero vectors are not told from others by a run: they count as unique, and `zero` has the pruned ones.
    """
    try:
        sites = sites_of(program)
    except IsaError:
        return None
    columns = [site_number(name) if name in IR_SITE.values() else -1 for name in sites.site]
    if set(columns) != set(range(len(SITES))) or len({*sites.m.tolist()}) != 1 or len({*sites.tokens.tolist()}) != 1:
        return None
    layers, tokens, m = max(sites.layer) + 1, int(sites.tokens[0]), int(sites.m[0])
    slots = np.zeros(len(SITES), np.int64)
    retained = np.zeros((layers, len(SITES)), np.int64)
    for i, column in enumerate(columns):
        slots[column] = sites.slots[i]
        half = slice(0, 3) if column < 3 else slice(3, 5)
        retained[sites.layer[i], half] = sites.retained[i]
    if not retained.all():
        return None
    tables = {(layer, column): np.repeat(np.minimum(m, t - np.arange(0, t, m))[:, None], slots[column], 1)
              for (layer, column), t in np.ndenumerate(retained)}
    _fill(program, counts, sites, columns, tables)
    unique = np.concatenate([table.reshape(-1) for table in tables.values()]).astype(np.int32)
    total = np.array([table.sum() for table in tables.values()], np.int64).reshape(layers, len(SITES))
    source = {"kind": "recorded", "model": str(program.meta.get("model", "")), "program": counts.digest}
    return Trace(str(program.meta.get("model", "")), tokens, m, np.ones(len(SITES), np.int64), slots, retained,
                 (tokens - retained) * slots, retained * slots - total, unique, source=source)


def _fill(program: Program, counts: DynamicCounts, sites: Sites, columns: list[int],
          tables: dict[tuple[int, int], Any]) -> None:
    """Put every executed `sic`'s visual unique vectors where they belong."""
    by_site = SiteCounts(sites, np.zeros(0, np.int32), np.zeros(len(columns), np.int64))
    names = list(Sic.fields)
    number = 0
    for part in expand_chunks(program):
        at = np.flatnonzero(part.op == Sic.opcode)
        fields = part.fields[at]
        site, row0, address = (fields[:, names.index(name)] for name in ("site", "row0", "addr"))
        rows = part.tiles[fields[:, 0], 1] if len(at) else np.zeros(0, np.int64)
        tile, slot = by_site.place(site, address, row0)
        first, stop = by_site.visual(site, row0, rows)
        for i in range(len(at)):
            unique = counts.unique[number + i]
            if stop[i] > first[i]:
                table = tables[sites.layer[site[i]], columns[site[i]]]
                table[tile[i], slot[i]:slot[i] + len(unique)] = unique - (rows[i] - (stop[i] - first[i]))
        number += len(at)
