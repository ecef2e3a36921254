"""What the cost models read: the shape of a workload and the counts of a trace, as small protocols.

`backends.workload.Workload` has the shape; a trace (`backends.trace`) offers `SiteCounts` per site. The baselines have
no trace but a few numbers: `TokenSparsity` (AdapTiV) and `CodecSparsity` (CMC).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import IsaError

__all__ = ["SITES", "VECTOR", "CodecSparsity", "Ints", "SiteCounts", "TokenSparsity", "Trace", "TraceCounts", "Shape"]

Ints: TypeAlias = NDArray[np.int64]

SITES: Final = ("q_proj", "query", "o_proj", "gate_proj", "down_proj")
"""Concentrated activations of a decoder layer: what q, k, v read; Q; what o, gate and up, down read."""
VECTOR: Final = 32
"""Elements of a vector: a slot is 32 columns of an activation."""


class Shape(Protocol):
    """Sizes of a workload, in elements and tokens; `grid` is frames, rows, columns of visual tokens."""

    @property
    def name(self) -> str: ...
    @property
    def layers(self) -> int: ...
    @property
    def width(self) -> int: ...
    @property
    def heads(self) -> int: ...
    @property
    def kv_heads(self) -> int: ...
    @property
    def head_size(self) -> int: ...
    @property
    def ffn(self) -> int: ...
    @property
    def visual_tokens(self) -> int: ...
    @property
    def grid(self) -> tuple[int, int, int]: ...
    @property
    def text_tokens(self) -> int: ...


@dataclass(frozen=True)
class SiteCounts:
    """One site in all layers: visual tokens and their 32-wide vectors, counted.

    A slice is all of a row, or one head of it where the site was recorded per head (`slices` = heads). A layer has
    slices x length x slots vectors. A vector is *zero* (of a pruned token, or all zero by accident), else *similar* (it
    is linked to an earlier one), else *unique*. `unique` counts, for each layer, the unique vectors of each m-tile of
    retained tokens and each slot: int64[tiles, slices * slots]. None if only the totals are known.
    """

    length: int
    """Visual tokens before any pruning."""
    slots: int
    """Vectors of a token in one slice."""
    retained: Ints
    """Tokens of which some vector is not zero: int64[layers]."""
    zero: Ints
    """Zero vectors: int64[layers, slices]."""
    similar: Ints
    """Vectors linked to an earlier one: int64[layers, slices]."""
    pruned: Ints
    """Tokens whose vectors are all zero in the slice: int64[layers, slices]."""
    unique: tuple[Ints, ...] | None = field(default=None)
    rows_per_tile: int = 0
    """Retained tokens of a full tile of `unique`; 0 if there are no such counts."""

    def __post_init__(self) -> None:
        layers = self.retained.shape[0]
        slices = self.zero.shape[1] if self.zero.ndim == 2 else 0
        for name in ("zero", "similar", "pruned"):
            found = getattr(self, name)
            if not slices or found.shape != (layers, slices):
                raise IsaError("counts.shape", f"{name} is {list(found.shape)}, expected layers x slices = "
                               f"{[layers, slices]}", where="site counts")
        vectors = self.length * self.slots
        if self.retained.size and (self.retained.min() < 0 or self.retained.max() > self.length):
            raise IsaError("counts.range", f"retained is {self.retained.min()}..{self.retained.max()}, expected "
                           f"0..{self.length}", where="site counts")
        for name in ("zero", "similar", "pruned"):
            found = getattr(self, name)
            if found.size and found.min() < 0:
                raise IsaError("counts.range", f"{name} has {found.min()}, expected counts", where="site counts")
        if self.zero.size and (self.zero + self.similar).max() > vectors:
            raise IsaError("counts.range", f"zero + similar reaches {(self.zero + self.similar).max()}, expected at "
                           f"most {vectors} vectors a layer and slice", where="site counts")
        if self.unique is not None and len(self.unique) != layers:
            raise IsaError("counts.shape", f"unique has {len(self.unique)} layers, expected {layers}",
                           where="site counts")

    @property
    def slices(self) -> int:
        """Slices of a row: 1, or the heads."""
        return self.zero.shape[1]

    @property
    def vectors(self) -> Ints:
        """Vectors that are neither zero nor similar: int64[layers, slices]."""
        return self.length * self.slots - self.zero - self.similar


class TraceCounts(Protocol):
    """A trace, as the Focus model reads it."""

    def site(self, name: str) -> SiteCounts:
        """Counts of one of `SITES`."""
        ...


@dataclass(frozen=True)
class TokenSparsity:
    """AdapTiV's trace: the share of visual tokens merged away before the first layer."""

    tokens: float

    def __post_init__(self) -> None:
        _share("tokens", self.tokens)


@dataclass(frozen=True)
class CodecSparsity:
    """CMC's trace: shares of rows that are copied from their reference frame, in all layers alike."""

    linear: float
    query: float
    score: float

    def __post_init__(self) -> None:
        for name in ("linear", "query", "score"):
            _share(name, getattr(self, name))


Trace: TypeAlias = TraceCounts | TokenSparsity | CodecSparsity | None
"""What a cost model needs beside the workload; None for the dense array."""


def _share(name: str, value: float) -> None:
    if not 0 <= value < 1:
        raise IsaError("counts.range", f"{name} is {value}, expected a share of at least 0 and below 1",
                       where="sparsity")
