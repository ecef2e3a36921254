"""The strict emulator: the same results, plus checks that find wrong programs where they are wrong.

Read-before-write of any DRAM byte or accumulator element, NaN or infinity made from finite inputs, streams that are not
used up, output bytes that nobody wrote, and data races: two commands touch the same DRAM bytes, at least one writes,
and neither engine order, a stream, a tile nor a fence orders them.

Order is tracked with vector clocks. Every command has a clock: for each engine, how many of its commands have completed
before this one completes. It joins the clocks of the command before it on its engine, of the producers of the stream
entries it takes, of the last users of the accumulator elements it touches (the hardware interlocks tiles), and of
fences. An access is ordered after an earlier one if the clock covers it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.isa.emulator import shadowing
from focusc.isa.emulator.memory import Constants
from focusc.isa.emulator.state import Item, SicEvent, State, TopkEvent
from focusc.isa.errors import Fault
from focusc.isa.host import HostRun
from focusc.isa.insns import ENGINES, INSNS
from focusc.isa.program import ITEM_BYTES, Program, Symbol, align, conc_block

__all__ = ["StrictState"]

F32 = NDArray[np.float32]
_ENGINE = {opcode: ENGINES.index(cls.engine) for opcode, cls in INSNS.items()}
_READERS = {ENGINES.index(name): row for row, name in enumerate(("lda", "ldw", "sic", "sec", "st"))}
_WRITERS = tuple(ENGINES.index(name) for name in ("st", "sic", "sec"))
_FLOATS = {opcode: [i for i, f in enumerate(cls.fields.values()) if f.kind == "f32"] for opcode, cls in INSNS.items()}


class StrictState(State):
    """A State that follows every byte: who wrote it, who read it, and what orders them."""

    strict = True

    def __init__(self, program: Program, constants: Constants,
                 observe: Callable[[SicEvent | TopkEvent], None] | None = None,
                 run_host: HostRun | None = None) -> None:
        super().__init__(program, constants, observe, run_host)
        self.program = program
        size, engines = len(self.mem.raw), len(ENGINES)
        self.written = np.zeros(size, np.uint8)
        self.writer = np.zeros(size, np.int32)
        self.readers = np.zeros((len(_READERS), size), np.int32)
        self.tile_written = np.zeros(len(self.obuf), np.uint8)
        self.tile_writer = np.zeros(len(self.obuf), np.int32)
        self.tile_readers = np.zeros((engines, len(self.obuf)), np.int32)
        # Number 0 is nobody: its clock is zero, so everything comes after it.
        self.clocks = np.zeros((1024, engines), np.int64)
        self.engine_of = np.zeros(1024, np.int64)
        self.pc_of = np.zeros(1024, np.int64)
        self.command = 0
        self.engine = 0
        self.last = np.zeros((engines, engines), np.int64)
        self.pending = np.zeros((engines, engines), np.int64)
        self.clock = np.zeros(engines, np.int64)
        self.finite = True
        self.made: list[tuple[str, F32]] = []

    # -------------------------------------------------------------- command boundaries

    def begin(self, op: int, row: list[int]) -> None:
        self.command += 1
        if self.command == len(self.engine_of):
            grow = len(self.engine_of)
            self.clocks = np.concatenate([self.clocks, np.zeros((grow, len(ENGINES)), np.int64)])
            self.engine_of = np.concatenate([self.engine_of, np.zeros(grow, np.int64)])
            self.pc_of = np.concatenate([self.pc_of, np.zeros(grow, np.int64)])
        engine = self.engine = _ENGINE[op]
        self.engine_of[self.command], self.pc_of[self.command] = engine, self.pc
        self.clock = np.maximum(self.last[engine], self.pending[engine])
        self.clock[engine] = self.last[engine, engine] + 1
        # An infinite immediate is an input that is not finite; what follows from it is meant.
        self.finite = all(row[i] & 0x7F800000 != 0x7F800000 for i in _FLOATS[op])
        self.made.clear()

    def end(self) -> None:
        self.last[self.engine] = self.clock
        self.clocks[self.command] = self.clock
        if self.finite:
            for what, view in self.made:
                if not np.isfinite(view).all():
                    at = np.argwhere(~np.isfinite(view))[0]
                    raise Fault("run.nonfinite", f"{what} becomes {view[tuple(at)]} at {[int(i) for i in at]}, "
                                "from finite inputs", hint="check the range of the values, or scale before this")

    def expect_infinity(self) -> None:
        self.finite = False

    def finish(self) -> None:
        for name, queue in (("activation", self.act), ("weight", self.wgt)):
            if queue:
                clock_pc = queue[0].producer
                raise Fault("run.leftover", f"{len(queue)} entries are left in the {name} stream at halt",
                            hint="every load needs one consumer").at(clock_pc[1], self.program.line(clock_pc[1]),
                                                                     self.program.node(clock_pc[1]))

    def fence(self, act: int, wgt: int, store: int) -> None:
        writers = self.last[list(_WRITERS)].max(axis=0)
        for engine, on in (("lda", act), ("ldw", wgt)):
            if on:
                row = self.pending[ENGINES.index(engine)]
                np.maximum(row, writers, out=row)
        if store:
            everything = self.last.max(axis=0)
            for engine in _WRITERS:
                np.maximum(self.pending[engine], everything, out=self.pending[engine])

    def host(self, number: int) -> None:
        for symbol in self.segments[number].inputs:
            low = symbol.address - self.mem.base
            missing = np.flatnonzero(self.written[low:low + symbol.bytes] == 0)
            if missing.size:
                byte = symbol.address + int(missing[0])
                raise Fault("run.unwritten", f"reads DRAM byte {byte:#x}, which nothing has written",
                            hint=self._inside(byte))
        super().host(number)
        # after everything that was issued, and before everything that will be
        np.maximum(self.clock, self.last.max(axis=0), out=self.clock)
        np.maximum(self.pending, self.clock, out=self.pending)
        self.clocks[self.command] = self.clock
        for symbol in self.segments[number].outputs:
            self._wrote(symbol.address, 1, symbol.bytes, 0)

    def clip(self, symbol: Symbol, value: Any, count: int) -> None:
        finite = np.abs(np.where(np.isfinite(value), value, 0))
        largest = finite[finite != np.finfo(np.float32).max].max()
        raise Fault("run.nonfinite", f"the host gave {symbol.name} {count} finite values beyond {symbol.dtype}, up to "
                    f"{largest:g}", hint="check the range of the values, or scale before this; without --strict they "
                    "become the largest that there is")

    # -------------------------------------------------------------- tiles

    def _read_tile(self, t: int) -> F32:
        view = super().view(t)
        off, rows, cols, pitch = self.tiles[t]
        bad = shadowing.read_tile(off >> 2, rows, cols, pitch, self.tile_written, self.tile_writer,
                                  self.tile_readers[self.engine], self.command, self.clocks, self.clock)
        if bad >= 0:
            raise Fault("run.unwritten", f"element [{bad // cols}, {bad % cols}] of the source tile is read, but "
                        "nothing has written it")
        self.finite = self.finite and bool(np.isfinite(view).all())
        return view

    def _write_tile(self, t: int) -> F32:
        view = super().view(t)
        off, rows, cols, pitch = self.tiles[t]
        shadowing.write_tile(off >> 2, rows, cols, pitch, self.tile_written, self.tile_writer, self.tile_readers,
                             self.command, self.clocks, self.clock)
        self.made.append(("the destination tile", view))
        return view

    def source(self, t: int) -> F32:
        return self._read_tile(t) if t >= 0 else self.pop_act().data

    def dest(self, t: int) -> F32:
        return self._write_tile(t)

    def update(self, t: int) -> F32:
        self._read_tile(t)
        return self._write_tile(t)

    # -------------------------------------------------------------- streams

    def push_act(self, item: Item) -> None:
        item.producer = (self.clock, self.pc)
        self.made.append(("the stream entry", item.data))
        super().push_act(item)

    def push_wgt(self, item: Item) -> None:
        item.producer = (self.clock, self.pc)
        super().push_wgt(item)

    def _took(self, item: Item) -> Item:
        np.maximum(self.clock, item.producer[0], out=self.clock)
        self.finite = self.finite and bool(np.isfinite(item.data).all())
        return item

    def pop_act(self) -> Item:
        return self._took(super().pop_act())

    def pop_wgt(self) -> Item:
        return self._took(super().pop_wgt())

    # -------------------------------------------------------------- memory

    def _blame(self, other: int, byte: int, verb: str, reading: bool) -> Fault:
        pc = int(self.pc_of[other])
        engine = ENGINES[int(self.engine_of[other])]
        channel = {"lda": "act", "ldw": "wgt"}.get(ENGINES[self.engine], "store")
        return Fault("run.race", f"{'reads' if reading else 'writes'} DRAM byte {byte + self.mem.base:#x}, which pc "
                     f"{pc}: {self.program.line(pc)} ({engine}) may still be {verb}",
                     hint=f"nothing orders the two: put `fence {channel}` between them")

    def _read(self, addr: int, rows: int, width: int, stride: int) -> None:
        """Note that `rows` pieces of `width` bytes are read."""
        low = addr - self.mem.base
        if low < 0 or rows == 0 or width == 0:
            return
        kind, byte, other = shadowing.read_bytes(
            low, rows, width, stride, self.written, self.writer, self.readers[_READERS[self.engine]], self.command,
            self.engine_of, self.clocks, self.clock)
        if kind == 1:
            raise Fault("run.unwritten", f"reads DRAM byte {byte + self.mem.base:#x}, which nothing has written",
                        hint=self._inside(byte + self.mem.base))
        if kind == 2:
            raise self._blame(other, byte, "writing", True)

    def _wrote(self, addr: int, rows: int, width: int, stride: int) -> None:
        """Note that `rows` pieces of `width` bytes are written."""
        if rows == 0 or width == 0:
            return
        kind, byte, other = shadowing.write_bytes(
            addr - self.mem.base, rows, width, stride, self.written, self.writer, self.readers, self.command,
            self.engine_of, self.clocks, self.clock)
        if kind:
            raise self._blame(other, byte, "writing" if kind == 2 else "reading", False)

    def _inside(self, addr: int) -> str:
        """Which symbols hold a byte."""
        names = [s.name for s in self.program.symbols if s.address <= addr < s.address + s.bytes]
        return f"it belongs to {', '.join(names)}" if names else ""

    def load(self, addr: int, rows: int, cols: int, stride: int, dtype: str) -> Item:
        item = super().load(addr, rows, cols, stride, dtype)
        self._read(addr, rows, cols * ITEM_BYTES[dtype], stride)
        # What is in memory was checked when it was made, so a load is never to blame.
        self.finite = False
        return item

    def load_i32(self, addr: int, count: int) -> NDArray[np.int32]:
        found = super().load_i32(addr, count)
        self._read(addr, 1, 4 * count, 0)
        return found

    def load_rows(self, addr: int, index: NDArray[np.int32], cols: int, stride: int, dtype: str) -> Item:
        item = super().load_rows(addr, index, cols, stride, dtype)
        for row in np.unique(index).tolist():
            self._read(addr + row * stride, 1, cols * ITEM_BYTES[dtype], 0)
        self.finite = False
        return item

    def store(self, t: int, addr: int, stride: int, dtype: str) -> None:
        super().store(t, addr, stride, dtype)
        # The source tile is the last thing that flat() looked at; its shape is what was stored.
        rows, cols = self._stored
        self._wrote(addr, rows, cols * ITEM_BYTES[dtype], stride)
        self.made.append(("the stored block", self.mem.load(addr, rows, cols, stride, dtype)))

    def flat(self, t: int) -> tuple[F32, int, int, int, int]:
        found = super().flat(t)
        self._stored = (found[3], found[4])
        return found

    def store_row(self, flat: F32, offset: int, addr: int, cols: int, dtype: str) -> None:
        super().store_row(flat, offset, addr, cols, dtype)
        self._wrote(addr, 1, cols * ITEM_BYTES[dtype], 0)
        self.made.append(("the stored row", self.mem.load(addr, 1, cols, 0, dtype)))

    def store_i32(self, addr: int, data: NDArray[np.int32]) -> None:
        super().store_i32(addr, data)
        self._wrote(addr, 1, data.nbytes, 0)

    def load_conc(self, addr: int, rows: int, slots: int, cap: int, row0: int = 0) -> Item:
        end = self.conc_span(addr, slots, cap, row0 + rows, write=False)
        if addr >= self.mem.base:
            block = conc_block(cap)
            self._read(addr, slots, 4, block)
            self._read(addr + 64 + 2 * row0, slots, 2 * rows, block)
            header = self.mem.bytes(addr, end).view(np.uint32)[::block >> 2]
            for slot, unique in enumerate(header.tolist()):
                if unique > cap:
                    raise Fault("run.map", f"slot {slot} counts {unique} unique vectors in a block for {cap}")
                self._read(addr + slot * block + 64 + align(2 * cap), 1, 64 * unique, 0)
        self.finite = False
        return super().load_conc(addr, rows, slots, cap, row0)

    def merge(self, t: int, addr: int, cap: int, row0: int, site: int) -> None:
        super().merge(t, addr, cap, row0, site)
        rows, cols = self._stored
        block, slots = conc_block(cap), -(-cols // 32)
        self._wrote(addr, slots, 4, block)
        self._wrote(addr + 64, slots, 2 * rows, block)
        header = self.mem.raw[addr - self.mem.base:addr - self.mem.base + slots * block].view(np.uint32)[::block >> 2]
        for slot, unique in enumerate(header.tolist()):
            start = addr + slot * block + 64 + align(2 * cap)
            self._wrote(start, 1, 64 * unique, 0)
            self.made.append((f"unique vectors of slot {slot}", self.mem.load(start, unique, 32, 64, "f16")))

    # -------------------------------------------------------------- inputs and outputs

    def placed(self, symbol: Symbol) -> None:
        low = symbol.address - self.mem.base
        self.written[low:low + symbol.bytes] = 1

    def fetched(self, symbol: Symbol) -> None:
        low = symbol.address - self.mem.base
        missing = np.flatnonzero(self.written[low:low + symbol.bytes] == 0)
        if missing.size:
            element = int(missing[0]) // ITEM_BYTES[symbol.dtype]
            where: Any = [int(i) for i in np.unravel_index(element, symbol.shape)]
            raise Fault("run.output", f"element {where} of output {symbol.name} was never written "
                        f"({missing.size} of {symbol.bytes} bytes)")
