"""Options of the mapping, all of them the user's to set in a pipeline or a configuration file."""

from __future__ import annotations

from dataclasses import dataclass

from focusc.ir.diagnostics import fail
from focusc.isa.machine import Machine

SLOT = 32
"""Columns of a slot: the width of a sub-vector in the concentrated format, and the granularity of n-tiles."""


@dataclass(frozen=True)
class Tiling:
    """Tile extents that fit the machine: most rows m and columns n of a GEMM tile.

    m is also where SIC cuts the visual rows. n is bounded by the weight staging buffer: two slices of 32 x n f16.
    """

    machine: Machine
    m: int
    n: int

    @property
    def obuf(self) -> int:
        """Bytes of the output buffer."""
        return self.machine.buffers.output.bytes


def tiling(machine: Machine, m: int = 0, n: int = 0) -> Tiling:
    """Check the requested tile against the machine's buffers; 0 asks for the largest that fits.

    Raises CompileError if a tile does not fit: the message names buffer, need and capacity.
    """
    rows, columns = machine.array.rows, machine.array.cols
    element = 2  # bytes of an f16 operand
    limits = {"activation": machine.buffers.activation.bytes // (2 * rows * element)}  # double-buffered k-slices
    if machine.sic.present:
        limits["partial"] = machine.buffers.partial.bytes // (2 * columns * element)  # double-buffered partial sums
        limits["map"] = machine.buffers.map.bytes // element  # one u16 a row
        limits["table"] = machine.buffers.table.bytes // (SLOT * element)  # one slot of every row
    tightest = min(limits, key=limits.__getitem__)
    m_most = limits[tightest]
    n_most = machine.buffers.weights.bytes // (2 * rows * element) // columns * columns
    m = m or m_most
    n = n or n_most
    if not 1 <= m <= m_most:
        raise fail(
            "tile.m",
            f"m-tile of {m} rows does not fit: the {tightest} buffer of {getattr(machine.buffers, tightest).bytes} "
            f"bytes holds at most m = {m_most}",
            hint=f"lower tile{{m=...}} or enlarge buffers.{tightest}",
        )
    if n_most < SLOT:
        raise fail(
            "tile.n",
            f"the weight buffer of {machine.buffers.weights.bytes} bytes holds two slices of {n_most} columns; "
            f"expected at least {SLOT}, the width of a slot",
            hint="enlarge buffers.weights",
        )
    if not columns <= n <= n_most or n % columns:
        raise fail(
            "tile.n",
            f"n-tile of {n} columns does not fit: expected a multiple of {columns} up to {n_most} (weight buffer of "
            f"{machine.buffers.weights.bytes} bytes, double-buffered)",
            hint="lower tile{n=...} or enlarge buffers.weights",
        )
    if m * SLOT * 4 > machine.buffers.output.bytes:
        raise fail(
            "tile.obuf",
            f"an accumulator tile of {m} x {SLOT} f32 needs {4 * m * SLOT} bytes, the output buffer has "
            f"{machine.buffers.output.bytes}",
            hint="lower tile{m=...} or enlarge buffers.output",
        )
    return Tiling(machine, m, n)
