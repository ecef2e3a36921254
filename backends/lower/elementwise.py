"""Element-wise kernels on stored values: what no GEMM epilogue could take."""

from __future__ import annotations

from collections.abc import Callable

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.gemm import ACTIVATIONS, rotary
from focusc.backends.lower.views import View, matrix_shape
from focusc.ir import Op, Value
from focusc.ir.diagnostics import fail

BINARY = {"tensor.add": "add", "tensor.sub": "sub", "tensor.mul": "mul", "tensor.max": "max"}
UNARY = {
    "tensor.exp": "exp",
    "tensor.neg": "neg",
    "tensor.tanh": "tanh",
    "tensor.sigmoid": "sigmoid",
    "tensor.reciprocal": "recip",
    "nn.silu": "silu",
}


def pointwise(
    low: Lowering, op: Op, compute: Callable[[list[Value]], Value], operands: list[Value] | None = None
) -> None:
    """Load the operands tile by tile, compute, store.

    A later operand may have one row, or a number of rows that divides the first one's (it repeats), and one column or
    all of them. Raises CompileError for other broadcasts.
    """
    total, width = matrix_shape(op.results[0].type)
    views = [low.view(v) for v in operands or op.operands if v is not None]
    period = total
    for v in views:
        if v.rows not in (1, total):
            if total % v.rows:
                raise fail("lower.broadcast", f"{v.rows} rows do not repeat evenly over {total}", op.loc)
            period = min(period, v.rows)
    low.kernel(op)
    sink = low.sink(op.results[0])
    e = low.emit
    rows = low.rows_of(total, sink.view, most=period)
    if period != total and rows.step != period:
        raise fail("lower.broadcast", f"rows that repeat every {period} do not fit m-tiles of {rows.step}", op.loc)
    cols = low.columns(rows.most, len(views), width) or 32
    with e.loop(rows.total, rows.step, first=rows.first) as m, e.loop(width, cols) as c:

        def tile(v: View) -> Value:
            row = v.row if v.rows in (1, period) and v.rows != total else m.off + v.row
            one = v.cols == 1 and width != 1
            return e.load(
                v.buffer, row, v.col if one else c.off + v.col, 1 if v.rows == 1 else m.len, 1 if one else c.len
            )

        loaded = [e.to_tile(tile(views[0]))]
        loaded += [tile(v) if op.name in BINARY else e.to_tile(tile(v)) for v in views[1:]]
        low.put(sink, compute(loaded), m.it, m.off, c.off, c.it * (cols // 32))


@handles(*BINARY)
def binary(low: Lowering, op: Op) -> None:
    """a op b with broadcasting; the operand of full shape goes first."""
    a, b = op.operands
    assert a is not None and b is not None
    if a.type != op.results[0].type:
        a, b = b, a  # commutative, but for sub
        if op.name == "tensor.sub" or a.type != op.results[0].type:
            raise fail(
                "lower.broadcast", f"neither operand of {op.name} can be broadcast into {op.results[0].type}", op.loc
            )
    pointwise(low, op, lambda t: low.emit.binary(BINARY[op.name], t[0], t[1]), [a, b])


@handles(*UNARY)
def unary(low: Lowering, op: Op) -> None:
    """fn(a)."""
    pointwise(low, op, lambda t: low.emit.unary(UNARY[op.name], t[0]))


@handles("nn.gelu")
def gelu(low: Lowering, op: Op) -> None:
    """GELU on a stored value."""
    pointwise(low, op, lambda t: low.emit.unary(ACTIVATIONS[op.attrs["approximate"]], t[0]))


@handles("nn.rope")
def rope(low: Lowering, op: Op) -> None:
    """Rotary embedding of a stored value: heads too wide for an n-tile, or several readers of the projection."""
    x, cos = op.operands[0], op.operands[1]
    assert x is not None and cos is not None
    source = low.view(x)
    total, width = matrix_shape(x.type)
    steps, head = matrix_shape(cos.type)
    if total % steps:
        raise fail("lower.rope", f"{total} rows are not whole sequences of {steps} positions", op.loc)
    low.kernel(op)
    e = low.emit
    fit = min(low.tiling.obuf // (8 * head), low.tiling.m)
    gather = low.gather_of(op.results[0]) if head % 32 == 0 else None
    direct = gather is not None and low.gather_rows(gather).most <= fit
    sink = low.sink(op.results[0], direct=direct)
    rows = low.rows_of(steps, sink.view, most=fit)
    with e.loop(total, steps) as b, e.loop(rows.total, rows.step, first=rows.first) as m, e.loop(width, head) as c:
        row = b.off + m.off
        tile = e.to_tile(e.load(source.buffer, row + source.row, c.off + source.col, m.len, head))
        tile = rotary(low, op, tile, m.off, m.len)
        low.put(sink, tile, m.it, row, c.off, c.it * (head // 32))
