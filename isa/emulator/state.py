"""Architectural state of a run, as the `execute` functions of the instructions see it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.isa.dynamic import DynamicCounts
from focusc.isa.emulator import kernels
from focusc.isa.emulator.ahead import Helpers
from focusc.isa.emulator.memory import Constants, Memory
from focusc.isa.errors import Fault, IsaError
from focusc.isa.host import HostRun, stored
from focusc.isa.program import ALIGN, ITEM_BYTES, Program, Symbol, align, conc_block

__all__ = ["Item", "SicEvent", "State", "TopkEvent", "output_bytes"]

F32 = NDArray[np.float32]
Flat = tuple[F32, int, int, int, int]
"""A matrix inside a flat array: (array, first element, pitch, rows, cols)."""
NUMPY: dict[str, Any] = {"f16": np.float16, "f32": np.float32, "i8": np.int8, "u8": np.uint8, "u16": np.uint16,
                         "i32": np.int32}
Observer = Callable[["SicEvent | TopkEvent"], None]
_CACHE_BYTES = 1 << 30
MAX_ITEM = 1 << 28
"""Elements (1 GiB as float32) of one stream entry, and of all that wait in one stream, each counting 64 extra."""
_ENTRY = 64


def output_bytes(hardware: dict[str, Any]) -> int:
    """Bytes of the output buffer in a hardware description; IsaError if it does not say."""
    try:
        return int(hardware["buffers"]["output"]["bytes"])
    except (KeyError, TypeError, ValueError):
        raise IsaError("program.hardware", "the program's hardware description lacks buffers.output.bytes",
                       hint="give the program the description of a target, as the compiler does") from None


@dataclass(frozen=True, slots=True)
class SicEvent:
    """What one `sic` decided. links[slot, i]: tile row that row i links to (itself: a root)."""

    pc: int
    site: int
    row0: int
    first: int
    """Tile rows first .. first+count are the visual ones."""
    count: int
    links: NDArray[np.int32]
    unique: NDArray[np.int32]
    x: F32
    """The tile's values [rows, cols] that were compared."""


@dataclass(frozen=True, slots=True)
class TopkEvent:
    """What one `sec.topk` kept: indices among the present visual rows, and their original positions."""

    pc: int
    kept: NDArray[np.int32]
    positions: NDArray[np.int32]
    importance: F32


class Item:
    """One entry of a stream: float32 data [rows, cols], its type in DRAM, and the DRAM bytes it is a view of."""

    __slots__ = ("conc", "data", "dtype", "high", "low", "producer")

    def __init__(self, data: F32, dtype: str, low: int = 0, high: int = 0, conc: bool = False) -> None:
        self.data, self.dtype, self.low, self.high, self.conc = data, dtype, low, high, conc
        self.producer: Any = None


class ConcTile:
    """A concentrated tile whose rows are still at hand as `sic` computed them."""

    __slots__ = ("cap", "high", "low", "recon", "rows")

    def __init__(self, low: int, high: int, cap: int, rows: int, recon: F32) -> None:
        self.low, self.high, self.cap, self.rows, self.recon = low, high, cap, rows, recon


class State:
    """Everything a command can read or change. `tiles` and `views` belong to the chunk of the trace being executed."""

    strict = False

    def __init__(self, program: Program, constants: Constants, observe: Observer | None = None,
                 run_host: HostRun | None = None) -> None:
        self.segments, self.run_host = program.host, run_host
        self.clipped = 0
        self.mem = Memory(program, constants)
        self.obuf: F32 = np.zeros(output_bytes(program.hardware) // 4, np.float32)
        self.tiles: list[list[int]] = []
        self.views: list[F32 | None] = []
        self.act: deque[Item] = deque()
        self.wgt: deque[Item] = deque()
        self.act_held = self.wgt_held = 0
        self.importance: F32 | None = None
        self.layout: tuple[int, ...] | None = None
        self.sic: tuple[int, int, int, float, int, int] | None = None
        self.pos: tuple[int, int, int, int] | None = None
        self.conv_in: tuple[int, ...] | None = None
        self.conv_win: tuple[int, ...] | None = None
        self.counts = DynamicCounts()
        self.inputs: list[tuple[Symbol, NDArray[Any]]] = []
        self.observe = observe
        self.pc = 0
        self.k = kernels
        self.scratch: F32 = np.empty(0, np.float32)
        self.helpers: Helpers | None = None
        self.products = 0
        """Matrix products of this chunk of the trace so far."""
        self._conc: dict[int, tuple[ConcTile, int]] = {}
        self._conc_tiles: dict[int, ConcTile] = {}
        self._conc_flags = bytearray(len(self.mem.raw_newer))
        self._rows_at: dict[int, int] = {}

    def begin_chunk(self, tiles: list[list[int]]) -> None:
        """Take over the tile table of the next chunk of the trace."""
        self.tiles = tiles
        self.views = [None] * len(tiles)
        self.products = 0

    # -------------------------------------------------------------- tiles

    def view(self, t: int) -> F32:
        """The window of tile-table row t, as a view of the output buffer."""
        found = self.views[t]
        if found is None:
            off, rows, cols, pitch = self.tiles[t]
            if off + ((rows - 1) * pitch + cols) * 4 > self.obuf.nbytes:
                raise Fault("run.window", f"tile window of {rows} x {cols} (pitch {pitch}) at byte {off} leaves the "
                            f"output buffer of {self.obuf.nbytes} bytes")
            found = np.ndarray((rows, cols), np.float32, self.obuf, off, (pitch * 4, 4))  # type: ignore[arg-type]
            self.views[t] = found
        return found

    def source(self, t: int) -> F32:
        """A tile to read, or the stream head (t = -1), which is taken."""
        return self.view(t) if t >= 0 else self.pop_act().data

    def dest(self, t: int) -> F32:
        """A tile that the command overwrites entirely."""
        return self.view(t)

    def update(self, t: int) -> F32:
        """A tile that the command reads and writes."""
        return self.view(t)

    def place(self, t: int) -> Flat:
        """Where a tile is: (output buffer, first element, pitch, rows, cols)."""
        off, rows, cols, pitch = self.tiles[t]
        return self.obuf, off >> 2, pitch, rows, cols

    def flat(self, t: int) -> Flat:
        """Source t as a flat array: (array, first element, pitch, rows, cols)."""
        data = self.source(t)
        if t >= 0:
            return self.place(t)
        data = np.ascontiguousarray(data)
        return data.reshape(-1), 0, data.shape[1], data.shape[0], data.shape[1]

    def beside(self, t: int, d: int) -> Flat:
        """Source t as a flat array that may be read while tile d is written element by element.

        It is tile d itself, or nothing of it is in tile d: a copy where the two overlap in another way.
        """
        found = self.flat(t)
        if t < 0 or t == d:
            return found
        off, rows, cols, pitch = self.tiles[t]
        at, high, wide, step = self.tiles[d]
        if self.tiles[t] == self.tiles[d] or off + 4 * ((rows - 1) * pitch + cols) <= at or (
                at + 4 * ((high - 1) * step + wide) <= off):
            return found
        return self.view(t).reshape(-1).copy(), 0, cols, rows, cols

    def temporary(self, rows: int, cols: int) -> F32:
        """Scratch space [rows, cols] that lives until the next call."""
        if self.scratch.size < rows * cols:
            self.scratch = np.empty(rows * cols, np.float32)
        return self.scratch[:rows * cols].reshape(rows, cols)

    def product(self, a: F32, w: F32, out: F32) -> F32:
        """a @ w, float32: in `out` or in an array of its own."""
        number = self.products
        self.products += 1
        if self.helpers is None:
            return np.matmul(a, w, out=out)
        return self.helpers.product(number, a, w, out)

    # -------------------------------------------------------------- streams

    def push_act(self, item: Item) -> None:
        self.act_held += item.data.size + _ENTRY
        if self.act_held > MAX_ITEM + _ENTRY:
            raise self._overfull("activation", len(self.act))
        self.act.append(item)

    def push_wgt(self, item: Item) -> None:
        self.wgt_held += item.data.size + _ENTRY
        if self.wgt_held > MAX_ITEM + _ENTRY:
            raise self._overfull("weight", len(self.wgt))
        self.wgt.append(item)

    def _overfull(self, stream: str, entries: int) -> Fault:
        return Fault("run.extent", f"the {stream} stream holds {entries} entries and would exceed {MAX_ITEM:,} "
                     "elements", hint="issue the consumers of the loads sooner")

    def extent(self, rows: int, cols: int) -> None:
        """Fault unless rows x cols is the shape of a stream entry: not empty, and at most `MAX_ITEM` elements."""
        if rows <= 0 or cols <= 0 or rows * cols > MAX_ITEM:
            raise Fault("run.extent", f"a load of {rows} rows x {cols} columns; expected 1 to {MAX_ITEM:,} elements")

    def pop_act(self) -> Item:
        """Head of the activation stream; Fault if it is empty."""
        if not self.act:
            raise Fault("run.underflow", "the activation stream is empty",
                        hint="every consumer needs its own load or fwd before it in program order")
        item = self.act.popleft()
        self.act_held -= item.data.size + _ENTRY
        return item

    def pop_wgt(self) -> Item:
        """Head of the weight stream; Fault if it is empty."""
        if not self.wgt:
            raise Fault("run.underflow", "the weight stream is empty", hint="every mma needs its own ld.wgt before it")
        item = self.wgt.popleft()
        self.wgt_held -= item.data.size + _ENTRY
        return item

    # -------------------------------------------------------------- memory

    def load(self, addr: int, rows: int, cols: int, stride: int, dtype: str) -> Item:
        """A block of DRAM as a stream item."""
        self.extent(rows, cols)
        data = self.mem.load(addr, rows, cols, stride, dtype)
        return Item(data, dtype, addr, addr + (rows - 1) * stride + cols * 4)

    def load_i32(self, addr: int, count: int) -> NDArray[np.int32]:
        return self.mem.load_i32(addr, count)

    def load_rows(self, addr: int, index: NDArray[np.int32], cols: int, stride: int, dtype: str) -> Item:
        """Rows `index` of a table in DRAM as a stream item."""
        self.extent(len(index), cols)
        return Item(self.mem.load_rows(addr, index, cols, stride, dtype), dtype)

    def index(self, addr: int, count: int, limit: int) -> NDArray[np.int32]:
        """An i32 list in DRAM whose entries must lie in 0..limit-1."""
        found = self.load_i32(addr, count)
        if count and (int(found.min()) < 0 or int(found.max()) >= limit):
            bad = int(np.flatnonzero((found < 0) | (found >= limit))[0])
            raise self._outside(addr, bad, int(found[bad]), limit)
        return found

    def _outside(self, addr: int, entry: int, value: int, limit: int) -> Fault:
        """The fault for an index, in terms of the input that the list is read from, if it is one."""
        for symbol, data in self.inputs:
            number = (addr - symbol.address) // 4 + entry
            if symbol.dtype == "i32" and 0 <= number < symbol.count:
                at = tuple(int(i) for i in np.unravel_index(number, symbol.shape))
                # the input's memory may hold something else by now
                if int(data[at]) == value:
                    return Fault("input.value", f"input {symbol.name!r} is {value} at {list(at)}, expected "
                                 f"0..{limit - 1}", hint=f"these are row numbers of a table of {limit} rows")
        return Fault("run.index", f"entry {entry} of the index list is {value}, expected 0..{limit - 1}")

    def before_write(self, low: int, high: int) -> None:
        """Keep stream items and cached tiles right when DRAM bytes low..high change."""
        for queue in (self.act, self.wgt):
            for item in queue:
                if item.low < high and low < item.high:
                    item.data, item.low, item.high = item.data.copy(), 0, 0
        base = self.mem.base
        if self._conc_tiles and self._conc_flags.find(1, max(0, low - base) >> 6, (high - base + 63) >> 6) >= 0:
            for tile in [t for t in self._conc_tiles.values() if t.low < high and low < t.high]:
                self._forget(tile)

    def store(self, t: int, addr: int, stride: int, dtype: str) -> None:
        """Round a source to `dtype` and store it."""
        flat, offset, pitch, rows, cols = self.flat(t)
        self.before_write(addr, addr + (rows - 1) * stride + cols * 4)
        self.mem.store(addr, stride, dtype, flat, offset, pitch, rows, cols)

    def store_row(self, flat: F32, offset: int, addr: int, cols: int, dtype: str) -> None:
        """Store one row of a source."""
        self.before_write(addr, addr + cols * 4)
        self.mem.store(addr, 0, dtype, flat, offset, cols, 1, cols)

    def store_i32(self, addr: int, data: NDArray[np.int32]) -> None:
        self.before_write(addr, addr + data.nbytes)
        self.mem.store_bytes(addr, data, 4)

    # -------------------------------------------------------------- concentrated tiles

    def _forget(self, tile: ConcTile) -> None:
        base, block = self.mem.base, conc_block(tile.cap)
        for at in range(tile.low, tile.high, block):
            self._conc.pop(at, None)
        self._conc_tiles.pop(tile.low, None)
        a, b = (tile.low - base) >> 6, (tile.high - base) >> 6
        self._conc_flags[a:b] = bytes(b - a)

    def conc_span(self, addr: int, slots: int, cap: int, rows: int, *, write: bool) -> int:
        """End of a concentrated tile's bytes; Fault unless it is aligned, in memory and has room for the rows."""
        if rows > cap or cap > 65536 or slots == 0 or rows == 0:
            raise Fault("run.extent", f"{rows} rows x {slots} slots do not fit blocks for {cap} rows (at most 65536)")
        if addr % ALIGN:
            raise Fault("run.align", f"block address {addr:#x} is not a multiple of {ALIGN}")
        return self.mem.span(addr, 1, slots * conc_block(cap), 0, 1, write=write)

    def load_conc(self, addr: int, rows: int, slots: int, cap: int, row0: int = 0) -> Item:
        """Rows row0 .. row0+rows of a concentrated tile: [rows, slots*32]."""
        last = row0 + rows
        end = self.conc_span(addr, slots, cap, last if rows else 0, write=False)
        if addr < self.mem.base:
            raise Fault("run.bounds", f"concentrated tile at {addr:#x} lies in the constants")
        if rows < self._rows_at.get(addr, rows):
            self._partial(addr, slots, cap, row0, rows)
        found = self._conc.get(addr)
        if found is not None:
            tile, slot = found
            if tile.cap == cap and last <= tile.rows and end <= tile.high:
                return Item(tile.recon[row0:last, slot * 32:(slot + slots) * 32], "f16", conc=True)
            joined = self._joined(addr, end, cap, last)
            if joined is not None:
                return Item(joined.recon[row0:last], "f16", conc=True)
        mem, block = self.mem, conc_block(cap)
        low = addr - mem.base
        mem.want_raw(low, end - mem.base)
        mem.want_shadow(low, end - mem.base)
        header: NDArray[np.uint32] = np.ndarray((slots,), np.uint32, mem.raw, low, (block,))  # type: ignore[arg-type]
        unique = np.minimum(header, cap).astype(np.int32)
        out = np.empty((rows, slots * 32), np.float32)
        bad = self.k.gather(mem.bits, mem.shadow, (low + 64) // 2 + row0, (low + 64 + align(2 * cap)) >> 1, block >> 1,
                            unique, rows, out)
        if bad >= 0:
            raise Fault("run.map", f"slot {bad}: the map names a unique vector beyond the block's count "
                        f"{int(header[bad])}", hint="the tile must be written by sic before it is loaded")
        return Item(out, "f16", conc=True)

    def _joined(self, addr: int, end: int, cap: int, last: int) -> ConcTile | None:
        """One cached tile in the place of several that were written side by side and together fill addr..end."""
        parts: list[ConcTile] = []
        at = addr
        while at < end:
            tile = self._conc_tiles.get(at)
            if tile is None or tile.cap != cap or last > tile.rows or tile.high > end:
                return None
            if parts and tile.rows != parts[0].rows:
                return None
            parts.append(tile)
            at = tile.high
        whole = ConcTile(addr, end, cap, parts[0].rows, np.concatenate([tile.recon for tile in parts], axis=1))
        for tile in parts:
            del self._conc_tiles[tile.low]
        self._conc_tiles[addr] = whole
        for slot, block in enumerate(range(addr, end, conc_block(cap))):
            self._conc[block] = (whole, slot)
        return whole

    def _partial(self, addr: int, slots: int, cap: int, row0: int, rows: int) -> None:
        """Record how many unique vectors a part of a tile's rows refers to, for timing."""
        low, block = addr - self.mem.base, conc_block(cap)
        for slot in range(slots):  # the maps alone: the vectors may stay in their shadow
            self.mem.want_raw(low + slot * block, low + slot * block + 64 + align(2 * cap))
        maps: NDArray[np.uint16] = np.ndarray((slots, rows), np.uint16, self.mem.raw, low + 64 + 2 * row0, (block, 2))  # type: ignore[arg-type]
        self.counts.add_partial(np.array([len(np.unique(row)) for row in maps], np.int32))

    def merge(self, t: int, addr: int, cap: int, row0: int, site: int) -> None:
        """The work of `sic`: concentrate a tile and write its blocks."""
        if self.sic is None or self.layout is None or self.pos is None:
            missing = "cfg.sic" if self.sic is None else "cfg.layout" if self.layout is None else "cfg.pos"
            raise Fault("run.config", f"{missing} has not been executed")
        flat, offset, pitch, rows, cols = self.flat(t)
        slots, block, mem = -(-cols // 32), conc_block(cap), self.mem
        end = self.conc_span(addr, slots, cap, rows, write=True)
        self.before_write(addr, end)
        positions, first = self.positions_of(row0, rows)
        bf, bh, bw, threshold, grid, published = self.sic
        cand = self.k.candidates(positions, first, self.layout, (bf, bh, bw), grid == 1, rows)
        links, maps = np.empty((slots, rows), np.int32), np.empty((slots, rows), np.uint16)
        unique, roots = np.empty(slots, np.int32), np.empty(slots, np.int32)
        recon = np.empty((rows, slots * 32), np.float32)
        low = addr - mem.base
        head = 64 + align(2 * cap)
        self.k.sic_merge(flat, offset, pitch, rows, cols, cand, np.float32(threshold),
                         self.layout[0] if published else 0, links, maps, unique, roots, mem.shadow, (low + head) >> 1,
                         block >> 1, recon)
        self._write_blocks(low, slots, rows, block, head, unique, maps)
        tile = ConcTile(addr, end, cap, rows, recon)
        self._conc_tiles[addr] = tile
        for slot in range(slots):
            self._conc[addr + slot * block] = (tile, slot)
            self._rows_at[addr + slot * block] = rows
        self._conc_flags[low >> 6:(end - mem.base) >> 6] = b"\1" * ((end - addr) >> 6)
        if sum(item.recon.nbytes for item in self._conc_tiles.values()) > _CACHE_BYTES:
            self._forget(next(iter(self._conc_tiles.values())))
        self.counts.add(roots, site, rows, len(positions))
        if self.observe is not None:
            x: F32 = np.ndarray((rows, cols), np.float32, flat, 4 * offset, (4 * pitch, 4)).copy()
            self.observe(SicEvent(self.pc, site, row0, first, len(positions), links, unique, x))

    def _write_blocks(self, low: int, slots: int, rows: int, block: int, head: int, unique: NDArray[np.int32],
                      maps: NDArray[np.uint16]) -> None:
        """Counts and maps as bytes; the vectors are in the shadow already. The rest of a block is undefined."""
        raw = self.mem.raw
        header: NDArray[np.uint32] = np.ndarray((slots,), np.uint32, raw, low, (block,))  # type: ignore[arg-type]
        header[:] = unique
        table: NDArray[np.uint16] = np.ndarray((slots, rows), np.uint16, raw, low + 64, (block, 2))  # type: ignore[arg-type]
        table[:] = maps
        a, b = low >> 6, (low + slots * block) >> 6
        newer = np.zeros((slots, block >> 6), np.uint8)
        newer[:, :head >> 6] = 1
        self.mem.raw_newer[a:b] = newer.tobytes()
        self.mem.shadow_newer[a:b] = (1 - newer).tobytes()

    def positions_of(self, row0: int, rows: int) -> tuple[NDArray[np.int32], int]:
        """Original positions of the visual rows among sequence rows row0.., and the tile row of the first of them."""
        if self.pos is None:
            raise Fault("run.config", "cfg.pos has not been executed")
        addr, count, start, identity = self.pos
        low, high = max(row0, start), min(row0 + rows, start + count)
        if low >= high:
            return np.zeros(0, np.int32), 0
        if identity:
            return np.arange(low - start, high - start, dtype=np.int32), low - row0
        found = np.array(self.load_i32(addr + 4 * (low - start), high - low))
        if int(found[0]) < 0 or int(found[-1]) - int(found[0]) >= 1 << 26 or (np.diff(found) <= 0).any():
            raise Fault("run.positions", "the position list is not ascending, or spans more than 2^26 positions")
        return found, low - row0

    # -------------------------------------------------------------- the rest

    def forward(self, t: int) -> None:
        """Round a tile to f16 and push it onto the activation stream."""
        flat, offset, pitch, rows, cols = self.flat(t)
        out = np.empty((rows, cols), np.float32)
        self.k.round_rows(flat, offset, pitch, out.reshape(-1), 0, cols, rows, cols, 0)
        self.push_act(Item(out, "f16"))

    def fence(self, act: int, wgt: int, store: int) -> None:
        """Nothing: commands execute in program order here. The strict emulator checks that fences are not missing."""

    def expect_infinity(self) -> None:
        """The command makes an infinity of finite values on purpose: the strict emulator takes it for no fault."""

    def host(self, number: int) -> None:
        """Let the host run a segment on its tensors in memory."""
        segment = self.segments[number]
        if self.run_host is None or not segment.model:
            raise Fault("run.host", f"segment {number} is the host's to run ({len(segment.nodes)} nodes), and "
                        + ("nothing here runs it" if segment.model else "it was compiled without weights"),
                        hint="`focusc run` and `focusc.run` bring onnxruntime; Emulator takes it as `host`"
                        if segment.model else "compile the model with its weights")
        outputs = self.run_host(number, {symbol.name: self.tensor(symbol) for symbol in segment.inputs})
        for symbol in segment.outputs:
            if symbol.name not in outputs:
                raise Fault("run.host", f"the host gave no {symbol.name}, an output of segment {number}")
            data, clipped = stored(symbol, outputs[symbol.name])
            if clipped:
                self.clip(symbol, outputs[symbol.name], clipped)
            self.put(symbol, data)

    def clip(self, symbol: Symbol, value: Any, count: int) -> None:
        """Called when `count` finite values of the host's have no place in what a tensor is stored as."""
        self.clipped += count

    def tensor(self, symbol: Symbol) -> NDArray[Any]:
        """Copy of a tensor in memory; f16 as float16, bf16 as float32."""
        if symbol.count == 0:
            return np.zeros(symbol.shape, NUMPY.get(symbol.dtype, np.float32))
        if symbol.dtype in ("f16", "bf16"):
            found = self.mem.load(symbol.address, 1, symbol.count, 0, symbol.dtype)
            target = np.float16 if symbol.dtype == "f16" else np.float32
            return found.reshape(symbol.shape).astype(target)
        end = self.mem.span(symbol.address, 1, symbol.count, 0, ITEM_BYTES[symbol.dtype])
        return self.mem.bytes(symbol.address, end).view(NUMPY[symbol.dtype]).reshape(symbol.shape).copy()

    def put(self, symbol: Symbol, data: NDArray[Any]) -> None:
        """Write a tensor, float32 or of its whole-number type, to its place in memory."""
        if symbol.count == 0:
            return
        self.before_write(symbol.address, symbol.address + symbol.bytes)
        if symbol.dtype in ("f16", "bf16", "f32"):
            flat = np.ascontiguousarray(data, np.float32).reshape(-1)
            self.mem.store(symbol.address, 0, symbol.dtype, flat, 0, symbol.count, 1, symbol.count)
        else:
            self.mem.store_bytes(symbol.address, np.ascontiguousarray(data, NUMPY[symbol.dtype]),
                                 ITEM_BYTES[symbol.dtype])

    def selected(self, kept: NDArray[np.int32], positions: NDArray[np.int32]) -> None:
        """Report a `sec.topk` selection to the observer."""
        if self.observe is not None and self.importance is not None:
            self.observe(TopkEvent(self.pc, kept, positions, self.importance.copy()))

    def begin(self, op: int, row: list[int]) -> None:
        """Called before a command in strict mode."""

    def end(self) -> None:
        """Called after a command in strict mode."""

    def finish(self) -> None:
        """Called once, when the program has ended."""

    def placed(self, symbol: Symbol) -> None:
        """Called when an input has been written to memory."""

    def fetched(self, symbol: Symbol) -> None:
        """Called when an output is about to be read."""
