"""common-subexpressions."""

from __future__ import annotations

from typing import Any

from focusc.ir.compare import freeze
from focusc.ir.core import Block, Module, Op, Value
from focusc.ir.passes.registry import Stats, defpass
from focusc.ir.resource import Resource
from focusc.ir.rewrite import Rewriter
from focusc.ir.types import ConcentratedType, IndexType, TensorType, TokensType

_VALUES = (TensorType, ConcentratedType, TokensType, IndexType)


@defpass("common-subexpressions", merged="ops that an equal earlier op replaces")
def common_subexpressions(module: Module, stats: Stats, *, constants: int = 4096) -> Module:
    """Let equal pure ops share one result; the first one stays, with its location.

    Constants of more than `constants` elements are only merged if they are the same object, since comparing contents
    would read all weights. Ops on buffers, streams and tiles depend on state and are left alone.
    """
    if not _pairs(module.body, constants):
        return module
    module = module.clone()
    rewriter = Rewriter(module)
    for op, kept in _pairs(module.body, constants):
        rewriter.replace(op, kept.results)
        stats["merged"] += 1
    return module


def _pairs(body: Block, constants: int) -> list[tuple[Op, Op]]:
    """(later op, equal earlier op), in order; operands count as equal if their definitions were merged."""
    found: list[tuple[Op, Op]] = []
    _visit(body, {}, {}, constants, found)
    return found


def _visit(
    block: Block, outer: dict[Any, Op], same: dict[Value, Value], constants: int, found: list[tuple[Op, Op]]
) -> None:
    seen = dict(outer)  # a region sees the ops around it; its own ops are not visible outside
    for op in block.ops:
        for declared, region in zip(op.spec.regions, op.regions, strict=True):
            _visit(region, {} if declared.isolated else seen, same, constants, found)
        if (
            not op.spec.pure
            or op.regions
            or not all(isinstance(v.type, _VALUES) for v in op.results)
            or not all(v is None or isinstance(v.type, _VALUES) for v in op.operands)
        ):
            continue
        operands = tuple(None if v is None else same.get(v, v) for v in op.operands)
        attrs = tuple((k, _key(v, constants)) for k, v in op.attrs.items())
        key = (op.name, operands, attrs, tuple(v.type for v in op.results))
        kept = seen.setdefault(key, op)
        if kept is not op:
            found.append((op, kept))
            same.update(zip(op.results, kept.results, strict=True))


def _key(value: Any, constants: int) -> Any:
    if isinstance(value, Resource) and value.size > constants:
        return ("object", id(value))
    return freeze(value)
