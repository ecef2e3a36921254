"""The array in the timing kernel: passes, partial sums, the scatter."""

from __future__ import annotations

import math
from typing import Any

from focusc.isa.timing_channels import arrived, ready_at, take
from focusc.isa.timing_layout import (
    ACOLS,
    AROWS,
    BASE,
    BUSY,
    CAUSES,
    CHUNK,
    COLS,
    CURSOR,
    DEPTH,
    DRAM_C,
    DST,
    END,
    FEED_A,
    FILL_C,
    FORWARD,
    FREED,
    ISSUE,
    ISSUE_C,
    KIND,
    LAST_Y,
    MAP_ELEMENT,
    MXU,
    NODE,
    OVERHEAD,
    PARTIAL,
    PARTIAL_ELEMENT,
    PARTIAL_HELD,
    PASS_START,
    PIPELINED,
    POPPED,
    ROWS,
    RUN_END,
    RUN_START,
    SCATTER_C,
    SCATTER_LAST,
    SCATTER_ROWS,
    SCATTERED,
    SKEW,
    SLICES,
    STALL,
    START,
    STREAM_C,
    SUMMED,
    TILE_C,
    TOUCHED,
    UNIQUE,
    UNIQUE_Y,
    WEIGHT_C,
    WIDTH,
    WORK,
)
from focusc.isa.timing_state import compiled, word

__all__ = ["multiply"]


@compiled
def multiply(s: Any, c: int, offset: int) -> bool:
    """All passes of one matrix command; False if a stream can never deliver.

    What the passes change is kept in variables while they run: this is where timing a program spends its time.
    """
    t, misc, num, waiting = s.table, s.misc, s.num, s.waiting
    issue, rows, cols = misc[ISSUE], t[c, ROWS], t[c, COLS]
    dense = t[c, UNIQUE] < 0
    pipelined = misc[PIPELINED] > 0.0
    chunk, across, array_rows = int(misc[CHUNK]), int(misc[ACOLS]), int(misc[AROWS])
    overhead, skew = misc[OVERHEAD], misc[SKEW]
    ready = issue
    if misc[TOUCHED + 1] > misc[CURSOR + MXU]:  # else the array comes later than everything it could wait for
        ready = max(issue, ready_at(s, t[c, DST], word(1), word(1)))
    feed = STREAM_C if t[t[c, FEED_A], KIND] == FORWARD else DRAM_C
    scatter = 1.0 * math.ceil(rows / misc[SCATTER_ROWS])
    width, depth = t[c, WIDTH], t[c, DEPTH]
    deep, blocks = -(-depth // width), -(-cols // chunk)
    whole_groups, last_groups = chunk // across, -(-(cols - (blocks - 1) * chunk) // across)
    lag = skew if pipelined else overhead
    cursor, pass_start, done = misc[CURSOR + MXU], misc[PASS_START], ready
    # Partial sums: bytes held, end of the last scatter, passes that brought some and that have given back their room.
    most, room, element = waiting.shape[1], misc[PARTIAL], across * misc[PARTIAL_ELEMENT]
    held, scatter_last, summed, freed = misc[PARTIAL_HELD], misc[SCATTER_LAST], num[SUMMED], num[FREED]
    work, fill, idle, fed, weight, tile, scattering = 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0
    first = True
    num[POPPED] += 1
    num[POPPED + 1] += 1
    for k in range(t[c, SLICES]):
        act = arrived(s, word(0))
        if act < 0.0:
            return False
        if k >= deep:
            take(s, word(0), max(act, cursor))
            continue
        vectors, sums, map_ = 1.0 * rows, 0.0, 0.0
        if not dense:
            unique = s.unique[offset - num[BASE] + k]
            s.tally[c, UNIQUE_Y] += unique
            if k == deep - 1:
                s.tally[c, LAST_Y] += unique
            vectors, sums, map_ = 1.0 * unique, unique * element, misc[MAP_ELEMENT] * rows
        tall = word(1)
        if width > array_rows:
            tall = -(-min(width, depth - k * width) // array_rows)
        for block in range(blocks):
            wgt = arrived(s, word(1))
            if wgt < 0.0:
                return False
            loaded = 0.0
            groups = whole_groups if (block + 1) * chunk <= cols else last_groups
            for _ in range(groups * tall):
                base = max(cursor, issue)
                loaded = wgt
                if pipelined:
                    # Shadow registers are free from the start of the pass before.
                    loaded = max(max(wgt, pass_start), issue) + array_rows
                start = max(max(base, act), loaded)
                cause = WEIGHT_C if loaded > act else feed
                if first and ready > max(act, loaded):
                    start, cause = max(start, ready), TILE_C
                if not dense:
                    # The oldest pass is being scattered: the map of its slice is in the map buffer, which holds one.
                    # A pass that is alone always fits.
                    time = 0.0
                    while summed > freed:
                        i = freed % most
                        if held - waiting[2, i] + sums + map_ <= room and summed - freed < most:
                            break
                        time = waiting[0, i]
                        held -= waiting[1, i] + waiting[2, i]
                        freed += 1
                    if time - lag > start:
                        start, cause = time - lag, SCATTER_C
                idle += max(min(start, issue) - cursor, 0.0)
                waited = max(start - base, 0.0)
                if cause == WEIGHT_C:
                    hidden = min(waited, 1.0 * array_rows) if pipelined else 0.0
                    fill += hidden
                    weight += waited - hidden
                elif cause == TILE_C:
                    tile += waited
                elif cause == SCATTER_C:
                    scattering += waited
                else:
                    fed += waited
                if first:
                    misc[START] = start
                    first = False
                pass_start = start
                work += vectors
                cursor = start + vectors
                if pipelined:
                    out = cursor + skew
                else:
                    fill += overhead
                    cursor += overhead
                    out = cursor
                    loaded = start + array_rows
                if dense:
                    done = max(done, out)
                else:
                    scatter_last = max(scatter_last, out) + scatter
                    i = summed % most
                    waiting[0, i], waiting[1, i], waiting[2, i] = scatter_last, sums, map_
                    held += sums + map_
                    summed += 1
                    map_ = 0.0  # the other passes of the slice use the same
                    misc[SCATTERED] += scatter
                    done = max(done, scatter_last)
            take(s, word(1), loaded)
        take(s, word(0), cursor)
    if first:
        misc[START] = ready
    misc[CURSOR + MXU], misc[PASS_START], misc[END] = cursor, pass_start, done
    misc[PARTIAL_HELD], misc[SCATTER_LAST], num[SUMMED], num[FREED] = held, scatter_last, summed, freed
    misc[WORK] = work
    misc[BUSY + MXU] += work
    stall = STALL + CAUSES * MXU
    misc[stall + ISSUE_C] += idle
    misc[stall + feed] += fed
    misc[stall + WEIGHT_C] += weight
    misc[stall + TILE_C] += tile
    misc[stall + SCATTER_C] += scattering
    misc[stall + FILL_C] += fill
    w = t[c, DST]
    s.win[0, w] = max(s.win[0, w], done)
    misc[TOUCHED] = max(misc[TOUCHED], done)
    if work > 0.0:
        _run_of_node(s, s.node[c])
    return True


@compiled
def _run_of_node(s: Any, node: int) -> None:
    """Add an array command to the uninterrupted run of its source node."""
    if node != s.num[NODE]:
        if s.num[NODE] >= 0:
            s.spans[s.num[NODE]] += s.misc[RUN_END] - s.misc[RUN_START]
        s.num[NODE] = node
        s.misc[RUN_START] = s.misc[START]
    s.misc[RUN_END] = s.misc[END]
