"""The timing loop: one pass over the work table in program order, compiled.

Times are core cycles (float64; the array only sees whole cycles). Engines serve their queues in order. Loads are timed
slice by slice, lazily: a slice is requested when staging has room for it, which is known once the consumers of earlier
slices are timed. So a load may still be open when the next command is looked at; `_advance` times its next slice.
"""

from __future__ import annotations

import math
from enum import IntEnum
from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import SLOT
from focusc.isa.timing_ledger import Ledger, book
from focusc.isa.timing_rules import Col, Kind

__all__ = ["CAUSES", "Cause", "Par", "State", "run"]


class Cause(IntEnum):
    """Why an engine does not work; `ISSUE` is the time without a command."""

    ISSUE = 0
    QUEUE = 1
    DRAM = 2
    WEIGHT = 3
    STREAM = 4
    TILE = 5
    SCATTER = 6
    FENCE = 7
    FILL = 8
    ROOM = 9


CAUSES: Final = tuple(cause.name.lower() for cause in Cause)


class Par(IntEnum):
    """Entries of `State.par` (float64): figures of the machine."""

    RATE = 0
    LATENCY = 1
    ARRAY_ROWS = 2
    ARRAY_COLS = 3
    OVERHEAD = 4
    SKEW = 5
    PIPELINED = 6
    SCATTER_ROWS = 7
    """Rows of one array-wide column group scattered a cycle."""
    STAGE_ACT = 8
    STAGE_WGT = 9
    CHUNK = 10
    DEPTH = 11
    VECTOR_PIPE = 12
    LOAD_COST = 13
    """Cycles per element of moving the stream into the vector unit."""


class _I(IntEnum):
    """Integer state of a stream channel (0 activation, 1 weight)."""

    ALLOC = 0
    """Slices requested so far, TAKEN consumed, RECLAIM whose room has been given back."""
    TAKEN = 1
    RECLAIM = 2
    ITEM = 3
    """Item being loaded and its next slice; ISSUED items have been issued."""
    SLICE = 4
    ISSUED = 5


class State(NamedTuple):
    """Everything the loop reads and writes."""

    table: NDArray[np.int64]
    cost: NDArray[np.float64]
    unique: NDArray[np.int32]
    items: tuple[NDArray[np.int64], NDArray[np.int64]]
    of_start: NDArray[np.int64]
    others: NDArray[np.int32]
    par: NDArray[np.float64]
    ledger: Ledger
    issue: NDArray[np.float64]
    fence: NDArray[np.float64]
    start: NDArray[np.float64]
    end: NDArray[np.float64]
    span: NDArray[np.float64]
    """[n]: by how much each command moved the latest end seen so far; sums to the total."""
    channel: NDArray[np.int64]
    held: NDArray[np.float64]
    """[2, 2]: bytes held in staging, latest time at which room was given back."""
    arrival: NDArray[np.float64]
    size: NDArray[np.float64]
    freed: NDArray[np.float64]
    cursor: NDArray[np.float64]
    """[8]: end of each engine's last work."""
    busy: NDArray[np.float64]
    work: NDArray[np.float64]
    """[n]: busy cycles of each command."""
    stall: NDArray[np.float64]
    written: NDArray[np.float64]
    """[2, windows]: last write by the array, by any other engine."""
    read: NDArray[np.float64]
    extra: NDArray[np.float64]
    """[0] cycles of the scatter accumulators."""


RING: Final = 8192
_LDA, _LDW, _MXU, _VEC, _SIC, _SEC, _ST = 1, 2, 3, 4, 5, 6, 7
_EPS: Final = 1e-6
_KIND, _ENGINE, _SLOTS, _DST, _A, _B, _RMW, _ROWS, _COLS = (int(c) for c in list(Col)[:9])
_DEPTH, _WIDTH, _SLICES, _BYTES, _LEAD, _UNIQUE, _POP_A, _POP_B, _POP_W, _ITEMNO, _WRITES, _MASK = (
    int(c) for c in list(Col)[9:21])
_FENCE, _LOAD, _WEIGHT, _MMA, _VECTOR, _FORWARD, _CONC, _SELECT, _STORE = range(1, 10)
_ISSUE_C, _QUEUE_C, _DRAM_C, _WEIGHT_C, _STREAM_C, _TILE_C, _SCATTER_C, _FENCE_C, _FILL_C, _ROOM_C = range(10)
_ALLOC, _TAKEN, _RECLAIM, _ITEM, _SLICE, _ISSUED = range(6)
_P = [int(p) for p in Par]
(_RATE, _LATENCY, _AROWS, _ACOLS, _OVERHEAD, _SKEW, _PIPELINED, _SCATTER_ROWS, _STAGE_ACT, _STAGE_WGT, _CHUNK, _QDEPTH,
 _VPIPE, _LDCOST) = _P
assert [int(k) for k in Kind] == list(range(10)) and [int(i) for i in _I] == list(range(6))


@nb.njit(cache=True)
def _slices(s: Any, c: int) -> int:
    """Slices of a stream item."""
    t = s.table
    if t[c, _KIND] == _WEIGHT:
        chunk = int(s.par[_CHUNK])
        return -(-t[c, _DEPTH] // t[c, _WIDTH]) * -(-t[c, _COLS] // chunk)
    return t[c, _SLICES]


@nb.njit(cache=True)
def _begin(s: Any, e: int, issue: float, start: float, cause: int) -> None:
    """Account for an engine's gap up to `start`: no command until `issue`, then `cause`."""
    idle = min(start, issue) - s.cursor[e]
    if idle > 0.0:
        s.stall[e, _ISSUE_C] += idle
    wait = start - max(s.cursor[e], issue)
    if wait > 0.0:
        s.stall[e, cause] += wait


@nb.njit(cache=True)
def _advance(s: Any, ch: int, force: bool) -> bool:
    """Time the next slice of channel `ch`; False if nothing is open or staging is full of unconsumed slices.

    With `force` a full staging buffer is overrun instead, for producers that must finish first (see docs/timing.md).
    """
    t = s.table
    state = s.channel[ch]
    while state[_ITEM] < state[_ISSUED]:
        c = s.items[ch][state[_ITEM]]
        if _slices(s, c) > 0:
            break
        s.start[c] = s.end[c] = s.issue[c]
        state[_ITEM] += 1
    if state[_ITEM] >= state[_ISSUED]:
        return False
    c = s.items[ch][state[_ITEM]]
    k = state[_SLICE]
    kind, rows, width = t[c, _KIND], t[c, _ROWS], t[c, _WIDTH]
    if kind == _WEIGHT:
        chunk = int(s.par[_CHUNK])
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
    capacity = s.par[_STAGE_ACT + ch]
    while (s.held[ch, 0] > 0.0 and s.held[ch, 0] + stage > capacity) or state[_ALLOC] - state[_RECLAIM] >= RING:
        if state[_RECLAIM] == state[_TAKEN]:
            if force and state[_ALLOC] - state[_RECLAIM] < RING:
                break
            return False
        r = state[_RECLAIM] % RING
        s.held[ch, 1] = max(s.held[ch, 1], s.freed[ch, r])
        s.held[ch, 0] -= s.size[ch, r]
        state[_RECLAIM] += 1
    e = t[c, _ENGINE]
    room = s.held[ch, 1]
    if kind == _FORWARD:
        start = max(s.cursor[e], room)
        s.stall[e, _ROOM_C] += start - s.cursor[e]
        length = elements * s.cost[c]
        s.busy[e] += length
        s.work[c] += length
        s.cursor[e] = start + length
        served = s.cursor[e]
        arrival = math.ceil(served - _EPS)
    else:
        start = max(max(s.cursor[e], s.issue[c]), max(s.fence[c], room))
        _begin(s, e, s.issue[c], start, _FENCE_C if s.fence[c] >= room else _ROOM_C)
        if k == 0:
            s.start[c] = start
            if t[c, _LEAD] > 0:
                ready = book(s.ledger, s.par[_RATE], start, float(t[c, _LEAD])) + s.par[_LATENCY]
                s.stall[e, _DRAM_C] += ready - start
                start = ready
        served = book(s.ledger, s.par[_RATE], start, bytes_)
        ideal = min(bytes_ / s.par[_RATE], served - start)
        s.busy[e] += ideal
        s.work[c] += ideal
        s.stall[e, _DRAM_C] += served - start - ideal
        s.cursor[e] = served
        arrival = math.ceil(served + s.par[_LATENCY] - _EPS)
    r = state[_ALLOC] % RING
    s.arrival[ch, r] = arrival
    s.size[ch, r] = stage
    s.held[ch, 0] += stage
    state[_ALLOC] += 1
    state[_SLICE] += 1
    if state[_SLICE] == _slices(s, c):
        state[_SLICE] = 0
        state[_ITEM] += 1
        s.end[c] = served
        if kind == _FORWARD:
            whole = math.ceil(s.cursor[e] - _EPS)
            s.busy[e] += whole - s.cursor[e]
            s.work[c] += whole - s.cursor[e]
            s.cursor[e] = s.end[c] = whole
            _mark_read(s, t[c, _A], whole)
    return True


@nb.njit(cache=True)
def _arrived(s: Any, ch: int) -> float:
    """Arrival of the next slice to be consumed; negative if it can never come."""
    state = s.channel[ch]
    while state[_ALLOC] <= state[_TAKEN]:
        if not _advance(s, ch, False):
            return -1.0
    return s.arrival[ch, state[_TAKEN] % RING]


@nb.njit(cache=True)
def _take(s: Any, ch: int, time: float) -> None:
    """The slice at the head is consumed; its room is free from `time` on."""
    state = s.channel[ch]
    s.freed[ch, state[_TAKEN] % RING] = time
    state[_TAKEN] += 1


@nb.njit(cache=True)
def _mark_read(s: Any, w: int, time: float) -> None:
    if w >= 0 and s.read[w] < time:
        s.read[w] = time


@nb.njit(cache=True)
def _ready(s: Any, w: int, writing: bool, array: bool) -> float:
    """When a window may be touched: after all overlapping writes, and for a write after all overlapping reads.

    The array's own accumulations are in order and pipelined, so it does not wait for its own writes.
    """
    time = 0.0
    if w < 0:
        return time
    for i in range(s.of_start[w], s.of_start[w + 1]):
        v = s.others[i]
        if not array and s.written[0, v] > time:
            time = s.written[0, v]
        if s.written[1, v] > time:
            time = s.written[1, v]
        if writing and s.read[v] > time:
            time = s.read[v]
    return time


@nb.njit(cache=True)
def _mma(s: Any, c: int) -> bool:
    """All passes of one matrix command; False if a stream can never deliver."""
    t, par = s.table, s.par
    issue, rows, cols = s.issue[c], t[c, _ROWS], t[c, _COLS]
    dense = t[c, _UNIQUE] < 0
    pipelined = par[_PIPELINED] > 0.0
    chunk, across, array_rows = int(par[_CHUNK]), int(par[_ACOLS]), int(par[_AROWS])
    ready = max(issue, _ready(s, t[c, _DST], True, True))
    feed = _STREAM_C if t[s.items[0][t[c, _POP_A]], _KIND] == _FORWARD else _DRAM_C
    scatter = math.ceil(rows / par[_SCATTER_ROWS])
    deep = -(-t[c, _DEPTH] // t[c, _WIDTH])
    done = ready
    first = True
    for k in range(t[c, _SLICES]):
        act = _arrived(s, 0)
        if act < 0.0:
            return False
        if k >= deep:
            _take(s, 0, max(act, s.cursor[_MXU]))
            continue
        vectors = rows if dense else s.unique[t[c, _UNIQUE] + k]
        tall = -(-min(t[c, _WIDTH], t[c, _DEPTH] - k * t[c, _WIDTH]) // array_rows)
        for block in range(-(-cols // chunk)):
            wgt = _arrived(s, 1)
            if wgt < 0.0:
                return False
            loaded = 0.0
            for _ in range(-(-min(chunk, cols - block * chunk) // across) * tall):
                base = max(s.cursor[_MXU], issue)
                loaded = wgt
                if pipelined:
                    # Shadow registers are free from the start of the pass before.
                    loaded = max(max(wgt, s.extra[3]), issue) + array_rows
                start = max(max(base, act), loaded)
                cause = feed
                if loaded > act:
                    cause = _WEIGHT_C
                if first and ready > max(act, loaded):
                    start, cause = max(start, ready), _TILE_C
                if not dense and s.extra[1] > start:
                    start, cause = s.extra[1], _SCATTER_C
                hidden = 0.0
                if pipelined and cause == _WEIGHT_C:
                    hidden = min(start - base, float(array_rows))
                    s.stall[_MXU, _FILL_C] += hidden
                _begin(s, _MXU, issue, start - hidden, cause)
                if first:
                    s.start[c] = start
                    first = False
                s.extra[3] = start
                s.busy[_MXU] += vectors
                s.work[c] += vectors
                s.cursor[_MXU] = start + vectors
                if pipelined:
                    out = s.cursor[_MXU] + par[_SKEW]
                else:
                    s.stall[_MXU, _FILL_C] += par[_OVERHEAD]
                    s.cursor[_MXU] += par[_OVERHEAD]
                    out = s.cursor[_MXU]
                    loaded = start + array_rows
                if dense:
                    done = max(done, out)
                else:
                    # Two partial-sum buffers: a pass waits for the scatter of the pass before the last.
                    s.extra[1] = s.extra[2]
                    s.extra[2] = max(s.extra[2], out) + scatter
                    s.extra[0] += scatter
                    done = max(done, s.extra[2])
            _take(s, 1, loaded)
        _take(s, 0, s.cursor[_MXU])
    if first:
        s.start[c] = ready
    s.end[c] = done
    w = t[c, _DST]
    s.written[0, w] = max(s.written[0, w], done)
    return True


@nb.njit(cache=True)
def _stream(s: Any, e: int, c: int, item: int, cost: float) -> bool:
    """Take an item of the activation stream slice by slice at `cost` cycles an element."""
    t = s.table
    source = s.items[0][item]
    feed = _STREAM_C if t[source, _KIND] == _FORWARD else _DRAM_C
    for k in range(t[source, _SLICES]):
        act = _arrived(s, 0)
        if act < 0.0:
            return False
        start = max(s.cursor[e], act)
        s.stall[e, feed] += start - s.cursor[e]
        elements = t[source, _ROWS] * min(t[source, _WIDTH], t[source, _COLS] - k * t[source, _WIDTH])
        s.busy[e] += elements * cost
        s.work[c] += elements * cost
        s.cursor[e] = start + elements * cost
        _take(s, 0, s.cursor[e])
    return True


@nb.njit(cache=True)
def _vector(s: Any, c: int) -> bool:
    """A vector command: operands ready, then elements at the cost of its slowest unit, plus the pipeline's depth."""
    t, issue = s.table, s.issue[c]
    while s.extra[4] > s.channel[0, _ITEM]:  # a `fwd` is still open: its engine is this one
        if not _advance(s, 0, True):
            return False
    ready = max(_ready(s, t[c, _DST], True, False), max(_ready(s, t[c, _A], False, False), _ready(s, t[c, _B], False, False)))
    start = max(max(s.cursor[_VEC], issue), ready)
    _begin(s, _VEC, issue, start, _TILE_C)
    s.start[c] = s.cursor[_VEC] = start
    if t[c, _KIND] == _FORWARD:
        s.extra[4] = s.channel[0, _ISSUED]
        while s.extra[4] > s.channel[0, _ITEM]:
            if not _advance(s, 0, False):
                break
        return True
    before = s.work[c]
    total = t[c, _ROWS] * t[c, _COLS] * s.cost[c]
    if t[c, _POP_A] >= 0:
        single = t[c, _POP_B] < 0
        if not _stream(s, _VEC, c, t[c, _POP_A], s.cost[c] if single else s.par[_LDCOST]):
            return False
    if t[c, _POP_B] >= 0 and not _stream(s, _VEC, c, t[c, _POP_B], s.cost[c]):
        return False
    rest = max(total - (s.work[c] - before), 0.0)
    whole = math.ceil(s.cursor[_VEC] + rest - _EPS) + s.par[_VPIPE]
    s.busy[_VEC] += whole - s.cursor[_VEC]
    s.work[c] += whole - s.cursor[_VEC]
    s.cursor[_VEC] = s.end[c] = whole
    if t[c, _DST] >= 0:
        s.written[1, t[c, _DST]] = max(s.written[1, t[c, _DST]], whole)
    _mark_read(s, t[c, _A], whole)
    _mark_read(s, t[c, _B], whole)
    return True


@nb.njit(cache=True)
def _writer(s: Any, c: int, fence: float) -> bool:
    """st, st.idx, sic, sec.*: start after tile and fence, occupy the engine, move bytes to DRAM."""
    t, e, issue = s.table, s.table[c, _ENGINE], s.issue[c]
    kind, rows = t[c, _KIND], t[c, _ROWS]
    ready = _ready(s, t[c, _A], False, False)
    start = max(max(s.cursor[e], issue), max(ready, fence))
    _begin(s, e, issue, start, _TILE_C if ready >= fence else _FENCE_C)
    s.start[c] = start
    if t[c, _LEAD] > 0:
        listed = book(s.ledger, s.par[_RATE], start, float(t[c, _LEAD])) + s.par[_LATENCY]
        s.stall[e, _DRAM_C] += listed - start
        start = listed
    s.cursor[e] = start
    if kind == _STORE:
        if t[c, _POP_A] >= 0 and not _stream(s, e, c, t[c, _POP_A], 0.0):
            return False
        start = s.cursor[e]
        bytes_ = float(rows * t[c, _COLS] * t[c, _BYTES])
        served = book(s.ledger, s.par[_RATE], start, bytes_)
        ideal = min(bytes_ / s.par[_RATE], served - start)
        s.busy[e] += ideal
        s.work[c] += ideal
        s.stall[e, _DRAM_C] += served - start - ideal
        s.cursor[e] = s.end[c] = served
    elif kind == _CONC:
        served = start
        for k in range(t[c, _SLICES]):
            # Slots are compared one after the other; the block of a slot is written while the next is compared.
            begin = max(s.cursor[e], served) if k > 1 else s.cursor[e]
            s.stall[e, _DRAM_C] += begin - s.cursor[e]
            s.busy[e] += s.cost[c]
            s.work[c] += s.cost[c]
            s.cursor[e] = begin + s.cost[c]
            bytes_ = 4.0 + 2.0 * rows + 2.0 * SLOT * s.unique[t[c, _UNIQUE] + k]
            served = book(s.ledger, s.par[_RATE], max(served, s.cursor[e]), bytes_)
        s.end[c] = max(served, s.cursor[e])
    else:
        s.busy[e] += s.cost[c]
        s.work[c] += s.cost[c]
        s.cursor[e] = start + s.cost[c]
        s.end[c] = book(s.ledger, s.par[_RATE], s.cursor[e], float(t[c, _WRITES]))
    _mark_read(s, t[c, _A], s.cursor[e])
    return True


@nb.njit(cache=True)
def run(s: Any) -> tuple[int, float]:
    """Time every command. Returns (-1, total cycles), or (command, now) where nothing can make progress any more."""
    t = s.table
    count = len(t)
    depth = int(s.par[_QDEPTH])
    queued = np.zeros(8, np.int64)
    queue = np.zeros((8, depth), np.int64)
    now, last_slot, frontier = -1.0, np.int64(-1), 0.0
    fence_act, fence_wgt, fence_store, all_writes = 0.0, 0.0, 0.0, 0.0
    pending_act, pending_wgt = np.int64(0), np.int64(0)
    for c in range(count):
        step = now + (t[c, _SLOTS] - last_slot)
        last_slot = t[c, _SLOTS]
        kind, e = t[c, _KIND], t[c, _ENGINE]
        now = step
        s.issue[c] = s.start[c] = s.end[c] = now
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
        if queued[e] >= depth:
            oldest = queue[e, queued[e] % depth]
            while s.start[oldest] < 0.0:
                if not _advance(s, 0 if e == _LDA else 1, False):
                    return c, now
            if s.start[oldest] > now:
                s.stall[0, _QUEUE_C] += s.start[oldest] - now
                now = s.start[oldest]
        queue[e, queued[e] % depth] = c
        queued[e] += 1
        s.issue[c] = now
        s.start[c] = -1.0
        good = True
        if kind == _LOAD or kind == _WEIGHT:
            s.fence[c] = fence_act if kind == _LOAD else fence_wgt
            s.channel[0 if kind == _LOAD else 1, _ISSUED] += 1
            s.end[c] = -1.0
            continue
        if kind == _MMA:
            good = _mma(s, c)
        elif kind == _VECTOR:
            good = _vector(s, c)
        elif kind == _FORWARD:
            s.channel[0, _ISSUED] += 1
            s.end[c] = -1.0
            # Loads before it hold their place in the stream; they are timed first, even beyond staging.
            while s.channel[0, _ITEM] < s.channel[0, _ISSUED] - 1:
                if not _advance(s, 0, True):
                    return c, now
            good = _vector(s, c)
        else:
            barrier = fence_store
            for ch, pending in ((0, pending_act), (1, pending_wgt)):
                while s.channel[ch, _ITEM] < pending:
                    if not _advance(s, ch, True):
                        return c, now
                if pending > 0:
                    barrier = max(barrier, s.end[s.items[ch][pending - 1]] + s.par[_LATENCY])
            good = _writer(s, c, barrier)
            all_writes = max(all_writes, s.end[c])
        if not good:
            return c, now
        if s.end[c] > frontier:
            s.span[c] += s.end[c] - frontier
            frontier = s.end[c]
    for ch in range(2):
        while _advance(s, ch, True):
            pass
        if s.channel[ch, _ISSUED] > 0:
            frontier = max(frontier, s.end[s.items[ch][s.channel[ch, _ISSUED] - 1]])
    total = math.ceil(max(frontier, now + 1.0) - _EPS)
    if count:
        s.span[count - 1] += total - s.span.sum()
    return -1, float(total)
