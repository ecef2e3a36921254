"""What the timing kernel knows and keeps: the layout of its state, and names for the entries."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focusc.isa.timing_ledger import compiled

__all__ = ["CAUSES", "RING", "Cause", "Channel", "Misc", "Par", "State", "Time", "compiled", "word"]


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


class Channel(IntEnum):
    """Integer state of a stream channel (0 activation, 1 weight)."""

    ALLOC = 0
    """Slices requested so far, TAKEN consumed, RECLAIM whose room has been given back."""
    TAKEN = 1
    RECLAIM = 2
    ITEM = 3
    """Item being loaded and its next slice; ISSUED items have been issued."""
    SLICE = 4
    ISSUED = 5


class Time(IntEnum):
    """Columns of `State.times`: of each command, in cycles."""

    COST = 0
    """Cycles of an element or slot (`Work.cost`)."""
    ISSUE = 1
    FENCE = 2
    """Earliest DRAM access that fences allow."""
    START = 3
    END = 4
    SPAN = 5
    """By how much the command moved the latest end seen so far; sums to the total."""
    WORK = 6
    """Busy cycles on its engine."""


class Misc(IntEnum):
    """First entries of the parts of `State.misc`; `Par` come first."""

    SCATTERED = 16
    """Scatter cycles in all."""
    SCATTER_BEFORE = 17
    """End of the scatter of the pass before the last."""
    SCATTER_LAST = 18
    PASS_START = 19
    """Start of the last pass."""
    OPEN_FORWARD = 20
    """Items up to an open `fwd`."""
    HELD = 24
    """Per channel: bytes in staging, latest time at which room was given back."""
    CURSOR = 28
    """Per engine: end of its last work."""
    BUSY = 36
    STALL = 44
    """Per engine and cause."""
    SIZE = 124


class State(NamedTuple):
    """Everything the loop reads and writes; few arrays, since each costs compile time in every function."""

    table: NDArray[np.int64]
    unique: NDArray[np.int32]
    items: NDArray[np.int64]
    """[2, items]: command of each stream item."""
    of_start: NDArray[np.int64]
    others: NDArray[np.int32]
    """Overlapping windows, see `Windows`."""
    times: NDArray[np.float64]
    misc: NDArray[np.float64]
    channel: NDArray[np.int64]
    """[2, 6], see `Channel`."""
    ring: NDArray[np.float64]
    """[6, RING]: arrival, bytes and time of consumption of the last slices of both channels."""
    win: NDArray[np.float64]
    """[3, windows]: last write by the array, by any other engine, last read."""
    queue: NDArray[np.int64]
    """[8, depth + 1]: last commands of each engine, and their number."""
    used: NDArray[np.float64]
    buckets: NDArray[np.int64]
    """The bandwidth ledger, see `focusc.isa.timing_ledger`."""


RING: Final = 8192
"""Slices of a channel that may be in staging."""
word: Final[Any] = np.int64
"""Arguments of compiled functions pass through it: a literal would compile another copy of the function."""
