"""Reductions over any axes, and softmax along any axis."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.elementwise import Chain, Function
from focusc.backends.lower.emit import Ix
from focusc.backends.lower.moves import Place, walk
from focusc.backends.lower.strided import Strided, cut, longest, near, simplified
from focusc.backends.lower.windows import LEAST, REDUCTIONS, Finish, Taps, accumulate, carried, too_large
from focusc.ir import Op, TensorType, Value
from focusc.ir.ops.tile_vector import LOWEST


@handles(*REDUCTIONS)
def reduction(low: Lowering, op: Op) -> None:
    """Rows are added up, or reduced to a column where their own axis goes. A minimum is that of the negated values."""
    x, result, e = op.operands[0], op.results[0], low.emit
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    rank, fn = x.type.rank, REDUCTIONS[op.name]
    base, before = low.prologues.get(x, (x, None))
    chain = Chain.of(low, op)
    low.absorbed.update(chain.ops[1:])
    gone = {axis % rank for axis in op.attrs["axes"]} or set(range(rank))
    kept = [axis for axis in range(rank) if axis not in gone]
    whole = Strided.of(low.view(base), x.type.shape)
    target = Strided.of(low.result(chain.result), result.type.shape)
    if op.attrs["keepdims"]:
        target = only(target, kept)
    (inner,) = simplified(only(whole, sorted(gone)))
    source, target = simplified(only(whole, kept), target)
    taps, negated = Taps(inner.dims, inner.strides), op.name == "tensor.reduce_min"
    start = 0.0 if fn == "add" else LEAST

    def finish(acc: Value, at: Place) -> Value:
        if op.name == "tensor.reduce_mean":
            acc = e.scalar("mul", acc, 1 / taps.count)
        return chain.finish(low, e.unary("neg", acc) if negated else acc)

    def prepare(tile: Value) -> Value:
        tile = before(tile) if before is not None else tile
        e.at(op.loc)
        return e.unary("neg", tile) if negated else tile

    def step(acc: Value, stream: Value, tap: Ix, at: Place) -> Value:
        plain = before is None and not negated
        return e.binary(fn, acc, stream if plain else prepare(e.to_tile(stream)))

    low.kernel(op)
    if inner.strides[-1] == 1 and not any(s == 1 for s in source.strides):
        _across(low, op, source, taps, target, "rsum" if fn == "add" else "rmax", prepare, start, finish)
    else:
        accumulate(low, op, source, taps, target, start, step, finish)


def only(side: Strided, axes: Sequence[int]) -> Strided:
    """The window at index 0 of all other axes."""
    return replace(side, dims=tuple(side.dims[a] for a in axes), strides=tuple(side.strides[a] for a in axes))


def _across(
    low: Lowering,
    op: Op,
    source: Strided,
    taps: Taps,
    target: Strided,
    fn: str,
    prepare: Function,
    start: float,
    finish: Finish,
) -> None:
    """Rows of the reduced axis whose elements are neighbours become one column, for all further taps."""
    e = low.emit
    rest, width = Taps(taps.dims[:-1], taps.strides[:-1]), taps.dims[-1]
    row = longest(source.dims, [a for a in range(len(source.dims)) if near(source, a) and near(target, a)])
    c = cut(low, (*source.dims, width), row, len(source.dims), tiles=3)
    if c is None:
        raise too_large(low, op, 3)
    pitch, out = (side.strides[row] if row is not None else 0 for side in (source, target))
    with walk(low, source.dims, replace(c, col=None)) as at:

        def body(acc: Value, _: Ix, where: Ix) -> Value:
            with e.loop(width, c.cols, inits=[acc]) as k:
                first = source.at(at.indices) + where + k.off
                tile = e.to_tile(e.load_strided(source.buffer, first, at.rows, k.len, pitch))
                k.yields.append(e.reduce(fn, prepare(tile), k.carried[0]))
            return k.results[0]

        acc = carried(low, rest, e.fill(at.rows, 1, start), body)
        e.store_strided(finish(acc, at), target.buffer, target.at(at.indices), out)


@handles("tensor.softmax")
def softmax(low: Lowering, op: Op) -> None:
    """exp(x - max) / sum: on whole rows where they fit, else in three passes over pieces of the axis."""
    x, result = op.operands[0], op.results[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    axis = op.attrs["axis"] % x.type.rank
    source, target = Strided.of(low.view(x), x.type.shape), Strided.of(low.result(result), result.type.shape)
    rest = [a for a in range(x.type.rank) if a != axis]
    steps = (source.strides[axis], target.strides[axis])
    source, target = simplified(only(source, rest), only(target, rest))
    low.kernel(op)
    if steps == (1, 1):
        _rows(low, op, source, target, x.type.shape[axis])
    else:
        _columns(low, op, source, target, x.type.shape[axis], steps)


def _rows(low: Lowering, op: Op, source: Strided, target: Strided, width: int) -> None:
    """Along the columns of tiles."""
    e = low.emit
    row = longest(source.dims, [a for a in range(len(source.dims)) if near(source, a) and near(target, a)])
    dims, col = (*source.dims, width), len(source.dims)
    c = cut(low, dims, row, col, tiles=2, least=width + 8) or cut(low, dims, row, col, tiles=3)
    if c is None:
        raise too_large(low, op, 3)
    ins, outs = (side.strides[row] if row is not None else 0 for side in (source, target))
    with walk(low, source.dims, replace(c, col=None)) as at:

        def load(off: Ix | int, cols: Ix | int) -> Value:
            return e.to_tile(e.load_strided(source.buffer, source.at(at.indices) + off, at.rows, cols, ins))

        if c.cols >= width:
            tile = load(0, width)
            tile = e.binary("exps", tile, e.reduce("rmax", tile))
            tile = e.binary("mul", tile, e.unary("recip", e.reduce("rsum", tile)))
            e.store_strided(tile, target.buffer, target.at(at.indices), outs)
            return
        with e.loop(width, c.cols, inits=[e.fill(at.rows, 1, LOWEST)]) as k:
            k.yields.append(e.reduce("rmax", load(k.off, k.len), k.carried[0]))
        top = k.results[0]
        with e.loop(width, c.cols, inits=[e.fill(at.rows, 1, 0.0)]) as k:
            k.yields.append(e.reduce("rsum", e.binary("exps", load(k.off, k.len), top), k.carried[0]))
        share = e.unary("recip", k.results[0])
        with e.loop(width, c.cols) as k:
            tile = e.binary("mul", e.binary("exps", load(k.off, k.len), top), share)
            e.store_strided(tile, target.buffer, target.at(at.indices) + k.off, outs)


def _columns(
    low: Lowering, op: Op, source: Strided, target: Strided, count: int, steps: tuple[int, int]
) -> None:
    """Along an axis that tiles do not have: maximum, sum and result one index after the other."""
    e, axes = low.emit, range(len(source.dims))
    col = longest(source.dims, [a for a in axes if source.strides[a] == target.strides[a] == 1])
    row = longest(source.dims, [a for a in axes if a != col and near(source, a) and near(target, a)])
    c = cut(low, source.dims, row, col, tiles=4)
    if c is None:
        raise too_large(low, op, 4)
    ins, outs = (side.strides[row] if row is not None else 0 for side in (source, target))
    with walk(low, source.dims, c) as at:

        def load(index: Ix) -> Value:
            where = source.at(at.indices) + index * steps[0]
            return e.load_strided(source.buffer, where, at.rows, at.cols, ins)

        with e.loop(count, 1, inits=[e.fill(at.rows, at.cols, LOWEST)]) as k:
            k.yields.append(e.binary("max", k.carried[0], load(k.off)))
        top = k.results[0]
        with e.loop(count, 1, inits=[e.fill(at.rows, at.cols, 0.0)]) as k:
            k.yields.append(e.binary("add", k.carried[0], e.binary("exps", e.to_tile(load(k.off)), top)))
        share = e.unary("recip", k.results[0])
        with e.loop(count, 1) as k:
            tile = e.binary("mul", e.binary("exps", e.to_tile(load(k.off)), top), share)
            e.store_strided(tile, target.buffer, target.at(at.indices) + k.off * steps[1], outs)
