"""Element-wise kernels on stored values: what no GEMM epilogue could take.

Numbers are immediates. Functions of one value that follow each other are computed in one kernel, in f32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.emit import Ix
from focusc.backends.lower.gemm import ACTIVATIONS, rotary
from focusc.backends.lower.moves import Place, saturated, walk
from focusc.backends.lower.strided import Cut, Strided, cut, longest, near, simplified
from focusc.backends.lower.views import matrix_shape
from focusc.backends.lower.windows import REDUCTIONS, beside, too_large
from focusc.backends.options import Tiling
from focusc.ir import Op, TensorType, Value
from focusc.ir.diagnostics import fail
from focusc.ir.matching import scalar_of

BINARY = {
    "tensor.add": "add",
    "tensor.sub": "sub",
    "tensor.mul": "mul",
    "tensor.div": "div",
    "tensor.max": "max",
    "tensor.min": "min",
}
UNARY = {
    "tensor.exp": "exp",
    "tensor.log": "log",
    "tensor.sqrt": "sqrt",
    "tensor.erf": "erf",
    "tensor.neg": "neg",
    "tensor.tanh": "tanh",
    "tensor.sigmoid": "sigmoid",
    "tensor.reciprocal": "recip",
    "nn.silu": "silu",
}
TINY = 2.0**-126
"""Least number whose reciprocal f32 holds."""

Function = Callable[[Value], Value]


def function(low: Lowering, op: Op) -> tuple[Value, Function] | None:
    """(operand, function of its tile) of an op that has one operand beside numbers; None for any other."""
    e = low.emit
    a = op.operands[0] if op.operands else None
    if a is None:
        return None
    if op.name in UNARY:
        return a, lambda t: e.unary(UNARY[op.name], t)
    if op.name == "nn.gelu":
        return a, lambda t: e.unary(ACTIVATIONS[op.attrs["approximate"]], t)
    if op.name == "tensor.abs":
        return a, lambda t: e.binary("max", e.unary("neg", t), t)
    b = op.operands[1] if len(op.operands) > 1 else None
    if b is None or op.name not in (*BINARY, "tensor.pow"):
        return None
    right, left = scalar_of(b), scalar_of(a)
    if right is not None and a.type == op.results[0].type:
        return (a, power(low, op, right)) if op.name == "tensor.pow" else (a, _by(low, op, float(right)))
    if left is not None and b.type == op.results[0].type and op.name != "tensor.pow":
        return b, _of(low, op, float(left))
    return None


def _by(low: Lowering, op: Op, number: float) -> Function:
    """x op number."""
    e = low.emit
    if op.name == "tensor.sub":
        return lambda t: e.scalar("add", t, -number)
    if op.name == "tensor.div" and not number:
        return lambda t: e.scalar("mul", t, math.copysign(math.inf, number))
    if op.name == "tensor.div" and abs(number) < TINY:  # both factors are normal numbers
        return lambda t: e.scalar("mul", e.scalar("mul", t, 2.0**64), 1 / (number * 2.0**64))
    if op.name == "tensor.div":
        return lambda t: e.scalar("mul", t, 1 / number)
    return lambda t: e.scalar(BINARY[op.name], t, number)


def _of(low: Lowering, op: Op, number: float) -> Function:
    """number op x."""
    e = low.emit
    if op.name == "tensor.sub":
        return lambda t: e.scalar("add", e.unary("neg", t), number)
    if op.name == "tensor.div":
        return lambda t: e.scalar("mul", e.unary("recip", t), number)
    return lambda t: e.scalar(BINARY[op.name], t, number)


def power(low: Lowering, op: Op, exponent: float) -> Function:
    """x to a number: products of squares and a root where the exponent is a multiple of a half, whose sign is that of
    the power for x < 0 too; else exp(exponent * log x), which is defined for x > 0 only, as the power is."""
    e = low.emit
    whole, half = divmod(abs(exponent), 1)
    if half not in (0, 0.5):
        return lambda t: e.unary("exp", e.scalar("mul", e.unary("log", t), exponent))

    def compute(t: Value) -> Value:
        result, square, count = e.unary("sqrt", t) if half else None, t, int(whole)
        if not half and not count:
            return e.scalar("add", e.scalar("mul", t, 0.0), 1.0)
        while count:
            if count % 2:
                last = square if count > 1 or result is not None else e.unary("copy", square)
                result = last if result is None else e.binary("mul", result, last)
            count //= 2
            if count:
                square = e.binary("mul", square, square)
        assert result is not None
        return e.unary("recip", result) if exponent < 0 else result

    return compute


@dataclass(frozen=True)
class Chain:
    """An op and the functions of one value behind it that only they read."""

    ops: tuple[Op, ...]
    steps: tuple[Function, ...]

    @property
    def result(self) -> Value:
        """The value that is stored."""
        return self.ops[-1].results[0]

    @staticmethod
    def of(low: Lowering, op: Op) -> Chain:
        """Follow the single readers."""
        ops, steps = [op], []
        while (user := low.single_user(ops[-1].results[0])) is not None:
            found = function(low, user)
            if found is None or found[0] is not ops[-1].results[0] or user.results[0].type != op.results[0].type:
                break
            ops.append(user)
            steps.append(found[1])
        return Chain(tuple(ops), tuple(steps))

    def finish(self, low: Lowering, tile: Value) -> Value:
        """Apply the functions to a tile of the first op."""
        for op, step in zip(self.ops[1:], self.steps, strict=True):
            low.emit.at(op.loc)
            tile = step(tile)
        low.emit.at(self.ops[0].loc)
        return tile


def pointwise(
    low: Lowering,
    op: Op,
    compute: Callable[[list[Value]], Value],
    operands: Sequence[Value | None] | None = None,
    *,
    streams: bool = False,
) -> None:
    """Load the operands tile by tile, compute, store. The operands broadcast as numpy's do; the first comes as a whole
    tile, the others with one row or column where they repeat, and as streams if `streams`."""
    values = [v for v in (op.operands if operands is None else operands) if v is not None]
    chain = Chain.of(low, op)
    low.absorbed.update(chain.ops[1:])
    total, width = matrix_shape(op.results[0].type)
    shapes = [matrix_shape(v.type) for v in values]
    if all(rows in (1, total) and cols in (1, width) for rows, cols in shapes) and shapes[0] == (total, width):
        _rows(low, chain, compute, values, streams)
    else:
        _strided(low, chain, compute, values, streams)


def _rows(
    low: Lowering, chain: Chain, compute: Callable[[list[Value]], Value], values: list[Value], streams: bool
) -> None:
    """Every operand has the result's rows, or one: what SIC may take on the way out."""
    op, e = chain.ops[0], low.emit
    total, width = matrix_shape(op.results[0].type)
    views = [low.view(v) for v in values]
    low.kernel(op)
    sink = low.sink(chain.result)
    rows = low.rows_of(total, sink.view)
    cols = low.columns(rows.most, len(views), width)
    if not cols:
        raise fail(
            "tile.obuf",
            f"{len(views)} tiles of {rows.most} x 32 f32 do not fit the output buffer of {low.tiling.obuf} bytes",
            op.loc,
            hint="lower tile{m=...} or enlarge buffers.output",
        )
    with e.loop(rows.total, rows.step, first=rows.first, repeat=True) as m, e.loop(width, cols) as c:
        loaded: list[Value] = []
        for number, v in enumerate(views):
            row, count = (Ix.of(0), Ix.of(1)) if v.rows == 1 else (m.off, m.len)
            one = v.cols == 1 and width != 1
            stream = e.load(v.buffer, row + v.row, v.col if one else c.off + v.col, count, 1 if one else c.len)
            loaded.append(stream if streams and number else e.to_tile(stream))
        low.put(sink, chain.finish(low, compute(loaded)), m.it, m.off, c.off, c.it * (cols // 32))


def _strided(
    low: Lowering, chain: Chain, compute: Callable[[list[Value]], Value], values: list[Value], streams: bool
) -> None:
    """Operands that repeat over any axes."""
    tiles = Broadcast.of(low, chain, [operand(low, v) for v in values])
    low.kernel(chain.ops[0])
    with walk(low, tiles.target.dims, tiles.cut) as at:
        first, *rest = range(len(values))
        loaded = [tiles.whole(low, first, at)]
        loaded += [tiles.part(low, i, at) if streams else low.emit.to_tile(tiles.part(low, i, at)) for i in rest]
        tiles.store(low, chain.finish(low, compute(loaded)), at)


@dataclass(frozen=True)
class Broadcast:
    """Windows that repeat over axes of a target, cut into tiles of its last axis by its longest other one."""

    target: Strided
    sides: tuple[Strided, ...]
    cut: Cut

    @staticmethod
    def of(low: Lowering, chain: Chain, operands: Sequence[Strided]) -> Broadcast:
        """CompileError if a tile of each does not fit the output buffer."""
        result = chain.result
        assert isinstance(result.type, TensorType)
        repeated = [side.broadcast(result.type.shape) for side in operands]
        target, *sides = simplified(Strided.of(low.result(result), result.type.shape), *repeated)
        axes = range(len(target.dims))
        fits = [a for a in axes if target.strides[a] == 1 and all(side.strides[a] in (0, 1) for side in sides)]
        col = longest(target.dims, fits)
        row = longest(target.dims, [a for a in axes if a != col and all(near(s, a) for s in (target, *sides))])
        found = cut(low, target.dims, row, col, tiles=len(sides) + 1)
        if found is None:
            raise too_large(low, chain.ops[0], len(sides) + 1)
        return Broadcast(target, tuple(sides), found)

    def part(self, low: Lowering, number: int, at: Place) -> Value:
        """An operand's stream, with one row or column where it repeats."""
        return beside(low, self.sides[number], at)

    def whole(self, low: Lowering, number: int, at: Place) -> Value:
        """An operand in a tile of the target's shape."""
        side, e = self.sides[number], low.emit
        if all(side.strides[a] for a in (self.cut.row, self.cut.col) if a is not None):
            return e.to_tile(self.part(low, number, at))
        return e.binary("add", e.fill(at.rows, at.cols, 0.0), self.part(low, number, at))

    def store(self, low: Lowering, tile: Value, at: Place) -> None:
        """Write a tile of the target."""
        pitch = self.target.strides[at.row] if at.row is not None else 0
        low.emit.store_strided(tile, self.target.buffer, self.target.at(at.indices), pitch)


def operand(low: Lowering, value: Value) -> Strided:
    """The stored window of an operand."""
    assert isinstance(value.type, TensorType)
    return Strided.of(low.view(value), value.type.shape)


def _function(low: Lowering, op: Op, x: Value, compute: Function) -> None:
    """A function of one value, and those behind it: a kernel, or part of the reduction that alone reads the last."""
    chain = Chain.of(low, op)
    user = low.single_user(chain.result)
    if user is None or user.name not in REDUCTIONS:
        pointwise(low, op, lambda t: compute(t[0]), [x])
        return
    low.absorbed.update(chain.ops[1:])
    low.prologues[chain.result] = (x, lambda t: chain.finish(low, compute(t)))


@handles(*BINARY, "tensor.pow")
def binary(low: Lowering, op: Op) -> None:
    """a op b with broadcasting; an operand of full shape goes first where the op commutes."""
    a, b = op.operands
    assert a is not None and b is not None
    if (found := function(low, op)) is not None:
        _function(low, op, *found)
        return
    if op.name == "tensor.pow":
        raise fail(
            "lower.pow",
            f"{op.name} of {a.type} and {b.type}: expected an exponent that is one constant number",
            op.loc,
            hint="write it as exp(y * log(x))",
        )
    if a.type != op.results[0].type and b.type == op.results[0].type and op.name not in ("tensor.sub", "tensor.div"):
        a, b = b, a
    pointwise(low, op, lambda t: low.emit.binary(BINARY[op.name], t[0], t[1]), [a, b], streams=True)


@handles(*UNARY, "tensor.abs", "nn.gelu")
def unary(low: Lowering, op: Op) -> None:
    """fn(a)."""
    found = function(low, op)
    assert found is not None
    _function(low, op, *found)


@handles("tensor.where")
def where(low: Lowering, op: Op) -> None:
    """x where the condition holds, else y. A number is filled in, as f32; one that is stored as it is stays finite."""
    condition, x, y = op.operands
    assert condition is not None and x is not None and y is not None
    numbers = {v: float(n) for v in (x, y) if (n := scalar_of(v)) is not None}
    stored = [v for v in (x, y) if v not in numbers]
    chain = Chain.of(low, op)
    low.absorbed.update(chain.ops[1:])
    if not chain.steps:
        numbers = {v: saturated(n, low.storage(chain.result)) for v, n in numbers.items()}
    tiles = Broadcast.of(low, chain, [operand(low, condition), *(operand(low, v) for v in stored)])
    low.kernel(op)
    e = low.emit
    with walk(low, tiles.target.dims, tiles.cut) as at:
        yes, no = (
            e.fill(at.rows, at.cols, numbers[v]) if v in numbers else tiles.whole(low, 1 + stored.index(v), at)
            for v in (x, y)
        )
        tile = e.select(yes, tiles.part(low, 0, at), no)
        tiles.store(low, chain.finish(low, tile), at)


def rope_rows(tiling: Tiling, head: int) -> int:
    """Rows of a head that are turned at once: two f32 tiles are live."""
    return min(tiling.obuf // (8 * head), tiling.m)


@handles("nn.rope")
def rope(low: Lowering, op: Op) -> None:
    """Rotary embedding of a stored value: heads too wide for an n-tile, or several readers of the projection."""
    x, cos = op.operands[0], op.operands[1]
    assert x is not None and cos is not None
    source = low.view(x)
    total, width = matrix_shape(x.type)
    steps, head = matrix_shape(cos.type)
    assert total % steps == 0, "cos has a row for each position of a sequence"
    low.kernel(op)
    e = low.emit
    fit = rope_rows(low.tiling, head)
    gather = low.gather_of(op.results[0]) if head % 32 == 0 else None
    direct = gather is not None and low.gather_rows(gather).most <= fit
    sink = low.sink(op.results[0], direct=direct)
    rows = low.rows_of(steps, sink.view, most=fit)
    over_rows = e.loop(rows.total, rows.step, first=rows.first, repeat=True)
    with e.loop(total, steps) as b, over_rows as m, e.loop(width, head) as c:
        row = b.off + m.off
        tile = e.to_tile(e.load(source.buffer, row + source.row, c.off + source.col, m.len, head))
        tile = rotary(low, op, tile, m.off, m.len)
        low.put(sink, tile, m.it, row, c.off, c.it * (head // 32))
