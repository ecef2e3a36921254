"""Choices of a cost run that are neither workload, trace nor hardware."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from focusc.backends.cost.hardware import Accelerator
from focusc.isa.errors import IsaError

__all__ = ["Options", "SramFigures", "SramTable"]


@dataclass(frozen=True)
class SramFigures:
    """One buffer, however many banks it has."""

    area_mm2: float
    leak_mw: float
    read_mj_per_byte: float
    write_mj_per_byte: float


@dataclass(frozen=True)
class SramTable:
    """Buffers of another size than the macros make: name -> figures of a memory model, and the bytes they hold."""

    buffers: dict[str, SramFigures]
    capacity_bytes: int


@dataclass(frozen=True)
class Options:
    """`array` is the array model. The rest is for Focus: `similarity` False is SEC alone, `block` the tokens of a
    comparison window with the token itself, `m` the rows of a tile (0: what the buffers stage), `sram` replaces the
    macros' figures.
    """

    array: Literal["scalesim", "pipelined"] = "scalesim"
    similarity: bool = True
    block: int = 8
    m: int = 0
    sram: SramTable | None = None

    def __post_init__(self) -> None:
        if self.array not in ("scalesim", "pipelined"):
            raise IsaError("cost.options", f"array is {self.array!r}, expected scalesim or pipelined")
        if not 1 <= self.block <= 4096:
            raise IsaError("cost.options", f"block is {self.block}, expected 1 to 4096 tokens")
        if self.m < 0:
            raise IsaError("cost.options", f"m is {self.m}, expected 0 or a number of rows")

    def rows(self, hardware: Accelerator) -> int:
        """Rows of a tile. Raises IsaError(`cost.tile`) if the buffers cannot stage it."""
        m = self.m or hardware.tiles.m
        if m > hardware.tiles.m and self.sram is None:
            raise IsaError("cost.tile", f"tiles of m = {m} rows do not fit: buffers.activation of {hardware.name} "
                           f"holds {hardware.tiles.m} rows of {hardware.tiles.k}, double-buffered",
                           hint="lower m, enlarge the buffers, or give figures of larger ones (sram)")
        return m
