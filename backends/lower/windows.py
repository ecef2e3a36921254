"""Sums and maxima over rows that are a fixed distance apart: pooling, depthwise convolution, reductions.

The vector unit adds strided rows to a tile, channels in its columns; the array would multiply each channel with a panel
of its own, 32 x 32 cells for one column of weights. Where the reduced axis is that of the columns, rows are reduced.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.emit import Ix
from focusc.backends.lower.moves import Place, fill, move, walk
from focusc.backends.lower.strided import Strided, cut, longest, near, simplified
from focusc.ir import Op, TensorType, Value
from focusc.ir.diagnostics import fail
from focusc.ir.ops.nn_window import inverse_counts

REDUCTIONS = {
    "tensor.reduce_sum": "add",
    "tensor.reduce_mean": "add",
    "tensor.reduce_max": "max",
    "tensor.reduce_min": "max",
}
"""Reductions over axes, and how two partial results join."""

LEAST = -math.inf
"""What surrounds a maximum, and where it starts: of values that all are -infinity it is that, no finite number."""


@dataclass(frozen=True)
class Taps:
    """The reduced axes of a window: extents, and the distance of neighbours in elements of the source."""

    dims: tuple[int, ...]
    strides: tuple[int, ...]

    @property
    def count(self) -> int:
        """Elements that each result is made of."""
        return math.prod(self.dims)


Step = Callable[[Value, Value, Ix, Place], Value]
"""(accumulator, stream, number of the tap, place) -> accumulator."""
Finish = Callable[[Value, Place], Value]


def accumulate(
    low: Lowering, op: Op, source: Strided, taps: Taps, target: Strided, init: float, step: Step, finish: Finish
) -> None:
    """One kernel: each element of the target from those of the source at its place and all taps from there."""
    axes = range(len(source.dims))
    e = low.emit
    col = longest(source.dims, [a for a in axes if target.strides[a] == 1 and source.strides[a] == 1])
    row = longest(source.dims, [a for a in axes if a != col and near(source, a) and near(target, a)])
    c = cut(low, source.dims, row, col, tiles=3)
    if c is None:
        raise too_large(low, op, 3)
    pitch, out = (side.strides[row] if row is not None else 0 for side in (source, target))
    with walk(low, source.dims, c) as at:
        acc = e.fill(at.rows, at.cols, init)
        acc = carried(low, taps, acc, lambda a, tap, where: step(
            a, e.load_strided(source.buffer, source.at(at.indices) + where, at.rows, at.cols, pitch), tap, at
        ))
        e.store_strided(finish(acc, at), target.buffer, target.at(at.indices), out)


def carried(low: Lowering, taps: Taps, acc: Value, body: Callable[[Value, Ix, Ix], Value]) -> Value:
    """Carry an accumulator through all taps; the body gets the tap's number and its distance in elements."""

    def nest(axis: int, acc: Value, tap: Ix, where: Ix) -> Value:
        if axis == len(taps.dims):
            return body(acc, tap, where)
        with low.emit.loop(taps.dims[axis], 1, inits=[acc]) as loop:
            inner = math.prod(taps.dims[axis + 1 :])
            further = where + loop.off * taps.strides[axis]
            loop.yields.append(nest(axis + 1, loop.carried[0], tap + loop.off * inner, further))
        return loop.results[0]

    return nest(0, acc, Ix.of(0), Ix.of(0))


def too_large(low: Lowering, op: Op, tiles: int) -> Exception:
    """The error for tiles that do not fit the output buffer."""
    return fail(
        "tile.obuf", f"{tiles} rows of 32 f32 do not fit the output buffer of {low.tiling.obuf} bytes", op.loc
    )


# -- windows over positions --------------------------------------------------------------------------------------


def _window(low: Lowering, op: Op, margin: float) -> tuple[Strided, Taps, Strided]:
    """(source at its first tap with one place for each result, taps, target), of an op over [N, spatial..., C]; the
    source is copied with its margin first, if it has one."""
    x, result = op.operands[0], op.results[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    a, source = op.attrs, Strided.of(low.view(x), x.type.shape)
    space, spatial = x.type.shape[1:-1], len(a["kernel"])
    if any(a["pads"]):
        source = padded(low, op, source, a["pads"], margin)
    strides, dilations = a["strides"] or (1,) * spatial, a["dilations"] or (1,) * spatial
    taps = Taps(a["kernel"], tuple(d * s for d, s in zip(dilations, source.strides[1:-1], strict=True)))
    for axis in range(spatial):
        source = source.part(axis + 1, 0, result.type.shape[axis + 1], strides[axis])
    assert len(space) == spatial
    return source, taps, Strided.of(low.result(result), result.type.shape)


def padded(low: Lowering, op: Op, source: Strided, pads: Sequence[int], value: float) -> Strided:
    """A copy of [N, spatial..., C] with a margin of one number around the spatial axes."""
    spatial = len(pads) // 2
    dims = [source.dims[0], *(source.dims[1 + i] + pads[i] + pads[spatial + i] for i in range(spatial))]
    view = low.allocate(math.prod(dims), source.dims[-1], f"{op.results[0].name}.padded")
    whole = inside = Strided.of(view, (*dims, source.dims[-1]))
    slabs: list[Strided] = []
    for i in range(spatial):
        extent = source.dims[1 + i]
        slabs.append(inside.part(1 + i, 0, pads[i]))
        slabs.append(inside.part(1 + i, pads[i] + extent, pads[spatial + i]))
        inside = inside.part(1 + i, pads[i], extent)
    move(low, op, [(source, inside)])
    fill(low, op, slabs, value)
    return whole


@handles("nn.pool")
def pool(low: Lowering, op: Op) -> None:
    """The rows of a window are added, or the largest is kept, tap by tap."""
    x, e, a = op.operands[0], low.emit, op.attrs
    assert x is not None and isinstance(x.type, TensorType)
    largest = a["reduction"] == "max"
    source, taps, target = _window(low, op, LEAST if largest else 0.0)
    windows = (a["kernel"], a["strides"], a["pads"], a["dilations"], a["count_include_pad"])
    inverse = inverse_counts(x.type.shape[1:-1], *windows)
    shares: Strided | None = None
    if inverse.size > 1 and not largest:
        name = "shares_" + "_".join(str(n) for n in (*x.type.shape[1:-1], *(v for w in windows[:4] for v in w)))
        view = low.constant(name, inverse.reshape(-1, 1))
        shares = Strided.of(view, inverse.shape).broadcast(target.dims)
    found = simplified(source, target, *([shares] if shares is not None else []))
    source, target = found[0], found[1]

    def step(acc: Value, stream: Value, tap: Ix, at: Place) -> Value:
        return e.binary("max" if largest else "add", acc, stream)

    def finish(acc: Value, at: Place) -> Value:
        if largest:
            return acc
        if shares is None:
            return e.scalar("mul", acc, float(inverse.reshape(-1)[0]))
        return e.binary("mul", acc, beside(low, found[2], at))

    low.kernel(op)
    accumulate(low, op, source, taps, target, LEAST if largest else 0.0, step, finish)


def beside(low: Lowering, side: Strided, at: Place) -> Value:
    """The part of an operand that goes with a tile: one row or column where it repeats."""
    rows = at.rows if at.row is not None and side.strides[at.row] else Ix.of(1)
    cols = at.cols if at.col is not None and side.strides[at.col] else Ix.of(1)
    pitch = side.strides[at.row] if at.row is not None else 0
    return low.emit.load_strided(side.buffer, side.at(at.indices), rows, cols, pitch)


@handles("nn.depthwise_conv")
def depthwise_conv(low: Lowering, op: Op) -> None:
    """Each tap adds its rows times a row of weights."""
    x, w, bias = op.operands
    assert x is not None and w is not None and isinstance(op.results[0].type, TensorType)
    e = low.emit
    source, taps, target = _window(low, op, 0.0)
    weights = low.view(w)
    width = weights.cols
    each = Strided(weights.buffer, weights.offset, (width,), (1,)).broadcast(target.dims)
    shift: Strided | None = None
    if bias is not None:
        view = low.view(bias)
        shift = Strided(view.buffer, view.offset, (width,), (1,)).broadcast(target.dims)
    found = simplified(source, target, each, *([shift] if shift is not None else []))

    def step(acc: Value, stream: Value, tap: Ix, at: Place) -> Value:
        tile, side = e.to_tile(stream), found[2]
        where = side.at(at.indices) + tap * weights.pitch
        cols = at.cols if at.col is not None and side.strides[at.col] else 1
        return e.binary("add", acc, e.binary("mul", tile, e.load_strided(side.buffer, where, 1, cols, 0)))

    def finish(acc: Value, at: Place) -> Value:
        return acc if shift is None else e.binary("add", acc, beside(low, found[3], at))

    low.kernel(op)
    low.account(op, 0, decoder=False)
    accumulate(low, op, found[0], taps, found[1], 0.0, step, finish)
