"""Tile level, strided streams: runs of elements a fixed distance apart, from and to anywhere in a row-major buffer.

An address is an element number, not a row and a column, so that windows of tensors with any number of axes are written
without views of the buffer.
"""

from __future__ import annotations

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.ops.tile import need
from focusc.ir.tiles import Array, RowBuffer
from focusc.ir.types import BufferType, IndexType, StreamType, TileType, Type


@defop("tile.load_strided")
class LoadStrided(Op):
    """`rows` runs of `cols` elements on the activation channel: run i starts at element at + i * pitch. With pitch 0
    every row is the same run."""

    buf = operand()
    at = operand()
    rows = operand()
    cols = operand()
    pitch = attr(int, minimum=0)
    max_rows = attr(int, minimum=1)
    max_cols = attr(int, minimum=1)

    @staticmethod
    def infer(buf: Type, at: Type, rows: Type, cols: Type, *, pitch: int, max_rows: int, max_cols: int) -> Type:
        need(BufferType, buf)
        need(IndexType, at, rows, cols)
        return StreamType(max_rows, max_cols, "dense")

    @staticmethod
    def evaluate(
        buf: RowBuffer, at: int, rows: int, cols: int, *, pitch: int, max_rows: int, max_cols: int
    ) -> Array:
        return buf.read_strided(at, rows, cols, pitch)


@defop("tile.load_weight_strided")
class LoadWeightStrided(Op):
    """Panel [k x n] on the weight channel, its rows `pitch` elements apart from element `at` on; with `trans` the
    buffer holds it as [n x k]."""

    buf = operand()
    at = operand()
    k = operand()
    n = operand()
    pitch = attr(int, minimum=0)
    trans = attr(bool, False)
    max_k = attr(int, minimum=1)
    max_n = attr(int, minimum=1)

    @staticmethod
    def infer(
        buf: Type, at: Type, k: Type, n: Type, *, pitch: int, trans: bool, max_k: int, max_n: int
    ) -> Type:
        need(BufferType, buf)
        need(IndexType, at, k, n)
        return StreamType(max_k, max_n, "weight")

    @staticmethod
    def evaluate(
        buf: RowBuffer, at: int, k: int, n: int, *, pitch: int, trans: bool, max_k: int, max_n: int
    ) -> Array:
        return buf.read_strided(at, n, k, pitch).T if trans else buf.read_strided(at, k, n, pitch)


@defop("tile.store_strided", pure=False)
class StoreStrided(Op):
    """Write row i of the tile from element at + i * pitch on, rounded to the buffer's storage type."""

    a = operand()
    buf = operand()
    at = operand()
    pitch = attr(int, minimum=0)

    @staticmethod
    def infer(a: Type, buf: Type, at: Type, *, pitch: int) -> tuple[Type, ...]:
        need(TileType, a)
        need(BufferType, buf)
        need(IndexType, at)
        return ()

    @staticmethod
    def evaluate(a: Array, buf: RowBuffer, at: int, *, pitch: int) -> tuple[Array, ...]:
        buf.write_strided(at, a, pitch)
        return ()


@defop("tile.store_index", pure=False)
class StoreIndex(Op):
    """Write row i of the tile from element at + index[start + i] * pitch on; an index is in 0..limit-1."""

    a = operand()
    buf = operand()
    index = operand()
    start = operand()
    at = operand()
    pitch = attr(int, minimum=1)
    limit = attr(int, minimum=1)

    @staticmethod
    def infer(
        a: Type, buf: Type, index: Type, start: Type, at: Type, *, pitch: int, limit: int
    ) -> tuple[Type, ...]:
        need(TileType, a)
        need(BufferType, buf, index)
        need(IndexType, start, at)
        return ()

    @staticmethod
    def evaluate(
        a: Array, buf: RowBuffer, index: RowBuffer, start: int, at: int, *, pitch: int, limit: int
    ) -> tuple[Array, ...]:
        for row, number in zip(a, index.listed(start, len(a), limit), strict=True):
            buf.write_strided(at + int(number) * pitch, row[None], pitch)
        return ()
