"""DRAM bandwidth as a ledger of busy intervals, so that transfers may be booked in any order of time.

Commands are timed in program order, but a later command may transfer before an earlier one ends. The channel moves one
transfer at a time; a booking takes what is free from its time on, around the transfers booked before it.

Times are cycles in whole ticks: sums and differences of them are exact in float64 (up to 2^43 cycles), so the ledger,
and all timing built on it, does the same at any time of a run. `timing_steady` relies on that.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Final

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.kernel_cache import drop_stale

__all__ = ["TICKS", "book", "compiled", "moving", "new_ledger", "pass_by", "ticks"]

TICKS: Final = 1024.0
"""Ticks of a cycle."""
_KEPT: Final = 1 << 13
"""Busy intervals that may still matter (`pass_by`) and are remembered at least; before them the channel counts as
busy."""
drop_stale(Path(__file__).parent, ("timing_ledger", "timing_state", "timing_layout", "timing_rules", "timing_channels",
                                   "timing_array", "timing_steady", "timing_kernel", "dynamic", "predecode"))
_njit: Any = nb.njit  # its type leaves out some of its options
compiled: Final[Any] = _njit(cache=True, error_model="numpy", _nrt=False)
"""Without reference counts: nothing is allocated in the loop, and counting costs more than its arithmetic."""


def new_ledger() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """An empty ledger: [2, room] start and end of the busy intervals, in order of time and apart from each other; and
    how many there are and how many of them have passed, [2]."""
    return np.zeros((2, 2 * _KEPT)), np.zeros(2, np.int64)


@compiled
def pass_by(busy: Any, many: Any, bound: float) -> None:
    """Nothing will be booked before `bound`: what ends earlier need not be remembered."""
    while many[1] < many[0] and busy[1, many[1]] < bound:
        many[1] += 1


@compiled
def ticks(cycles: float) -> float:
    """Whole ticks of some work, in cycles; what is left over is dropped, a vector command ends on a whole cycle."""
    return math.floor(cycles * TICKS) / TICKS


@compiled
def moving(rate: float, amount: float) -> float:
    """Cycles that `amount` bytes occupy the channel at `rate` bytes a cycle, to the nearest tick."""
    return math.floor(amount / rate * TICKS + 0.5) / TICKS


@compiled
def book(busy: Any, many: Any, time: float, length: float) -> float:
    """Book `length` cycles of the channel from `time` on; returns the time at which the last byte has moved.

    Alone on the channel this is time + length.
    """
    if length <= 0.0:
        return time
    last = many[0]
    if last == busy.shape[1]:
        # What has passed goes first. So whether more is forgotten depends on what may still matter alone, not on how
        # long the run is: rounds that are counted would have forgotten what those that are walked do.
        gone = many[1] if many[1] > 0 else last - _KEPT
        for i in range(last - gone):
            busy[0, i], busy[1, i] = busy[0, gone + i], busy[1, gone + i]
        last -= gone
        if many[1] == 0:
            busy[0, 0] = 0.0
        many[1] = 0
    low, high = many[1], last  # the first interval that ends at `time` or later
    if last > 0 and busy[1, last - 1] < time:
        low = last
    while low < high:
        middle = (low + high) // 2
        if busy[1, middle] < time:
            low = middle + 1
        else:
            high = middle
    until = low
    begin = now = time
    if low < last and busy[0, low] <= time:
        begin, now = busy[0, low], busy[1, low]
        until += 1
    left = length
    while until < last and busy[0, until] - now <= left:
        left -= busy[0, until] - now
        now = busy[1, until]
        until += 1
        if left <= 0.0:
            break
    served = now + left
    end = served
    if left <= 0.0:
        served, end = busy[0, until - 1], now
    move = low + 1 - until
    if move > 0:
        for i in range(last, low, -1):
            busy[0, i], busy[1, i] = busy[0, i - 1], busy[1, i - 1]
    elif move < 0:
        for i in range(until, last):
            busy[0, i + move], busy[1, i + move] = busy[0, i], busy[1, i]
    busy[0, low], busy[1, low] = begin, end
    many[0] = last + move
    return served
