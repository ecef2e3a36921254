"""Vector commands that reduce each row of a tile to one number."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from focusc.isa.errors import Fault
from focusc.isa.fields import Int, Source, flag, tile
from focusc.isa.insns.base import Insn
from focusc.isa.insns.vector_sources import F32

if TYPE_CHECKING:
    from focusc.isa.emulator.state import State

Flat = tuple[F32, int, int, int, int]
"""A matrix inside a flat array: (array, first element, pitch, rows, cols)."""

__all__ = ["VRmax", "VRsum", "VRsumsq"]


def _reduce(s: State, d: int, a: int, acc: int, values: Callable[[Any, Flat], F32],
            combine: Callable[[State, int, F32], None]) -> None:
    """d[:, 0] = values(kernels, a), with `acc` combined with what d holds."""
    x = s.flat(a)
    rows, cols = x[3:]
    out = s.update(d) if acc else s.dest(d)
    if out.shape != (rows, 1):
        raise Fault("run.shape", f"a row reduction of {rows}x{cols} into {out.shape[0]}x{out.shape[1]}, "
                    f"expected {rows}x1")
    if acc:
        combine(s, d, values(s.k, x))
    else:
        out[:, 0] = values(s.k, x)


def _add(s: State, d: int, found: F32) -> None:
    out = s.view(d)[:, 0]
    np.add(out, found, out=out)


def _larger(s: State, d: int, found: F32) -> None:
    s.k.larger(found, *s.place(d)[:4])


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


class VRsum(Insn, opcode=0x60, engine="vec", mnemonic="v.rsum"):
    """d[i, 0] = sum over j of a[i, j]; with `acc` added to what d holds."""

    d: Int = tile("destination, one column", access="rw")
    a: Source = tile("source", access="rs")
    acc: Int = flag("accumulate", default=0)

    @staticmethod
    def execute(s: State, d: int, a: int, acc: int) -> None:
        _reduce(s, d, a, acc, _row_sum, _add)


class VRmax(Insn, opcode=0x61, engine="vec", mnemonic="v.rmax"):
    """d[i, 0] = max over j of a[i, j]; with `acc` also with what d holds."""

    d: Int = tile("destination, one column", access="rw")
    a: Source = tile("source", access="rs")
    acc: Int = flag("accumulate", default=0)

    @staticmethod
    def execute(s: State, d: int, a: int, acc: int) -> None:
        _reduce(s, d, a, acc, _row_max, _larger)


class VRsumsq(Insn, opcode=0x62, engine="vec", mnemonic="v.rsumsq"):
    """d[i, 0] = sum over j of a[i, j]^2; with `acc` added to what d holds."""

    d: Int = tile("destination, one column", access="rw")
    a: Source = tile("source", access="rs")
    acc: Int = flag("accumulate", default=0)

    @staticmethod
    def execute(s: State, d: int, a: int, acc: int) -> None:
        _reduce(s, d, a, acc, _row_sum_of_squares, _add)
