"""The timing loop: one pass over the work table in program order, compiled.

Times are core cycles (float64; the array only sees whole cycles). Engines serve their queues in order. Loads are timed
slice by slice, lazily: a slice is requested when staging has room for it, which is known once the consumers of earlier
slices are timed. So a load may still be open when the next command is looked at; `_advance` times its next slice.
"""

from __future__ import annotations

import math
from typing import Any, Final

from focusc.isa.dynamic import SLOT
from focusc.isa.timing_ledger import book
from focusc.isa.timing_rules import Col, Kind
from focusc.isa.timing_state import RING, Cause, Channel, Misc, Par, compiled, word

__all__ = ["run"]

_LDA, _LDW, _MXU, _VEC, _SIC, _SEC, _ST = 1, 2, 3, 4, 5, 6, 7
_EPS: Final = 1e-6
_KIND, _ENGINE, _SLOTS, _DST, _A, _B, _RMW, _ROWS, _COLS = (int(c) for c in list(Col)[:9])
_DEPTH, _WIDTH, _SLICES, _BYTES, _LEAD, _UNIQUE, _POP_A, _POP_B, _POP_W, _ITEMNO, _WRITES, _MASK = (
    int(c) for c in list(Col)[9:21])
_FENCE, _LOAD, _WEIGHT, _MMA, _VECTOR, _FORWARD, _CONC, _SELECT, _STORE = range(1, 10)
_ISSUE_C, _QUEUE_C, _DRAM_C, _WEIGHT_C, _STREAM_C, _TILE_C, _SCATTER_C, _FENCE_C, _FILL_C, _ROOM_C = range(10)
_ALLOC, _TAKEN, _RECLAIM, _ITEM, _SLICE, _ISSUED = range(6)
_COST_T, _ISSUE_T, _FENCE_T, _START_T, _END_T, _SPAN_T, _WORK_T = range(7)
_SCATTERED, _SCATTER_BEFORE, _SCATTER_LAST, _PASS_START, _OPEN_FORWARD = (int(m) for m in list(Misc)[:5])
_HELD, _CURSOR, _BUSY, _STALL = (int(m) for m in list(Misc)[5:9])
_P = [int(p) for p in Par]
(_RATE, _LATENCY, _AROWS, _ACOLS, _OVERHEAD, _SKEW, _PIPELINED, _SCATTER_ROWS, _STAGE_ACT, _STAGE_WGT, _CHUNK, _QDEPTH,
 _VPIPE, _LDCOST) = _P
assert [int(k) for k in Kind] == list(range(10)) and [int(i) for i in Channel] == list(range(6))
assert len(Par) <= Misc.SCATTERED and Misc.STALL + 8 * len(Cause) == Misc.SIZE


@compiled
def _begin(s: Any, e: int, issue: float, start: float, cause: int) -> None:
    """Account for an engine's gap up to `start`: no command until `issue`, then `cause`."""
    idle = min(start, issue) - s.misc[_CURSOR + e]
    if idle > 0.0:
        s.misc[_STALL + 10 * e + _ISSUE_C] += idle
    wait = start - max(s.misc[_CURSOR + e], issue)
    if wait > 0.0:
        s.misc[_STALL + 10 * e + cause] += wait


@compiled
def _advance(s: Any, ch: int, force: int) -> bool:
    """Time the next slice of channel `ch`; False if nothing is open or staging is full of unconsumed slices.

    With `force` a full staging buffer is overrun instead, for producers that must finish first (see docs/timing.md).
    """
    t = s.table
    state = s.channel[ch]
    while state[_ITEM] < state[_ISSUED]:
        c = s.items[ch, state[_ITEM]]
        if t[c, _SLICES] > 0:
            break
        s.times[c, _START_T] = s.times[c, _END_T] = s.times[c, _ISSUE_T]
        state[_ITEM] += 1
    if state[_ITEM] >= state[_ISSUED]:
        return False
    c = s.items[ch, state[_ITEM]]
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
        elements = s.unique[t[c, _UNIQUE] + k] * SLOT
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
    if kind == _FORWARD:
        start = max(s.misc[_CURSOR + e], room)
        s.misc[_STALL + 10 * e + _ROOM_C] += start - s.misc[_CURSOR + e]
        length = elements * s.times[c, _COST_T]
        s.misc[_BUSY + e] += length
        s.times[c, _WORK_T] += length
        s.misc[_CURSOR + e] = start + length
        served = s.misc[_CURSOR + e]
        arrival = math.ceil(served - _EPS)
    else:
        start = max(max(s.misc[_CURSOR + e], s.times[c, _ISSUE_T]), max(s.times[c, _FENCE_T], room))
        _begin(s, e, s.times[c, _ISSUE_T], start, _FENCE_C if s.times[c, _FENCE_T] >= room else _ROOM_C)
        if k == 0:
            s.times[c, _START_T] = start
            if t[c, _LEAD] > 0:
                ready = book(s.used, s.buckets, s.misc[_RATE], start, float(t[c, _LEAD])) + s.misc[_LATENCY]
                s.misc[_STALL + 10 * e + _DRAM_C] += ready - start
                start = ready
        served = book(s.used, s.buckets, s.misc[_RATE], start, bytes_)
        ideal = min(bytes_ / s.misc[_RATE], served - start)
        s.misc[_BUSY + e] += ideal
        s.times[c, _WORK_T] += ideal
        s.misc[_STALL + 10 * e + _DRAM_C] += served - start - ideal
        s.misc[_CURSOR + e] = served
        arrival = math.ceil(served + s.misc[_LATENCY] - _EPS)
    r = state[_ALLOC] % RING
    s.ring[ch, r] = arrival
    s.ring[2 + ch, r] = stage
    s.misc[held] += stage
    state[_ALLOC] += 1
    state[_SLICE] += 1
    if state[_SLICE] == t[c, _SLICES]:
        state[_SLICE] = 0
        state[_ITEM] += 1
        s.times[c, _END_T] = served
        if kind == _FORWARD:
            whole = math.ceil(s.misc[_CURSOR + e] - _EPS)
            s.misc[_BUSY + e] += whole - s.misc[_CURSOR + e]
            s.times[c, _WORK_T] += whole - s.misc[_CURSOR + e]
            s.misc[_CURSOR + e] = s.times[c, _END_T] = whole
            _mark_read(s, t[c, _A], whole)
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
def _mma(s: Any, c: int) -> bool:
    """All passes of one matrix command; False if a stream can never deliver."""
    t, misc = s.table, s.misc
    issue, rows, cols = s.times[c, _ISSUE_T], t[c, _ROWS], t[c, _COLS]
    dense = t[c, _UNIQUE] < 0
    pipelined = misc[_PIPELINED] > 0.0
    chunk, across, array_rows = int(misc[_CHUNK]), int(misc[_ACOLS]), int(misc[_AROWS])
    ready = max(issue, _ready(s, t[c, _DST], word(1), word(1)))
    feed = _STREAM_C if t[s.items[0, t[c, _POP_A]], _KIND] == _FORWARD else _DRAM_C
    scatter = math.ceil(rows / misc[_SCATTER_ROWS])
    width = t[c, _WIDTH]
    deep, blocks = -(-t[c, _DEPTH] // width), -(-cols // chunk)
    whole_groups, last_groups = chunk // across, -(-(cols - (blocks - 1) * chunk) // across)
    lag = misc[_SKEW] if pipelined else misc[_OVERHEAD]
    done = ready
    first = True
    for k in range(t[c, _SLICES]):
        act = _arrived(s, word(0))
        if act < 0.0:
            return False
        if k >= deep:
            _take(s, word(0), max(act, s.misc[_CURSOR + _MXU]))
            continue
        vectors = rows if dense else s.unique[t[c, _UNIQUE] + k]
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
                base = max(s.misc[_CURSOR + _MXU], issue)
                loaded = wgt
                if pipelined:
                    # Shadow registers are free from the start of the pass before.
                    loaded = max(max(wgt, s.misc[_PASS_START]), issue) + array_rows
                start = max(max(base, act), loaded)
                cause = feed
                if loaded > act:
                    cause = _WEIGHT_C
                if first and ready > max(act, loaded):
                    start, cause = max(start, ready), _TILE_C
                if not dense and s.misc[_SCATTER_BEFORE] - lag > start:
                    start, cause = s.misc[_SCATTER_BEFORE] - lag, _SCATTER_C
                hidden = 0.0
                if pipelined and cause == _WEIGHT_C:
                    hidden = min(start - base, float(array_rows))
                    s.misc[_STALL + 10 * _MXU + _FILL_C] += hidden
                _begin(s, word(_MXU), issue, start - hidden, word(cause))
                if first:
                    s.times[c, _START_T] = start
                    first = False
                s.misc[_PASS_START] = start
                s.misc[_BUSY + _MXU] += vectors
                s.times[c, _WORK_T] += vectors
                s.misc[_CURSOR + _MXU] = start + vectors
                if pipelined:
                    out = s.misc[_CURSOR + _MXU] + misc[_SKEW]
                else:
                    s.misc[_STALL + 10 * _MXU + _FILL_C] += misc[_OVERHEAD]
                    s.misc[_CURSOR + _MXU] += misc[_OVERHEAD]
                    out = s.misc[_CURSOR + _MXU]
                    loaded = start + array_rows
                if dense:
                    done = max(done, out)
                else:
                    # Two partial-sum buffers: the first result of a pass, `lag` cycles after its start, waits for
                    # the scatter of the pass before the last.
                    s.misc[_SCATTER_BEFORE] = s.misc[_SCATTER_LAST]
                    s.misc[_SCATTER_LAST] = max(s.misc[_SCATTER_LAST], out) + scatter
                    s.misc[_SCATTERED] += scatter
                    done = max(done, s.misc[_SCATTER_LAST])
            _take(s, word(1), loaded)
        _take(s, word(0), s.misc[_CURSOR + _MXU])
    if first:
        s.times[c, _START_T] = ready
    s.times[c, _END_T] = done
    w = t[c, _DST]
    s.win[0, w] = max(s.win[0, w], done)
    return True


@compiled
def _stream(s: Any, e: int, c: int, item: int, cost: float) -> bool:
    """Take an item of the activation stream slice by slice at `cost` cycles an element."""
    t = s.table
    source = s.items[0, item]
    feed = _STREAM_C if t[source, _KIND] == _FORWARD else _DRAM_C
    for k in range(t[source, _SLICES]):
        act = _arrived(s, word(0))
        if act < 0.0:
            return False
        start = max(s.misc[_CURSOR + e], act)
        s.misc[_STALL + 10 * e + feed] += start - s.misc[_CURSOR + e]
        elements = t[source, _ROWS] * min(t[source, _WIDTH], t[source, _COLS] - k * t[source, _WIDTH])
        s.misc[_BUSY + e] += elements * cost
        s.times[c, _WORK_T] += elements * cost
        s.misc[_CURSOR + e] = start + elements * cost
        _take(s, word(0), s.misc[_CURSOR + e])
    return True


@compiled
def _vector(s: Any, c: int) -> bool:
    """A vector command: operands ready, then elements at the cost of its slowest unit, plus the pipeline's depth."""
    t, issue = s.table, s.times[c, _ISSUE_T]
    while s.misc[_OPEN_FORWARD] > s.channel[0, _ITEM]:  # a `fwd` is still open: its engine is this one
        if not _advance(s, word(0), word(1)):
            return False
    yes, no = word(1), word(0)
    ready = max(_ready(s, t[c, _DST], yes, no), max(_ready(s, t[c, _A], no, no), _ready(s, t[c, _B], no, no)))
    start = max(max(s.misc[_CURSOR + _VEC], issue), ready)
    _begin(s, word(_VEC), issue, start, word(_TILE_C))
    s.times[c, _START_T] = s.misc[_CURSOR + _VEC] = start
    if t[c, _KIND] == _FORWARD:
        s.misc[_OPEN_FORWARD] = s.channel[0, _ISSUED]
        while s.misc[_OPEN_FORWARD] > s.channel[0, _ITEM]:
            if not _advance(s, word(0), word(0)):
                break
        return True
    before = s.times[c, _WORK_T]
    total = t[c, _ROWS] * t[c, _COLS] * s.times[c, _COST_T]
    if t[c, _POP_A] >= 0:
        single = t[c, _POP_B] < 0
        if not _stream(s, word(_VEC), c, t[c, _POP_A], s.times[c, _COST_T] if single else s.misc[_LDCOST]):
            return False
    if t[c, _POP_B] >= 0 and not _stream(s, word(_VEC), c, t[c, _POP_B], s.times[c, _COST_T]):
        return False
    rest = max(total - (s.times[c, _WORK_T] - before), 0.0)
    whole = math.ceil(s.misc[_CURSOR + _VEC] + rest - _EPS) + s.misc[_VPIPE]
    s.misc[_BUSY + _VEC] += whole - s.misc[_CURSOR + _VEC]
    s.times[c, _WORK_T] += whole - s.misc[_CURSOR + _VEC]
    s.misc[_CURSOR + _VEC] = s.times[c, _END_T] = whole
    if t[c, _DST] >= 0:
        s.win[1, t[c, _DST]] = max(s.win[1, t[c, _DST]], whole)
    _mark_read(s, t[c, _A], whole)
    _mark_read(s, t[c, _B], whole)
    return True


@compiled
def _writer(s: Any, c: int, fence: float) -> bool:
    """st, st.idx, sic, sec.*: start after tile and fence, occupy the engine, move bytes to DRAM."""
    t, e, issue = s.table, s.table[c, _ENGINE], s.times[c, _ISSUE_T]
    kind, rows = t[c, _KIND], t[c, _ROWS]
    ready = _ready(s, t[c, _A], word(0), word(0))
    start = max(max(s.misc[_CURSOR + e], issue), max(ready, fence))
    _begin(s, e, issue, start, _TILE_C if ready >= fence else _FENCE_C)
    s.times[c, _START_T] = start
    if t[c, _LEAD] > 0:
        listed = book(s.used, s.buckets, s.misc[_RATE], start, float(t[c, _LEAD])) + s.misc[_LATENCY]
        s.misc[_STALL + 10 * e + _DRAM_C] += listed - start
        start = listed
    s.misc[_CURSOR + e] = start
    if kind == _STORE:
        if t[c, _POP_A] >= 0 and not _stream(s, e, c, t[c, _POP_A], 0.0):
            return False
        start = s.misc[_CURSOR + e]
        bytes_ = float(rows * t[c, _COLS] * t[c, _BYTES])
        served = book(s.used, s.buckets, s.misc[_RATE], start, bytes_)
        ideal = min(bytes_ / s.misc[_RATE], served - start)
        s.misc[_BUSY + e] += ideal
        s.times[c, _WORK_T] += ideal
        s.misc[_STALL + 10 * e + _DRAM_C] += served - start - ideal
        s.misc[_CURSOR + e] = s.times[c, _END_T] = served
    elif kind == _CONC:
        served = start
        for k in range(t[c, _SLICES]):
            # Slots are compared one after the other; the block of a slot is written while the next is compared.
            begin = max(s.misc[_CURSOR + e], served) if k > 1 else s.misc[_CURSOR + e]
            s.misc[_STALL + 10 * e + _DRAM_C] += begin - s.misc[_CURSOR + e]
            s.misc[_BUSY + e] += s.times[c, _COST_T]
            s.times[c, _WORK_T] += s.times[c, _COST_T]
            s.misc[_CURSOR + e] = begin + s.times[c, _COST_T]
            bytes_ = 4.0 + 2.0 * rows + 2.0 * SLOT * s.unique[t[c, _UNIQUE] + k]
            served = book(s.used, s.buckets, s.misc[_RATE], max(served, s.misc[_CURSOR + e]), bytes_)
        s.times[c, _END_T] = max(served, s.misc[_CURSOR + e])
    else:
        s.misc[_BUSY + e] += s.times[c, _COST_T]
        s.times[c, _WORK_T] += s.times[c, _COST_T]
        s.misc[_CURSOR + e] = start + s.times[c, _COST_T]
        s.times[c, _END_T] = book(s.used, s.buckets, s.misc[_RATE], s.misc[_CURSOR + e], float(t[c, _WRITES]))
    _mark_read(s, t[c, _A], s.misc[_CURSOR + e])
    return True


@compiled
def run(s: Any) -> tuple[int, float]:
    """Time every command. Returns (-1, total cycles), or (command, now) where nothing can make progress any more."""
    t = s.table
    count = len(t)
    depth = int(s.misc[_QDEPTH])
    queue = s.queue
    now, last_slot, frontier = -1.0, word(-1), 0.0
    fence_act, fence_wgt, fence_store, all_writes = 0.0, 0.0, 0.0, 0.0
    pending_act, pending_wgt = word(0), word(0)
    for c in range(count):
        step = now + (t[c, _SLOTS] - last_slot)
        last_slot = t[c, _SLOTS]
        kind, e = t[c, _KIND], t[c, _ENGINE]
        now = step
        s.times[c, _ISSUE_T] = s.times[c, _START_T] = s.times[c, _END_T] = now
        if kind == 0:
            continue
        if kind == _FENCE:
            if t[c, _MASK] & 1:
                fence_act = all_writes
            if t[c, _MASK] & 2:
                fence_wgt = all_writes
            if t[c, _MASK] & 4:
                fence_store = all_writes
                pending_act, pending_wgt = s.channel[0, _ISSUED], s.channel[1, _ISSUED]
            continue
        if queue[e, depth] >= depth:
            oldest = queue[e, queue[e, depth] % depth]
            while s.times[oldest, _START_T] < 0.0:
                if not _advance(s, word(0 if e == _LDA else 1), word(0)):
                    return c, now
            if s.times[oldest, _START_T] > now:
                s.misc[_STALL + 10 * 0 + _QUEUE_C] += s.times[oldest, _START_T] - now
                now = s.times[oldest, _START_T]
        queue[e, queue[e, depth] % depth] = c
        queue[e, depth] += 1
        s.times[c, _ISSUE_T] = now
        s.times[c, _START_T] = -1.0
        good = True
        if kind in (_LOAD, _WEIGHT):
            s.times[c, _FENCE_T] = fence_act if kind == _LOAD else fence_wgt
            s.channel[0 if kind == _LOAD else 1, _ISSUED] += 1
            s.times[c, _END_T] = -1.0
            continue
        if kind == _MMA:
            good = _mma(s, c)
        elif kind == _VECTOR:
            good = _vector(s, c)
        elif kind == _FORWARD:
            s.channel[0, _ISSUED] += 1
            s.times[c, _END_T] = -1.0
            # Loads before it hold their place in the stream; they are timed first, even beyond staging.
            while s.channel[0, _ITEM] < s.channel[0, _ISSUED] - 1:
                if not _advance(s, word(0), word(1)):
                    return c, now
            good = _vector(s, c)
        else:
            barrier = fence_store
            for ch, pending in ((0, pending_act), (1, pending_wgt)):
                while s.channel[ch, _ITEM] < pending:
                    if not _advance(s, word(ch), word(1)):
                        return c, now
                if pending > 0:
                    barrier = max(barrier, s.times[s.items[ch, pending - 1], _END_T] + s.misc[_LATENCY])
            good = _writer(s, c, barrier)
            all_writes = max(all_writes, s.times[c, _END_T])
        if not good:
            return c, now
        if s.times[c, _END_T] > frontier:
            s.times[c, _SPAN_T] += s.times[c, _END_T] - frontier
            frontier = s.times[c, _END_T]
    for ch in range(2):
        while _advance(s, word(ch), word(1)):
            pass
        if s.channel[ch, _ISSUED] > 0:
            frontier = max(frontier, s.times[s.items[ch, s.channel[ch, _ISSUED] - 1], _END_T])
    total = math.ceil(max(frontier, now + 1.0) - _EPS)
    if count:
        s.times[count - 1, _SPAN_T] += total - s.times[:, _SPAN_T].sum()
    return -1, float(total)
