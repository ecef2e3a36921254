"""DRAM bandwidth as a ledger of time buckets, so that transfers may be booked in any order of time.

Commands are timed in program order, but a later command may transfer before an earlier one ends. A booking takes the
earliest free bandwidth from its time on; the sum booked in a bucket never exceeds what the channel moves in it.
"""

from __future__ import annotations

from typing import Any, Final

import numba as nb
import numpy as np
from numpy.typing import NDArray

__all__ = ["BUCKET_CYCLES", "book", "compiled", "new_ledger"]

BUCKET_CYCLES: Final = 128
_BITS: Final = 17
_MASK: Final = (1 << _BITS) - 1
_FULL: Final = 1e-6
_njit: Any = nb.njit  # its type leaves out some of its options
compiled: Final[Any] = _njit(cache=True, error_model="numpy", _nrt=False)
"""Without reference counts: nothing is allocated in the loop, and counting costs more than its arithmetic."""


def new_ledger() -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """An empty ledger of the last 2^17 buckets (16.8 M cycles): a ring of the bytes booked in each, and
    [2, ring] the number of the bucket that a slot holds and the next bucket that may have room."""
    buckets = np.zeros((2, 1 << _BITS), np.int64)
    buckets[0] = -1
    return np.zeros(1 << _BITS), buckets


@compiled
def book(used: Any, buckets: Any, rate: float, time: float, amount: float) -> float:
    """Book `amount` bytes from `time` on at `rate` bytes a cycle; returns the time at which the last byte has moved.

    Alone on the channel this is time + amount / rate.
    """
    number, following = buckets[0], buckets[1]
    full = rate * BUCKET_CYCLES
    bucket = np.int64(time * (1.0 / BUCKET_CYCLES))
    left = amount
    while left > 0.0:
        slot = bucket & _MASK
        if number[slot] != bucket:
            if number[slot] > bucket:
                # Older than the ring: every bucket that is remembered lies later.
                bucket = number[slot] - _MASK
                continue
            number[slot] = bucket
            used[slot] = 0.0
            following[slot] = bucket + 1
        if full - used[slot] <= _FULL:
            target = following[slot]
            ahead = target & _MASK
            if number[ahead] == target and full - used[ahead] <= _FULL:
                following[slot] = following[ahead]  # path halving: full buckets are skipped in near constant time
            bucket = target
            continue
        begin = float(bucket * BUCKET_CYCLES)
        now = max(time, begin)
        room = min(full - used[slot], (begin + BUCKET_CYCLES - now) * rate)
        if room <= _FULL:
            bucket += 1
            continue
        taken = min(room, left)
        used[slot] += taken
        left -= taken
        if left <= 0.0:
            return max(now + taken / rate, begin + used[slot] / rate)
        bucket += 1
    return time
