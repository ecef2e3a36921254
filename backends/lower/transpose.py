"""Transposition of stored values: a window if no element moves, else one pass over the elements."""

from __future__ import annotations

import math

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.moves import copy, move
from focusc.backends.lower.strided import Strided
from focusc.ir import Op, TensorType


def moves_nothing(shape: tuple[int, ...], perm: tuple[int, ...]) -> bool:
    """Whether the elements stay in order: the axes of more than one element do."""
    wide = [axis for axis in perm if shape[axis] != 1]
    return wide == sorted(wide)


@handles("tensor.transpose")
def transpose(low: Lowering, op: Op) -> None:
    """Axis i of the result is axis perm[i] of x."""
    x, result = op.operands[0], op.results[0]
    assert x is not None and isinstance(x.type, TensorType) and isinstance(result.type, TensorType)
    view = low.view(x)
    if moves_nothing(x.type.shape, op.attrs["perm"]):
        if not view.contiguous:
            dense = low.allocate(view.rows, view.cols, x.name, view.dtype)
            copy(low, op, view, dense)
            view = dense
        rows, cols = math.prod(result.type.shape[:-1]), result.type.shape[-1] if result.type.shape else 1
        found = low.reshaped(view, rows, cols)
        assert found is not None
        low.at[result] = found
        return
    source = Strided.of(view, x.type.shape).permuted(op.attrs["perm"])
    move(low, op, [(source, Strided.of(low.result(result), result.type.shape))])
