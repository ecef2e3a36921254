"""Names of the timing kernel's entries as plain integers, which is what compiled code takes."""

from __future__ import annotations

from typing import Final

from focusc.isa.insns import ENGINES
from focusc.isa.timing_rules import Col, Kind
from focusc.isa.timing_state import ITEMS, Cause, Channel, Detail, Item, Misc, Num, Par, Tally, When

OPEN: Final = -1.0
"""Start of a load that has not been timed yet."""

# Engines; a column of `Work.table`; kinds; causes of stalls (_C).
SEQ, LDA, LDW, MXU, VEC = (ENGINES.index(engine) for engine in ("seq", "lda", "ldw", "mxu", "vec"))
(KIND, ENGINE, DST, READ_A, READ_B, RMW, ROWS, COLS, DEPTH, WIDTH, SLICES, BYTES, LEAD, UNIQUE, FEED_A, FEED_B,
 FEED_W, WRITES, MASK) = (int(c) for c in list(Col)[:19])
FENCE, LOAD, WEIGHT, MMA, VECTOR, FORWARD, CONC, SELECT, STORE, HOST = range(1, 11)
CAUSES: Final = len(Cause)
ISSUE_C, QUEUE_C, DRAM_C, WEIGHT_C, STREAM_C, TILE_C, SCATTER_C, FENCE_C, FILL_C, ROOM_C = range(10)
# A channel; `State.misc`; `State.num`; an item, its times (_W), a command's times (_D), a row's tally (_Y).
ALLOC, TAKEN, RECLAIM, ITEM, SLICE, ISSUED = range(6)
(SCATTERED, PARTIAL_HELD, SCATTER_LAST, PASS_START, NOW, FRONTIER, ALL_WRITES, FENCES, PENDING_END, ISSUE,
 START, END, WORK, HELD, RUN_START, RUN_END, TOUCHED, CURSOR, BUSY, STALL) = (int(m) for m in list(Misc)[:20])
LAST_SLOT, OPEN_FORWARD, PENDING, POPPED, FIRST, BASE, NODE, SUMMED, FREED = (int(n) for n in list(Num)[:9])
ROW, OFFSET, COMMAND, PLACE = (int(i) for i in Item)
ISSUE_W, FENCE_W, START_W, END_W = (int(w) for w in When)
ISSUE_D, START_D, END_D, SPAN_D, WORK_D = (int(d) for d in Detail)
COUNT_Y, UNIQUE_Y, LAST_Y, TAKEN_Y = (int(t) for t in Tally)
# Parameters of the machine.
(RATE, LATENCY, AROWS, ACOLS, OVERHEAD, SKEW, PIPELINED, SCATTER_ROWS, STAGE_ACT, STAGE_WGT, CHUNK, QDEPTH,
 VPIPE, LDCOST, PARTIAL, PARTIAL_ELEMENT, MAP_ELEMENT) = (int(p) for p in Par)
assert [int(k) for k in Kind] == list(range(11)) and [int(i) for i in Channel] == list(range(6))
assert len(Par) == Misc.SCATTERED and Misc.STALL + len(ENGINES) * CAUSES == Misc.SIZE and ITEMS & (ITEMS - 1) == 0
