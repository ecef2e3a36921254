"""What the cost models read: the shape of a workload and the counts of a trace, as small protocols.

`backends.workload.Workload` has the shape, `backends.trace.Trace` the counts. The baselines have no trace but a few
numbers: `TokenSparsity` (AdapTiV) and `CodecSparsity` (CMC).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import IsaError

__all__ = ["SITES", "VECTOR", "CodecSparsity", "Ints", "SiteCounts", "TokenSparsity", "Trace", "TraceCounts", "Shape",
           "site_counts"]

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


class TraceCounts(Protocol):
    """A trace of 32-wide vectors (`backends.trace.Trace`): tables with one column for each of `SITES`.

    A row of a site has heads x slots vectors. Those of a visual token are *zero* (the token is pruned, or all 32 values
    are zero by accident), *similar* (linked to an earlier one) or *unique*.
    """

    @property
    def tokens(self) -> int:
        """Visual tokens before any pruning."""
        ...

    @property
    def m(self) -> int:
        """Retained tokens of a full m-tile of `unique_of`."""
        ...

    @property
    def heads(self) -> Ints: ...
    @property
    def slots(self) -> Ints: ...
    @property
    def retained(self) -> Ints:
        """Tokens that are not pruned: int64[layers, 5]."""
        ...

    @property
    def zero(self) -> Ints:
        """Zero vectors: int64[layers, 5]."""
        ...

    @property
    def similar(self) -> Ints:
        """Vectors linked to an earlier one: int64[layers, 5]."""
        ...

    @property
    def unique(self) -> Any:
        """None if only sums are known."""
        ...

    def unique_of(self, layer: int, site: str) -> Any:
        """Unique vectors [tiles, heads x slots] of a site."""
        ...


@dataclass(frozen=True)
class SiteCounts:
    """One site in all layers; int64[layers] each."""

    length: int
    slices: int
    """Heads that were compared on their own; 1 for a whole row."""
    slots: int
    """Vectors of a row in one slice."""
    retained: Ints
    zero: Ints
    similar: Ints
    unique: tuple[Ints, ...] | None
    """Layer -> unique vectors [tiles, slices x slots], or None."""
    rows_per_tile: int

    @property
    def vectors(self) -> int:
        """Vectors of a row."""
        return self.slices * self.slots

    @property
    def active(self) -> Ints:
        """Vectors that are neither zero nor similar."""
        return self.length * self.vectors - self.zero - self.similar


def site_counts(trace: TraceCounts, site: str) -> SiteCounts:
    """A site's columns of a trace."""
    i = SITES.index(site)
    layers = trace.retained.shape[0]
    unique = None
    if trace.unique is not None:
        unique = tuple(np.asarray(trace.unique_of(layer, site), np.int64) for layer in range(layers))
    return SiteCounts(trace.tokens, int(trace.heads[i]), int(trace.slots[i]), trace.retained[:, i], trace.zero[:, i],
                      trace.similar[:, i], unique, trace.m)


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
