"""dead-code."""

from __future__ import annotations

from focusc.ir.core import Block, Module, Op
from focusc.ir.passes.registry import Stats, defpass
from focusc.ir.rewrite import Rewriter


@defpass("dead-code", erased="ops without use")
def dead_code(module: Module, stats: Stats) -> Module:
    """Remove ops whose results nobody reads, directly or through other removed ops. Ops with effects stay."""
    if not _dead(module.body):
        return module
    module = module.clone()
    rewriter = Rewriter(module)
    for op in _dead(module.body):
        rewriter.erase(op)
        stats["erased"] += 1
    return module


def _dead(block: Block) -> list[Op]:
    """Dead ops here and in regions of live ops, users before definitions."""
    found: list[Op] = []
    gone: set[Op] = set()
    _visit(block, gone, found)
    return found


def _visit(block: Block, gone: set[Op], found: list[Op]) -> None:
    for op in reversed(block.ops):
        if is_pure(op) and all(_inside(user, gone) for v in op.results for user in v.users):
            gone.add(op)
            found.append(op)
            continue
        for region in op.regions:
            _visit(region, gone, found)


def _inside(op: Op, gone: set[Op]) -> bool:
    """True if the op, or an op around it, is dead."""
    current: Op | None = op
    while current is not None:
        if current in gone:
            return True
        current = current.parent.parent if current.parent is not None else None
    return False


def is_pure(op: Op) -> bool:
    """True if the op and everything in its regions (but the ends of blocks) only computes results."""
    if not op.spec.pure:
        return False
    return all(inner.spec.terminator or inner.spec.pure for r in op.regions for inner in r.walk())
