"""Segments that the host runs: their operands as whole buffers, the call, its results as buffers."""

from __future__ import annotations

import math

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.moves import copy
from focusc.ir import BufferType, Op, TensorType, Value, clone_block


@handles("host.call")
def call(low: Lowering, op: Op) -> None:
    """One kernel: what it reads is stored before, what it gives is stored behind it; `host` orders all else."""
    buffers = [_whole(low, op, value) for value in op.operands if value is not None]
    low.kernel(op, "act", "wgt", "store")
    e = low.emit
    inputs: list[Value] = []
    for value, buffer in zip(op.operands, buffers, strict=True):
        assert value is not None and isinstance(value.type, TensorType)
        inputs.append(e.op("tile.read", buffer, shape=value.type.shape, dtype=value.type.dtype))
    block = clone_block(op.regions[0], {})
    made = e.b.create("host.call", *inputs, regions=[block], **op.attrs)
    for result, new in zip(op.results, made.results, strict=True):
        new.name = result.name
        low.at[result] = low.bind(new, low.exact.get(result))


def _whole(low: Lowering, op: Op, value: Value) -> Value:
    """A buffer, or a view of one, that holds the elements of a value and nothing else."""
    view = low.view(value)
    if not view.contiguous:
        dense = low.allocate(view.rows, view.cols, value.name, view.dtype)
        copy(low, op, view, dense)
        view = dense
    assert isinstance(view.buffer.type, BufferType)
    if view.offset == 0 and view.rows * view.cols == math.prod(view.buffer.type.shape):
        return view.buffer
    return low.emit.op("tile.view", view.buffer, shape=(view.rows, view.cols), offset=view.offset)
