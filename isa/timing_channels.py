"""The stream channels of the timing kernel: loads and forwarded tiles, slice by slice; and when tiles may be touched.

Loads are timed lazily: a slice is requested when staging has room for it, which is known once the consumers of earlier
slices are timed. So a load may still be open when the next command is looked at; `advance` times its next slice.
"""

from __future__ import annotations

import math
from typing import Any

from focusc.isa.dynamic import SLOT
from focusc.isa.timing_layout import (
    ALLOC,
    BASE,
    BUSY,
    BYTES,
    CAUSES,
    CHUNK,
    COLS,
    COMMAND,
    CURSOR,
    DEPTH,
    DRAM_C,
    END_D,
    END_W,
    ENGINE,
    FENCE_C,
    FENCE_W,
    FORWARD,
    HELD,
    ISSUE_C,
    ISSUE_W,
    ISSUED,
    ITEM,
    KIND,
    LAST_Y,
    LATENCY,
    LEAD,
    OFFSET,
    PENDING,
    PENDING_END,
    PLACE,
    RATE,
    READ_A,
    RECLAIM,
    ROOM_C,
    ROW,
    ROWS,
    SLICE,
    SLICES,
    STAGE_ACT,
    STALL,
    START_D,
    START_W,
    TAKEN,
    TOUCHED,
    UNIQUE,
    UNIQUE_Y,
    WEIGHT,
    WIDTH,
    WORK_D,
)
from focusc.isa.timing_ledger import book, moving, ticks
from focusc.isa.timing_state import ITEMS, RING, compiled, word

__all__ = ["advance", "arrived", "begin", "mark_read", "ready_at", "started", "take"]


@compiled
def begin(s: Any, e: int, issue: float, start: float, cause: int) -> None:
    """Account for an engine's gap up to `start`: no command until `issue`, then `cause`."""
    idle = min(start, issue) - s.misc[CURSOR + e]
    if idle > 0.0:
        s.misc[STALL + CAUSES * e + ISSUE_C] += idle
    wait = start - max(s.misc[CURSOR + e], issue)
    if wait > 0.0:
        s.misc[STALL + CAUSES * e + cause] += wait


@compiled
def started(s: Any, ch: int, i: int, time: float) -> None:
    """A stream item's first slice is requested."""
    s.when[ch, i, START_W] = time
    e = s.table[s.item[ch, i, ROW], ENGINE]
    depth = s.queue.shape[1]
    place = s.item[ch, i, PLACE]
    if s.queued[e] - place <= depth:
        s.queue[e, place % depth] = time
    if len(s.detail) > 0:
        s.detail[s.item[ch, i, COMMAND], START_D] = time


@compiled
def _ended(s: Any, ch: int, number: int, time: float) -> None:
    """A stream item's last slice has moved."""
    i = number & (ITEMS - 1)
    s.when[ch, i, END_W] = time
    if number == s.num[PENDING + ch] - 1:
        s.misc[PENDING_END + ch] = time
    if len(s.detail) > 0:
        s.detail[s.item[ch, i, COMMAND], END_D] = time


@compiled
def _worked(s: Any, ch: int, i: int, cycles: float) -> None:
    """Busy cycles of a stream item."""
    s.sums[s.item[ch, i, ROW], 1] += cycles
    if len(s.detail) > 0:
        s.detail[s.item[ch, i, COMMAND], WORK_D] += cycles


@compiled
def advance(s: Any, ch: int, force: int) -> bool:
    """Time the next slice of channel `ch`; False if nothing is open or staging is full of unconsumed slices.

    With `force` a full staging buffer is overrun instead, for producers that must finish first (see docs/timing.md).
    """
    t = s.table
    state = s.channel[ch]
    while state[ITEM] < state[ISSUED]:
        i = state[ITEM] & (ITEMS - 1)
        if t[s.item[ch, i, ROW], SLICES] > 0:
            break
        started(s, ch, i, s.when[ch, i, ISSUE_W])
        _ended(s, ch, state[ITEM], s.when[ch, i, ISSUE_W])
        state[ITEM] += 1
    if state[ITEM] >= state[ISSUED]:
        return False
    i = state[ITEM] & (ITEMS - 1)
    c = s.item[ch, i, ROW]
    k = state[SLICE]
    kind, rows, width = t[c, KIND], t[c, ROWS], t[c, WIDTH]
    if kind == WEIGHT:
        chunk = int(s.misc[CHUNK])
        if t[c, COLS] <= chunk:
            cells = min(width, t[c, DEPTH] - k * width) * t[c, COLS]
        else:
            across = -(-t[c, COLS] // chunk)
            cells = min(width, t[c, DEPTH] - k // across * width) * min(chunk, t[c, COLS] - k % across * chunk)
        bytes_ = float(cells * t[c, BYTES])
        stage = 2.0 * cells
        elements = cells
    elif t[c, UNIQUE] >= 0:
        vectors = s.unique[s.item[ch, i, OFFSET] - s.num[BASE] + k]
        elements = vectors * SLOT
        bytes_ = 4.0 + 2.0 * rows + 2.0 * elements
        stage = 2.0 * elements
    else:
        elements = rows * min(width, t[c, COLS] - k * width)
        bytes_ = float(elements * t[c, BYTES])
        stage = 2.0 * elements
    capacity = s.misc[STAGE_ACT + ch]
    held = HELD + 2 * ch
    while (s.misc[held] > 0.0 and s.misc[held] + stage > capacity) or state[ALLOC] - state[RECLAIM] >= RING:
        if state[RECLAIM] == state[TAKEN]:
            if force > 0 and state[ALLOC] - state[RECLAIM] < RING:
                break
            return False
        r = state[RECLAIM] % RING
        s.misc[held + 1] = max(s.misc[held + 1], s.ring[4 + ch, r])
        s.misc[held] -= s.ring[2 + ch, r]
        state[RECLAIM] += 1
    e = t[c, ENGINE]
    room = s.misc[held + 1]
    issue = s.when[ch, i, ISSUE_W]
    if kind == FORWARD:
        start = max(s.misc[CURSOR + e], room)
        s.misc[STALL + CAUSES * e + ROOM_C] += start - s.misc[CURSOR + e]
        length = ticks(elements * s.cost[c])
        s.misc[BUSY + e] += length
        _worked(s, ch, i, length)
        s.misc[CURSOR + e] = start + length
        served = s.misc[CURSOR + e]
        arrival = math.ceil(served)
    else:
        fence = s.when[ch, i, FENCE_W]
        start = max(max(s.misc[CURSOR + e], issue), max(fence, room))
        begin(s, e, issue, start, FENCE_C if fence >= room else ROOM_C)
        if k == 0:
            started(s, ch, i, start)
            if t[c, LEAD] > 0:
                ready = book(s.transfers, s.booked, start, moving(s.misc[RATE], float(t[c, LEAD]))) + s.misc[LATENCY]
                s.misc[STALL + CAUSES * e + DRAM_C] += ready - start
                start = ready
        ideal = moving(s.misc[RATE], bytes_)
        served = book(s.transfers, s.booked, start, ideal)
        s.misc[BUSY + e] += ideal
        _worked(s, ch, i, ideal)
        s.misc[STALL + CAUSES * e + DRAM_C] += served - start - ideal
        s.misc[CURSOR + e] = served
        arrival = math.ceil(served + s.misc[LATENCY])
        if t[c, UNIQUE] >= 0:
            s.tally[c, UNIQUE_Y] += elements // SLOT
            if k == t[c, SLICES] - 1:
                s.tally[c, LAST_Y] += elements // SLOT
    r = state[ALLOC] % RING
    s.ring[ch, r] = arrival
    s.ring[2 + ch, r] = stage
    s.misc[held] += stage
    state[ALLOC] += 1
    state[SLICE] += 1
    if state[SLICE] == t[c, SLICES]:
        state[SLICE] = 0
        state[ITEM] += 1
        if kind == FORWARD:
            whole = 1.0 * math.ceil(s.misc[CURSOR + e])
            s.misc[BUSY + e] += whole - s.misc[CURSOR + e]
            _worked(s, ch, i, whole - s.misc[CURSOR + e])
            s.misc[CURSOR + e] = whole
            _ended(s, ch, state[ITEM] - 1, whole)
            mark_read(s, t[c, READ_A], whole)
        else:
            _ended(s, ch, state[ITEM] - 1, served)
    return True


@compiled
def arrived(s: Any, ch: int) -> float:
    """Arrival of the next slice to be consumed; negative if it can never come."""
    state = s.channel[ch]
    while state[ALLOC] <= state[TAKEN]:
        if not advance(s, ch, word(0)):
            return -1.0
    return s.ring[ch, state[TAKEN] % RING]


@compiled
def take(s: Any, ch: int, time: float) -> None:
    """The slice at the head is consumed; its room is free from `time` on."""
    state = s.channel[ch]
    s.ring[4 + ch, state[TAKEN] % RING] = time
    state[TAKEN] += 1


@compiled
def mark_read(s: Any, w: int, time: float) -> None:
    if w >= 0 and s.win[2, w] < time:
        s.win[2, w] = time
        s.misc[TOUCHED + 1] = max(s.misc[TOUCHED + 1], time)


@compiled
def ready_at(s: Any, w: int, writing: int, array: int) -> float:
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
