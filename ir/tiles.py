"""Run-time values of the tile level: DRAM buffers as the interpreter holds them.

Storage is rounded to the buffer's element type on every store, so that the tile level computes what the machine does.
Concentrated buffers keep the reconstruction (each row with its group's mean): the packed form holds the same numbers.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.ir.types import DTYPES

Array = NDArray[Any]


@dataclass(slots=True)
class RowBuffer:
    """Row-major storage. `data` has the storage dtype; views share it."""

    data: Array  # [rows, cols]

    @staticmethod
    def empty(shape: tuple[int, ...], dtype: str) -> RowBuffer:
        """Fresh storage, poisoned with NaN where the type has one: unwritten bytes must never matter."""
        kind = DTYPES[dtype]
        return RowBuffer(np.full(shape, np.nan if kind.kind == "f" else -1, kind))

    @staticmethod
    def holding(x: Array, shape: tuple[int, ...], dtype: str) -> RowBuffer:
        """The tensor's values, converted to the storage type."""
        return RowBuffer(np.ascontiguousarray(x).reshape(shape).astype(DTYPES[dtype]))

    def view(self, offset: int, shape: tuple[int, ...], dtype: str = "") -> RowBuffer:
        """An alias of [offset, offset + size) elements; with `dtype` of the buffer's bytes read as that type."""
        flat = self.data.reshape(-1)
        flat = flat.view(DTYPES[dtype]) if dtype else flat
        return RowBuffer(flat[offset : offset + int(np.prod(shape))].reshape(shape))

    def as_tensor(self, shape: tuple[int, ...], dtype: str) -> Array:
        """The contents as a tensor."""
        return self.data.reshape(shape).astype(DTYPES[dtype])

    def read(self, row: int, col: int, rows: int, cols: int) -> Array:
        """f32 copy of a window; leaving the buffer is an error of the lowering, so it raises."""
        if row < 0 or col < 0 or row + rows > self.data.shape[0] or col + cols > self.data.shape[1]:
            raise IndexError(f"window {rows}x{cols} at ({row}, {col}) leaves a buffer of {self.data.shape}")
        return self.data[row : row + rows, col : col + cols].astype(np.float32)

    def write(self, row: int, col: int, values: Array) -> None:
        """Store a window, rounding to the storage type."""
        rows, cols = values.shape
        if row < 0 or col < 0 or row + rows > self.data.shape[0] or col + cols > self.data.shape[1]:
            raise IndexError(f"window {rows}x{cols} at ({row}, {col}) leaves a buffer of {self.data.shape}")
        self.data[row : row + rows, col : col + cols] = values.astype(self.data.dtype)


    def listed(self, start: int, count: int, limit: int) -> Array:
        """Entries [start, start + count) of a list of row numbers, which must lie in 0..limit-1."""
        found = self.data.reshape(-1)[start : start + count]
        if found.size != count or (count and (found.min() < 0 or found.max() >= limit)):
            raise IndexError(f"{count} row numbers from entry {start} on: {found}; expected 0..{limit - 1}")
        return found

    def read_listed(self, at: int, numbers: Array, cols: int, pitch: int) -> Array:
        """f32 copy of the runs of `cols` elements at at + number * pitch, one for each number."""
        if not numbers.size:
            return np.empty((0, cols), np.float32)
        return self._strided(at, int(numbers.max()) + 1, cols, pitch)[numbers].astype(np.float32)

    def read_strided(self, at: int, rows: int, cols: int, pitch: int) -> Array:
        """f32 copy of `rows` runs of `cols` elements, the first at element `at`, one every `pitch` elements."""
        return self._strided(at, rows, cols, pitch).astype(np.float32)

    def write_strided(self, at: int, values: Array, pitch: int) -> None:
        """Store the rows of a tile as runs of elements, rounding to the storage type."""
        rows, cols = values.shape
        self._strided(at, rows, cols, pitch)[...] = values.astype(self.data.dtype)

    def _strided(self, at: int, rows: int, cols: int, pitch: int) -> Array:
        flat = self.data.reshape(-1)
        if at < 0 or pitch < 0 or at + (rows - 1) * pitch + cols > flat.size:
            raise IndexError(f"{rows} runs of {cols} at {at}, {pitch} apart, leave a buffer of {self.data.shape}")
        step = flat.itemsize
        return np.lib.stride_tricks.as_strided(flat[at:], (rows, cols), (pitch * step, step))


class ConcentratedBuffer:
    """Concentrated m-tiles: the first has `first` rows, the others `m`."""

    def __init__(self, shape: tuple[int, ...], first: int, m: int) -> None:
        self.first, self.m = first, m
        rows, cols = shape
        self.data = np.full((rows, -(-cols // 32) * 32), np.nan, np.float16)
        self.data[:, cols:] = 0  # the last slot's padding

    def start(self, tile: int) -> int:
        """Sequence row of the tile's first row."""
        return 0 if tile == 0 else self.first + (tile - 1) * self.m

    def read(self, tile: int, row: int, rows: int, slot: int, cols: int) -> Array:
        """Reconstructed rows [row, row + rows) of a tile, `cols` columns from slot `slot` on, as f32."""
        at = self.start(tile) + row
        return self.data[at : at + rows, slot * 32 : slot * 32 + cols].astype(np.float32)

    def write(self, tile: int, slot: int, values: Array) -> None:
        """Store a whole tile's rows for the slots that `values` covers."""
        at = self.start(tile)
        self.data[at : at + values.shape[0], slot * 32 : slot * 32 + values.shape[1]] = values.astype(np.float16)
