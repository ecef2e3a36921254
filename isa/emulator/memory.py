"""Emulated DRAM: constants (read-only) and an arena, with float32 shadows of float16 data.

Every float16 element has a float32 shadow at element number address // 2, so that loads are views that BLAS takes
without a copy; values are rounded once, when they are stored. Other types live as bytes. Each 64-byte granule knows
which of its two forms is the newer one and is converted when the other one is wanted, so mixed use of memory is
always right.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.isa.emulator import kernels
from focusc.isa.errors import Fault
from focusc.isa.program import Program, align

__all__ = ["Memory"]

F32 = NDArray[np.float32]
_PAGE = 1 << 15
"""float16 elements of constants that are converted together."""
_MOST_VIEWS = 1 << 16
_KIND = {"f16": 0, "bf16": 1, "i8": 2, "f32": 3}
_ITEM = {"f16": 2, "bf16": 2, "i8": 1, "f32": 4}


class Constants:
    """Read-only bytes [0, size) and their lazily converted float32 shadow; shared by all runs of an emulator."""

    def __init__(self, data: NDArray[np.uint8]) -> None:
        self.size = len(data)
        whole = self.size // 2 * 2
        self.raw: NDArray[np.uint8] = data
        self.bits = data[:whole].view(np.uint16)
        # Uninitialised: the operating system gives pages only where weights are really used as float16.
        self.shadow: F32 = np.empty(whole // 2, np.float32)
        self.fresh = bytearray(-(-max(whole // 2, 1) // _PAGE))
        self._fresh = np.frombuffer(self.fresh, np.uint8)

    def touch(self, low: int, high: int) -> None:
        """Make the shadow of bytes low..high valid."""
        first, last = low // 2 // _PAGE, (high - 1) // 2 // _PAGE
        if self.fresh.find(0, first, last + 1) >= 0:
            kernels.touch(self.bits, self.shadow, self._fresh, first, last, _PAGE)


def _from_bf16(bits: NDArray[np.uint16]) -> F32:
    """Values of bfloat16 bits, a copy."""
    out = np.empty(bits.shape, np.float32)
    kernels.from_bf16(np.ascontiguousarray(bits).reshape(-1), out.reshape(-1))
    return out


class Memory:
    """DRAM of one run. Addresses are absolute bytes; every access is bounds-checked and raises Fault."""

    def __init__(self, program: Program, constants: Constants) -> None:
        self.constants = constants
        self.base = program.arena_base
        self.end = program.dram_bytes
        size = align(program.arena_bytes)
        self.raw: NDArray[np.uint8] = np.zeros(size, np.uint8)
        self.shadow: F32 = np.zeros(size // 2, np.float32)
        self.raw_newer = bytearray(size // 64)
        self.shadow_newer = bytearray(size // 64)
        self.bits: NDArray[np.uint16] = self.raw.view(np.uint16)
        # By address, rows, columns and stride: a float16 view that was handed out, and the granules of the arena in it.
        self._views: dict[tuple[int, int, int, int], tuple[F32, int, int]] = {}

    # -------------------------------------------------------------- bounds

    def span(self, addr: int, rows: int, cols: int, stride: int, item: int, *, write: bool = False) -> int:
        """End of the bytes that rows x cols elements occupy; Fault if they are not all in one region or misaligned."""
        end = addr + (rows - 1) * stride + cols * item
        if addr % item or (stride % item and rows > 1):
            raise Fault("run.align", f"address {addr:#x} with stride {stride} is not aligned to elements of "
                        f"{item} bytes")
        if addr >= self.base and end <= self.end:
            return end
        if write:
            what = "the read-only constants" if 0 <= addr < self.base else "no memory"
            raise Fault("run.bounds", f"a store to {addr:#x}..{end:#x} touches {what}; "
                        f"the arena is {self.base:#x}..{self.end:#x}")
        if addr < 0 or end > self.constants.size:
            raise Fault("run.bounds", f"a load from {addr:#x}..{end:#x} leaves memory; constants are 0x0.."
                        f"{self.constants.size:#x}, the arena is {self.base:#x}..{self.end:#x}")
        return end

    # -------------------------------------------------------------- the two forms of a granule

    def want_shadow(self, low: int, high: int) -> None:
        """Arena bytes low..high (relative): make their float32 shadow valid."""
        a, b = low >> 6, (high + 63) >> 6
        if self.raw_newer.find(1, a, b) >= 0:
            flags = np.frombuffer(self.raw_newer, np.uint8)
            for g in (np.flatnonzero(flags[a:b]) + a).tolist():
                kernels.from_f16(self.bits[g * 32:g * 32 + 32], self.shadow[g * 32:g * 32 + 32])
                self.raw_newer[g] = 0

    def want_raw(self, low: int, high: int) -> None:
        """Arena bytes low..high (relative): make the bytes valid."""
        a, b = low >> 6, (high + 63) >> 6
        if self.shadow_newer.find(1, a, b) >= 0:
            flags = np.frombuffer(self.shadow_newer, np.uint8)
            for g in (np.flatnonzero(flags[a:b]) + a).tolist():
                kernels.to_f16_bits(self.shadow[g * 32:g * 32 + 32], self.bits[g * 32:g * 32 + 32])
                self.shadow_newer[g] = 0

    def will_write_shadow(self, low: int, high: int) -> None:
        """Prepare a float16 store inside arena bytes low..high: afterwards the shadow is the newer form there."""
        self.want_shadow(low, high)
        a, b = low >> 6, (high + 63) >> 6
        self.shadow_newer[a:b] = b"\1" * (b - a)

    def will_write_raw(self, low: int, high: int) -> None:
        """Prepare a store of bytes inside arena bytes low..high."""
        self.want_raw(low, high)
        a, b = low >> 6, (high + 63) >> 6
        self.raw_newer[a:b] = b"\1" * (b - a)

    # -------------------------------------------------------------- loads

    def load(self, addr: int, rows: int, cols: int, stride: int, dtype: str) -> F32:
        """float32 [rows, cols]: a view for f16 and f32, a copy for the others."""
        if dtype == "f16":
            known = self._views.get((addr, rows, cols, stride))
            if known is not None and self.raw_newer.find(1, known[1], known[2]) < 0:
                return known[0]
        item = _ITEM[dtype]
        end = self.span(addr, rows, cols, stride, item)
        arena = addr >= self.base
        if dtype == "f16":
            start = addr
            if arena:
                addr -= self.base
                self.want_shadow(addr, end - self.base)
                shadow = self.shadow
            else:
                self.constants.touch(addr, end)
                shadow = self.constants.shadow
            found: F32 = np.ndarray((rows, cols), np.float32, shadow, addr * 2, (stride * 2, 4))  # type: ignore[arg-type]
            if len(self._views) == _MOST_VIEWS:
                self._views.clear()
            first, last = (addr >> 6, (end - self.base + 63) >> 6) if arena else (0, 0)
            self._views[start, rows, cols, stride] = found, first, last
            return found
        view = self.bytes(addr, end)
        if dtype == "f32":
            return np.ndarray((rows, cols), np.float32, view, 0, (stride, 4))  # type: ignore[arg-type]
        if dtype == "i8":
            return np.ndarray((rows, cols), np.int8, view, 0, (stride, 1)).astype(np.float32)  # type: ignore[arg-type]
        return _from_bf16(np.ndarray((rows, cols), np.uint16, view, 0, (stride, 2)))  # type: ignore[arg-type]

    def bytes(self, addr: int, end: int) -> NDArray[np.uint8]:
        """Current bytes addr..end of one region (already bounds-checked), as a view."""
        if addr >= self.base:
            self.want_raw(addr - self.base, end - self.base)
            return self.raw[addr - self.base:end - self.base]
        return self.constants.raw[addr:end]

    def load_i32(self, addr: int, count: int) -> NDArray[np.int32]:
        """A list of i32, as a view."""
        end = self.span(addr, 1, count, 0, 4)
        return self.bytes(addr, end).view(np.int32)

    def load_rows(self, addr: int, index: NDArray[np.int32], cols: int, stride: int, dtype: str) -> F32:
        """float32 [len(index), cols], a copy: rows `index` of a table."""
        if len(index) == 0:
            return np.empty((0, cols), np.float32)
        low, high = int(index.min()), int(index.max())
        start = addr + low * stride
        if addr < self.base and dtype == "f16":
            # Only the rows that are used: an embedding table is large and most of it is never read.
            end = self.span(start, high - low + 1, cols, stride, 2)
            table: NDArray[np.uint16] = np.ndarray(
                (high - low + 1, cols), np.uint16, self.constants.raw[start:end], 0, (stride, 2))  # type: ignore[arg-type]
            bits = table[index - low]
            out = np.empty(bits.shape, np.float32)
            kernels.from_f16(bits.reshape(-1), out.reshape(-1))
            return out
        if dtype in ("bf16", "i8"):
            end = self.span(start, high - low + 1, cols, stride, _ITEM[dtype])
            shape = (high - low + 1, cols)
            kind = np.uint16 if dtype == "bf16" else np.int8
            chosen = np.ndarray(shape, kind, self.bytes(start, end), 0, (stride, _ITEM[dtype]))[index - low]  # type: ignore[arg-type]
            return _from_bf16(chosen) if dtype == "bf16" else chosen.astype(np.float32)
        return self.load(start, high - low + 1, cols, stride, dtype)[index - low]

    # -------------------------------------------------------------- stores

    def store(self, addr: int, stride: int, dtype: str, flat: F32, offset: int, pitch: int, rows: int,
              cols: int) -> int:
        """Round rows x cols float32 of `flat` (from element `offset`, `pitch` to a row), store them, return the end."""
        item = _ITEM[dtype]
        end = self.span(addr, rows, cols, stride, item, write=True)
        if rows > 1 and stride < cols * item:
            raise Fault("run.overlap", f"rows of {cols * item} bytes are stored {stride} bytes apart and overlap")
        low, high = addr - self.base, end - self.base
        if dtype == "f16":
            self.will_write_shadow(low, high)
            kernels.round_rows(flat, offset, pitch, self.shadow, low >> 1, stride >> 1, rows, cols, 0)
            return end
        self.will_write_raw(low, high)
        if dtype == "f32":
            kernels.round_rows(flat, offset, pitch, self.raw.view(np.float32), low >> 2, stride >> 2, rows, cols, 3)
            return end
        scratch = np.empty((rows, cols), np.float32)
        kernels.round_rows(flat, offset, pitch, scratch.reshape(-1), 0, cols, rows, cols, _KIND[dtype])
        if dtype == "i8":
            view: Any = np.ndarray((rows, cols), np.int8, self.raw, low, (stride, 1))  # type: ignore[arg-type]
            view[:] = scratch.astype(np.int8)
        else:
            view = np.ndarray((rows, cols), np.uint16, self.raw, low, (stride, 2))  # type: ignore[arg-type]
            view[:] = (scratch.view(np.uint32) >> 16).astype(np.uint16)
        return end

    def store_bytes(self, addr: int, data: NDArray[Any], align_to: int) -> int:
        """Store contiguous data of a raw type (i32 lists, maps); returns the end."""
        view = data.reshape(-1).view(np.uint8)
        end = self.span(addr, 1, len(view) // align_to, 0, align_to, write=True)
        self.will_write_raw(addr - self.base, end - self.base)
        self.raw[addr - self.base:end - self.base] = view
        return end
