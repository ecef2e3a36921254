"""Tile level, streams: what the load engines bring from DRAM, and the matrix engine that consumes it."""

from __future__ import annotations

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import fail
from focusc.ir.ops.tile import need
from focusc.ir.tiles import Array, ConcentratedBuffer, RowBuffer
from focusc.ir.types import BufferType, IndexType, StreamType, TileType, Type


def f16(x: Array) -> Array:
    """Rounded to half precision, held as f32."""
    return x.astype(np.float16).astype(np.float32)


@defop("tile.load")
class Load(Op):
    """Dense rows x cols at (row, col) of a row-major buffer, on the activation channel."""

    buf = operand()
    row = operand()
    col = operand()
    rows = operand()
    cols = operand()
    max_rows = attr(int, minimum=1)
    max_cols = attr(int, minimum=1)

    @staticmethod
    def infer(buf: Type, row: Type, col: Type, rows: Type, cols: Type, *, max_rows: int, max_cols: int) -> Type:
        need(BufferType, buf)
        need(IndexType, row, col, rows, cols)
        return StreamType(max_rows, max_cols, "dense")

    @staticmethod
    def evaluate(buf: RowBuffer, row: int, col: int, rows: int, cols: int, *, max_rows: int, max_cols: int) -> Array:
        return buf.read(row, col, rows, cols)


@defop("tile.load_conc")
class LoadConc(Op):
    """Rows [row, row + rows) of concentrated m-tile `tile`, `cols` columns (`slots` slots) from slot `slot` on."""

    buf = operand()
    tile = operand()
    row = operand()
    rows = operand()
    slot = operand()
    slots = attr(int, minimum=1)
    cols = attr(int, minimum=1)
    max_rows = attr(int, minimum=1)

    @staticmethod
    def infer(
        buf: BufferType, tile: Type, row: Type, rows: Type, slot: Type, *, slots: int, cols: int, max_rows: int
    ) -> Type:
        need(BufferType, buf)
        need(IndexType, tile, row, rows, slot)
        if buf.layout != "conc" or not (slots - 1) * 32 < cols <= slots * 32:
            raise fail("tile.load-conc", f"{cols} columns in {slots} slots of {buf}; expected a conc buffer, 32 a slot")
        return StreamType(max_rows, cols, "conc")

    @staticmethod
    def evaluate(
        buf: ConcentratedBuffer, tile: int, row: int, rows: int, slot: int, *, slots: int, cols: int, max_rows: int
    ) -> Array:
        return buf.read(tile, row, rows, slot, cols)


@defop("tile.load_index")
class LoadIndex(Op):
    """Rows chosen by a list: row i is the `cols` elements of `buf` from element at + index[start + i] * pitch on; an
    index is in 0..limit-1. Embedding, compaction, gathers."""

    buf = operand()
    index = operand()
    start = operand()
    rows = operand()
    at = operand()
    cols = operand()
    pitch = attr(int, minimum=1)
    limit = attr(int, minimum=1)
    max_rows = attr(int, minimum=1)
    max_cols = attr(int, minimum=1)

    @staticmethod
    def infer(
        buf: BufferType,
        index: Type,
        start: Type,
        rows: Type,
        at: Type,
        cols: Type,
        *,
        pitch: int,
        limit: int,
        max_rows: int,
        max_cols: int,
    ) -> Type:
        need(BufferType, buf, index)
        need(IndexType, start, rows, at, cols)
        return StreamType(max_rows, max_cols, "index")

    @staticmethod
    def evaluate(
        buf: RowBuffer,
        index: RowBuffer,
        start: int,
        rows: int,
        at: int,
        cols: int,
        *,
        pitch: int,
        limit: int,
        max_rows: int,
        max_cols: int,
    ) -> Array:
        return buf.read_listed(at, index.listed(start, rows, limit), cols, pitch)


@defop("tile.load_patch")
class LoadPatch(Op):
    """im2col rows [row, row + rows) by address generation: a row is an output position, its columns are (c, kernel)."""

    buf = operand()
    row = operand()
    rows = operand()
    image = attr(tuple, of=int, doc="N, C, D, H, W")
    kernel = attr(tuple, of=int)
    stride = attr(tuple, of=int)
    pads = attr(tuple, of=int, doc="before the three axes, and behind them if that differs")
    max_rows = attr(int, minimum=1)

    @staticmethod
    def infer(
        buf: BufferType,
        row: Type,
        rows: Type,
        *,
        image: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pads: tuple[int, ...],
        max_rows: int,
    ) -> Type:
        need(BufferType, buf)
        need(IndexType, row, rows)
        if int(np.prod(image)) != int(np.prod(buf.shape)):
            raise fail("tile.shape", f"image {list(image)} does not fill {buf}")
        return StreamType(max_rows, image[1] * int(np.prod(kernel)), "patch")

    @staticmethod
    def evaluate(
        buf: RowBuffer,
        row: int,
        rows: int,
        *,
        image: tuple[int, ...],
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pads: tuple[int, ...],
        max_rows: int,
    ) -> Array:
        return im2col(buf.data.reshape(image), kernel, stride, pads)[row : row + rows].astype(np.float32)


def im2col(x: Array, kernel: tuple[int, ...], stride: tuple[int, ...], pads: tuple[int, ...]) -> Array:
    """[N, C, D, H, W] -> [N * positions, C * prod(kernel)], zero padding `pads` before and behind each axis."""
    padded = np.pad(x, [(0, 0), (0, 0), *zip(pads[:3], pads[-3:], strict=True)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel, axis=(2, 3, 4))
    windows = windows[:, :, :: stride[0], :: stride[1], :: stride[2]]
    n, _, od, oh, ow = windows.shape[:5]
    return windows.transpose(0, 2, 3, 4, 1, 5, 6, 7).reshape(n * od * oh * ow, -1)


@defop("tile.load_weight")
class LoadWeight(Op):
    """Panel [k x n] at (row, col) on the weight channel; with `trans` the buffer holds it as [n x k]."""

    buf = operand()
    row = operand()
    col = operand()
    k = operand()
    n = operand()
    trans = attr(bool, False)
    max_k = attr(int, minimum=1)
    max_n = attr(int, minimum=1)

    @staticmethod
    def infer(buf: Type, row: Type, col: Type, k: Type, n: Type, *, trans: bool, max_k: int, max_n: int) -> Type:
        need(BufferType, buf)
        need(IndexType, row, col, k, n)
        return StreamType(max_k, max_n, "weight")

    @staticmethod
    def evaluate(buf: RowBuffer, row: int, col: int, k: int, n: int, *, trans: bool, max_k: int, max_n: int) -> Array:
        return buf.read(row, col, n, k).T if trans else buf.read(row, col, k, n)


@defop("tile.mma")
class Mma(Op):
    """act @ weight (+ acc), accumulated in f32; a concentrated stream runs its unique vectors and scatters."""

    act = operand()
    weight = operand()
    acc = operand(optional=True)

    @staticmethod
    def infer(act: StreamType, weight: StreamType, acc: Type | None) -> Type:
        need(StreamType, act, weight)
        need(TileType, acc)
        if act.cols != weight.rows:
            raise fail("tile.mma", f"K is {act.cols} in the activation stream but {weight.rows} in the weight panel")
        return TileType(act.rows, weight.cols)

    @staticmethod
    def evaluate(act: Array, weight: Array, acc: Array | None) -> Array:
        product = act @ weight
        return product if acc is None else acc + product


@defop("tile.from_stream")
class FromStream(Op):
    """The stream's rows in an accumulator tile (a concentrated stream is reconstructed)."""

    stream = operand()

    @staticmethod
    def infer(stream: StreamType) -> Type:
        need(StreamType, stream)
        return TileType(stream.rows, stream.cols)

    @staticmethod
    def evaluate(stream: Array) -> Array:
        return stream.copy()


@defop("tile.forward")
class Forward(Op):
    """The tile, rounded to f16, as an activation stream: the P of P @ V never leaves the chip."""

    a = operand()

    @staticmethod
    def infer(a: TileType) -> Type:
        need(TileType, a)
        return StreamType(a.rows, a.cols, "dense")

    @staticmethod
    def evaluate(a: Array) -> Array:
        return f16(a)


@defop("tile.store", pure=False)
class Store(Op):
    """Write the tile at (row, col) of a row-major buffer, rounded to its storage type."""

    a = operand()
    buf = operand()
    row = operand()
    col = operand()

    @staticmethod
    def infer(a: Type, buf: Type, row: Type, col: Type) -> tuple[Type, ...]:
        need(TileType, a)
        need(BufferType, buf)
        need(IndexType, row, col)
        return ()

    @staticmethod
    def evaluate(a: Array, buf: RowBuffer, row: int, col: int) -> tuple[Array, ...]:
        buf.write(row, col, a)
        return ()


@defop("tile.store_heads", pure=False)
class StoreHeads(Op):
    """Write a tile that holds the rows of `group` heads in turn: row i goes to row + i // group, from column
    col + (i % group) * apart on."""

    a = operand()
    buf = operand()
    row = operand()
    col = operand()
    group = attr(int, minimum=1)
    apart = attr(int, minimum=1)

    @staticmethod
    def infer(a: Type, buf: Type, row: Type, col: Type, *, group: int, apart: int) -> tuple[Type, ...]:
        need(TileType, a)
        need(BufferType, buf)
        need(IndexType, row, col)
        return ()

    @staticmethod
    def evaluate(a: Array, buf: RowBuffer, row: int, col: int, *, group: int, apart: int) -> tuple[Array, ...]:
        for head in range(group):
            buf.write(row, col + head * apart, a[head::group])
        return ()


@defop("tile.fence", pure=False)
class Fence(Op):
    """Later commands on the named channels wait for earlier DRAM accesses: the boundary between kernels."""

    channels = attr(tuple, of=str)

    @staticmethod
    def infer(*, channels: tuple[str, ...]) -> tuple[Type, ...]:
        unknown = set(channels) - {"act", "wgt", "store"}
        if unknown:
            raise fail("tile.fence", f"channel {sorted(unknown)[0]!r} is unknown; known: act, wgt, store")
        return ()

    @staticmethod
    def evaluate(*, channels: tuple[str, ...]) -> tuple[Array, ...]:
        return ()
