"""What the timing kernel knows and keeps: the layout of its state, and names for the entries."""

from __future__ import annotations

from enum import IntEnum
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from focusc.isa.timing_ledger import compiled

__all__ = ["CAUSES", "ITEMS", "PASSES", "RING", "Cause", "Channel", "Detail", "Item", "Misc", "Num", "Par", "State",
           "Tally", "When", "compiled", "word"]


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
    PARTIAL = 14
    """Bytes of the partial-sum buffer, and of one of its elements."""
    PARTIAL_ELEMENT = 15
    MAP_ELEMENT = 16
    """Bytes of one row of a similarity map."""


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


class Misc(IntEnum):
    """First entries of the parts of `State.misc` (float64); `Par` come first."""

    SCATTERED = 17
    """Scatter cycles in all."""
    PARTIAL_HELD = 18
    """Bytes of partial sums that wait for the scatter, and of the maps that came with them."""
    SCATTER_LAST = 19
    """End of the last scatter."""
    PASS_START = 20
    """Start of the last array pass."""
    NOW = 21
    """Cycle of the last issue."""
    FRONTIER = 22
    """Latest end of any command so far."""
    WRITES = 23
    """End of the last write to DRAM."""
    FENCES = 24
    """Activation loads, weight loads, writers: earliest access to DRAM that fences allow."""
    PENDING_END = 27
    """Per channel: end of the last load that a store fence waits for."""
    ISSUE = 29
    """Issue of the command at work."""
    START = 30
    """Start of the command at work."""
    END = 31
    """End of the command at work; negative while a `fwd` is open."""
    WORK = 32
    """Busy cycles of the command at work."""
    HELD = 33
    """Per channel: bytes in staging, latest time at which room was given back."""
    RUN_START = 37
    """Start of the first array command of the running node."""
    RUN_END = 38
    """End of the last array command of the running node."""
    TOUCHED = 39
    """Latest end of any write to a tile window by the array, and of any other write or read."""
    CURSOR = 41
    """Per engine: end of its last work."""
    BUSY = 49
    """Per engine: cycles at work."""
    STALL = 57
    """Per engine and cause: cycles without work."""
    SIZE = 137
    """Entries in all."""


class Num(IntEnum):
    """First entries of the parts of `State.num` (int64)."""

    LAST_SLOT = 0
    """Sequencer steps before the last command; -1 before the first."""
    OPEN_FORWARD = 1
    """Items up to an open `fwd`."""
    PENDING = 2
    """Per channel: items that a store fence waits for."""
    POPPED = 4
    """Per channel: items taken by their consumers."""
    FIRST = 6
    """Number of the first command of `State.commands`."""
    UNIQUE = 7
    """Offset of the first entry of `State.unique`."""
    NODE = 8
    """Source node whose array commands run, or -1."""
    SUMMED = 9
    """Concentrated passes so far."""
    FREED = 10
    """Concentrated passes whose scatter has given back its room."""
    SIZE = 11
    """Entries in all."""


class Item(IntEnum):
    """Integers of a stream item."""

    ROW = 0
    """Row of the work table."""
    OFFSET = 1
    """Offset of its unique counts."""
    COMMAND = 2
    PLACE = 3
    """Its number in the queue of its engine."""


class When(IntEnum):
    """Times of a stream item."""

    ISSUE = 0
    FENCE = 1
    """Earliest DRAM access that fences allow."""
    START = 2
    END = 3


class Detail(IntEnum):
    """Columns of `State.detail`: one row for every command, if wanted."""

    ISSUE = 0
    START = 1
    END = 2
    SPAN = 3
    """By how much the command moved the latest end seen so far; sums to the total."""
    WORK = 4
    """Busy cycles on its engine."""


class Tally(IntEnum):
    """Columns of `State.tally` (int64): sums over the executions of a row."""

    COUNT = 0
    UNIQUE = 1
    """Unique vectors of its slots; LAST those of its last slot."""
    LAST = 2
    TAKEN = 3
    """Unique vectors of concentrated streams that another engine than the array takes."""


class State(NamedTuple):
    """Everything the loop reads and writes; few arrays, since each costs compile time in every function."""

    table: NDArray[np.int64]
    """What a command does, see `Col`: one row for each distinct command."""
    cost: NDArray[np.float64]
    """Cycles of an element or slot, by row."""
    node: NDArray[np.int64]
    """Source node by row."""
    commands: NDArray[np.int64]
    """[n, 3]: row, sequencer steps before it, offset of its unique counts."""
    repeats: NDArray[np.int64]
    """[k, 4]: rounds of a loop as `Trace.repeats`."""
    steady: NDArray[np.float64]
    round: NDArray[np.int64]
    """What `timing_steady` keeps."""
    unique: NDArray[np.int32]
    of_start: NDArray[np.int64]
    others: NDArray[np.int32]
    """Overlapping windows, see `Windows`."""
    misc: NDArray[np.float64]
    num: NDArray[np.int64]
    channel: NDArray[np.int64]
    """[2, 6], see `Channel`."""
    item: NDArray[np.int64]
    """[2, ITEMS, 4], see `Item`: the last items of both channels, as a ring."""
    when: NDArray[np.float64]
    """[2, ITEMS, 4], see `When`."""
    ring: NDArray[np.float64]
    """[6, RING]: arrival, bytes and time of consumption of the last slices of both channels."""
    waiting: NDArray[np.float64]
    """[3, PASSES]: end of the scatter, bytes of sums, bytes of the map of the last concentrated passes, as a ring."""
    win: NDArray[np.float64]
    """[3, windows]: last write by the array, by any other engine, last read."""
    queue: NDArray[np.float64]
    """[8, depth]: starts of the last commands of each engine, -1 while open."""
    queued: NDArray[np.int64]
    """[8]: commands that each engine was given."""
    transfers: NDArray[np.float64]
    booked: NDArray[np.int64]
    """The bandwidth ledger, see `focusc.isa.timing_ledger`."""
    sums: NDArray[np.float64]
    """[rows, 2]: `Detail.SPAN` and `Detail.WORK` over all executions of a row."""
    tally: NDArray[np.int64]
    spans: NDArray[np.float64]
    """By node: cycles between its first and its last array command, over its uninterrupted runs."""
    detail: NDArray[np.float64]


PASSES: Final = 16
"""Concentrated passes whose sums may be in the partial-sum buffer: a descriptor each."""
RING: Final = 8192
"""Slices of a channel that may be in staging."""
ITEMS: Final = 16384
"""Items of a channel that may be open: one a slice in staging, a full queue, and room to spare."""
word: Final[Any] = np.int64
"""Arguments of compiled functions pass through it: a literal would compile another copy of the function."""
