"""Compiled loops of the strict emulator: who touched which byte, and do the clocks order them."""

from __future__ import annotations

from typing import Any

import numba as nb

__all__ = ["read_bytes", "read_tile", "write_bytes", "write_tile"]


@nb.njit(cache=True)
def _join(clock: Any, other: Any) -> None:
    for e in range(len(clock)):
        if other[e] > clock[e]:
            clock[e] = other[e]


@nb.njit(cache=True)
def _ordered(other: int, engine_of: Any, clocks: Any, clock: Any) -> bool:
    """Whether command `other` has completed before the one with `clock`."""
    engine = engine_of[other]
    return clocks[other, engine] <= clock[engine]


@nb.njit(cache=True)
def read_bytes(low: int, rows: int, width: int, stride: int, written: Any, writer: Any, reader: Any, command: int,
               engine_of: Any, clocks: Any, clock: Any) -> tuple[int, int, int]:
    """Note a read; (0, 0, 0), or (1, byte, 0) if it was never written, or (2, byte, command) for a race."""
    for i in range(rows):
        for b in range(low + i * stride, low + i * stride + width):
            if written[b] == 0:
                return 1, b, 0
            other = writer[b]
            if other != command and not _ordered(other, engine_of, clocks, clock):
                return 2, b, other
            reader[b] = command
    return 0, 0, 0


@nb.njit(cache=True)
def write_bytes(low: int, rows: int, width: int, stride: int, written: Any, writer: Any, readers: Any, command: int,
                engine_of: Any, clocks: Any, clock: Any) -> tuple[int, int, int]:
    """Note a write; (0, 0, 0), or (2, byte, command) for a race with a writer, (3, byte, command) with a reader."""
    for i in range(rows):
        for b in range(low + i * stride, low + i * stride + width):
            other = writer[b]
            if other != command and not _ordered(other, engine_of, clocks, clock):
                return 2, b, other
            for r in range(readers.shape[0]):
                other = readers[r, b]
                if other != command and not _ordered(other, engine_of, clocks, clock):
                    return 3, b, other
            writer[b] = command
            written[b] = 1
    return 0, 0, 0


@nb.njit(cache=True)
def read_tile(start: int, rows: int, cols: int, pitch: int, written: Any, writer: Any, reader: Any, command: int,
              clocks: Any, clock: Any) -> int:
    """Note a read of a window and join its writers' clocks; -1, or the window's first element that is unwritten."""
    before = -1
    for i in range(rows):
        for j in range(cols):
            at = start + i * pitch + j
            if written[at] == 0:
                return i * cols + j
            if writer[at] != before:
                before = writer[at]
                if before != command:
                    _join(clock, clocks[before])
            reader[at] = command
    return -1


@nb.njit(cache=True)
def write_tile(start: int, rows: int, cols: int, pitch: int, written: Any, writer: Any, readers: Any, command: int,
               clocks: Any, clock: Any) -> None:
    """Note a write of a window and join the clocks of its last writers and readers."""
    for r in range(readers.shape[0] + 1):
        before = 0
        for i in range(rows):
            for j in range(cols):
                at = start + i * pitch + j
                other = writer[at] if r == readers.shape[0] else readers[r, at]
                if other != before and other != command:
                    before = other
                    _join(clock, clocks[other])
    for i in range(rows):
        for j in range(cols):
            writer[start + i * pitch + j] = command
            written[start + i * pitch + j] = 1
