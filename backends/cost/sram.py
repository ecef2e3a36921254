"""Buffer figures by CACTI for tile sizes and scatter accumulators that the macros do not make."""

from __future__ import annotations

import tomllib
from functools import cache
from importlib import resources
from typing import Any

from focusc.backends.cost.options import SramFigures, SramTable
from focusc.isa.errors import IsaError

__all__ = ["cacti"]


@cache
def _tables() -> dict[tuple[int, int], dict[str, Any]]:
    text = resources.files("focusc.backends.cost.published").joinpath("cacti.toml").read_text("utf-8")
    return {(t.pop("m"), t.pop("scatter_accumulators")): t for t in tomllib.loads(text)["table"]}


def cacti(m: int, scatter_accumulators: int = 2) -> SramTable:
    """Buffers for tiles of m rows. Raises IsaError(`cost.sram`) where there are no figures."""
    found = _tables().get((m, scatter_accumulators))
    if found is None:
        there = ", ".join(f"{a} with {b}" for a, b in sorted(_tables()))
        raise IsaError("cost.sram", f"there are no buffer figures for m = {m} with {scatter_accumulators} scatter "
                       f"accumulators; there are m = {there}")
    buffers = {name: SramFigures(*(f[key] for key in ("area_mm2", "leak_mw", "read_mj_per_byte", "write_mj_per_byte")))
               for name, f in found.items()}
    return SramTable(buffers, sum(f["bytes"] for f in found.values()))
