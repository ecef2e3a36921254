"""The timing loop: commands in program order, compiled.

A command is a row of the work table, the sequencer steps before it and the place of its unique counts. Commands may
come in pieces: all that lives on between two calls of `run` is in the state.

Times are core cycles (float64; the array only sees whole cycles). Engines serve their queues in order. Loads are timed
slice by slice, lazily: a slice is requested when staging has room for it, which is known once the consumers of earlier
slices are timed. So a load may still be open when the next command is looked at; `_advance` times its next slice.
"""

from __future__ import annotations

import math
from typing import Any, Final

from focusc.isa.dynamic import SLOT
from focusc.isa.insns import ENGINES
from focusc.isa.timing_ledger import book
from focusc.isa.timing_rules import Col, Kind
from focusc.isa.timing_state import (
    ITEMS,
    RING,
    Cause,
    Channel,
    Detail,
    Item,
    Misc,
    Num,
    Par,
    Tally,
    When,
    compiled,
    word,
)

__all__ = ["finish", "run"]

_SEQ, _LDA, _LDW, _MXU, _VEC = (ENGINES.index(engine) for engine in ("seq", "lda", "ldw", "mxu", "vec"))
_EPS: Final = 1e-6
_OPEN: Final = -1.0
"""Start of a load that has not been timed yet."""
(_KIND, _ENGINE, _DST, _A, _B, _RMW, _ROWS, _COLS, _DEPTH, _WIDTH, _SLICES, _BYTES, _LEAD, _UNIQUE, _FEED_A, _FEED_B,
 _FEED_W, _WRITES, _MASK) = (int(c) for c in list(Col)[:19])
_FENCE, _LOAD, _WEIGHT, _MMA, _VECTOR, _FORWARD, _CONC, _SELECT, _STORE, _HOST = range(1, 11)
_CAUSES: Final = len(Cause)
_ISSUE_C, _QUEUE_C, _DRAM_C, _WEIGHT_C, _STREAM_C, _TILE_C, _SCATTER_C, _FENCE_C, _FILL_C, _ROOM_C = range(10)
_ALLOC, _TAKEN, _RECLAIM, _ITEM, _SLICE, _ISSUED = range(6)
(_SCATTERED, _PARTIAL_HELD, _SCATTER_LAST, _PASS_START, _NOW, _FRONTIER, _ALL_WRITES, _FENCES, _PENDING_END, _ISSUE,
 _START, _END, _WORK, _HELD, _RUN_START, _RUN_END, _TOUCHED, _CURSOR, _BUSY, _STALL) = (int(m) for m in list(Misc)[:20])
_LAST_SLOT, _OPEN_FORWARD, _PENDING, _POPPED, _FIRST, _BASE, _NODE, _SUMMED, _FREED = (int(n) for n in list(Num)[:9])
_ROW, _OFFSET, _COMMAND, _PLACE = (int(i) for i in Item)
_ISSUE_W, _FENCE_W, _START_W, _END_W = (int(w) for w in When)
_ISSUE_D, _START_D, _END_D, _SPAN_D, _WORK_D = (int(d) for d in Detail)
_COUNT_Y, _UNIQUE_Y, _LAST_Y, _TAKEN_Y = (int(t) for t in Tally)
_P = [int(p) for p in Par]
(_RATE, _LATENCY, _AROWS, _ACOLS, _OVERHEAD, _SKEW, _PIPELINED, _SCATTER_ROWS, _STAGE_ACT, _STAGE_WGT, _CHUNK, _QDEPTH,
 _VPIPE, _LDCOST, _PARTIAL, _PARTIAL_ELEMENT, _MAP_ELEMENT) = _P
assert [int(k) for k in Kind] == list(range(11)) and [int(i) for i in Channel] == list(range(6))
assert len(Par) == Misc.SCATTERED and Misc.STALL + len(ENGINES) * _CAUSES == Misc.SIZE and ITEMS & (ITEMS - 1) == 0


@compiled
def _begin(s: Any, e: int, issue: float, start: float, cause: int) -> None:
    """Account for an engine's gap up to `start`: no command until `issue`, then `cause`."""
    idle = min(start, issue) - s.misc[_CURSOR + e]
    if idle > 0.0:
        s.misc[_STALL + _CAUSES * e + _ISSUE_C] += idle
    wait = start - max(s.misc[_CURSOR + e], issue)
    if wait > 0.0:
        s.misc[_STALL + _CAUSES * e + cause] += wait


@compiled
def _started(s: Any, ch: int, i: int, time: float) -> None:
    """A stream item's first slice is requested."""
    s.when[ch, i, _START_W] = time
    e = s.table[s.item[ch, i, _ROW], _ENGINE]
    depth = s.queue.shape[1]
    place = s.item[ch, i, _PLACE]
    if s.queued[e] - place <= depth:
        s.queue[e, place % depth] = time
    if len(s.detail) > 0:
        s.detail[s.item[ch, i, _COMMAND], _START_D] = time


@compiled
def _ended(s: Any, ch: int, number: int, time: float) -> None:
    """A stream item's last slice has moved."""
    i = number & (ITEMS - 1)
    s.when[ch, i, _END_W] = time
    if number == s.num[_PENDING + ch] - 1:
        s.misc[_PENDING_END + ch] = time
    if len(s.detail) > 0:
        s.detail[s.item[ch, i, _COMMAND], _END_D] = time


@compiled
def _worked(s: Any, ch: int, i: int, cycles: float) -> None:
    """Busy cycles of a stream item."""
    s.sums[s.item[ch, i, _ROW], 1] += cycles
    if len(s.detail) > 0:
        s.detail[s.item[ch, i, _COMMAND], _WORK_D] += cycles


@compiled
def _advance(s: Any, ch: int, force: int) -> bool:
    """Time the next slice of channel `ch`; False if nothing is open or staging is full of unconsumed slices.

    With `force` a full staging buffer is overrun instead, for producers that must finish first (see docs/timing.md).
    """
    t = s.table
    state = s.channel[ch]
    while state[_ITEM] < state[_ISSUED]:
        i = state[_ITEM] & (ITEMS - 1)
        if t[s.item[ch, i, _ROW], _SLICES] > 0:
            break
        _started(s, ch, i, s.when[ch, i, _ISSUE_W])
        _ended(s, ch, state[_ITEM], s.when[ch, i, _ISSUE_W])
        state[_ITEM] += 1
    if state[_ITEM] >= state[_ISSUED]:
        return False
    i = state[_ITEM] & (ITEMS - 1)
    c = s.item[ch, i, _ROW]
    k = state[_SLICE]
    kind, rows, width = t[c, _KIND], t[c, _ROWS], t[c, _WIDTH]
    if kind == _WEIGHT:
        chunk = int(s.misc[_CHUNK])
        if t[c, _COLS] <= chunk:
            cells = min(width, t[c, _DEPTH] - k * width) * t[c, _COLS]
        else:
            across = -(-t[c, _COLS] // chunk)
            cells = min(width, t[c, _DEPTH] - k // across * width) * min(chunk, t[c, _COLS] - k % across * chunk)
        bytes_ = float(cells * t[c, _BYTES])
        stage = 2.0 * cells
        elements = cells
    elif t[c, _UNIQUE] >= 0:
        vectors = s.unique[s.item[ch, i, _OFFSET] - s.num[_BASE] + k]
        elements = vectors * SLOT
        bytes_ = 4.0 + 2.0 * rows + 2.0 * elements
        stage = 2.0 * elements
    else:
        elements = rows * min(width, t[c, _COLS] - k * width)
        bytes_ = float(elements * t[c, _BYTES])
        stage = 2.0 * elements
    capacity = s.misc[_STAGE_ACT + ch]
    held = _HELD + 2 * ch
    while (s.misc[held] > 0.0 and s.misc[held] + stage > capacity) or state[_ALLOC] - state[_RECLAIM] >= RING:
        if state[_RECLAIM] == state[_TAKEN]:
            if force > 0 and state[_ALLOC] - state[_RECLAIM] < RING:
                break
            return False
        r = state[_RECLAIM] % RING
        s.misc[held + 1] = max(s.misc[held + 1], s.ring[4 + ch, r])
        s.misc[held] -= s.ring[2 + ch, r]
        state[_RECLAIM] += 1
    e = t[c, _ENGINE]
    room = s.misc[held + 1]
    issue = s.when[ch, i, _ISSUE_W]
    if kind == _FORWARD:
        start = max(s.misc[_CURSOR + e], room)
        s.misc[_STALL + _CAUSES * e + _ROOM_C] += start - s.misc[_CURSOR + e]
        length = elements * s.cost[c]
        s.misc[_BUSY + e] += length
        _worked(s, ch, i, length)
        s.misc[_CURSOR + e] = start + length
        served = s.misc[_CURSOR + e]
        arrival = math.ceil(served - _EPS)
    else:
        fence = s.when[ch, i, _FENCE_W]
        start = max(max(s.misc[_CURSOR + e], issue), max(fence, room))
        _begin(s, e, issue, start, _FENCE_C if fence >= room else _ROOM_C)
        if k == 0:
            _started(s, ch, i, start)
            if t[c, _LEAD] > 0:
                ready = book(s.used, s.buckets, s.misc[_RATE], start, float(t[c, _LEAD])) + s.misc[_LATENCY]
                s.misc[_STALL + _CAUSES * e + _DRAM_C] += ready - start
                start = ready
        served = book(s.used, s.buckets, s.misc[_RATE], start, bytes_)
        ideal = min(bytes_ / s.misc[_RATE], served - start)
        s.misc[_BUSY + e] += ideal
        _worked(s, ch, i, ideal)
        s.misc[_STALL + _CAUSES * e + _DRAM_C] += served - start - ideal
        s.misc[_CURSOR + e] = served
        arrival = math.ceil(served + s.misc[_LATENCY] - _EPS)
        if t[c, _UNIQUE] >= 0:
            s.tally[c, _UNIQUE_Y] += elements // SLOT
            if k == t[c, _SLICES] - 1:
                s.tally[c, _LAST_Y] += elements // SLOT
    r = state[_ALLOC] % RING
    s.ring[ch, r] = arrival
    s.ring[2 + ch, r] = stage
    s.misc[held] += stage
    state[_ALLOC] += 1
    state[_SLICE] += 1
    if state[_SLICE] == t[c, _SLICES]:
        state[_SLICE] = 0
        state[_ITEM] += 1
        if kind == _FORWARD:
            whole = 1.0 * math.ceil(s.misc[_CURSOR + e] - _EPS)
            s.misc[_BUSY + e] += whole - s.misc[_CURSOR + e]
            _worked(s, ch, i, whole - s.misc[_CURSOR + e])
            s.misc[_CURSOR + e] = whole
            _ended(s, ch, state[_ITEM] - 1, whole)
            _mark_read(s, t[c, _A], whole)
        else:
            _ended(s, ch, state[_ITEM] - 1, served)
    return True


@compiled
def _arrived(s: Any, ch: int) -> float:
    """Arrival of the next slice to be consumed; negative if it can never come."""
    state = s.channel[ch]
    while state[_ALLOC] <= state[_TAKEN]:
        if not _advance(s, ch, word(0)):
            return -1.0
    return s.ring[ch, state[_TAKEN] % RING]


@compiled
def _take(s: Any, ch: int, time: float) -> None:
    """The slice at the head is consumed; its room is free from `time` on."""
    state = s.channel[ch]
    s.ring[4 + ch, state[_TAKEN] % RING] = time
    state[_TAKEN] += 1


@compiled
def _mark_read(s: Any, w: int, time: float) -> None:
    if w >= 0 and s.win[2, w] < time:
        s.win[2, w] = time
        s.misc[_TOUCHED + 1] = max(s.misc[_TOUCHED + 1], time)


@compiled
def _ready(s: Any, w: int, writing: int, array: int) -> float:
    """When a window may be touched: after all overlapping writes, and for a write after all overlapping reads.

    The array's own accumulations are in order and pipelined, so it does not wait for its own writes.
    """
    time = 0.0
    if w < 0:
        return time
    for i in range(s.of_start[w], s.of_start[w + 1]):
        v = s.others[i]
        if array == 0 and s.win[0, v] > time:
            time = s.win[0, v]
        if s.win[1, v] > time:
            time = s.win[1, v]
        if writing > 0 and s.win[2, v] > time:
            time = s.win[2, v]
    return time


@compiled
def _room_for_sums(s: Any, sums: float, map_: float) -> float:
    """When the partial-sum buffer can take the sums of another pass and the map of its slice; 0 if it can now.

    The oldest pass is the one being scattered: the map of its slice is in the map buffer, which holds one. A pass that
    is alone always fits.
    """
    num, misc, waiting = s.num, s.misc, s.waiting
    most = waiting.shape[1]
    time = 0.0
    while num[_SUMMED] > num[_FREED]:
        i = num[_FREED] % most
        if misc[_PARTIAL_HELD] - waiting[2, i] + sums + map_ <= misc[_PARTIAL] and num[_SUMMED] - num[_FREED] < most:
            break
        time = waiting[0, i]
        misc[_PARTIAL_HELD] -= waiting[1, i] + waiting[2, i]
        num[_FREED] += 1
    return time


@compiled
def _keep_sums(s: Any, time: float, sums: float, map_: float) -> None:
    """The sums of a pass, and the map that came with them, stay until their scatter ends at `time`."""
    i = s.num[_SUMMED] % s.waiting.shape[1]
    s.waiting[0, i] = time
    s.waiting[1, i] = sums
    s.waiting[2, i] = map_
    s.misc[_PARTIAL_HELD] += sums + map_
    s.num[_SUMMED] += 1


@compiled
def _mma(s: Any, c: int, offset: int) -> bool:
    """All passes of one matrix command; False if a stream can never deliver."""
    t, misc = s.table, s.misc
    issue, rows, cols = misc[_ISSUE], t[c, _ROWS], t[c, _COLS]
    dense = t[c, _UNIQUE] < 0
    pipelined = misc[_PIPELINED] > 0.0
    chunk, across, array_rows = int(misc[_CHUNK]), int(misc[_ACOLS]), int(misc[_AROWS])
    ready = issue
    if misc[_TOUCHED + 1] > misc[_CURSOR + _MXU]:  # else the array comes later than everything it could wait for
        ready = max(issue, _ready(s, t[c, _DST], word(1), word(1)))
    feed = _STREAM_C if t[t[c, _FEED_A], _KIND] == _FORWARD else _DRAM_C
    scatter = math.ceil(rows / misc[_SCATTER_ROWS])
    width = t[c, _WIDTH]
    deep, blocks = -(-t[c, _DEPTH] // width), -(-cols // chunk)
    whole_groups, last_groups = chunk // across, -(-(cols - (blocks - 1) * chunk) // across)
    lag = misc[_SKEW] if pipelined else misc[_OVERHEAD]
    done = ready
    first = True
    s.num[_POPPED] += 1
    s.num[_POPPED + 1] += 1
    for k in range(t[c, _SLICES]):
        act = _arrived(s, word(0))
        if act < 0.0:
            return False
        if k >= deep:
            _take(s, word(0), max(act, misc[_CURSOR + _MXU]))
            continue
        vectors = rows
        sums, map_ = 0.0, 0.0
        if not dense:
            vectors = s.unique[offset - s.num[_BASE] + k]
            s.tally[c, _UNIQUE_Y] += vectors
            if k == deep - 1:
                s.tally[c, _LAST_Y] += vectors
            sums, map_ = vectors * across * misc[_PARTIAL_ELEMENT], misc[_MAP_ELEMENT] * rows
        tall = word(1)
        if width > array_rows:
            tall = -(-min(width, t[c, _DEPTH] - k * width) // array_rows)
        for block in range(blocks):
            wgt = _arrived(s, word(1))
            if wgt < 0.0:
                return False
            loaded = 0.0
            groups = whole_groups if (block + 1) * chunk <= cols else last_groups
            for _ in range(groups * tall):
                base = max(misc[_CURSOR + _MXU], issue)
                loaded = wgt
                if pipelined:
                    # Shadow registers are free from the start of the pass before.
                    loaded = max(max(wgt, misc[_PASS_START]), issue) + array_rows
                start = max(max(base, act), loaded)
                cause = feed
                if loaded > act:
                    cause = _WEIGHT_C
                if first and ready > max(act, loaded):
                    start, cause = max(start, ready), _TILE_C
                if not dense:
                    room = _room_for_sums(s, sums, map_) - lag
                    if room > start:
                        start, cause = room, _SCATTER_C
                hidden = 0.0
                if pipelined and cause == _WEIGHT_C:
                    hidden = min(start - base, float(array_rows))
                    misc[_STALL + _CAUSES * _MXU + _FILL_C] += hidden
                _begin(s, word(_MXU), issue, start - hidden, word(cause))
                if first:
                    misc[_START] = start
                    first = False
                misc[_PASS_START] = start
                misc[_BUSY + _MXU] += vectors
                misc[_WORK] += vectors
                misc[_CURSOR + _MXU] = start + vectors
                if pipelined:
                    out = misc[_CURSOR + _MXU] + misc[_SKEW]
                else:
                    misc[_STALL + _CAUSES * _MXU + _FILL_C] += misc[_OVERHEAD]
                    misc[_CURSOR + _MXU] += misc[_OVERHEAD]
                    out = misc[_CURSOR + _MXU]
                    loaded = start + array_rows
                if dense:
                    done = max(done, out)
                else:
                    misc[_SCATTER_LAST] = max(misc[_SCATTER_LAST], out) + scatter
                    misc[_SCATTERED] += scatter
                    _keep_sums(s, misc[_SCATTER_LAST], sums, map_)
                    map_ = 0.0  # the other passes of the slice use the same
                    done = max(done, misc[_SCATTER_LAST])
            _take(s, word(1), loaded)
        _take(s, word(0), misc[_CURSOR + _MXU])
    if first:
        misc[_START] = ready
    misc[_END] = done
    w = t[c, _DST]
    s.win[0, w] = max(s.win[0, w], done)
    misc[_TOUCHED] = max(misc[_TOUCHED], done)
    if misc[_WORK] > 0.0:
        _run_of_node(s, s.node[c])
    return True


@compiled
def _run_of_node(s: Any, node: int) -> None:
    """Add an array command to the uninterrupted run of its source node."""
    if node != s.num[_NODE]:
        if s.num[_NODE] >= 0:
            s.spans[s.num[_NODE]] += s.misc[_RUN_END] - s.misc[_RUN_START]
        s.num[_NODE] = node
        s.misc[_RUN_START] = s.misc[_START]
    s.misc[_RUN_END] = s.misc[_END]


@compiled
def _stream(s: Any, e: int, c: int, source: int, cost: float) -> bool:
    """Take an item (row `source`) of the activation stream slice by slice at `cost` cycles an element."""
    t = s.table
    feed = _STREAM_C if t[source, _KIND] == _FORWARD else _DRAM_C
    if t[source, _UNIQUE] >= 0:
        offset = s.item[0, s.num[_POPPED] & (ITEMS - 1), _OFFSET] - s.num[_BASE]
        for k in range(t[source, _SLICES]):
            s.tally[c, _TAKEN_Y] += s.unique[offset + k]
    s.num[_POPPED] += 1
    for k in range(t[source, _SLICES]):
        act = _arrived(s, word(0))
        if act < 0.0:
            return False
        start = max(s.misc[_CURSOR + e], act)
        s.misc[_STALL + _CAUSES * e + feed] += start - s.misc[_CURSOR + e]
        elements = t[source, _ROWS] * min(t[source, _WIDTH], t[source, _COLS] - k * t[source, _WIDTH])
        s.misc[_BUSY + e] += elements * cost
        s.misc[_WORK] += elements * cost
        s.misc[_CURSOR + e] = start + elements * cost
        _take(s, word(0), s.misc[_CURSOR + e])
    return True


@compiled
def _vector(s: Any, c: int) -> bool:
    """A vector command: operands ready, then elements at the cost of its slowest unit, plus the pipeline's depth."""
    t, issue = s.table, s.misc[_ISSUE]
    while s.num[_OPEN_FORWARD] > s.channel[0, _ITEM]:  # a `fwd` is still open: its engine is this one
        if not _advance(s, word(0), word(1)):
            return False
    start = max(s.misc[_CURSOR + _VEC], issue)
    if max(s.misc[_TOUCHED], s.misc[_TOUCHED + 1]) > start:  # else there is nothing that it could wait for
        yes, no = word(1), word(0)
        ready = max(_ready(s, t[c, _DST], yes, no), max(_ready(s, t[c, _A], no, no), _ready(s, t[c, _B], no, no)))
        start = max(start, ready)
    _begin(s, word(_VEC), issue, start, word(_TILE_C))
    s.misc[_START] = s.misc[_CURSOR + _VEC] = start
    if t[c, _KIND] == _FORWARD:
        _started(s, word(0), (s.channel[0, _ISSUED] - 1) & (ITEMS - 1), start)
        s.num[_OPEN_FORWARD] = s.channel[0, _ISSUED]
        while s.num[_OPEN_FORWARD] > s.channel[0, _ITEM]:
            if not _advance(s, word(0), word(0)):
                break
        s.misc[_END] = _OPEN
        return True
    total = t[c, _ROWS] * t[c, _COLS] * s.cost[c]
    if t[c, _FEED_A] >= 0:
        single = t[c, _FEED_B] < 0
        if not _stream(s, word(_VEC), c, t[c, _FEED_A], s.cost[c] if single else s.misc[_LDCOST]):
            return False
    if t[c, _FEED_B] >= 0 and not _stream(s, word(_VEC), c, t[c, _FEED_B], s.cost[c]):
        return False
    rest = max(total - s.misc[_WORK], 0.0)
    whole = math.ceil(s.misc[_CURSOR + _VEC] + rest - _EPS) + s.misc[_VPIPE]
    s.misc[_BUSY + _VEC] += whole - s.misc[_CURSOR + _VEC]
    s.misc[_WORK] += whole - s.misc[_CURSOR + _VEC]
    s.misc[_CURSOR + _VEC] = s.misc[_END] = whole
    if t[c, _DST] >= 0:
        s.win[1, t[c, _DST]] = max(s.win[1, t[c, _DST]], whole)
        s.misc[_TOUCHED + 1] = max(s.misc[_TOUCHED + 1], whole)
    _mark_read(s, t[c, _A], whole)
    _mark_read(s, t[c, _B], whole)
    return True


@compiled
def _writer(s: Any, c: int, offset: int, fence: float) -> bool:
    """st, st.idx, sic, sec.*: start after tile and fence, occupy the engine, move bytes to DRAM."""
    t, e, issue = s.table, s.table[c, _ENGINE], s.misc[_ISSUE]
    kind, rows = t[c, _KIND], t[c, _ROWS]
    ready = _ready(s, t[c, _A], word(0), word(0))
    start = max(max(s.misc[_CURSOR + e], issue), max(ready, fence))
    _begin(s, e, issue, start, _TILE_C if ready >= fence else _FENCE_C)
    s.misc[_START] = start
    if t[c, _LEAD] > 0:
        listed = book(s.used, s.buckets, s.misc[_RATE], start, float(t[c, _LEAD])) + s.misc[_LATENCY]
        s.misc[_STALL + _CAUSES * e + _DRAM_C] += listed - start
        start = listed
    s.misc[_CURSOR + e] = start
    if kind == _STORE:
        if t[c, _FEED_A] >= 0 and not _stream(s, e, c, t[c, _FEED_A], 0.0):
            return False
        start = s.misc[_CURSOR + e]
        bytes_ = float(rows * t[c, _COLS] * t[c, _BYTES])
        served = book(s.used, s.buckets, s.misc[_RATE], start, bytes_)
        ideal = min(bytes_ / s.misc[_RATE], served - start)
        s.misc[_BUSY + e] += ideal
        s.misc[_WORK] += ideal
        s.misc[_STALL + _CAUSES * e + _DRAM_C] += served - start - ideal
        s.misc[_CURSOR + e] = s.misc[_END] = served
    elif kind == _CONC:
        served = start
        for k in range(t[c, _SLICES]):
            # Slots are compared one after the other; the block of a slot is written while the next is compared.
            begin = max(s.misc[_CURSOR + e], served) if k > 1 else s.misc[_CURSOR + e]
            s.misc[_STALL + _CAUSES * e + _DRAM_C] += begin - s.misc[_CURSOR + e]
            s.misc[_BUSY + e] += s.cost[c]
            s.misc[_WORK] += s.cost[c]
            s.misc[_CURSOR + e] = begin + s.cost[c]
            vectors = s.unique[offset - s.num[_BASE] + k]
            s.tally[c, _UNIQUE_Y] += vectors
            if k == t[c, _SLICES] - 1:
                s.tally[c, _LAST_Y] += vectors
            bytes_ = 4.0 + 2.0 * rows + 2.0 * SLOT * vectors
            served = book(s.used, s.buckets, s.misc[_RATE], max(served, s.misc[_CURSOR + e]), bytes_)
        s.misc[_END] = max(served, s.misc[_CURSOR + e])
    else:
        s.misc[_BUSY + e] += s.cost[c]
        s.misc[_WORK] += s.cost[c]
        s.misc[_CURSOR + e] = start + s.cost[c]
        s.misc[_END] = book(s.used, s.buckets, s.misc[_RATE], s.misc[_CURSOR + e], float(t[c, _WRITES]))
    _mark_read(s, t[c, _A], s.misc[_CURSOR + e])
    return True


@compiled
def _fence(s: Any, mask: int) -> None:
    """Later accesses of these engines wait for earlier ones."""
    if mask & 1:
        s.misc[_FENCES] = s.misc[_ALL_WRITES]
    if mask & 2:
        s.misc[_FENCES + 1] = s.misc[_ALL_WRITES]
    if mask & 4:
        s.misc[_FENCES + 2] = s.misc[_ALL_WRITES]
        for ch in range(2):
            s.num[_PENDING + ch] = s.channel[ch, _ISSUED]
            if s.channel[ch, _ITEM] >= s.channel[ch, _ISSUED] > 0:
                s.misc[_PENDING_END + ch] = s.when[ch, (s.channel[ch, _ISSUED] - 1) & (ITEMS - 1), _END_W]


@compiled
def _host(s: Any) -> None:
    """Wait until everything issued is complete; what the host then does takes no time of the accelerator's."""
    misc = s.misc
    time = misc[_NOW]
    if misc[_FRONTIER] > time:
        time = misc[_FRONTIER]
    for ch in range(2):
        while _advance(s, word(ch), word(1)):
            pass
        if s.channel[ch, _ISSUED] > 0:
            time = max(time, s.when[ch, (s.channel[ch, _ISSUED] - 1) & (ITEMS - 1), _END_W])
    time = 1.0 * math.ceil(time - _EPS)
    misc[_STALL + _CAUSES * _SEQ + _FENCE_C] += time - misc[_NOW]
    misc[_NOW] = misc[_START] = misc[_END] = time


@compiled
def _push(s: Any, ch: int, c: int, offset: int, command: int, place: int, fence: float) -> None:
    """Put an item behind the others of its channel."""
    i = s.channel[ch, _ISSUED] & (ITEMS - 1)
    s.item[ch, i, _ROW] = c
    s.item[ch, i, _OFFSET] = offset
    s.item[ch, i, _COMMAND] = command
    s.item[ch, i, _PLACE] = place
    s.when[ch, i, _ISSUE_W] = s.misc[_ISSUE]
    s.when[ch, i, _FENCE_W] = fence
    s.when[ch, i, _START_W] = _OPEN
    s.when[ch, i, _END_W] = _OPEN
    s.channel[ch, _ISSUED] += 1


@compiled
def _settle(s: Any, c: int, command: int) -> None:
    """Book what the command at work did; times of loads and of `fwd` are kept with their items."""
    misc = s.misc
    span = 0.0
    if misc[_END] > misc[_FRONTIER]:
        span = misc[_END] - misc[_FRONTIER]
        misc[_FRONTIER] = misc[_END]
    s.sums[c, 0] += span
    s.sums[c, 1] += misc[_WORK]
    if len(s.detail) > 0:
        s.detail[command, _SPAN_D] += span
        if s.table[c, _KIND] != _FORWARD:
            s.detail[command, _START_D] = misc[_START]
            s.detail[command, _END_D] = misc[_END]
            s.detail[command, _WORK_D] += misc[_WORK]


@compiled
def run(s: Any) -> int:
    """Time the commands. Returns -1, or the index of the one where nothing can make progress any more."""
    t, misc, num = s.table, s.misc, s.num
    queue, queued = s.queue, s.queued
    depth = queue.shape[1]
    for n in range(len(s.commands)):
        c, slot, offset = s.commands[n, 0], s.commands[n, 1], s.commands[n, 2]
        command = num[_FIRST] + n
        misc[_NOW] += slot - num[_LAST_SLOT]
        num[_LAST_SLOT] = slot
        kind, e = t[c, _KIND], t[c, _ENGINE]
        s.tally[c, _COUNT_Y] += 1
        misc[_ISSUE] = misc[_START] = misc[_END] = misc[_NOW]
        misc[_WORK] = 0.0
        if len(s.detail) > 0:
            s.detail[command, _ISSUE_D] = s.detail[command, _START_D] = s.detail[command, _END_D] = misc[_NOW]
        if kind == 0:
            continue
        if kind == _FENCE:
            _fence(s, t[c, _MASK])
            continue
        if kind == _HOST:
            _host(s)
            _settle(s, c, command)
            continue
        if queued[e] >= depth:
            while queue[e, queued[e] % depth] < 0.0:
                if not _advance(s, word(0 if e == _LDA else 1), word(0)):
                    return n
            oldest = queue[e, queued[e] % depth]
            if oldest > misc[_NOW]:
                misc[_STALL + _CAUSES * _SEQ + _QUEUE_C] += oldest - misc[_NOW]
                misc[_NOW] = oldest
        place = queued[e]
        queue[e, place % depth] = _OPEN
        queued[e] += 1
        misc[_ISSUE] = misc[_NOW]
        if len(s.detail) > 0:
            s.detail[command, _ISSUE_D] = misc[_NOW]
        good = True
        if kind in (_LOAD, _WEIGHT):
            ch = word(0 if kind == _LOAD else 1)
            if s.channel[ch, _ISSUED] - num[_POPPED + ch] >= ITEMS:
                return n
            _push(s, ch, c, offset, command, place, misc[_FENCES + ch])
            continue
        if kind == _MMA:
            good = _mma(s, c, offset)
        elif kind == _VECTOR:
            good = _vector(s, c)
        elif kind == _FORWARD:
            if s.channel[0, _ISSUED] - num[_POPPED] >= ITEMS:
                return n
            _push(s, word(0), c, offset, command, place, 0.0)
            # Loads before it hold their place in the stream; they are timed first, even beyond staging.
            while s.channel[0, _ITEM] < s.channel[0, _ISSUED] - 1:
                if not _advance(s, word(0), word(1)):
                    return n
            good = _vector(s, c)
        else:
            barrier = misc[_FENCES + 2]
            for ch in range(2):
                while s.channel[ch, _ITEM] < num[_PENDING + ch]:
                    if not _advance(s, word(ch), word(1)):
                        return n
                if num[_PENDING + ch] > 0:
                    barrier = max(barrier, misc[_PENDING_END + ch] + misc[_LATENCY])
            good = _writer(s, c, offset, barrier)
            misc[_ALL_WRITES] = max(misc[_ALL_WRITES], misc[_END])
        if not good:
            return n
        queue[e, place % depth] = misc[_START]
        _settle(s, c, command)
    return -1


@compiled
def finish(s: Any, last: int) -> float:
    """After the last command (row `last`, -1 if there was none): time what is open. Returns the total cycles."""
    misc = s.misc
    for ch in range(2):
        while _advance(s, word(ch), word(1)):
            pass
        if s.channel[ch, _ISSUED] > 0:
            end = s.when[ch, (s.channel[ch, _ISSUED] - 1) & (ITEMS - 1), _END_W]
            misc[_FRONTIER] = max(misc[_FRONTIER], end)
    total = math.ceil(max(misc[_FRONTIER], misc[_NOW] + 1.0) - _EPS)
    if s.num[_NODE] >= 0:
        s.spans[s.num[_NODE]] += misc[_RUN_END] - misc[_RUN_START]
        s.num[_NODE] = -1
    if last >= 0:
        rest = total - s.sums[:, 0].sum()
        s.sums[last, 0] += rest
        if len(s.detail) > 0:
            s.detail[len(s.detail) - 1, _SPAN_D] += rest
    return float(total)
