"""Tile level, concentrators: SIC on an accumulator tile, SEC's importance vector and its top-k."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.concentration import similarity
from focusc.ir.concentration.similarity import Window
from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import fail
from focusc.ir.ops.sec import largest, rounded
from focusc.ir.ops.tile import need
from focusc.ir.tiles import Array, ConcentratedBuffer, RowBuffer
from focusc.ir.types import BufferType, IndexType, TensorType, TileType, Type

VECTOR = 32  # width of a sub-vector, that is of a slot


@defop("tile.sic", pure=False)
class Sic(Op):
    """Concentrate a tile that holds all rows of m-tile `tile` and write its slots from `slot` on.

    The tile's first row is sequence row `row0`; rows [visual_start, visual_start + visual_len) take part, others stay
    alone. `positions`: original indices of the visual rows, absent if nothing was pruned.
    """

    a = operand()
    buf = operand()
    tile = operand()
    slot = operand()
    row0 = operand()
    positions = operand(optional=True)
    visual_start = attr(int, minimum=0)
    visual_len = attr(int, minimum=0)
    grid = attr(tuple, of=int)
    strides = attr(tuple, of=int)
    block = attr(tuple, (2, 2, 2), of=int)
    threshold = attr(float)
    boundary = attr(str, "linear", one_of=("linear", "grid"))
    chase = attr(str, "root", one_of=("root", "published"))
    layer = attr(int, 0)
    site = attr(str, "")

    @staticmethod
    def infer(
        a: Type, buf: BufferType, tile: Type, slot: Type, row0: Type, positions: Type | None, **_: Any
    ) -> tuple[Type, ...]:
        need(TileType, a)
        need(BufferType, buf, positions)
        need(IndexType, tile, slot, row0)
        if buf.layout != "conc":
            raise fail("tile.sic", f"result goes to {buf}, expected a conc buffer")
        return ()

    @staticmethod
    def evaluate(
        a: Array,
        buf: ConcentratedBuffer,
        tile: int,
        slot: int,
        row0: int,
        positions: RowBuffer | None,
        *,
        visual_start: int,
        visual_len: int,
        grid: Any,
        strides: Any,
        block: Any,
        threshold: float,
        boundary: str,
        chase: str,
        layer: int,
        site: str,
    ) -> tuple[Array, ...]:
        low, high = max(row0, visual_start), min(row0 + a.shape[0], visual_start + visual_len)
        out = a.copy()
        if high > low:
            window = Window(grid, strides, block, VECTOR, threshold, boundary, chase, a.shape[0])
            listed = np.arange(visual_len) if positions is None else positions.data.reshape(-1)
            where = listed[low - visual_start : high - visual_start].astype(np.int64)
            parts = similarity.split(a[low - row0 : high - row0], VECTOR)
            link = similarity.cosine_links(parts, similarity.pairs(where, window), threshold)
            label = similarity.follow(link, chase, grid[0])
            out[low - row0 : high - row0] = similarity.join(similarity.group_means(parts, label), a.shape[1])
        buf.write(tile, slot, out)
        return ()


@defop("tile.sec_init")
class SecInit(Op):
    """An importance vector of `count` zeros."""

    count = attr(int, minimum=1)

    @staticmethod
    def infer(*, count: int) -> Type:
        return TensorType((count,), "f32")

    @staticmethod
    def evaluate(*, count: int) -> Array:
        return np.zeros(count, np.float32)


@defop("tile.sec_fold")
class SecFold(Op):
    """The importance vector with max over the rows of `a`, rounded to TF32 (11 significant bits), folded into entries
    [col0, col0 + columns)."""

    importance = operand()
    a = operand()
    col0 = operand()

    @staticmethod
    def infer(importance: Type, a: Type, col0: Type) -> Type:
        need(TensorType, importance)
        need(TileType, a)
        need(IndexType, col0)
        return importance

    @staticmethod
    def evaluate(importance: Array, a: Array, col0: int) -> Array:
        out = importance.copy()
        out[col0 : col0 + a.shape[1]] = np.maximum(out[col0 : col0 + a.shape[1]], rounded(a.max(0)))
        return out


@defop("tile.sec_topk", pure=False)
class SecTopk(Op):
    """Write the row list (text rows and the k most important visual rows, in order) and the kept original positions."""

    importance = operand()
    positions = operand(optional=True)
    rows_out = operand()
    positions_out = operand()
    k = attr(int, minimum=1)
    visual_start = attr(int, minimum=0)
    visual_len = attr(int, minimum=1)
    rows = attr(int, minimum=1)

    @staticmethod
    def infer(
        importance: Type,
        positions: Type | None,
        rows_out: Type,
        positions_out: Type,
        *,
        k: int,
        visual_start: int,
        visual_len: int,
        rows: int,
    ) -> tuple[Type, ...]:
        need(TensorType, importance)
        need(BufferType, positions, rows_out, positions_out)
        if k > visual_len or visual_start + visual_len > rows:
            raise fail("tile.sec-topk", f"keeps {k} of {visual_len} visual rows from {visual_start} in {rows} rows")
        return ()

    @staticmethod
    def evaluate(
        importance: Array,
        positions: RowBuffer | None,
        rows_out: RowBuffer,
        positions_out: RowBuffer,
        *,
        k: int,
        visual_start: int,
        visual_len: int,
        rows: int,
    ) -> tuple[Array, ...]:
        chosen = largest(importance, k)
        listed = np.arange(visual_len) if positions is None else positions.data.reshape(-1)
        text = np.arange(visual_start + visual_len, rows)
        rows_out.data[...] = np.concatenate([np.arange(visual_start), chosen + visual_start, text])
        positions_out.data[...] = listed[chosen]
        return ()
