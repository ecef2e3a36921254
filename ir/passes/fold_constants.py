"""fold-constants: what depends on constants only is computed now."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from focusc.ir.compare import freeze
from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import absent, evaluate_op, foldable, resource_names, rewrite
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.resource import Resource
from focusc.ir.rewrite import Rewriter
from focusc.ir.types import TensorType


@defpass("fold-constants", folded="ops computed", kept="ops left because of the size limit or an error in them")
def fold_constants(module: Module, stats: Stats, *, limit: int = 1 << 26) -> Module:
    """Replace ops whose operands are all constants by their value, as the ops themselves compute it.

    Results above `limit` bytes stay, except transposes, reshapes and slices, which are views of a weight. What is
    computed from constants without values becomes one, so that a model has the same ops with its weights and without.
    What is computed twice from the same constants is one resource, which common-subexpressions merges unread.
    """
    names = set(resource_names(module))
    kept: set[Value] = set()
    computed: dict[Any, Resource] = {}

    def fold(op: Op, rewriter: Rewriter) -> str | None:
        operands = [v.op if v is not None else None for v in op.operands]
        if op.name == "tensor.constant" or not all(
                v is None or (o is not None and o.name == "tensor.constant")
                for v, o in zip(op.operands, operands, strict=True)):
            return None
        key = _key(op, operands)
        if key in computed:
            rewriter.replace(op, rewriter.builder_before(op).constant(computed[key]))
            return "folded"
        if foldable(op, limit) and any(o is not None and absent(o) for o in operands):
            type_ = op.result.type
            assert isinstance(type_, TensorType)
            hollow = computed[key] = Resource.without_values(_name(op, names), type_.shape, type_.dtype)
            rewriter.replace(op, rewriter.builder_before(op).constant(hollow))
            return "folded"
        array = evaluate_op(op, [o and o.attrs["value"].array for o in operands]) if foldable(op, limit) else None
        if array is None:
            if op.spec.pure and not op.spec.terminator and not op.regions:
                kept.update(op.results)
            return None
        value = computed[key] = Resource(_name(op, names), array)
        rewriter.replace(op, rewriter.builder_before(op).constant(value))
        return "folded"

    out = rewrite(module, stats, [fold])
    stats["kept"] = len({v for v in kept if v.owner.parent is not None})
    return out


def _key(op: Op, operands: Sequence[Op | None]) -> Any:
    """What the op's value depends on: the objects of its constants, which live as long as the pass, and attributes."""
    sources = tuple(o and id(o.attrs["value"]) for o in operands)
    attrs = tuple((k, freeze(v)) for k, v in op.attrs.items())
    return op.name, sources, attrs, tuple(v.type for v in op.results)


def _name(op: Op, names: set[str]) -> str:
    """A free name from the result's or the first named operand's, so that a transposed weight is still recognised."""
    sources = [v.op.attrs["value"].name for v in op.operands if v is not None and v.op is not None]
    base = next((n for n in sources if n), "")
    name = f"{base}.{op.name.partition('.')[2]}" if base else op.result.name
    if not name:
        return ""
    count, free = 1, name
    while free in names:
        count += 1
        free = f"{name}.{count}"
    names.add(free)
    return free
