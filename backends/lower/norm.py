"""RMSNorm and LayerNorm kernels: row statistics, then the scaled rows, column group by column group if they are wide.

A dense result is cut into tiles of as many whole rows as fit. A result that goes through SIC needs all rows of its
m-tile at once, and is normalised in two passes over column groups: SIC compares one group while the next is scaled.
"""

from __future__ import annotations

from focusc.backends.lower.context import Lowering, Sink, handles
from focusc.backends.lower.emit import Ix, Loop
from focusc.backends.lower.views import View, matrix_shape
from focusc.backends.mapping import Rows
from focusc.ir import Op, Value
from focusc.ir.diagnostics import fail

VECTORS = 4  # f32 words a row for the statistics: mean, square sum, and one copy each


@handles("nn.rms_norm", "nn.layer_norm")
def norm(low: Lowering, op: Op) -> None:
    """y = (x - mean) * rsqrt(var + eps) * gamma + beta; no mean and no beta for RMSNorm."""
    x = op.operands[0]
    assert x is not None
    source = low.view(x)
    total, width = matrix_shape(x.type)
    low.kernel(op)
    sink = low.sink(op.results[0])
    most = (low.tiling.obuf // (4 * (width + VECTORS))) if isinstance(sink.view, View) else low.tiling.m
    if most < 1:
        raise fail(
            "tile.obuf", f"one row of {width} f32 does not fit the output buffer of {low.tiling.obuf} bytes", op.loc
        )
    rows = low.rows_of(total, sink.view, most=min(most, low.tiling.m))
    if isinstance(sink.view, View):
        _whole(low, op, source, sink, rows)
    else:
        _grouped(low, op, source, sink, rows)


def _moments(low: Lowering, op: Op, sums: Value, width: int) -> Value:
    """Sum of squares [rows x 1] -> 1 / sqrt(mean square + eps)."""
    e = low.emit
    return e.unary("rsqrt", e.scalar("add", e.scalar("mul", sums, 1.0 / width), op.attrs["eps"]))


def _affine(low: Lowering, op: Op, tile: Value, col: Ix | int, cols: Ix | int) -> Value:
    e = low.emit
    for fn, operand in zip(("mul", "add"), op.operands[1:], strict=False):
        if operand is not None:
            v = low.view(operand)
            tile = e.binary(fn, tile, e.load(v.buffer, v.row, v.col + col, 1, cols))
    return tile


def _whole(low: Lowering, op: Op, source: View, sink: Sink, rows: Rows) -> None:
    e, width = low.emit, source.cols
    with e.loop(rows.total, rows.step, first=rows.first, repeat=True) as m:
        tile = e.to_tile(e.load(source.buffer, m.off + source.row, source.col, m.len, width))
        if op.name == "nn.layer_norm":
            mean = e.scalar("mul", e.reduce("rsum", tile), 1.0 / width)
            tile = e.binary("sub", tile, mean)
        tile = e.binary("mul", tile, _moments(low, op, e.reduce("rsumsq", tile), width))
        tile = _affine(low, op, tile, 0, width)
        low.put(sink, tile, m.it, m.off, 0, 0)


def _grouped(low: Lowering, op: Op, source: View, sink: Sink, rows: Rows) -> None:
    e, width = low.emit, source.cols
    cols = low.columns(rows.most, 1, width, fixed=4 * VECTORS * rows.most)
    if not cols:
        raise fail(
            "tile.obuf",
            f"{rows.most} x 32 f32 do not fit the output buffer of {low.tiling.obuf} bytes",
            op.loc,
            hint="lower tile{m=...}",
        )

    def group(m: Loop, c: Loop) -> Value:
        return e.to_tile(e.load(source.buffer, m.off + source.row, c.off + source.col, m.len, c.len))

    with e.loop(rows.total, rows.step, first=rows.first, repeat=True) as m:
        mean: Value | None = None
        if op.name == "nn.layer_norm":
            with e.loop(width, cols, inits=[e.fill(m.len, 1, 0.0)]) as c:
                c.yields.append(e.reduce("rsum", group(m, c), c.carried[0]))
            mean = e.scalar("mul", c.results[0], 1.0 / width)
        with e.loop(width, cols, inits=[e.fill(m.len, 1, 0.0)]) as c:
            tile = group(m, c)
            if mean is not None:
                tile = e.binary("sub", tile, mean)
            c.yields.append(e.reduce("rsumsq", tile, c.carried[0]))
        scale = _moments(low, op, c.results[0], width)
        with e.loop(width, cols) as c:
            tile = group(m, c)
            if mean is not None:
                tile = e.binary("sub", tile, mean)
            tile = _affine(low, op, e.binary("mul", tile, scale), c.off, c.len)
            low.put(sink, tile, m.it, m.off, c.off, c.it * (cols // 32))
