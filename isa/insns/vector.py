"""Vector commands: float32 on tiles of the output buffer, executed by the special-function unit.

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
from focusc.isa.fields import Extent, Float, Int, Source, ext, f32, f32_value, flag, sext, tile, uimm
from focusc.isa.insns.base import Insn

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

F32 = NDArray[np.float32]
Flat = tuple[F32, int, int, int, int]
"""A matrix inside a flat array: (array, first element, pitch, rows, cols)."""

__all__ = ["Fwd", "VAdd", "VAddi", "VBlend", "VCopy", "VDiv", "VErf", "VExp", "VExps", "VFill", "VGelu", "VGeluQuick",
           "VGelue", "VLd", "VLog", "VMask", "VMax", "VMaxi", "VMin", "VMini", "VMul", "VMuli", "VNeg", "VRecip",
           "VRmax", "VRot", "VRsqrt", "VRsum", "VRsumsq", "VSel", "VSigmoid", "VSilu", "VSqrt", "VSub", "VTanh"]

MASKED = -3.4028235e38
"""What a masked score becomes: the most negative float32, as in common attention implementations."""


def _same(d: F32, rows_cols: tuple[int, ...]) -> None:
    """Fault unless a source of that shape is the destination's."""
    if d.shape != rows_cols:
        raise Fault("run.shape", f"a source of {rows_cols[0]}x{rows_cols[1]} "
                    f"for a destination of {d.shape[0]}x{d.shape[1]}")


def _unary(s: State, d: int, a: int, function: Callable[[F32, F32], object]) -> None:
    """`function(source, destination)` on equal shapes; source and destination may be the same tile."""
    x = s.source(a)
    out = s.dest(d)
    _same(out, x.shape)
    function(x, out)


def _rows(s: State, d: int, a: int, kernel: Callable[..., None], *numbers: Any) -> None:
    """`kernel(source, destination, rows, cols, *numbers)` on equal shapes, for a compiled row kernel."""
    x = s.beside(a, d)
    _same(s.dest(d), x[3:])
    kernel(*x[:3], *s.place(d), *numbers)


def _repeats(source: tuple[int, ...], out: tuple[int, ...]) -> None:
    """Fault unless a second source of one shape repeats over a destination of the other."""
    high, wide = source
    rows, cols = out
    if high not in (1, rows) or cols % wide:
        raise Fault("run.shape", f"a second source of {high}x{wide} does not repeat over {rows}x{cols}",
                    hint="it needs 1 row or as many, and a number of columns that divides")


def _binary(s: State, d: int, a: int, b: int, function: Any) -> None:
    """d = function(a, b) with b broadcast."""
    x, y = s.source(a), s.source(b)
    out = s.dest(d)
    _same(out, x.shape)
    rows, cols = out.shape
    wide = y.shape[1]
    _repeats(y.shape, out.shape)
    if wide in (1, cols):
        function(x, y, out=out)
    else:
        function(x.reshape(rows, -1, wide), y[:, None, :], out=out.reshape(rows, -1, wide))


def _select(x: F32, keep: F32, out: F32) -> None:
    """out = x where keep > 0, else MASKED; `keep` broadcasts, `out` may be x."""
    np.copyto(out, np.where(keep > 0, x, np.float32(MASKED)))


def _reduce(s: State, d: int, a: int, acc: int, values: Callable[[Any, Flat], F32], combine: Any) -> None:
    """d[:, 0] = values(kernels, a), with `acc` combined with what d holds."""
    x = s.flat(a)
    rows, cols = x[3:]
    out = s.update(d) if acc else s.dest(d)
    if out.shape != (rows, 1):
        raise Fault("run.shape", f"a row reduction of {rows}x{cols} into {out.shape[0]}x{out.shape[1]}, "
                    f"expected {rows}x1")
    if acc:
        combine(out[:, 0], values(s.k, x), out=out[:, 0])
    else:
        out[:, 0] = values(s.k, x)


def _matrix(x: Flat) -> F32:
    flat, offset, pitch, rows, cols = x
    return np.ndarray((rows, cols), np.float32, flat, 4 * offset, (4 * pitch, 4))  # type: ignore[arg-type]


def _row_sum(k: Any, x: Flat) -> F32:
    rows, cols = x[3:]
    if cols > 128:
        return _matrix(x).sum(axis=1)
    out = np.empty(rows, np.float32)
    k.row_sum(*x, out)
    return out


def _row_max(k: Any, x: Flat) -> F32:
    out = np.empty(x[3], np.float32)
    k.row_max(*x, out)
    return out


def _row_sum_of_squares(_: Any, x: Flat) -> F32:
    found = _matrix(x)
    return np.einsum("ij,ij->i", found, found)


def _gelu_tanh(x: F32, out: F32) -> None:
    t = np.multiply(x, x)
    t *= np.float32(0.044715)
    t += 1.0
    t *= x
    t *= np.float32(0.7978845608028654)
    np.tanh(t, out=t)
    t += 1.0
    t *= 0.5
    np.multiply(t, x, out=out)


def _poly(x: F32, *coefficients: float) -> F32:
    total = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        total *= x
        total += np.float32(c)
    return total


def erf(x: F32) -> F32:
    """Error function in float32, absolute error below 3e-7; minimax polynomials of N. Juffa (public, 2016)."""
    t = np.abs(x)
    square = np.multiply(x, x)
    near = _poly(np.minimum(square, 1.0), -5.96761703e-4, 4.99119423e-3, -2.67681349e-2, 1.12819925e-1, -3.76125336e-1,
                 1.28379166e-1)
    near *= x
    near += x
    far = _poly(np.minimum(t, 4.0), -1.72853470e-5, 3.83197126e-4, -3.88396438e-3, 2.42546219e-2, -1.06777877e-1,
                -6.34846687e-1, -1.28717512e-1)
    t = np.minimum(t, 4.0)
    far *= t
    far -= t
    np.exp(far, out=far)
    np.subtract(1.0, far, out=far)
    np.copysign(far, x, out=far)
    return np.where(t > 0.927734375, far, near)


def _gelu_erf(x: F32, out: F32) -> None:
    t = erf(np.multiply(x, np.float32(0.7071067811865476)))
    t += 1.0
    t *= 0.5
    np.multiply(t, x, out=out)


def _rsqrt(x: F32, out: F32) -> None:
    np.sqrt(x, out=out)
    np.reciprocal(out, out=out)



class VAdd(Insn, opcode=0x40, engine="vec", mnemonic="v.add"):
    """d = a + b."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        _binary(s, d, a, b, np.add)


class VSub(Insn, opcode=0x41, engine="vec", mnemonic="v.sub"):
    """d = a - b."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        _binary(s, d, a, b, np.subtract)


class VMul(Insn, opcode=0x42, engine="vec", mnemonic="v.mul"):
    """d = a * b."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        _binary(s, d, a, b, np.multiply)


class VMax(Insn, opcode=0x43, engine="vec", mnemonic="v.max"):
    """d = max(a, b)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        _binary(s, d, a, b, np.maximum)


class VDiv(Insn, opcode=0x44, engine="vec", mnemonic="v.div"):
    """d = a / b."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        _binary(s, d, a, b, np.divide)


class VExps(Insn, opcode=0x45, engine="vec", mnemonic="v.exps"):
    """d = exp(a - b), the numerator of a softmax."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        x, y = s.beside(a, d), s.beside(b, d)
        _same(s.dest(d), x[3:])
        flat, offset, pitch, high, wide = y
        _repeats(y[3:], x[3:])
        s.k.exps_rows(*x[:3], flat, offset, pitch if high > 1 else 0, wide, *s.place(d))


class VSel(Insn, opcode=0x46, engine="vec", mnemonic="v.sel"):
    """d = a where b > 0, else -3.4028235e38: scores hidden by a mask that is data."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast: what is kept", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        _binary(s, d, a, b, _select)


class VMin(Insn, opcode=0x47, engine="vec", mnemonic="v.min"):
    """d = min(a, b)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        _binary(s, d, a, b, np.minimum)


class VAddi(Insn, opcode=0x48, engine="vec", mnemonic="v.addi"):
    """d = a + imm."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    imm: Float = f32("scalar")

    @staticmethod
    def execute(s: State, d: int, a: int, imm: int) -> None:
        value = np.float32(f32_value(imm))
        _unary(s, d, a, lambda x, out: np.add(x, value, out=out))


class VMuli(Insn, opcode=0x49, engine="vec", mnemonic="v.muli"):
    """d = a * imm."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    imm: Float = f32("scalar")

    @staticmethod
    def execute(s: State, d: int, a: int, imm: int) -> None:
        value = np.float32(f32_value(imm))
        _unary(s, d, a, lambda x, out: np.multiply(x, value, out=out))


class VMaxi(Insn, opcode=0x4A, engine="vec", mnemonic="v.maxi"):
    """d = max(a, imm)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    imm: Float = f32("scalar")

    @staticmethod
    def execute(s: State, d: int, a: int, imm: int) -> None:
        value = np.float32(f32_value(imm))
        _unary(s, d, a, lambda x, out: np.maximum(x, value, out=out))


class VMini(Insn, opcode=0x4B, engine="vec", mnemonic="v.mini"):
    """d = min(a, imm)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")
    imm: Float = f32("scalar")

    @staticmethod
    def execute(s: State, d: int, a: int, imm: int) -> None:
        value = np.float32(f32_value(imm))
        _unary(s, d, a, lambda x, out: np.minimum(x, value, out=out))


class VExp(Insn, opcode=0x50, engine="vec", mnemonic="v.exp"):
    """d = exp(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _rows(s, d, a, s.k.exp_rows)


class VRecip(Insn, opcode=0x51, engine="vec", mnemonic="v.recip"):
    """d = 1 / a."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, np.reciprocal)


class VRsqrt(Insn, opcode=0x52, engine="vec", mnemonic="v.rsqrt"):
    """d = 1 / sqrt(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, _rsqrt)


class VSilu(Insn, opcode=0x53, engine="vec", mnemonic="v.silu"):
    """d = a * sigmoid(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _rows(s, d, a, s.k.gated_rows, np.float32(-1))


class VGelu(Insn, opcode=0x54, engine="vec", mnemonic="v.gelu"):
    """d = 0.5 a (1 + tanh(sqrt(2/pi) (a + 0.044715 a^3))), the tanh form of GELU."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, _gelu_tanh)


class VGelue(Insn, opcode=0x55, engine="vec", mnemonic="v.gelue"):
    """d = 0.5 a (1 + erf(a / sqrt 2)), the exact GELU."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, _gelu_erf)


class VGeluQuick(Insn, opcode=0x56, engine="vec", mnemonic="v.gelu_quick"):
    """d = a * sigmoid(1.702 a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _rows(s, d, a, s.k.gated_rows, np.float32(-1.702))


class VTanh(Insn, opcode=0x57, engine="vec", mnemonic="v.tanh"):
    """d = tanh(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, np.tanh)


class VSigmoid(Insn, opcode=0x58, engine="vec", mnemonic="v.sigmoid"):
    """d = 1 / (1 + exp(-a))."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _rows(s, d, a, s.k.sigmoid_rows)


class VNeg(Insn, opcode=0x59, engine="vec", mnemonic="v.neg"):
    """d = -a."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, np.negative)


class VCopy(Insn, opcode=0x5A, engine="vec", mnemonic="v.copy"):
    """d = a, broadcast like a second source (rows 1 or equal, columns divide)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        x = s.source(a)
        out = s.dest(d)
        if x.shape[0] not in (1, out.shape[0]) or out.shape[1] % x.shape[1]:
            raise Fault("run.shape", f"a source of {x.shape[0]}x{x.shape[1]} does not repeat over "
                        f"{out.shape[0]}x{out.shape[1]}")
        if x.shape[1] in (1, out.shape[1]):
            np.copyto(out, x)
        else:
            np.copyto(out.reshape(out.shape[0], -1, x.shape[1]), x[:, None, :])


class VFill(Insn, opcode=0x5B, engine="vec", mnemonic="v.fill"):
    """d = imm everywhere."""

    d: Int = tile("destination", access="w")
    imm: Float = f32("value; an infinity is allowed")

    @staticmethod
    def execute(s: State, d: int, imm: int) -> None:
        s.dest(d)[:] = f32_value(imm)


class VSqrt(Insn, opcode=0x5C, engine="vec", mnemonic="v.sqrt"):
    """d = sqrt(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, np.sqrt)


class VLog(Insn, opcode=0x5D, engine="vec", mnemonic="v.log"):
    """d = ln(a)."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, np.log)


class VErf(Insn, opcode=0x5E, engine="vec", mnemonic="v.erf"):
    """d = erf(a), the error function."""

    d: Int = tile("destination", access="w")
    a: Source = tile("source", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int) -> None:
        _unary(s, d, a, lambda x, out: np.copyto(out, erf(x)))


class VRsum(Insn, opcode=0x60, engine="vec", mnemonic="v.rsum"):
    """d[i, 0] = sum over j of a[i, j]; with `acc` added to what d holds."""

    d: Int = tile("destination, one column", access="rw")
    a: Source = tile("source", access="rs")
    acc: Int = flag("accumulate", default=0)

    @staticmethod
    def execute(s: State, d: int, a: int, acc: int) -> None:
        _reduce(s, d, a, acc, _row_sum, np.add)


class VRmax(Insn, opcode=0x61, engine="vec", mnemonic="v.rmax"):
    """d[i, 0] = max over j of a[i, j]; with `acc` also with what d holds."""

    d: Int = tile("destination, one column", access="rw")
    a: Source = tile("source", access="rs")
    acc: Int = flag("accumulate", default=0)

    @staticmethod
    def execute(s: State, d: int, a: int, acc: int) -> None:
        _reduce(s, d, a, acc, _row_max, np.maximum)


class VRsumsq(Insn, opcode=0x62, engine="vec", mnemonic="v.rsumsq"):
    """d[i, 0] = sum over j of a[i, j]^2; with `acc` added to what d holds."""

    d: Int = tile("destination, one column", access="rw")
    a: Source = tile("source", access="rs")
    acc: Int = flag("accumulate", default=0)

    @staticmethod
    def execute(s: State, d: int, a: int, acc: int) -> None:
        _reduce(s, d, a, acc, _row_sum_of_squares, np.add)


class VMask(Insn, opcode=0x63, engine="vec", mnemonic="v.mask"):
    """Hide scores by position, in place: d[i, j] = -3.4028235e38 where col0 + j > row0 + i (a later key), and with a
    `window` where col0 + j <= row0 + i - window. With `inf` they become -infinity, below any score that is a number.
    """

    d: Int = tile("scores", access="rw")
    row0: Extent = sext("query row (plus keys before the first query) of the tile's first row")
    col0: Extent = sext("key column of the tile's first column")
    inf: Int = flag("hidden scores become -infinity, which is then no fault", default=0)
    window: Extent = ext("keys that a row sees, its own the last; 0: all before it", default=0)

    @staticmethod
    def execute(s: State, d: int, row0: int, col0: int, inf: int, window: int) -> None:
        if inf:
            s.expect_infinity()
        s.update(d)
        s.k.hide(*s.place(d), row0 - col0 + 1, window, np.float32(-np.inf if inf else MASKED))


class VBlend(Insn, opcode=0x67, engine="vec", mnemonic="v.blend"):
    """Select in place: d[i, j] = b[i, j] where the mask a[i, j] is 0; elsewhere d stays."""

    d: Int = tile("values", access="rw")
    a: Source = tile("mask, broadcast", access="rs")
    b: Source = tile("source, broadcast", access="rs")

    @staticmethod
    def execute(s: State, d: int, a: int, b: int) -> None:
        mask, other = s.source(a), s.source(b)
        out = s.update(d)
        np.copyto(out, _spread(other, out), where=_spread(mask, out) == 0)


def _spread(x: F32, out: F32) -> F32:
    """A second source repeated over the destination's shape."""
    cols, wide = out.shape[1], x.shape[1]
    _repeats(x.shape, out.shape)
    return np.broadcast_to(np.tile(x, (1, cols // wide)) if wide not in (1, cols) else x, out.shape)


class VRot(Insn, opcode=0x64, engine="vec", mnemonic="v.rot"):
    """Rotate pairs within each group of `width` columns: d = [-x2, x1] of halves [x1, x2].

    With `interleaved` the pairs are neighbours: d[2i] = -a[2i+1], d[2i+1] = a[2i].
    """

    d: Int = tile("destination; may be the source", access="w")
    a: Source = tile("source", access="rs")
    width: Int = uimm(16, "columns to a group (head), even; divides the columns")
    interleaved: Int = flag("pairs are neighbours", default=0)

    @staticmethod
    def execute(s: State, d: int, a: int, width: int, interleaved: int) -> None:
        x = s.source(a)
        out = s.dest(d)
        _same(out, x.shape)
        rows, cols = x.shape
        if width < 2 or width % 2 or cols % width:
            raise Fault("run.shape", f"groups of {width} columns do not divide {cols} columns into pairs")
        x3, out3 = x.reshape(rows, -1, width), out.reshape(rows, -1, width)
        first, second = ((slice(0, width, 2), slice(1, width, 2)) if interleaved
                         else (slice(0, width // 2), slice(width // 2, width)))
        turned = np.negative(x3[..., second])
        out3[..., second] = x3[..., first]
        out3[..., first] = turned


class VLd(Insn, opcode=0x65, engine="vec", mnemonic="v.ld"):
    """Take the head of the activation stream into tile d."""

    d: Int = tile("destination", access="w")

    @staticmethod
    def execute(s: State, d: int) -> None:
        x = s.source(-1)
        out = s.dest(d)
        _same(out, x.shape)
        np.copyto(out, x)


class Fwd(Insn, opcode=0x66, engine="vec", mnemonic="fwd"):
    """Round tile a to f16 and push it onto the activation stream (P of P @ V)."""

    a: Int = tile("source", access="r")

    @staticmethod
    def execute(s: State, a: int) -> None:
        s.forward(a)
