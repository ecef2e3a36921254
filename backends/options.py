"""Options of the mapping, all of them the user's to set in a pipeline or a configuration file."""

from __future__ import annotations

from dataclasses import dataclass

from focusc.ir.diagnostics import fail
from focusc.isa.machine import Machine


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
    m_most = machine.buffers.activation.bytes // (2 * rows * element)
    n_most = machine.buffers.weights.bytes // (2 * rows * element) // columns * columns
    m = m or min(1024, m_most)
    n = n or n_most
    if not 1 <= m <= m_most:
        raise fail(
            "tile.m",
            f"m-tile of {m} rows does not fit: two k-slices of {m} x {rows} f16 need {4 * m * rows} bytes, the "
            f"activation buffer has {machine.buffers.activation.bytes} (at most m = {m_most})",
            hint="lower tile{m=...} or enlarge buffers.activation",
        )
    if not columns <= n <= n_most or n % columns:
        raise fail(
            "tile.n",
            f"n-tile of {n} columns does not fit: expected a multiple of {columns} up to {n_most} (weight buffer of "
            f"{machine.buffers.weights.bytes} bytes, double-buffered)",
            hint="lower tile{n=...} or enlarge buffers.weights",
        )
    if m * columns * 4 > machine.buffers.output.bytes:
        raise fail(
            "tile.obuf",
            f"an accumulator tile of {m} x {columns} f32 needs {4 * m * columns} bytes, the output buffer has "
            f"{machine.buffers.output.bytes}",
            hint="lower tile{m=...} or enlarge buffers.output",
        )
    return Tiling(machine, m, n)
