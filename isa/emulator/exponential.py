"""exp in float32 and what is made of it, compiled so that eight lanes fit a vector register.

The same steps as in numpy's float32 exp for AVX2 and AVX-512 (Cody and Waite's reduction by multiples of ln 2, a
rational function of degree 5 over 2, error below 2.6 ulp), so the same bits, but on any machine: each fused
multiply-add is asked for by name and nothing else is contracted.
"""

# numba's intrinsics have no annotations
# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false
from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import numba as nb
import numpy as np
from numba import types
from numba.extending import intrinsic

from focusc.isa.kernel_cache import drop_stale

__all__ = ["exp_rows", "exps_in_place", "exps_rows", "gated_rows", "sigmoid_rows"]

drop_stale(Path(__file__).parent, ("exponential", "kernels", "runs"))
_F, _I, _U = np.float32, np.int32, np.uint32
_HIGHEST: Final = _F(88.72283935546875)
"""From here on the result is infinite, up to `_LOWEST` it is 0."""
_LOWEST: Final = _F(-103.97208404541015625)
_LOG2_E: Final = _F(1.442695040)
_LN2_HIGH: Final = _F(-6.93145752e-1)
_LN2_LOW: Final = _F(-1.42860677e-6)
_ROUND: Final = _F(12582912.0)
"""1.5 * 2^23: added and taken away again it leaves a whole number."""
_P0, _P1, _P2, _P3, _P4, _P5 = (
    _F(9.999999999980870924916e-01), _F(7.257664613233124478488e-01), _F(2.473615434895520810817e-01),
    _F(5.114512081637298353406e-02), _F(6.757896990527504603057e-03), _F(5.082762527590693718096e-04))
_Q0, _Q1, _Q2 = _F(1), _F(-2.742335390411667452936e-01), _F(2.159509375685829852307e-02)
_NAN: Final = _F(np.nan)
"""Not the argument itself: where it is overwritten that would be a masked store, which is slow."""
_LEAST: Final = _I(-125)
"""Powers of two below it are reached in two steps, since the result may be subnormal."""


def _fused(_: Any, a: Any, b: Any, c: Any) -> Any:
    def code(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fma(*args)

    return types.float32(types.float32, types.float32, types.float32), code


_fma: Any = intrinsic(_fused)
"""a * b + c, rounded once."""

# Division by zero gives infinity, as in numpy; a check for it would keep the loops from being vectorised.


@nb.njit(cache=True, nogil=True, error_model="numpy")
def _exp(x: Any) -> Any:
    # 0 for what is decided below: the way there would lead through subnormal numbers, which take 100 cycles each.
    inside = x if x > _LOWEST else _F(0)
    inside = inside if inside < _HIGHEST else _F(0)
    power = _F(_F(_F(inside * _LOG2_E) + _ROUND) - _ROUND)
    r = _fma(power, _LN2_LOW, _fma(power, _LN2_HIGH, inside))
    above = _fma(_fma(_fma(_fma(_fma(_P5, r, _P4), r, _P3), r, _P2), r, _P1), r, _P0)
    below = _fma(_fma(_Q2, r, _Q1), r, _Q0)
    quotient = _F(above / below)
    whole = _I(power)
    first = whole if whole > _LEAST else _LEAST
    scaled = _U(quotient.view(np.uint32) + _U(_U(first) << _U(23))).view(np.float32)
    rest = _U(_U(_I(whole - first) + _I(127)) << _U(23)).view(np.float32)
    out = _F(scaled * rest)
    out = out if x < _HIGHEST else _F(np.inf)
    out = out if x > _LOWEST else _F(0)
    return out if x == x else _NAN


# Matrices are (flat array, first element, pitch); a source may be the destination itself, or must not overlap it. A row
# is computed into an array of its own first: a loop over arrays that may be the same one is not vectorised.


@nb.njit(cache=True, nogil=True, error_model="numpy")
def exp_rows(src: Any, so: int, sp: int, dst: Any, do: int, dp: int, rows: int, cols: int) -> None:
    """dst = exp(src)."""
    row = np.empty(cols, np.float32)
    for i in range(rows):
        x, out = src[so + i * sp:so + i * sp + cols], dst[do + i * dp:do + i * dp + cols]
        for j in range(cols):
            row[j] = _exp(x[j])
        for j in range(cols):
            out[j] = row[j]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def exps_rows(src: Any, so: int, sp: int, sub: Any, bo: int, bp: int, wide: int, dst: Any, do: int, dp: int, rows: int,
              cols: int) -> None:
    """dst = exp(src - sub); `sub` has `wide` columns, which divide `cols`, and repeats (pitch 0: one row for all)."""
    row = np.empty(cols, np.float32)
    for i in range(rows):
        x, out = src[so + i * sp:so + i * sp + cols], dst[do + i * dp:do + i * dp + cols]
        if wide == 1:
            less = sub[bo + i * bp]
            for j in range(cols):
                row[j] = _exp(_F(x[j] - less))
        else:
            y = sub[bo + i * bp:bo + i * bp + wide]
            for start in range(0, cols, wide):
                for j in range(wide):
                    row[start + j] = _exp(_F(x[start + j] - y[j]))
        for j in range(cols):
            out[j] = row[j]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def exps_in_place(dst: Any, do: int, dp: int, sub: Any, bo: int, bp: int, wide: int, rows: int, cols: int) -> None:
    """dst = exp(dst - sub), as `exps_rows`; one loop over all rows if no columns lie between them."""
    for i in range(rows):
        out = dst[do + i * dp:do + i * dp + cols]
        if wide == 1:
            less = sub[bo + i * bp]
            for j in range(cols):
                out[j] -= less
        else:
            y = sub[bo + i * bp:bo + i * bp + wide]
            for start in range(0, cols, wide):
                for j in range(wide):
                    out[start + j] -= y[j]
    whole = dp == cols
    for i in range(1 if whole else rows):
        out = dst[do + i * dp:do + i * dp + (rows * cols if whole else cols)]
        for j in range(len(out)):
            out[j] = _exp(out[j])


@nb.njit(cache=True, nogil=True, error_model="numpy")
def gated_rows(src: Any, so: int, sp: int, dst: Any, do: int, dp: int, rows: int, cols: int, scale: Any) -> None:
    """dst = src / (exp(scale * src) + 1); x / inf is the right zero where exp overflows."""
    row = np.empty(cols, np.float32)
    for i in range(rows):
        x, out = src[so + i * sp:so + i * sp + cols], dst[do + i * dp:do + i * dp + cols]
        for j in range(cols):
            value = x[j]
            row[j] = _F(value / _F(_exp(_F(value * scale)) + _F(1)))
        for j in range(cols):
            out[j] = row[j]


@nb.njit(cache=True, nogil=True, error_model="numpy")
def sigmoid_rows(src: Any, so: int, sp: int, dst: Any, do: int, dp: int, rows: int, cols: int) -> None:
    """dst = 1 / (exp(-src) + 1)."""
    row = np.empty(cols, np.float32)
    for i in range(rows):
        x, out = src[so + i * sp:so + i * sp + cols], dst[do + i * dp:do + i * dp + cols]
        for j in range(cols):
            row[j] = _F(_F(1) / _F(_exp(_F(-x[j])) + _F(1)))
        for j in range(cols):
            out[j] = row[j]
