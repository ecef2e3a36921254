"""Constants as they are stored: the values of a `tensor.constant` in the element type of its buffer."""

from __future__ import annotations

import numpy as np

from focusc.ir import Op
from focusc.ir.diagnostics import fail

__all__ = ["FORMATS", "constant_of", "stored"]

FORMATS = {"f16": np.dtype("<f2"), "f32": np.dtype("<f4"), "i32": np.dtype("<i4"), "i8": np.dtype("i1")}


def constant_of(op: Op) -> Op | None:
    """The `tensor.constant` that a `tile.bind` stores; None for any other op."""
    source = op.operands[0].op if op.name == "tile.bind" and op.operands[0] is not None else None
    return source if source is not None and source.name == "tensor.constant" else None


def stored(op: Op) -> bytes:
    """A bound constant's bytes in its storage type.

    Raises CompileError: `codegen.weights` if it has no values, `codegen.range` if f16, or i32 for whole numbers, cannot
    hold one.
    """
    source = constant_of(op)
    assert source is not None
    resource = source.attrs["value"]
    if resource.absent:
        raise fail(
            "codegen.weights",
            f"constant {resource.name!r} has a shape and no values",
            source.loc,
            hint="compile with --no-weights: the program can then be simulated, not executed",
        )
    array = np.ascontiguousarray(resource.array)
    whole = np.iinfo(np.int32)
    if op.attrs["dtype"] == "i32" and array.size and not whole.min <= array.min() <= array.max() <= whole.max:
        worst = max(int(array.min()), int(array.max()), key=abs)
        raise fail(
            "codegen.range",
            f"constant {resource.name!r} holds {worst}; the machine stores whole numbers as i32, up to {whole.max}",
            source.loc,
            hint="keep what is computed from it out of the model, or run that in the host program (--host auto)",
        )
    with np.errstate(over="ignore"):
        converted = array.astype(FORMATS[op.attrs["dtype"]])
    if converted.dtype.kind == "f" and not np.isfinite(converted[np.isfinite(array)]).all():
        worst = float(np.abs(array[np.isfinite(array)]).max())
        raise fail(
            "codegen.range",
            f"constant {resource.name!r} holds {worst:g}, more than f16's largest 65504",
            source.loc,
            hint="scale the weight, and what it is multiplied with, before the export",
        )
    return converted.tobytes()
