"""The pass `outline-host`: what the target refuses becomes segments that the host runs."""

from __future__ import annotations

from focusc.backends.hardware import load_hardware
from focusc.backends.lower import refused
from focusc.backends.lower.context import STORAGE
from focusc.backends.options import Tiling, tiling
from focusc.ir import Diagnostic, Module, Op, Stats, defpass
from focusc.ir.outline import Outlined, can_move, choose, outline


@defpass(
    "outline-host",
    segments="segments that the host runs",
    ops="ops in them",
    macs="multiply-accumulates in them",
)
def outline_host(module: Module, stats: Stats, *, target: str = "focus", m: int = 0, n: int = 0) -> Module:
    """Move the ops that the target refuses into `host.call`s, in as few segments as the graph allows.

    Runs on the module that `tile` would lower, with the options of `tile`. Ops without matrix products between two
    segments go with them where that makes one segment of two. What the host cannot run either (the concentrators' ops,
    inputs of a type that has no place in DRAM) stays, for `tile` to refuse.
    """
    if module.attrs.get("level") == "tile":
        return module
    found = outlined(module, tiling(load_hardware(target), m, n))
    if found is None:
        return module
    stats["segments"] = len(found.calls)
    for op in found.calls:
        stats["ops"] += len(op.attrs["nodes"])
        stats["macs"] += sum(node["macs"] for node in op.attrs["nodes"])
    return found.module


def outlined(module: Module, tiles: Tiling) -> Outlined | None:
    """The module with its host calls; None if the target refuses nothing that the host could run.

    A call changes what its neighbours are given, so the target is asked again until it refuses nothing more.
    """
    why: dict[Op, Diagnostic] = {}
    found: Outlined | None = None
    while True:
        more: dict[Op, Diagnostic] = {}
        for ops, diagnostic in refused(found.module if found is not None else module, tiles):
            for op in ops:
                source = found.source.get(op) if found is not None else op
                for mover in _movers(source):
                    if mover not in why:
                        more.setdefault(mover, diagnostic)
        if not more:
            return found
        why |= more
        found = outline(module, choose(module, why, STORAGE))


def _movers(op: Op | None) -> list[Op]:
    """What moves to the host for an op that is refused: itself, or for a constant the ops that read it."""
    if op is None:
        return []
    return [mover for mover in (op.results[0].users if op.name == "tensor.constant" else [op]) if can_move(mover)]
