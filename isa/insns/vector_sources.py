"""Sources and destinations of vector commands: float32 tiles in the output buffer, for the special-function unit.

A source `a` has the destination's shape. A second source `b` has as many rows or one, and a number of columns that
divides the destination's; it repeats (one column is a scalar per row, [rows x hd] repeats over heads). Any source may
be `s`, the head of the activation stream, which is taken; with two `s`, `a` is taken first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import Fault

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

F32 = NDArray[np.float32]

__all__ = ["F32", "binary", "repeats", "same", "spread", "unary"]


def same(d: F32, rows_cols: tuple[int, ...]) -> None:
    """Fault unless a source of that shape is the destination's."""
    if d.shape != rows_cols:
        raise Fault("run.shape", f"a source of {rows_cols[0]}x{rows_cols[1]} "
                    f"for a destination of {d.shape[0]}x{d.shape[1]}")


def unary(s: State, d: int, a: int, function: Callable[[F32, F32], object]) -> None:
    """`function(source, destination)` on equal shapes; source and destination may be the same tile."""
    x = s.source(a)
    out = s.dest(d)
    same(out, x.shape)
    function(x, out)


def repeats(source: tuple[int, ...], out: tuple[int, ...]) -> None:
    """Fault unless a second source of one shape repeats over a destination of the other."""
    high, wide = source
    rows, cols = out
    if high not in (1, rows) or cols % wide:
        raise Fault("run.shape", f"a second source of {high}x{wide} does not repeat over {rows}x{cols}",
                    hint="it needs 1 row or as many, and a number of columns that divides")


def spread(x: F32, out: F32) -> F32:
    """A second source repeated over the destination's shape."""
    cols, wide = out.shape[1], x.shape[1]
    repeats(x.shape, out.shape)
    return np.broadcast_to(np.tile(x, (1, cols // wide)) if wide not in (1, cols) else x, out.shape)


def binary(s: State, d: int, a: int, b: int, function: Any) -> None:
    """d = function(a, b) with b broadcast."""
    x, y = s.source(a), s.source(b)
    out = s.dest(d)
    same(out, x.shape)
    rows, cols = out.shape
    wide = y.shape[1]
    repeats(y.shape, out.shape)
    if wide in (1, cols):
        function(x, y, out=out)
    else:
        function(x.reshape(rows, -1, wide), y[:, None, :], out=out.reshape(rows, -1, wide))
