"""Arithmetic shared by the cost models: ceilings, array passes, causal tiles, all over arrays of layers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from focusc.backends.cost.interface import Ints
from focusc.isa.machine import Array

__all__ = ["Causal", "Floats", "Numbers", "array_cycles", "ceil", "causal"]

Floats: TypeAlias = NDArray[np.floating[Any]]
Numbers: TypeAlias = NDArray[np.floating[Any]] | NDArray[np.int64] | np.floating[Any] | float


def ceil(a: Ints | int, b: int) -> Ints:
    """Ceiling of a / b for whole numbers."""
    return -(-np.asarray(a, np.int64) // b)


def array_cycles(array: Array, rows: Numbers, passes: Numbers, model: str) -> Floats:
    """Cycles of `passes` weight-stationary passes that stream `rows` rows in total.

    `scalesim`: rows plus 2R + C - 3 a pass, nothing overlaps (cost_model section 0). `pipelined`: weights load and skew
    overlap, at least R cycles a pass; the passes are taken to be alike, and fill and drain of the burst are left out.
    """
    streamed, count = np.asarray(rows, np.float64), np.asarray(passes, np.float64)
    if model == "pipelined":
        return np.maximum(streamed, count * array.rows)
    return np.asarray(streamed + count * array.overhead_cycles)


@dataclass(frozen=True)
class Causal:
    """Sums over the row blocks of a causal square; the heads of a group are stacked in a block. float64[layers]."""

    blocks: Floats
    """Number of blocks."""
    keys: Floats
    """Keys that each block reads."""
    key_groups: Floats
    """These keys in groups of array columns."""
    row_groups: Floats
    """Stacked rows (whole row groups of the array) times key groups."""
    row_panels: Floats
    """Stacked rows times key panels."""


def causal(tokens: Ints, rows: int, columns: int, panel: int, *, half: bool = False, stacked: int = 1,
           row_lanes: int = 1) -> Causal:
    """Cut `tokens` query rows into blocks of `rows`; a block sees the keys up to its own last row.

    `half`: every block sees all keys, and half of that is charged. One evaluation for each different count of tokens (a
    schedule has few), vectorised over the blocks.
    """
    table: dict[int, tuple[float, ...]] = {}
    for count in np.unique(tokens).tolist():
        end = np.minimum(np.arange(1, -(-count // rows) + 1, dtype=np.int64) * rows, count)
        height = ceil(stacked * np.diff(end, prepend=0), row_lanes) * row_lanes
        seen, share = (np.full_like(end, count), 0.5) if half else (end, 1.0)
        groups, panels = ceil(seen, columns), ceil(seen, panel)
        table[count] = (end.size, *(share * float(v.sum()) for v in (seen, groups, height * groups, height * panels)))
    return Causal(*np.array([table[count] for count in tokens.tolist()], np.float64).reshape(-1, 5).T)
