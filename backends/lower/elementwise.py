"""Element-wise kernels on stored values: what no GEMM epilogue could take."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.emit import Ix, Loop
from focusc.backends.lower.gemm import ACTIVATIONS, rotary
from focusc.backends.lower.views import View, matrix_shape
from focusc.backends.mapping import Rows
from focusc.ir import Op, TensorType, Value
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


@dataclass(frozen=True)
class Repeat:
    """How an operand's rows go with the result's: row i reads row (i // `each`) % `rows`."""

    rows: int
    each: int = 1

    @staticmethod
    def of(operand: Value, result: Value, op: Op) -> Repeat:
        """Read it off the shapes; CompileError for a broadcast that is neither over leading nor over trailing axes."""
        assert isinstance(result.type, TensorType) and isinstance(operand.type, TensorType)
        wanted = result.type.shape[:-1]
        found = operand.type.shape[:-1]
        found = (1,) * (len(wanted) - len(found)) + found
        rows = math.prod(found)
        for cut in range(len(wanted) + 1):
            if all(n == 1 for n in found[:cut]) and found[cut:] == wanted[cut:]:
                return Repeat(rows)
            if found[:cut] == wanted[:cut] and all(n == 1 for n in found[cut:]):
                return Repeat(rows, math.prod(wanted[cut:]))
        raise fail(
            "lower.broadcast",
            f"{operand.type} does not repeat over whole leading or trailing axes of {result.type}",
            op.loc,
            hint="expand it in the model, or reorder its axes",
        )

    def piece(self, total: int) -> int:
        """Rows of the result that one run of operand rows (or one operand row) covers."""
        return self.rows if self.each == 1 else self.each

    def row(self, m: Loop, total: int) -> tuple[Ix, Ix]:
        """(first row, rows) of the operand for one piece of the result's rows."""
        if self.rows == 1:
            return Ix.of(0), Ix.of(1)
        if self.each > 1:
            return m.it, Ix.of(1)
        return (m.off if self.rows == total else Ix.of(0)), m.len


def pointwise(
    low: Lowering, op: Op, compute: Callable[[list[Value]], Value], operands: list[Value] | None = None
) -> None:
    """Load the operands tile by tile, compute, store. The first operand has the result's shape; a later one may repeat
    over leading or trailing row axes and have one column or all. Raises CompileError for other broadcasts."""
    result = op.results[0]
    total, width = matrix_shape(result.type)
    values = [v for v in operands or op.operands if v is not None]
    views = [low.view(v) for v in values]
    repeats = [Repeat.of(v, result, op) for v in values]
    pieces = {r.piece(total) for r in repeats if r.rows not in (1, total)}
    if len(pieces) > 1:
        raise fail(
            "lower.broadcast",
            f"operands repeat every {' and every '.join(map(str, sorted(pieces)))} rows; expected one period",
            op.loc,
            hint="expand one of them in the model",
        )
    low.kernel(op)
    sink = low.sink(result, direct=not pieces)
    e = low.emit
    rows = low.rows_of(total, sink.view)
    if pieces:
        rows = Rows(total, *pieces, *pieces)
    cols = low.columns(rows.most, len(views), width)
    if not cols:
        raise fail(
            "tile.obuf",
            f"{len(views)} tiles of {rows.most} x 32 f32 do not fit the output buffer of {low.tiling.obuf} bytes",
            op.loc,
            hint="lower tile{m=...} or enlarge buffers.output",
        )
    with e.loop(rows.total, rows.step, first=rows.first) as m, e.loop(width, cols) as c:

        def tile(v: View, repeat: Repeat) -> Value:
            row, count = repeat.row(m, total)
            one = v.cols == 1 and width != 1
            return e.load(v.buffer, row + v.row, v.col if one else c.off + v.col, count, 1 if one else c.len)

        loaded = [e.to_tile(tile(views[0], repeats[0]))]
        later = [tile(v, r) for v, r in zip(views[1:], repeats[1:], strict=True)]
        loaded += later if op.name in BINARY else [e.to_tile(s) for s in later]
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
                "lower.broadcast",
                f"{op.name} of {a.type} and {b.type}: expected one operand (of a subtraction the first) to have the "
                f"result's type, {op.results[0].type}",
                op.loc,
                hint="expand an operand in the model",
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
    assert total % steps == 0, "cos has a row for each position of a sequence"
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
