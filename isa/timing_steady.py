"""Steady loops: rounds after which the machine is where it was, only later, are counted instead of walked.

Where a loop's rounds do the same, timing soon repeats. What a command does to the clocks depends on differences of
times alone, and times are exact (`timing_ledger`). So if after round j all that later commands can see is as it was
after round i, but for a shift of whole cycles, then the rounds after j go as those after i went: nothing is
extrapolated, the cycles are those of walking every round. A time that lies before everything still to come, an engine
that the loop does not use and a tile that it does not touch cannot be seen.
"""

from __future__ import annotations

import math
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.timing_layout import (
    ALL_WRITES,
    ALLOC,
    BUSY,
    CURSOR,
    DST,
    END_W,
    ENGINE,
    FENCE_W,
    FENCES,
    FORWARD,
    FREED,
    FRONTIER,
    HELD,
    ISSUE_W,
    ISSUED,
    ITEM,
    KIND,
    LATENCY,
    MMA,
    NODE,
    NOW,
    OFFSET,
    OPEN_FORWARD,
    PARTIAL_HELD,
    PASS_START,
    PENDING,
    PENDING_END,
    PLACE,
    POPPED,
    READ_A,
    READ_B,
    RECLAIM,
    ROW,
    RUN_END,
    SCATTER_LAST,
    SCATTERED,
    SLICE,
    SUMMED,
    TAKEN,
    TOUCHED,
)
from focusc.isa.timing_state import ITEMS, RING, Misc, compiled

__all__ = ["describe_round", "earliest", "keep", "look", "new_round", "new_steady", "same", "skip"]

_ROUND: Final = 512
"""Most commands of a round that is skipped."""
_FIGURES: Final = 1 << 13
"""Most figures of a state that are compared."""
_KEPT, _FOUND, _SUMS = range(3)
_ENGINES, _NODE, _WINDOWS, _STAMP, _LISTED = range(5)
_PAST: Final = -(2.0**60)
"""Stands for every time that lies before all that is still to come."""
_OPEN: Final = -(2.0**61)
_MISC: Final = int(Misc.SIZE)
_STARTS: Final = (SCATTER_LAST, PASS_START, ALL_WRITES, FENCES, FENCES + 1, FENCES + 2, TOUCHED, TOUCHED + 1, HELD + 1,
                  HELD + 3)
"""Times that what is still to come may have to wait for."""


def new_steady() -> NDArray[np.float64]:
    """[3, n]: what is seen after the round that is kept, after the last round, and the sums at the round kept."""
    return np.zeros((3, _FIGURES))


def new_round(windows: int) -> NDArray[np.int64]:
    """[2, n]: the engines (as bits), source node and tile windows of a round, see `describe_round`; a mark for each
    window."""
    return np.zeros((2, _LISTED + windows), np.int64)


@compiled
def describe_round(s: Any, first: int, length: int) -> bool:
    """Note the engines, the node and the windows that commands `first` and following use; False if they cannot be
    skipped: too many, or of several array nodes, whose runs would have to be told apart."""
    around, marks = s.round[0], s.round[1]
    if length > _ROUND:
        return False
    around[_STAMP] += 1
    around[_ENGINES] = around[_WINDOWS] = 0
    around[_NODE] = -1
    for n in range(first, first + length):
        c = s.commands[n, 0]
        around[_ENGINES] |= 1 << s.table[c, ENGINE]
        if s.table[c, KIND] == MMA:
            if around[_NODE] >= 0 and around[_NODE] != s.node[c]:
                return False
            around[_NODE] = s.node[c]
        for column in (DST, READ_A, READ_B):
            w = s.table[c, column]
            if w < 0:
                continue
            for i in range(s.of_start[w], s.of_start[w + 1]):
                v = s.others[i]
                if marks[_LISTED + v] != around[_STAMP]:
                    marks[_LISTED + v] = around[_STAMP]
                    around[_LISTED + around[_WINDOWS]] = v
                    around[_WINDOWS] += 1
    return True


@compiled
def earliest(s: Any) -> float:
    """No command or open load will look at or book a time before this one."""
    bound = s.misc[NOW]
    for ch in range(2):
        if s.channel[ch, ITEM] < s.channel[ch, ISSUED]:
            i = s.channel[ch, ITEM] & (ITEMS - 1)
            e, first = s.table[s.item[ch, i, ROW], ENGINE], s.when[ch, i, ISSUE_W]
            if s.table[s.item[ch, i, ROW], KIND] != FORWARD:  # loads behind a `fwd` do not wait for its engine
                first = max(s.misc[CURSOR + e], first)
            bound = min(bound, first)
    return bound


@compiled
def _ahead(time: float, bound: float, now: float) -> float:
    return time - now if time > bound else _PAST


@compiled
def _first_ahead(s: Any, bound: float) -> int:
    """The first busy interval of the channel that ends after `bound`."""
    n = s.booked[0]
    while n > s.booked[1] and s.transfers[1, n - 1] > bound:
        n -= 1
    return n


@compiled
def _oldest_item(s: Any, ch: int) -> int:
    """The first item whose entries may still be read."""
    state = s.channel[ch]
    return max(min(min(s.num[POPPED + ch], state[ITEM]), state[ISSUED] - 1), 0)


@compiled
def look(s: Any) -> int:
    """Write down all that later commands of the loop can see, times as differences to now. Returns how many figures
    there are, or -1 if there are too many."""
    out, misc, num, around = s.steady[_FOUND], s.misc, s.num, s.round[0]
    bound, now, depth = earliest(s), misc[NOW], s.queue.shape[1]
    transfers = _first_ahead(s, bound)
    size = 32 + 8 * (depth + 2) + 3 * (num[SUMMED] - num[FREED]) + 3 * around[_WINDOWS]
    size += 2 * (s.booked[0] - transfers)
    for ch in range(2):
        size += 2 * (s.channel[ch, ALLOC] - s.channel[ch, RECLAIM]) + 5 * (s.channel[ch, ISSUED] - _oldest_item(s, ch))
    if size > _FIGURES:
        return -1
    out[0], out[1], out[2], out[3] = misc[PARTIAL_HELD], misc[HELD], misc[HELD + 2], misc[FRONTIER] - now
    out[4] = num[NODE] if around[_NODE] >= 0 else -1
    out[5] = misc[RUN_END] - now if around[_NODE] >= 0 else 0.0
    out[6] = num[OPEN_FORWARD] - s.channel[0, ISSUED] if num[OPEN_FORWARD] > s.channel[0, ITEM] else _PAST
    n = 7
    for m in _STARTS:
        out[n] = _ahead(misc[m], bound, now)
        n += 1
    for e in range(8):
        if around[_ENGINES] >> e & 1:
            out[n] = misc[CURSOR + e] - now
            out[n + 1] = min(s.queued[e], depth)
            n += 2
            for place in range(s.queued[e] - min(s.queued[e], depth), s.queued[e]):
                time = s.queue[e, place % depth]
                out[n] = _OPEN if time < 0.0 else _ahead(time, bound, now)
                n += 1
    passes = s.waiting.shape[1]
    for k in range(num[FREED], num[SUMMED]):
        i = k % passes
        out[n], out[n + 1], out[n + 2] = _ahead(s.waiting[0, i], bound, now), s.waiting[1, i], s.waiting[2, i]
        n += 3
    for ch in range(2):
        state = s.channel[ch]
        pending = num[PENDING + ch]
        out[n] = _ahead(misc[PENDING_END + ch] + misc[LATENCY], bound, now)
        out[n + 1] = pending - state[ISSUED] if pending > state[ITEM] else _PAST
        out[n + 2], out[n + 3], out[n + 4] = state[SLICE], state[ISSUED] - state[ITEM], state[ALLOC] - state[TAKEN]
        n += 5
        for k in range(state[RECLAIM], state[ALLOC]):
            r = k % RING
            out[n] = _ahead(s.ring[4 + ch if k < state[TAKEN] else ch, r], bound, now)
            out[n + 1] = s.ring[2 + ch, r]
            n += 2
        for k in range(_oldest_item(s, ch), state[ISSUED]):
            i = k & (ITEMS - 1)
            if k < state[ITEM]:  # moved: only who takes it, and when the last one ended, is still asked
                out[n] = _ahead(s.when[ch, i, END_W] + misc[LATENCY], bound, now)
                out[n + 1], out[n + 2], out[n + 3] = s.item[ch, i, OFFSET], k - num[POPPED + ch], 0.0
            else:
                out[n] = _ahead(s.when[ch, i, ISSUE_W], bound, now)
                out[n + 1] = _ahead(s.when[ch, i, FENCE_W], bound, now)
                out[n + 2] = s.queued[s.table[s.item[ch, i, ROW], ENGINE]] - s.item[ch, i, PLACE]
                out[n + 3] = s.item[ch, i, OFFSET]
            out[n + 4] = s.item[ch, i, ROW]
            n += 5
    for j in range(around[_WINDOWS]):
        w = around[_LISTED + j]
        for i in range(3):
            out[n] = _ahead(s.win[i, w], bound, now)
            n += 1
    for k in range(transfers, s.booked[0]):
        out[n], out[n + 1] = _ahead(s.transfers[0, k], bound, now), s.transfers[1, k] - now
        n += 2
    return n


@compiled
def same(s: Any, kept: int, found: int) -> bool:
    """Whether the machine is where it was at the round kept, a number of whole cycles later."""
    later = s.misc[NOW] - s.steady[_SUMS, NOW]
    if kept != found or found < 0 or later <= 0.0 or later != math.floor(later):
        return False
    alike = 0
    while alike < found and s.steady[_KEPT, alike] == s.steady[_FOUND, alike]:
        alike += 1
    return alike == found


@compiled
def keep(s: Any, first: int, length: int, found: int) -> None:
    """Keep what was found after the last round, and all sums."""
    for i in range(found):
        s.steady[_KEPT, i] = s.steady[_FOUND, i]
    sums = s.steady[_SUMS]
    for i in range(_MISC):
        sums[i] = s.misc[i]
    for j in range(length):
        c, at = s.commands[first + j, 0], _MISC + 6 * j
        sums[at], sums[at + 1] = s.sums[c, 0], s.sums[c, 1]
        for i in range(4):
            sums[at + 2 + i] = s.tally[c, i]


@compiled
def skip(s: Any, first: int, length: int, times: int) -> None:
    """Go on as if all rounds since the one kept had been walked `times` more: add to the sums, move the clocks."""
    misc, num, around, sums = s.misc, s.num, s.round[0], s.steady[_SUMS]
    bound, depth = earliest(s), s.queue.shape[1]
    later = (misc[NOW] - sums[NOW]) * times
    for i in range(BUSY, _MISC):
        misc[i] += (misc[i] - sums[i]) * times
    misc[SCATTERED] += (misc[SCATTERED] - sums[SCATTERED]) * times
    for j in range(length):
        c, at = s.commands[first + j, 0], _MISC + 6 * j
        s.sums[c, 0] += (s.sums[c, 0] - sums[at]) * times
        s.sums[c, 1] += (s.sums[c, 1] - sums[at + 1]) * times
        for i in range(4):
            s.tally[c, i] += (s.tally[c, i] - np.int64(sums[at + 2 + i])) * times
    for n in range(_first_ahead(s, bound), s.booked[0]):
        s.transfers[0, n] += later
        s.transfers[1, n] += later
    misc[NOW] += later
    misc[FRONTIER] += later
    if around[_NODE] >= 0:
        misc[RUN_END] += later
    for m in _STARTS:
        misc[m] += later
    for e in range(8):
        if around[_ENGINES] >> e & 1:
            misc[CURSOR + e] += later
            for place in range(s.queued[e] - min(s.queued[e], depth), s.queued[e]):
                if s.queue[e, place % depth] >= 0.0:
                    s.queue[e, place % depth] += later
    passes = s.waiting.shape[1]
    for k in range(num[FREED], num[SUMMED]):
        s.waiting[0, k % passes] += later
    for ch in range(2):
        state = s.channel[ch]
        misc[PENDING_END + ch] += later
        for k in range(state[RECLAIM], state[ALLOC]):
            s.ring[4 + ch if k < state[TAKEN] else ch, k % RING] += later
        for k in range(_oldest_item(s, ch), state[ISSUED]):
            for j in range(4):
                if s.when[ch, k & (ITEMS - 1), j] >= 0.0:
                    s.when[ch, k & (ITEMS - 1), j] += later
    for j in range(around[_WINDOWS]):
        for i in range(3):
            s.win[i, around[_LISTED + j]] += later
