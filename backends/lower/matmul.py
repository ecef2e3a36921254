"""Products of two stored values, batched: a GEMM whose weight panels come from an activation buffer."""

from __future__ import annotations

import math
from contextlib import ExitStack
from dataclasses import replace

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.strided import Strided, longest, near, simplified
from focusc.backends.mapping import Gemm, search
from focusc.ir import Op, TensorType
from focusc.ir.diagnostics import fail


def _matrix(side: Strided, missing: int | None) -> Strided:
    """The window with an axis of one index put in where a vector lacks it."""
    if missing is None:
        return side
    at = len(side.dims) + missing + 1
    dims, strides = (*side.dims[:at], 1, *side.dims[at:]), (*side.strides[:at], 1, *side.strides[at:])
    return replace(side, dims=dims, strides=strides)


@handles("tensor.matmul")
def matmul(low: Lowering, op: Op) -> None:
    """x [batch..., M, K] @ y [batch..., K, N]; the batch axes broadcast. Axes over which y repeats are rows like M."""
    x, y, result = op.operands[0], op.operands[1], op.results[0]
    assert x is not None and y is not None
    assert isinstance(x.type, TensorType) and isinstance(y.type, TensorType) and isinstance(result.type, TensorType)
    a = _matrix(Strided.of(low.view(x), x.type.shape), -2 if x.type.rank == 1 else None)
    b = _matrix(Strided.of(low.view(y), y.type.shape), -1 if y.type.rank == 1 else None)
    c = Strided.of(low.result(result), result.type.shape)
    c = _matrix(_matrix(c, -1 if y.type.rank == 1 else None), -2 if x.type.rank == 1 else None)
    k, n, batch = a.dims[-1], b.dims[-1], c.dims[:-2]
    pitch, step = b.strides[-2], c.strides[-1]
    left = _outer(a).broadcast((*batch, a.dims[-2]))
    right = replace(b, dims=b.dims[:-2], strides=b.strides[:-2]).broadcast(batch)
    right = replace(right, dims=left.dims, strides=(*right.strides, 0))
    left, right, out = simplified(left, right, _outer(c))
    rows = [i for i in range(len(out.dims)) if not right.strides[i] and near(left, i) and near(out, i)]
    row = longest(out.dims, rows)
    low.kernel(op, "act", "wgt", "store")
    found = search(Gemm(out.dims[row] if row is not None else 1, k, n), low.tiling)
    if found is None:
        raise fail(
            "tile.obuf",
            f"no tile of this product fits the output buffer of {low.tiling.obuf} bytes",
            op.loc,
            hint="enlarge buffers.output",
        )
    full, decoder = low.dense_rows(op)
    macs = math.prod(out.dims) * k * n
    low.account(op, macs * full // math.prod(x.type.shape[:-1]) if decoder else macs, decoder=decoder)
    assert step == 1 or n == 1
    e = low.emit
    pitches = [side.strides[row] if row is not None else 0 for side in (left, out)]
    with ExitStack() as nest:
        at = {i: nest.enter_context(e.loop(out.dims[i], 1)).off for i in range(len(out.dims)) if i != row}
        m = nest.enter_context(e.loop(found.rows.total, found.rows.step, first=found.rows.first))
        w = nest.enter_context(e.loop(n, found.n))
        if row is not None:
            at[row] = m.off
        act = e.load_strided(left.buffer, left.at(at), m.len, k, pitches[0])
        panel = e.load_weight_strided(right.buffer, right.at(at) + w.off, k, w.len, pitch)
        e.store_strided(e.mma(act, panel), out.buffer, out.at(at) + w.off, pitches[1])


def _outer(side: Strided) -> Strided:
    """All axes but the last."""
    return replace(side, dims=side.dims[:-1], strides=side.strides[:-1])
