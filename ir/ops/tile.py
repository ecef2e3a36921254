"""Tile level, structure: DRAM buffers, index arithmetic and loops over tiles.

A loop is written once and its trip count is data of the op, so a program's size does not depend on how many tiles a
tensor has. Index values are Python ints at run time.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand, operands, region
from focusc.ir.diagnostics import fail
from focusc.ir.tiles import Array, ConcentratedBuffer, RowBuffer
from focusc.ir.types import DTYPES, BufferType, IndexType, TensorType, Type


def need(kind: type, *types: Type | None) -> None:
    """Raise unless every present type is a `kind`."""
    for found in types:
        if found is not None and not isinstance(found, kind):
            expected = kind.__name__.removesuffix("Type").lower()
            raise fail("type.kind", f"operand has type {found}, expected a {expected}")


@defop("tile.bind", pure=False)
class Bind(Op):
    """A tensor (program input or constant) as a row-major DRAM buffer [rows, cols] of storage type `dtype`."""

    x = operand()
    shape = attr(tuple, of=int)
    dtype = attr(str)
    address = attr(int, -1, doc="DRAM byte address, once planned")

    @staticmethod
    def infer(x: TensorType, *, shape: tuple[int, ...], dtype: str, address: int) -> Type:
        need(TensorType, x)
        if int(np.prod(shape)) != x.size:
            raise fail("tile.shape", f"buffer shape {list(shape)} does not hold the {x.size} elements of {x}")
        return BufferType(shape, dtype, "rows")

    @staticmethod
    def evaluate(x: Array, *, shape: tuple[int, ...], dtype: str, address: int) -> RowBuffer:
        return RowBuffer.holding(x, shape, dtype)


@defop("tile.buffer", pure=False)
class Buffer(Op):
    """A fresh DRAM buffer [rows, cols]. Layout `rows` is row-major. Layout `conc` holds concentrated m-tiles: the first
    `first` rows, then `m` rows a tile, each as slots of packed vectors, map and count."""

    shape = attr(tuple, of=int)
    dtype = attr(str, "f16")
    layout = attr(str, "rows", one_of=("rows", "conc"))
    first = attr(int, 0)
    m = attr(int, 0)
    label = attr(str, "", doc="name in the memory plan")
    address = attr(int, -1, doc="DRAM byte address, once planned")

    @staticmethod
    def infer(*, shape: tuple[int, ...], dtype: str, layout: str, **_: Any) -> Type:
        return BufferType(shape, dtype, layout)

    @staticmethod
    def evaluate(
        *, shape: tuple[int, ...], dtype: str, layout: str, first: int, m: int, label: str, address: int
    ) -> RowBuffer | ConcentratedBuffer:
        return ConcentratedBuffer(shape, first, m) if layout == "conc" else RowBuffer.empty(shape, dtype)


@defop("tile.view")
class View(Op):
    """The elements from `offset` on of a row-major buffer, as [rows, cols]: an alias, no bytes move.

    With `dtype` i8 the elements are the buffer's bytes: how values that no tile can hold exactly are copied.
    """

    buf = operand()
    shape = attr(tuple, of=int)
    offset = attr(int, 0, minimum=0)
    dtype = attr(str, "", one_of=("", "i8"), doc="empty: the buffer's")

    @staticmethod
    def infer(buf: BufferType, *, shape: tuple[int, ...], offset: int, dtype: str) -> Type:
        need(BufferType, buf)
        item = DTYPES[buf.dtype].itemsize if dtype else 1
        if buf.layout != "rows" or offset + int(np.prod(shape)) > int(np.prod(buf.shape)) * item:
            raise fail("tile.shape", f"view of {list(shape)} elements at {offset} leaves {buf}")
        return BufferType(shape, dtype or buf.dtype, "rows")

    @staticmethod
    def evaluate(buf: RowBuffer, *, shape: tuple[int, ...], offset: int, dtype: str) -> RowBuffer:
        return buf.view(offset, shape, dtype)


@defop("tile.read", pure=False)
class Read(Op):
    """A row-major buffer as a tensor: how a result leaves the program."""

    buf = operand()
    shape = attr(tuple, of=int)
    dtype = attr(str)

    @staticmethod
    def infer(buf: BufferType, *, shape: tuple[int, ...], dtype: str) -> Type:
        need(BufferType, buf)
        return TensorType(shape, dtype)

    @staticmethod
    def evaluate(buf: RowBuffer, *, shape: tuple[int, ...], dtype: str) -> Array:
        return buf.as_tensor(shape, dtype)


@defop("tile.affine")
class Affine(Op):
    """const + sum(coef[i] * xs[i])."""

    xs = operands()
    coef = attr(tuple, of=int)
    const = attr(int, 0)

    @staticmethod
    def infer(*xs: Type, coef: tuple[int, ...], const: int) -> Type:
        need(IndexType, *xs)
        if len(xs) != len(coef):
            raise fail("tile.affine", f"{len(coef)} coefficients for {len(xs)} operands")
        return IndexType()

    @staticmethod
    def evaluate(*xs: int, coef: tuple[int, ...], const: int) -> int:
        return const + sum(c * x for c, x in zip(coef, xs, strict=True))


@defop("tile.at_least")
class AtLeast(Op):
    """The larger of x and `least`: where a range of keys starts that must not start before the first."""

    x = operand()
    least = attr(int, 0)

    @staticmethod
    def infer(x: Type, *, least: int) -> Type:
        need(IndexType, x)
        return IndexType()

    @staticmethod
    def evaluate(x: int, *, least: int) -> int:
        return max(x, least)


@defop("tile.at_most")
class AtMost(Op):
    """The smaller of x and `most`: where a range of keys ends that must not end behind the last."""

    x = operand()
    most = attr(int)

    @staticmethod
    def infer(x: Type, *, most: int) -> Type:
        need(IndexType, x)
        return IndexType()

    @staticmethod
    def evaluate(x: int, *, most: int) -> int:
        return min(x, most)


@defop("tile.whole")
class Whole(Op):
    """The largest multiple of `step` up to x: where the whole pieces of [0, x) end."""

    x = operand()
    step = attr(int, minimum=1)

    @staticmethod
    def infer(x: Type, *, step: int) -> Type:
        need(IndexType, x)
        return IndexType()

    @staticmethod
    def evaluate(x: int, *, step: int) -> int:
        return x // step * step


@defop("tile.for", pure=False)
class For(Op):
    """Cut [0, total) into pieces (`first`, then `step` each, the last maybe shorter) and run the body on each in order.

    `bound`, if present, is a run-time total <= `total`. The body's arguments are (number, offset, length, carried...);
    its `yield` gives the carried values of the next round, and the loop's results are the last ones.
    """

    bound = operand(optional=True)
    inits = operands()
    total = attr(int, minimum=0)
    step = attr(int, minimum=1)
    first = attr(int, minimum=1)
    body = region()

    @staticmethod
    def infer(bound: Type | None, *inits: Type, total: int, step: int, first: int, regions: Any) -> tuple[Type, ...]:
        need(IndexType, bound)
        found = tuple(a.type for a in regions[0].args)
        if found != (IndexType(),) * 3 + inits:
            raise fail(
                "tile.for", f"the body takes {', '.join(map(str, found))}; expected 3 indices and the carried values"
            )
        if first > max(total, 1):
            raise fail("tile.for", f"the first piece has {first} elements, more than the total of {total}")
        return tuple(inits)

    @staticmethod
    def evaluate(
        bound: int | None, *inits: Any, total: int, step: int, first: int, regions: tuple[Callable[..., Any], ...]
    ) -> tuple[Any, ...]:
        carried, off, number = tuple(inits), 0, 0
        end = total if bound is None else min(bound, total)
        while off < end:
            length = min(first if number == 0 else step, end - off)
            carried = tuple(regions[0](number, off, length, *carried))
            off, number = off + length, number + 1
        return carried
