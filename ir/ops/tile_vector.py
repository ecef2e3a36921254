"""Tile level, vector unit: element-wise work and row reductions on accumulator tiles, in f32.

A second operand broadcasts as the unit does: its rows are 1 or equal, its columns divide the first one's (periodic), so
one column is a scalar per row and a [rows x head size] operand repeats over the heads.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import fail
from focusc.ir.ops.activations import erf, gelu, sigmoid
from focusc.ir.ops.tile import need
from focusc.ir.tiles import Array
from focusc.ir.types import IndexType, StreamType, TileType, Type

LOWEST = float(np.finfo(np.float32).min)
"""What a masked score becomes: finite, so that it is no fault, and exp(LOWEST - x) is 0."""


UNARY: dict[str, Callable[[Array], Array]] = {
    "exp": np.exp,
    "recip": lambda x: np.float32(1) / x,
    "rsqrt": lambda x: np.float32(1) / np.sqrt(x),
    "sqrt": np.sqrt,
    "log": np.log,
    "erf": erf,
    "silu": lambda x: x * sigmoid(x),
    "gelu": lambda x: gelu(x, "tanh"),
    "gelue": lambda x: gelu(x, "none"),
    "gelu_quick": lambda x: gelu(x, "quick"),
    "tanh": np.tanh,
    "sigmoid": sigmoid,
    "neg": np.negative,
    "copy": np.copy,
}
BINARY: dict[str, Callable[[Array, Any], Array]] = {
    "add": np.add,
    "sub": np.subtract,
    "mul": np.multiply,
    "div": np.divide,
    "max": np.maximum,
    "min": np.minimum,
    "exps": lambda a, b: np.exp(a - b),
    "sel": lambda a, b: np.where(b > 0, a, np.float32(LOWEST)),
}
SCALAR = ("add", "mul", "max", "min")
REDUCE: dict[str, tuple[Callable[[Array], Array], Callable[[Array, Array], Array]]] = {
    "rsum": (lambda x: x.sum(1, keepdims=True), np.add),
    "rmax": (lambda x: x.max(1, keepdims=True), np.maximum),
    "rsumsq": (lambda x: (x * x).sum(1, keepdims=True), np.add),
}


@defop("tile.unary")
class Unary(Op):
    """fn(a), element-wise."""

    a = operand()
    fn = attr(str, one_of=tuple(UNARY))

    @staticmethod
    def infer(a: Type, *, fn: str) -> Type:
        need(TileType, a)
        return a

    @staticmethod
    def evaluate(a: Array, *, fn: str) -> Array:
        return UNARY[fn](a)


@defop("tile.binary")
class Binary(Op):
    """fn(a, b); b is a tile or the head of a stream and broadcasts. `sel`: a where b > 0, else the lowest f32."""

    a = operand()
    b = operand()
    fn = attr(str, one_of=tuple(BINARY))

    @staticmethod
    def infer(a: TileType, b: TileType | StreamType, *, fn: str) -> Type:
        need(TileType, a)
        if b.rows not in (1, a.rows) or a.cols % b.cols:
            raise fail("tile.broadcast", f"{b} does not broadcast to {a}: rows are 1 or equal, columns divide")
        return a

    @staticmethod
    def evaluate(a: Array, b: Array, *, fn: str) -> Array:
        if b.shape[1] not in (1, a.shape[1]):
            b = np.tile(b, (1, a.shape[1] // b.shape[1]))
        return BINARY[fn](a, b)


@defop("tile.select")
class Select(Op):
    """a where the mask is not 0, else b; mask and b are tiles or the heads of streams, and broadcast."""

    a = operand()
    mask = operand()
    b = operand()

    @staticmethod
    def infer(a: TileType, mask: TileType | StreamType, b: TileType | StreamType) -> Type:
        need(TileType, a)
        for other in (mask, b):
            if other.rows not in (1, a.rows) or a.cols % other.cols:
                raise fail("tile.broadcast", f"{other} does not broadcast to {a}: rows are 1 or equal, columns divide")
        return a

    @staticmethod
    def evaluate(a: Array, mask: Array, b: Array) -> Array:
        mask, b = (np.tile(x, (1, a.shape[1] // x.shape[1])) if x.shape[1] != 1 else x for x in (mask, b))
        return np.where(mask != 0, a, b)


@defop("tile.scalar")
class Scalar(Op):
    """fn(a, value) with a constant."""

    a = operand()
    fn = attr(str, one_of=SCALAR)
    value = attr(float)

    @staticmethod
    def infer(a: Type, *, fn: str, value: float) -> Type:
        need(TileType, a)
        return a

    @staticmethod
    def evaluate(a: Array, *, fn: str, value: float) -> Array:
        return BINARY[fn](a, np.float32(value))


@defop("tile.fill")
class Fill(Op):
    """A tile rows x cols of one value."""

    rows = operand()
    cols = operand()
    value = attr(float)
    max_rows = attr(int, minimum=1)
    max_cols = attr(int, minimum=1)

    @staticmethod
    def infer(rows: Type, cols: Type, *, value: float, max_rows: int, max_cols: int) -> Type:
        need(IndexType, rows, cols)
        return TileType(max_rows, max_cols)

    @staticmethod
    def evaluate(rows: int, cols: int, *, value: float, max_rows: int, max_cols: int) -> Array:
        return np.full((rows, cols), value, np.float32)


@defop("tile.reduce")
class Reduce(Op):
    """Row reduction to one column, folded into `acc` if present."""

    a = operand()
    acc = operand(optional=True)
    fn = attr(str, one_of=tuple(REDUCE))

    @staticmethod
    def infer(a: TileType, acc: TileType | None, *, fn: str) -> Type:
        need(TileType, a, acc)
        return TileType(a.rows, 1)

    @staticmethod
    def evaluate(a: Array, acc: Array | None, *, fn: str) -> Array:
        reduce, fold = REDUCE[fn]
        value = reduce(a)
        return value if acc is None else fold(acc, value)


def hidden_by_position(a: Array, row: int, col: int, group: int, window: int, inf: bool) -> Array:
    """Scores with hidden ones as -infinity or the most negative f32; row i of the tile is row `row` + i // group."""
    i, j = np.ogrid[: a.shape[0], : a.shape[1]]
    behind = row + i // group - (col + j)
    hidden = (behind < 0) | (behind >= window) if window else behind < 0
    return np.where(hidden, np.float32(-np.inf if inf else LOWEST), a)


@defop("tile.mask")
class Mask(Op):
    """Hide scores by position: entries with col + j > row + i, and with a window those with col + j <= row + i -
    window, become the most negative f32, or -infinity with `inf`."""

    a = operand()
    row = operand()
    col = operand()
    window = attr(int, 0, minimum=0, doc="keys that a row sees, its own the last; 0: all before it")
    inf = attr(bool, False)

    @staticmethod
    def infer(a: Type, row: Type, col: Type, *, window: int, inf: bool) -> Type:
        need(TileType, a)
        need(IndexType, row, col)
        return a

    @staticmethod
    def evaluate(a: Array, row: int, col: int, *, window: int, inf: bool) -> Array:
        return hidden_by_position(a, row, col, 1, window, inf)


@defop("tile.mask_heads")
class MaskHeads(Op):
    """Hide scores by position, as `tile.mask` does, in a tile that holds the rows of `group` heads in turn: row i of
    the tile is row `row` + i // group."""

    a = operand()
    row = operand()
    col = operand()
    group = attr(int, minimum=1)
    window = attr(int, 0, minimum=0)
    inf = attr(bool, False)

    @staticmethod
    def infer(a: Type, row: Type, col: Type, *, group: int, window: int, inf: bool) -> Type:
        need(TileType, a)
        need(IndexType, row, col)
        return a

    @staticmethod
    def evaluate(a: Array, row: int, col: int, *, group: int, window: int, inf: bool) -> Array:
        return hidden_by_position(a, row, col, group, window, inf)


@defop("tile.rotate")
class Rotate(Op):
    """Rotate pairs within each group of `width` columns: [-x2, x1] of the halves, or of neighbours if interleaved."""

    a = operand()
    width = attr(int, minimum=2)
    interleaved = attr(bool, False)

    @staticmethod
    def infer(a: TileType, *, width: int, interleaved: bool) -> Type:
        need(TileType, a)
        if a.cols % width or width % 2:
            raise fail("tile.rotate", f"{a.cols} columns are not groups of {width} (an even number)")
        return a

    @staticmethod
    def evaluate(a: Array, *, width: int, interleaved: bool) -> Array:
        rows, cols = a.shape
        out: Any = np.empty_like(a)
        if interleaved:
            out[:, 0::2], out[:, 1::2] = -a[:, 1::2], a[:, 0::2]
            return out
        x, y = a.reshape(rows, cols // width, width), out.reshape(rows, cols // width, width)
        y[..., : width // 2], y[..., width // 2 :] = -x[..., width // 2 :], x[..., : width // 2]
        return out
