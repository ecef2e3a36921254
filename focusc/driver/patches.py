"""What concentration did to each visual token of one sample: which survived SEC, how much of each SIC merged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from focusc.driver.errors import InputError

if TYPE_CHECKING:
    from focusc.ir import Module, Op, Value

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Stage:
    """The visual tokens that one decoder layer sees; the stage after the last layer has its number plus one.

    `positions`: their indices in the visual span before pruning, ascending. `merged`: for each, the share of its
    32-vectors that were linked to an earlier token at the layer's first SIC site, 0 to 1; None without SIC.
    """

    layer: int
    positions: Array
    merged: Array | None


@dataclass(frozen=True)
class PatchFlow:
    """The stages of one sample, one for each of `layers` decoder layers and one for what is left, and their grid."""

    grid: tuple[int, int, int]
    strides: tuple[int, int, int]
    tokens: int
    stages: list[Stage]
    layers: int

    def cells(self) -> Array:
        """[F, H, W] index in the visual span of each grid cell."""
        frames, rows, columns = np.indices(self.grid)
        return frames * self.strides[0] + rows * self.strides[1] + columns * self.strides[2]


def patch_flow(module: Module, inputs: Mapping[str, Array]) -> PatchFlow:
    """Run a concentrated module in the interpreter and watch its SEC and SIC ops.

    InputError if the module has no such op, CompileError if it has no token layout.
    """
    from focusc.ir import interpret
    from focusc.ir.concentration.layout import Layout

    layout = Layout.of(module)
    everything = np.arange(layout.length)
    kept: dict[Value, Array] = {}
    merged: dict[int, tuple[Array, Array]] = {}
    pruned: dict[int, Array] = {}

    def observe(op: Op, results: tuple[Any, ...]) -> None:
        if op.name == "sec.select":
            positions = np.asarray(results[1])
            kept[op.results[1]] = positions
            pruned[op.attrs["layer"]] = positions
        elif op.name == "sic.gather" and op.attrs["layer"] not in merged:
            source = op.operands[1]
            positions = everything if source is None else kept[source]
            start = op.attrs["visual_start"]
            roots = results[0].is_root[start : start + len(positions)]
            merged[op.attrs["layer"]] = (positions, 1.0 - roots.mean(axis=1))

    interpret(module, inputs, observe)
    if not merged and not pruned:
        raise InputError(
            "patches.none", "the module has no SEC or SIC op to watch", hint="compile it with --concentrate focus"
        )
    stages: list[Stage] = []
    present = everything
    for layer in range(max([*merged, *pruned]) + 1):
        positions, share = merged.get(layer, (present, None))
        stages.append(Stage(layer, positions, share))
        present = pruned.get(layer, positions)  # the drop takes effect after this layer's attention
    layers = len(stages)
    if len(present) != len(stages[-1].positions):
        stages.append(Stage(len(stages), present, None))
    return PatchFlow(layout.grid, layout.strides, len(everything), stages, layers)
