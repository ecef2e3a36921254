"""The timing loop: commands in program order, compiled.

A command is a row of the work table, the sequencer steps before it and the place of its unique counts. Commands may
come in pieces: all that lives on between two calls of `run` is in the state.

Times are core cycles (float64; the array only sees whole cycles). Engines serve their queues in order. Loads are timed
slice by slice, lazily: a slice is requested when staging has room for it, which is known once the consumers of earlier
slices are timed. So a load may still be open when the next command is looked at; `_advance` times its next slice.
"""

from __future__ import annotations

import math
from typing import Any

from focusc.isa.dynamic import SLOT
from focusc.isa.timing_array import multiply
from focusc.isa.timing_channels import advance, arrived, begin, mark_read, ready_at, started, take
from focusc.isa.timing_layout import (
    ALL_WRITES,
    BASE,
    BUSY,
    BYTES,
    CAUSES,
    COLS,
    COMMAND,
    CONC,
    COUNT_Y,
    CURSOR,
    DRAM_C,
    DST,
    END,
    END_D,
    END_W,
    ENGINE,
    FEED_A,
    FEED_B,
    FENCE,
    FENCE_C,
    FENCE_W,
    FENCES,
    FIRST,
    FORWARD,
    FRONTIER,
    HOST,
    ISSUE,
    ISSUE_D,
    ISSUE_W,
    ISSUED,
    ITEM,
    KIND,
    LAST_SLOT,
    LAST_Y,
    LATENCY,
    LDA,
    LDCOST,
    LEAD,
    LOAD,
    MASK,
    MMA,
    NODE,
    NOW,
    OFFSET,
    OPEN,
    OPEN_FORWARD,
    PENDING,
    PENDING_END,
    PLACE,
    POPPED,
    QUEUE_C,
    RATE,
    READ_A,
    READ_B,
    ROW,
    ROWS,
    RUN_END,
    RUN_START,
    SEQ,
    SLICES,
    SPAN_D,
    STALL,
    START,
    START_D,
    START_W,
    STORE,
    STREAM_C,
    TAKEN_Y,
    TILE_C,
    TOUCHED,
    UNIQUE,
    UNIQUE_Y,
    VEC,
    VECTOR,
    VPIPE,
    WEIGHT,
    WIDTH,
    WORK,
    WORK_D,
    WRITES,
)
from focusc.isa.timing_ledger import book, moving, pass_by, ticks
from focusc.isa.timing_state import ITEMS, compiled, word
from focusc.isa.timing_steady import describe_round, earliest, keep, look, same, skip

__all__ = ["finish", "run"]


@compiled
def _stream(s: Any, e: int, c: int, source: int, cost: float) -> bool:
    """Take an item (row `source`) of the activation stream slice by slice at `cost` cycles an element."""
    t = s.table
    feed = STREAM_C if t[source, KIND] == FORWARD else DRAM_C
    if t[source, UNIQUE] >= 0:
        offset = s.item[0, s.num[POPPED] & (ITEMS - 1), OFFSET] - s.num[BASE]
        for k in range(t[source, SLICES]):
            s.tally[c, TAKEN_Y] += s.unique[offset + k]
    s.num[POPPED] += 1
    for k in range(t[source, SLICES]):
        act = arrived(s, word(0))
        if act < 0.0:
            return False
        start = max(s.misc[CURSOR + e], act)
        s.misc[STALL + CAUSES * e + feed] += start - s.misc[CURSOR + e]
        elements = t[source, ROWS] * min(t[source, WIDTH], t[source, COLS] - k * t[source, WIDTH])
        length = ticks(elements * cost)
        s.misc[BUSY + e] += length
        s.misc[WORK] += length
        s.misc[CURSOR + e] = start + length
        take(s, word(0), s.misc[CURSOR + e])
    return True


@compiled
def _vector(s: Any, c: int) -> bool:
    """A vector command: operands ready, then elements at the cost of its slowest unit, plus the pipeline's depth."""
    t, issue = s.table, s.misc[ISSUE]
    while s.num[OPEN_FORWARD] > s.channel[0, ITEM]:  # a `fwd` is still open: its engine is this one
        if not advance(s, word(0), word(1)):
            return False
    start = max(s.misc[CURSOR + VEC], issue)
    if max(s.misc[TOUCHED], s.misc[TOUCHED + 1]) > start:  # else there is nothing that it could wait for
        yes, no = word(1), word(0)
        ready = max(ready_at(s, t[c, READ_A], no, no), ready_at(s, t[c, READ_B], no, no))
        ready = max(ready, ready_at(s, t[c, DST], yes, no))
        start = max(start, ready)
    begin(s, word(VEC), issue, start, word(TILE_C))
    s.misc[START] = s.misc[CURSOR + VEC] = start
    if t[c, KIND] == FORWARD:
        started(s, word(0), (s.channel[0, ISSUED] - 1) & (ITEMS - 1), start)
        s.num[OPEN_FORWARD] = s.channel[0, ISSUED]
        while s.num[OPEN_FORWARD] > s.channel[0, ITEM]:
            if not advance(s, word(0), word(0)):
                break
        s.misc[END] = OPEN
        return True
    total = ticks(t[c, ROWS] * t[c, COLS] * s.cost[c])
    if t[c, FEED_A] >= 0:
        single = t[c, FEED_B] < 0
        if not _stream(s, word(VEC), c, t[c, FEED_A], s.cost[c] if single else s.misc[LDCOST]):
            return False
    if t[c, FEED_B] >= 0 and not _stream(s, word(VEC), c, t[c, FEED_B], s.cost[c]):
        return False
    rest = max(total - s.misc[WORK], 0.0)
    whole = math.ceil(s.misc[CURSOR + VEC] + rest) + s.misc[VPIPE]
    s.misc[BUSY + VEC] += whole - s.misc[CURSOR + VEC]
    s.misc[WORK] += whole - s.misc[CURSOR + VEC]
    s.misc[CURSOR + VEC] = s.misc[END] = whole
    if t[c, DST] >= 0:
        s.win[1, t[c, DST]] = max(s.win[1, t[c, DST]], whole)
        s.misc[TOUCHED + 1] = max(s.misc[TOUCHED + 1], whole)
    mark_read(s, t[c, READ_A], whole)
    mark_read(s, t[c, READ_B], whole)
    return True


@compiled
def _writer(s: Any, c: int, offset: int, fence: float) -> bool:
    """st, st.idx, sic, sec.*: start after tile and fence, occupy the engine, move bytes to DRAM."""
    t, e, issue = s.table, s.table[c, ENGINE], s.misc[ISSUE]
    kind, rows = t[c, KIND], t[c, ROWS]
    ready = ready_at(s, t[c, READ_A], word(0), word(0))
    start = max(max(s.misc[CURSOR + e], issue), max(ready, fence))
    begin(s, e, issue, start, TILE_C if ready >= fence else FENCE_C)
    s.misc[START] = start
    if t[c, LEAD] > 0:
        listed = book(s.transfers, s.booked, start, moving(s.misc[RATE], float(t[c, LEAD]))) + s.misc[LATENCY]
        s.misc[STALL + CAUSES * e + DRAM_C] += listed - start
        start = listed
    s.misc[CURSOR + e] = start
    if kind == STORE:
        if t[c, FEED_A] >= 0 and not _stream(s, e, c, t[c, FEED_A], 0.0):
            return False
        start = s.misc[CURSOR + e]
        bytes_ = float(rows * t[c, COLS] * t[c, BYTES])
        ideal = moving(s.misc[RATE], bytes_)
        served = book(s.transfers, s.booked, start, ideal)
        s.misc[BUSY + e] += ideal
        s.misc[WORK] += ideal
        s.misc[STALL + CAUSES * e + DRAM_C] += served - start - ideal
        s.misc[CURSOR + e] = s.misc[END] = served
    elif kind == CONC:
        served = start
        for k in range(t[c, SLICES]):
            # Slots are compared one after the other; the block of a slot is written while the next is compared.
            first = max(s.misc[CURSOR + e], served) if k > 1 else s.misc[CURSOR + e]
            s.misc[STALL + CAUSES * e + DRAM_C] += first - s.misc[CURSOR + e]
            s.misc[BUSY + e] += s.cost[c]
            s.misc[WORK] += s.cost[c]
            s.misc[CURSOR + e] = first + s.cost[c]
            vectors = s.unique[offset - s.num[BASE] + k]
            s.tally[c, UNIQUE_Y] += vectors
            if k == t[c, SLICES] - 1:
                s.tally[c, LAST_Y] += vectors
            bytes_ = 4.0 + 2.0 * rows + 2.0 * SLOT * vectors
            served = book(s.transfers, s.booked, max(served, s.misc[CURSOR + e]), moving(s.misc[RATE], bytes_))
        s.misc[END] = max(served, s.misc[CURSOR + e])
    else:
        s.misc[BUSY + e] += s.cost[c]
        s.misc[WORK] += s.cost[c]
        s.misc[CURSOR + e] = start + s.cost[c]
        s.misc[END] = book(s.transfers, s.booked, s.misc[CURSOR + e], moving(s.misc[RATE], float(t[c, WRITES])))
    mark_read(s, t[c, READ_A], s.misc[CURSOR + e])
    return True


@compiled
def _fence(s: Any, mask: int) -> None:
    """Later accesses of these engines wait for earlier ones."""
    if mask & 1:
        s.misc[FENCES] = s.misc[ALL_WRITES]
    if mask & 2:
        s.misc[FENCES + 1] = s.misc[ALL_WRITES]
    if mask & 4:
        s.misc[FENCES + 2] = s.misc[ALL_WRITES]
        for ch in range(2):
            s.num[PENDING + ch] = s.channel[ch, ISSUED]
            if s.channel[ch, ITEM] >= s.channel[ch, ISSUED] > 0:
                s.misc[PENDING_END + ch] = s.when[ch, (s.channel[ch, ISSUED] - 1) & (ITEMS - 1), END_W]


@compiled
def _host(s: Any) -> None:
    """Wait until everything issued is complete; what the host then does takes no time of the accelerator's."""
    misc = s.misc
    time = misc[NOW]
    if misc[FRONTIER] > time:
        time = misc[FRONTIER]
    for ch in range(2):
        while advance(s, word(ch), word(1)):
            pass
        if s.channel[ch, ISSUED] > 0:
            time = max(time, s.when[ch, (s.channel[ch, ISSUED] - 1) & (ITEMS - 1), END_W])
    time = 1.0 * math.ceil(time)
    misc[STALL + CAUSES * SEQ + FENCE_C] += time - misc[NOW]
    misc[NOW] = misc[START] = misc[END] = time


@compiled
def _push(s: Any, ch: int, c: int, offset: int, command: int, place: int, fence: float) -> None:
    """Put an item behind the others of its channel."""
    i = s.channel[ch, ISSUED] & (ITEMS - 1)
    s.item[ch, i, ROW] = c
    s.item[ch, i, OFFSET] = offset
    s.item[ch, i, COMMAND] = command
    s.item[ch, i, PLACE] = place
    s.when[ch, i, ISSUE_W] = s.misc[ISSUE]
    s.when[ch, i, FENCE_W] = fence
    s.when[ch, i, START_W] = OPEN
    s.when[ch, i, END_W] = OPEN
    s.channel[ch, ISSUED] += 1


@compiled
def _settle(s: Any, c: int, command: int) -> None:
    """Book what the command at work did; times of loads and of `fwd` are kept with their items."""
    misc = s.misc
    span = 0.0
    if misc[END] > misc[FRONTIER]:
        span = misc[END] - misc[FRONTIER]
        misc[FRONTIER] = misc[END]
    s.sums[c, 0] += span
    s.sums[c, 1] += misc[WORK]
    if len(s.detail) > 0:
        s.detail[command, SPAN_D] += span
        if s.table[c, KIND] != FORWARD:
            s.detail[command, START_D] = misc[START]
            s.detail[command, END_D] = misc[END]
            s.detail[command, WORK_D] += misc[WORK]


@compiled
def _walk(s: Any, begin: int, until: int) -> int:
    """Time some commands. Returns -1, or the index of the one where nothing can make progress any more."""
    t, misc, num = s.table, s.misc, s.num
    queue, queued = s.queue, s.queued
    depth = queue.shape[1]
    for n in range(begin, until):
        c, slot, offset = s.commands[n, 0], s.commands[n, 1], s.commands[n, 2]
        command = num[FIRST] + n
        misc[NOW] += slot - num[LAST_SLOT]
        num[LAST_SLOT] = slot
        pass_by(s.transfers, s.booked, earliest(s))
        kind, e = t[c, KIND], t[c, ENGINE]
        s.tally[c, COUNT_Y] += 1
        misc[ISSUE] = misc[START] = misc[END] = misc[NOW]
        misc[WORK] = 0.0
        if len(s.detail) > 0:
            s.detail[command, ISSUE_D] = s.detail[command, START_D] = s.detail[command, END_D] = misc[NOW]
        if kind == 0:
            continue
        if kind == FENCE:
            _fence(s, t[c, MASK])
            continue
        if kind == HOST:
            _host(s)
            _settle(s, c, command)
            continue
        if queued[e] >= depth:
            while queue[e, queued[e] % depth] < 0.0:
                if not advance(s, word(0 if e == LDA else 1), word(0)):
                    return n
            oldest = queue[e, queued[e] % depth]
            if oldest > misc[NOW]:
                misc[STALL + CAUSES * SEQ + QUEUE_C] += oldest - misc[NOW]
                misc[NOW] = oldest
        place = queued[e]
        queue[e, place % depth] = OPEN
        queued[e] += 1
        misc[ISSUE] = misc[NOW]
        if len(s.detail) > 0:
            s.detail[command, ISSUE_D] = misc[NOW]
        good = True
        if kind in (LOAD, WEIGHT):
            ch = word(0 if kind == LOAD else 1)
            if s.channel[ch, ISSUED] - num[POPPED + ch] >= ITEMS:
                return n
            _push(s, ch, c, offset, command, place, misc[FENCES + ch])
            continue
        if kind == MMA:
            good = multiply(s, c, offset)
        elif kind == VECTOR:
            good = _vector(s, c)
        elif kind == FORWARD:
            if s.channel[0, ISSUED] - num[POPPED] >= ITEMS:
                return n
            _push(s, word(0), c, offset, command, place, 0.0)
            # Loads before it hold their place in the stream; they are timed first, even beyond staging.
            while s.channel[0, ITEM] < s.channel[0, ISSUED] - 1:
                if not advance(s, word(0), word(1)):
                    return n
            good = _vector(s, c)
        else:
            barrier = misc[FENCES + 2]
            for ch in range(2):
                while s.channel[ch, ITEM] < num[PENDING + ch]:
                    if not advance(s, word(ch), word(1)):
                        return n
                if num[PENDING + ch] > 0:
                    barrier = max(barrier, misc[PENDING_END + ch] + misc[LATENCY])
            good = _writer(s, c, offset, barrier)
            misc[ALL_WRITES] = max(misc[ALL_WRITES], misc[END])
        if not good:
            return n
        queue[e, place % depth] = misc[START]
        _settle(s, c, command)
    return -1


@compiled
def _rounds(s: Any, first: int, length: int, more: int, steps: int) -> int:
    """Time `more` further rounds of commands `first` and following, `steps` sequencer steps each; returns as `_walk`.

    The state after a round is compared with that of a kept one, a third further on each time it is replaced, until it
    is found again (or the rounds end): whole periods are then skipped.
    """
    done, kept_at = 0, 0
    kept, renew = -1, 1
    watched = more > 2 and describe_round(s, first, length)
    while done < more:
        s.num[LAST_SLOT] -= steps
        stuck = _walk(s, first, first + length)
        if stuck >= 0:
            return stuck
        done += 1
        if not watched or done + 1 >= more:
            continue
        found = look(s)
        if same(s, kept, found):
            period = done - kept_at
            if done + period <= more:
                times = (more - done) // period
                skip(s, first, length, times)
                done += times * period
            watched = False
        elif done >= renew:
            keep(s, first, length, found)
            kept, kept_at = found, done
            renew = done + 1 + done // 3
    s.num[LAST_SLOT] += steps * more
    return -1


@compiled
def run(s: Any) -> int:
    """Time the commands. Returns -1, or the index of the one where nothing can make progress any more."""
    begin = 0
    for r in range(len(s.repeats)):
        first, length = s.repeats[r, 0], s.repeats[r, 1]
        stuck = _walk(s, begin, first + length)
        if stuck < 0:
            stuck = _rounds(s, first, length, s.repeats[r, 2], s.repeats[r, 3])
        if stuck >= 0:
            return stuck
        begin = first + length
    return _walk(s, begin, len(s.commands))


@compiled
def finish(s: Any, last: int) -> float:
    """After the last command (row `last`, -1 if there was none): time what is open. Returns the total cycles."""
    misc = s.misc
    for ch in range(2):
        while advance(s, word(ch), word(1)):
            pass
        if s.channel[ch, ISSUED] > 0:
            end = s.when[ch, (s.channel[ch, ISSUED] - 1) & (ITEMS - 1), END_W]
            misc[FRONTIER] = max(misc[FRONTIER], end)
    total = math.ceil(max(misc[FRONTIER], misc[NOW] + 1.0))
    if s.num[NODE] >= 0:
        s.spans[s.num[NODE]] += misc[RUN_END] - misc[RUN_START]
        s.num[NODE] = -1
    if last >= 0:
        rest = total - s.sums[:, 0].sum()
        s.sums[last, 0] += rest
        if len(s.detail) > 0:
            s.detail[len(s.detail) - 1, SPAN_D] += rest
    return float(total)
