"""From a command trace to work: what each command moves and computes, before any cycle is known.

One rule per kind of command, applied to all commands of an opcode at once. `lower` gives a `Work` table that the timing
kernel walks and from which the counters are summed; neither looks at instruction fields again.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import SLOT, DynamicCounts
from focusc.isa.errors import IsaError
from focusc.isa.insns import BY_MNEMONIC, DTYPES, ENGINES, INSNS, Insn
from focusc.isa.machine import SFU_UNITS, Machine
from focusc.isa.program import ITEM_BYTES
from focusc.isa.sequencer import Trace
from focusc.isa.site_counts import SiteCounts
from focusc.isa.timing_streams import Windows, match_stream, windows
from focusc.isa.timing_unique import UniqueFeed

__all__ = ["CONFIGS", "RULES", "Col", "Kind", "Work", "complete", "describe", "lower", "rule_of",
           "stream_operands", "weight_chunk"]

Ints = NDArray[np.int64]


class Kind(IntEnum):
    """How the kernel treats a command."""

    CONFIG = 0
    FENCE = 1
    LOAD = 2
    WEIGHT = 3
    MMA = 4
    VECTOR = 5
    FORWARD = 6
    CONCENTRATE = 7
    SELECT = 8
    STORE = 9
    HOST = 10


class Col(IntEnum):
    """Columns of `Work.table` (int64)."""

    KIND = 0
    ENGINE = 1
    DST = 2
    """Window written, or -1."""
    A = 3
    B = 4
    """Windows read, or -1."""
    RMW = 5
    """1 if the destination is also read."""
    ROWS = 6
    COLS = 7
    """Shape moved or computed."""
    DEPTH = 8
    """mma: reduction length; weight load: rows of the panel."""
    WIDTH = 9
    """Columns of one stream slice."""
    SLICES = 10
    ITEM_BYTES = 11
    """DRAM bytes of one element."""
    LEAD = 12
    """DRAM bytes (lists) to be read before anything else."""
    UNIQUE = 13
    """Where a row is one command: offset in `Work.unique` of its slots; -1 if dense."""
    FEED_A = 14
    FEED_B = 15
    FEED_W = 16
    """Rows of the stream items taken, or -1."""
    WRITES = 17
    """DRAM bytes written that do not follow from shape and unique counts."""
    MASK = 18
    """fence: 1 act, 2 wgt, 4 store."""
    VISUAL = 19
    """sic: rows that are compared."""


_COLUMNS: Final = len(Col)


@dataclass(frozen=True, slots=True)
class Work:
    """Lowered commands: `table` [rows, len(Col)] int64, `cost` [rows] float64 (cycles of an element; of a slot for sic,
    in all for sec), `uses` [rows, units] passes of one element through each SFU unit, unique counts and tile windows.

    A row is one command of the trace, or (where `tally` is given, columns as `timing_state.Tally`) all commands that
    do the same: then `tally` says how often, and with how many unique vectors.
    """

    table: Ints
    cost: NDArray[np.float64]
    uses: NDArray[np.int64]
    unique: NDArray[np.int32]
    windows: Windows
    pc: NDArray[np.int32]
    wgt_chunk: int
    """Columns of one weight slice: half of the weight staging buffer."""
    tally: Ints | None = None

    def column(self, col: Col) -> Ints:
        """One column of the table."""
        return self.table[:, col]

    def sums(self) -> tuple[Ints, Ints, Ints, Ints]:
        """By row: executions, unique vectors in all, those of the last slots, those of streams that another engine than
        the array takes."""
        if self.tally is not None:
            return self.tally[:, 0], self.tally[:, 1], self.tally[:, 2], self.tally[:, 3]
        t = self.table
        conc = t[:, Col.UNIQUE] >= 0
        used = np.where(t[:, Col.KIND] == Kind.MMA, -(-t[:, Col.DEPTH] // np.maximum(t[:, Col.WIDTH], 1)),
                        t[:, Col.SLICES])
        total = np.concatenate(([0], np.cumsum(self.unique, dtype=np.int64)))
        first = np.where(conc, t[:, Col.UNIQUE], 0)
        until = np.where(conc, first + used, 0)
        unique = total[until] - total[first]
        last = np.where(conc & (used > 0), total[until] - total[np.maximum(until - 1, 0)], 0)
        taken = np.zeros(len(t), np.int64)
        for feed in (Col.FEED_A, Col.FEED_B):
            at = np.flatnonzero((t[:, feed] >= 0) & (t[:, Col.KIND] != Kind.MMA))
            source = t[at, feed]
            taken[at] += np.where(conc[source], unique[source], 0)
        return np.ones(len(t), np.int64), unique, last, taken


@dataclass(slots=True)
class Lowering:
    """State shared by the rules while a trace is lowered.

    `configured` gives, for each row and each configuration command (`CONFIGS`), the row of the one in force, or -1;
    without it the rows are the commands in order, and the last one before a command is in force.
    """

    trace: Trace
    machine: Machine
    table: Ints
    cost: NDArray[np.float64]
    uses: NDArray[np.int64]
    windows: Windows
    configured: Ints | None = None

    def field(self, cls: type[Insn], rows: Ints, name: str) -> Ints:
        """Resolved values of a declared field."""
        return self.trace.fields[rows, list(cls.fields).index(name)]

    def window(self, cls: type[Insn], rows: Ints, name: str) -> tuple[Ints, Ints, Ints]:
        """(window number or -1, rows, cols) of a tile operand; the stream has shape 0 x 0 until it is matched."""
        at = self.field(cls, rows, name)
        if not len(self.trace.tiles):
            return at, np.zeros_like(at), np.zeros_like(at)
        shape = self.trace.tiles[np.maximum(at, 0)]
        here = at >= 0
        return (np.where(here, self.windows.of[np.maximum(at, 0)], -1), np.where(here, shape[:, 1], 0),
                np.where(here, shape[:, 2], 0))

    def dtype_bytes(self, cls: type[Insn], rows: Ints) -> Ints:
        """Bytes of one element in DRAM."""
        sizes = np.array([ITEM_BYTES[name] for name in DTYPES], np.int64)
        return sizes[self.field(cls, rows, "dtype")]

    def config(self, mnemonic: str, rows: Ints, name: str) -> Ints:
        """Field `name` of the last configuration command `mnemonic` before each command."""
        cls = BY_MNEMONIC[mnemonic]
        if self.configured is None:
            at = np.flatnonzero(self.trace.op == cls.opcode)
            last = np.searchsorted(at, rows) - 1
            last = np.where(last >= 0, at[np.maximum(last, 0)] if len(at) else -1, -1)
        else:
            last = self.configured[rows, CONFIGS.index(mnemonic)]
        if len(rows) and int(last.min()) < 0:
            raise IsaError("timing.config", f"needs `{mnemonic}`, which was not executed before",
                           self.trace.place(int(rows[int(last.argmin())])))
        return self.field(cls, last, name)

    def put(self, rows: Ints, **columns: Ints | int) -> None:
        """Set columns of commands."""
        for name, value in columns.items():
            self.table[rows, Col[name]] = value


CONFIGS: Final = ("cfg.layout", "cfg.sic", "cfg.pos", "cfg.conv.in", "sec.init")
"""Commands whose operands later commands go by."""
Rule = Callable[[Lowering, type[Insn], Ints], None]
RULES: Final[dict[str, Rule]] = {}
"""Rule by mnemonic; commands of the vector engine share one."""


def rule(*mnemonics: str) -> Callable[[Rule], Rule]:
    """Declare the rule of some mnemonics."""
    def add(function: Rule) -> Rule:
        RULES.update(dict.fromkeys(mnemonics, function))
        return function

    return add


def rule_of(cls: type[Insn]) -> Rule:
    """The rule of an instruction."""
    found = RULES.get(cls.mnemonic) or (RULES["v.*"] if cls.engine == "vec" else None)
    assert found is not None, f"{cls.mnemonic} has no timing rule"
    return found


@rule("cfg.layout", "cfg.sic", "cfg.pos", "cfg.conv.in", "cfg.conv.win")
def _config(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    low.put(rows, KIND=Kind.CONFIG)


@rule("fence")
def _fence(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    mask = sum(low.field(cls, rows, name) << bit for bit, name in enumerate(("act", "wgt", "store")))
    low.put(rows, KIND=Kind.FENCE, MASK=mask)


@rule("host")
def _host(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    low.put(rows, KIND=Kind.HOST)


@rule("ld.act", "ld.idx", "ld.patch", "ld.conc")
def _load(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    name = cls.mnemonic
    height = low.field(cls, rows, "rows")
    width = np.full(len(rows), low.machine.array.rows)
    lead = 4 * height if name == "ld.idx" else np.zeros_like(height)
    if name == "ld.conc":
        width = np.full(len(rows), SLOT)
        cols, item = SLOT * low.field(cls, rows, "slots"), np.full(len(rows), 2)
    elif name == "ld.patch":
        cols = low.field(cls, rows, "k")
        sizes = np.array([ITEM_BYTES[dtype] for dtype in DTYPES], np.int64)
        item = sizes[low.config("cfg.conv.in", rows, "dtype")]
    else:
        cols, item = low.field(cls, rows, "cols"), low.dtype_bytes(cls, rows)
    low.put(rows, KIND=Kind.LOAD, ROWS=height, COLS=cols, WIDTH=width, SLICES=-(-cols // width), ITEM_BYTES=item,
            LEAD=lead)


@rule("ld.wgt")
def _weights(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    low.put(rows, KIND=Kind.WEIGHT, DEPTH=low.field(cls, rows, "k"), COLS=low.field(cls, rows, "n"),
            ITEM_BYTES=low.dtype_bytes(cls, rows))


@rule("mma")
def _mma(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    window, height, cols = low.window(cls, rows, "t")
    low.put(rows, KIND=Kind.MMA, DST=window, ROWS=height, COLS=cols, DEPTH=low.field(cls, rows, "k"),
            RMW=low.field(cls, rows, "acc"))


_REDUCTIONS: Final = ("v.rsum", "v.rmax", "v.rsumsq")


@rule("v.*")
def _vector(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    name = cls.mnemonic.removeprefix("v.")
    uses = low.machine.sfu.uses.get(name)
    if uses is None:
        raise IsaError("hardware.description", f"sfu.uses.{name}: missing, but the program executes {cls.mnemonic}",
                       hint="add how often one element passes through each unit")
    shape = (np.zeros(len(rows), np.int64),) * 2
    for operand in ("a", "b", "d"):
        if operand not in cls.fields:
            continue
        window, height, cols = low.window(cls, rows, operand)
        low.put(rows, **{"DST" if operand == "d" else operand.upper(): window})
        if operand == ("a" if cls.mnemonic in _REDUCTIONS or name == "fwd" else "d"):
            shape = (height, cols)
    accumulates = low.field(cls, rows, "acc") if "acc" in cls.fields else int(cls.mnemonic in ("v.mask", "v.blend"))
    low.put(rows, KIND=Kind.FORWARD if name == "fwd" else Kind.VECTOR, ROWS=shape[0], COLS=shape[1], RMW=accumulates,
            WIDTH=low.machine.array.rows, SLICES=-(-shape[1] // low.machine.array.rows))
    counts = [getattr(uses, unit) for unit in SFU_UNITS]
    low.uses[rows] = counts
    lanes = [getattr(low.machine.sfu, unit) for unit in SFU_UNITS]
    low.cost[rows] = max(count / lane for count, lane in zip(counts, lanes, strict=True))


@rule("sic")
def _concentrate(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    _require(low.machine.sic.present, low, cls)
    window, height, cols = low.window(cls, rows, "a")
    first, count = low.config("cfg.pos", rows, "visual_start"), low.config("cfg.pos", rows, "count")
    row0 = low.field(cls, rows, "row0")
    visual = np.maximum(np.minimum(row0 + height, first + count) - np.maximum(row0, first), 0)
    block = np.ones(len(rows), np.int64)
    for axis in ("f", "h", "w"):
        # A block does not reach beyond the grid: 2x2x2 on a single frame compares 2x2.
        block = block * np.minimum(low.config("cfg.sic", rows, "b" + axis), low.config("cfg.layout", rows, axis))
    low.put(rows, KIND=Kind.CONCENTRATE, A=window, ROWS=height, COLS=cols, WIDTH=SLOT, SLICES=-(-cols // SLOT),
            VISUAL=visual, DEPTH=block)
    # A row that is not compared still passes through the layouter: one cycle.
    lanes = -(-SLOT // low.machine.sic.lanes)
    low.cost[rows] = (visual * block * low.machine.sic.compare_cycles_per_candidate + (height - visual)) * lanes


@rule("sec.init")
def _sec_init(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    _require(low.machine.sec.present, low, cls)
    entries, room = low.field(cls, rows, "n"), low.machine.sec.importance_entries
    if int(entries.max(initial=0)) > room:
        at = int(rows[int(entries.argmax())])
        raise IsaError("timing.buffer", f"an importance vector of {int(entries.max())} entries; {low.machine.name!r} "
                       f"has room for {room} (sec.importance_entries)", low.trace.place(at),
                       hint="use fewer visual tokens, or a description with a larger importance buffer")
    low.put(rows, KIND=Kind.SELECT)
    low.cost[rows] = -(-entries // low.machine.sec.max_units)


@rule("sec.fold")
def _sec_fold(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    _require(low.machine.sec.present, low, cls)
    window, height, cols = low.window(cls, rows, "a")
    low.put(rows, KIND=Kind.SELECT, A=window, ROWS=height, COLS=cols)
    low.cost[rows] = height * -(-cols // low.machine.sec.max_units)


@rule("sec.topk")
def _sec_topk(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    _require(low.machine.sec.present, low, cls)
    entries = low.config("sec.init", rows, "n")
    keep, total = low.field(cls, rows, "k"), low.field(cls, rows, "total")
    low.put(rows, KIND=Kind.SELECT, WRITES=4 * (keep + np.maximum(total - entries, 0)) + 4 * keep)
    low.cost[rows] = -(-entries // low.machine.sec.topk_entries_per_cycle)


@rule("st", "st.idx")
def _store(low: Lowering, cls: type[Insn], rows: Ints) -> None:
    window, height, cols = low.window(cls, rows, "a")
    lead = 4 * height if cls.mnemonic == "st.idx" else 0
    low.put(rows, KIND=Kind.STORE, A=window, ROWS=height, COLS=cols, ITEM_BYTES=low.dtype_bytes(cls, rows), LEAD=lead)


def _require(present: bool, low: Lowering, cls: type[Insn]) -> None:
    if not present:
        raise IsaError("timing.engine", f"{cls.mnemonic} needs a concentrator; {low.machine.name!r} has none",
                       hint="compile with --concentrate none, or for the target `focus`")


def describe(trace: Trace, machine: Machine, found: Windows, configured: Ints | None = None) -> Lowering:
    """Apply the rules to commands: all that follows from each by itself. `Trace.slot` is not read."""
    count = len(trace)
    table = np.zeros((count, _COLUMNS), np.int64)
    for col in (Col.DST, Col.A, Col.B, Col.UNIQUE, Col.FEED_A, Col.FEED_B, Col.FEED_W):
        table[:, col] = -1
    low = Lowering(trace, machine, table, np.zeros(count), np.zeros((count, len(SFU_UNITS)), np.int64), found,
                   configured)
    for opcode in np.unique(trace.op).tolist():
        cls = INSNS[opcode]
        rows = np.flatnonzero(trace.op == opcode).astype(np.int64)
        table[rows, Col.ENGINE] = ENGINES.index(cls.engine)
        rule_of(cls)(low, cls, rows)
    return low


def weight_chunk(machine: Machine) -> int:
    """Columns of one weight slice: as many whole column groups as half of the weight staging buffer holds."""
    half = machine.buffers.weights.bytes // (4 * machine.array.rows)
    return max(machine.array.cols, half // machine.array.cols * machine.array.cols)


def lower(trace: Trace, machine: Machine, counts: DynamicCounts | SiteCounts | None) -> Work:
    """The work of a trace on a machine, one row for each command.

    `counts` may be None for programs that never concentrate. Raises IsaError for what cannot be timed: a stream taken
    before it is fed, missing counts or configuration, an engine that the machine lacks.
    """
    low = describe(trace, machine, windows(trace.tiles))
    feed = UniqueFeed(counts)
    unique, low.table[:, Col.UNIQUE] = feed.take(trace)
    feed.finish()
    _position_lists(low)
    chunk = weight_chunk(machine)
    _match(low, chunk)
    return Work(low.table, low.cost, low.uses, unique, low.windows, trace.pc, chunk)


def stream_operands(cls: type[Insn]) -> tuple[str, ...]:
    """Tile operands that may name the head of the activation stream, in the order in which they take from it; for
    `mma` and `v.ld` the activation is no operand."""
    return tuple(name for name in ("a", "b") if name in cls.fields) if cls.engine in ("vec", "st") else ()


def _position_lists(low: Lowering) -> None:
    """The first SIC or SEC command after a new `cfg.pos` reads its position list: 4 bytes a row."""
    kinds = low.table[:, Col.KIND]
    readers = (kinds == Kind.CONCENTRATE) | (low.trace.op == BY_MNEMONIC["sec.topk"].opcode)
    users = np.flatnonzero(readers).astype(np.int64)
    cls = BY_MNEMONIC["cfg.pos"]
    at = np.flatnonzero(low.trace.op == cls.opcode)
    if not len(users) or not len(at):
        return
    address, count = low.field(cls, at, "addr"), low.field(cls, at, "count")
    plain = low.field(cls, at, "identity") == 0
    fresh = plain & np.concatenate(([True], (np.diff(address) != 0) | (np.diff(count) != 0)))
    reader = np.searchsorted(users, at[fresh])
    here = reader < len(users)
    low.table[users[reader[here]], Col.LEAD] = 4 * count[fresh][here]


def _match(low: Lowering, chunk: int) -> None:
    """Hand stream items to their consumers and complete what depends on both ends."""
    table, trace = low.table, low.trace
    kinds = table[:, Col.KIND]
    acts = np.flatnonzero((kinds == Kind.LOAD) | (kinds == Kind.FORWARD)).astype(np.int64)
    wgts = np.flatnonzero(kinds == Kind.WEIGHT).astype(np.int64)
    mmas = np.flatnonzero(kinds == Kind.MMA).astype(np.int64)
    # In a vector or store command a tile operand of -1 that the instruction declares is the stream head.
    takes = np.zeros((len(trace), 2), np.bool_)
    takes[mmas, 0] = True
    for opcode in np.unique(trace.op).tolist():
        cls = INSNS[opcode]
        rows = np.flatnonzero(trace.op == opcode)
        if cls.mnemonic == "v.ld":
            takes[rows, 0] = True
        for column, operand in enumerate(("a", "b")):
            if operand in stream_operands(cls):
                takes[rows, column] = low.field(cls, rows.astype(np.int64), operand) < 0
    pops = np.repeat(np.arange(len(trace)), takes.sum(axis=1))
    match_stream(acts, pops, trace.pc, "activation")
    match_stream(wgts, mmas, trace.pc, "weight")
    number = (np.cumsum(takes.reshape(-1)) - 1).reshape(takes.shape)
    for column, feed in enumerate((Col.FEED_A, Col.FEED_B)):
        at = np.flatnonzero(takes[:, column])
        table[at, feed] = acts[number[at, column]]
    table[mmas, Col.FEED_W] = wgts[:len(mmas)]
    # A weight slice is as deep as the activation slice that meets it.
    table[wgts, Col.WIDTH] = low.machine.array.rows
    table[table[mmas, Col.FEED_W], Col.WIDTH] = table[table[mmas, Col.FEED_A], Col.WIDTH]
    complete(table, np.arange(len(table)), chunk, trace)


def complete(table: Ints, rows: Ints, chunk: int, trace: Trace) -> None:
    """Fill in what follows from the stream items that these rows take; `trace` has one command for each row."""
    mine = table[rows]
    # Shapes that only the load knows: reductions and stores of the stream head.
    at = rows[(mine[:, Col.ROWS] == 0) & (mine[:, Col.FEED_A] >= 0) & (mine[:, Col.KIND] != Kind.MMA)]
    feeder = table[at, Col.FEED_A]
    table[at, Col.ROWS], table[at, Col.COLS] = table[feeder, Col.ROWS], table[feeder, Col.COLS]
    mmas = rows[mine[:, Col.KIND] == Kind.MMA]
    act, wgt = table[mmas, Col.FEED_A], table[mmas, Col.FEED_W]
    for col in (Col.WIDTH, Col.SLICES, Col.UNIQUE):
        table[mmas, col] = table[act, col]
    wgts = rows[mine[:, Col.KIND] == Kind.WEIGHT]
    table[wgts, Col.SLICES] = -(-table[wgts, Col.DEPTH] // table[wgts, Col.WIDTH]) * -(-table[wgts, Col.COLS] // chunk)
    wrong = np.flatnonzero((table[act, Col.COLS] < table[mmas, Col.DEPTH])
                           | (table[act, Col.ROWS] != table[mmas, Col.ROWS])
                           | (table[wgt, Col.COLS] != table[mmas, Col.COLS])
                           | (table[wgt, Col.DEPTH] != table[mmas, Col.DEPTH]))
    if wrong.size:
        at = int(mmas[wrong[0]])
        a, w = table[act[wrong[0]]], table[wgt[wrong[0]]]
        raise IsaError("timing.shape", f"mma of {table[at, Col.ROWS]} x {table[at, Col.COLS]}, k={table[at, Col.DEPTH]}"
                       f" takes activations of {a[Col.ROWS]} x {a[Col.COLS]} and weights of {w[Col.DEPTH]} x "
                       f"{w[Col.COLS]}", trace.place(at))
