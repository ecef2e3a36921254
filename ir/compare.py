"""Structural equality of modules: same ops, wiring, attributes, types, locations and names of inputs and outputs."""

from __future__ import annotations

from typing import Any

from focusc.ir.attributes import freeze
from focusc.ir.core import Block, Module, Op, Value


def same_module(a: Module, b: Module) -> bool:
    """True if the modules are structurally equal. Names of inner values and text positions do not count."""
    return difference(a, b) is None


def difference(a: Module, b: Module) -> str | None:
    """The first difference in words, or None."""
    for what in ("name", "outputs"):
        if getattr(a, what) != getattr(b, what):
            return f"{what}: {getattr(a, what)!r} against {getattr(b, what)!r}"
    if not same_attribute(a.attrs, b.attrs):
        return f"module attributes: {a.attrs} against {b.attrs}"
    for x, y in zip(a.args, b.args, strict=False):
        if x.name != y.name:
            return f"input name: {x.name!r} against {y.name!r}"
    return _blocks(a.body, b.body, {}, "")


def _blocks(a: Block, b: Block, values: dict[Value, Value], where: str) -> str | None:
    if [x.type for x in a.args] != [y.type for y in b.args]:
        return f"{where}arguments: {_types(a.args)} against {_types(b.args)}"
    if len(a.ops) != len(b.ops):
        return f"{where}number of ops: {len(a.ops)} against {len(b.ops)}"
    values.update(zip(a.args, b.args, strict=True))
    for i, (x, y) in enumerate(zip(a.ops, b.ops, strict=True)):
        found = _ops(x, y, values, f"{where}op {i} ({x.name}): ")
        if found:
            return found
    return None


def _ops(a: Op, b: Op, values: dict[Value, Value], where: str) -> str | None:
    if a.name != b.name:
        return f"{where}against {b.name}"
    if not same_attribute(a.attrs, b.attrs):
        return f"{where}attributes: {a.attrs} against {b.attrs}"
    if [values.get(v) if v is not None else None for v in a.operands] != b.operands:
        return f"{where}operands differ"
    if [v.type for v in a.results] != [v.type for v in b.results]:
        return f"{where}results: {_types(a.results)} against {_types(b.results)}"
    if (a.loc.node, a.loc.module_path) != (b.loc.node, b.loc.module_path):
        return f"{where}location: {a.loc.origin()} against {b.loc.origin()}"
    if len(a.regions) != len(b.regions):
        return f"{where}number of regions: {len(a.regions)} against {len(b.regions)}"
    for x, y in zip(a.regions, b.regions, strict=True):
        found = _blocks(x, y, values, where)
        if found:
            return found
    values.update(zip(a.results, b.results, strict=True))
    return None


def _types(values: list[Value]) -> str:
    return ", ".join(str(v.type) for v in values) or "none"


def same_attribute(a: Any, b: Any) -> bool:
    """Equality that tells 1 from 1.0 and True, and takes NaN as equal to NaN; lists equal tuples."""
    return freeze(a) == freeze(b)
