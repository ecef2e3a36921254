"""The published table of vector sizes: one output projection, charged for vectors of another length (section 4)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from focusc.backends.cost.arithmetic import array_cycles, ceil
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator, load_accelerator
from focusc.backends.cost.interface import VECTOR
from focusc.backends.cost.sram import cacti
from focusc.backends.cost.tables import figures, workload_of
from focusc.isa.errors import IsaError

__all__ = ["LAYER", "VectorCounts", "VectorPoint", "counts_of", "vector_point", "vectors"]

LAYER: Final = 9
"""The layer of the table; it reads the tokens that layer 6 left."""
B = ELEMENT_BYTES


@dataclass(frozen=True)
class VectorCounts:
    """What a vector size leaves of the layer's input: retained tokens, mean unique vectors rounded down and up."""

    retained: int
    unique: int
    packed: int


@dataclass(frozen=True)
class VectorPoint:
    """One row; operations are two a MAC, energies in mJ."""

    vector: int
    compute_cycles: int
    stall_cycles: int
    array_operations: int
    scatter_operations: int
    dense_operations: int
    dram_bytes: int
    dram_mj: float
    sram_mj: float
    core_mj: float


def counts_of(row: Mapping[str, Any]) -> VectorCounts:
    """The counts behind a published row: unique vectors from its operations, packed ones from its bytes."""
    workload = workload_of({"workload": "llava-video-7b", "dataset": "videomme"})
    depth, columns = workload.q_width, workload.width
    return VectorCounts(workload.retained()[LAYER][0], row["array_operations"] // (2 * depth * columns),
                        row["dram_bytes"] // (B * columns))


def vector_point(vector: int, counts: VectorCounts, hardware: Accelerator | None = None) -> VectorPoint:
    """Charge the projection for vectors of `vector` elements.

    The array keeps its cells: vectors shorter than 32 turn it into `vector` rows. Only the bytes of detection are
    counted, and of the buffers only the energy of these accesses.
    """
    if vector < 1 or (vector < VECTOR and 1024 % vector):
        raise IsaError("cost.options", f"vector is {vector}, expected a divisor of 1024 or a size of at least {VECTOR}")
    hardware = hardware or load_accelerator("focus")
    workload = workload_of({"workload": "llava-video-7b", "dataset": "videomme"})
    depth, columns, m = workload.q_width, workload.width, hardware.tiles.m
    array = hardware.array
    if vector < VECTOR:
        array = array.model_copy(update={"rows": vector, "cols": array.macs_per_cycle // vector})
    passes = int(ceil(columns, array.cols)) * int(ceil(depth, array.rows))
    tiles = int(ceil(counts.retained, m))
    compute = int(array_cycles(array, counts.unique // tiles, 1, "scalesim")) * tiles * passes
    accumulators = hardware.sic.scatter_accumulators if hardware.sic else 1
    scatter = int(ceil(counts.retained * passes, accumulators))
    stall = max(0, scatter - compute)
    groups = int(ceil(columns, VECTOR))
    rows, packed, marks = counts.retained * columns * B, counts.packed * columns * B, counts.retained * groups * B
    moved = {"output": (rows + marks, 0), "layouter": (7 * (rows + marks), rows + marks), "map": (0, marks),
             "table": (rows + packed, rows)}
    figures_ = cacti(m, accumulators).buffers
    sram = sum(figures_[name].read_mj_per_byte * read + figures_[name].write_mj_per_byte * write
               for name, (read, write) in moved.items())
    seconds = (compute + stall) / hardware.clock_hz
    return VectorPoint(
        vector, compute, stall, 2 * counts.unique * depth * columns,
        counts.retained * columns * int(ceil(depth, vector)), workload.visual_tokens * columns * depth, packed,
        packed * hardware.dram.pj_per_byte * 1e-9, sram, hardware.logic_mw * seconds)


def vectors() -> list[tuple[Mapping[str, Any], VectorPoint]]:
    """Published rows and ours, from the counts that each row implies."""
    return [(row, vector_point(row["vector"], counts_of(row))) for row in figures("vectors")]
