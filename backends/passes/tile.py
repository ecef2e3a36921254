"""The pass `tile`: nn-level ops become kernels, loop nests over tiles that fit the target's buffers."""

from __future__ import annotations

from focusc.backends.hardware import load_hardware
from focusc.backends.lower import lower_module
from focusc.backends.options import tiling
from focusc.ir import Module, Stats, defpass

ROUNDING = 5e-2
"""Relative difference that f16 storage may cause: 1e-3 in a dense module; where the rounding tips a pruning or a link
that was nearly even, more."""


@defpass(
    "tile",
    tolerance=ROUNDING,
    kernels="kernels written",
    loops="loops over tiles",
    products="matrix products in the text",
)
def tile(module: Module, stats: Stats, *, target: str = "focus", m: int = 0, n: int = 0) -> Module:
    """Lower to the tile level for a target.

    `m` and `n` are the most rows and columns of a GEMM tile; 0 takes the largest that the target's buffers hold.
    `target` is a target's name or the path of a hardware description.
    """
    if module.attrs.get("level") == "tile":
        return module
    lowered = lower_module(module, tiling(load_hardware(target), m, n))
    for op in lowered.walk():
        stats["kernels"] += op.name == "tile.fence"
        stats["loops"] += op.name == "tile.for"
        stats["products"] += op.name == "tile.mma"
    return lowered
