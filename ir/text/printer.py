"""Printer of the text format. `parse(print_module(m))` gives `m` back."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from focusc.ir.core import Block, Module, Op, Value
from focusc.ir.resource import Resource
from focusc.ir.types import DTYPES, Type

INLINE = 16
"""Constants of at most this many elements are printed in full."""

_PLAIN = re.compile(r"[A-Za-z_$.][A-Za-z0-9_$.]*\Z")


def print_module(module: Module, *, locations: bool = True) -> str:
    """The module as text, ending in a newline."""
    names = Names(module)
    args = ", ".join(f"{names[a]}: {a.type}" for a in module.args)
    outputs = ", ".join(map(quote, module.outputs))
    attrs = f" {print_attrs(module.attrs)}" if module.attrs else ""
    lines = [f"module {quote(module.name)}({args}) -> ({outputs}){attrs} {{"]
    _block(module.body, names, lines, "  ", locations)
    lines.append("}")
    return "\n".join(lines) + "\n"


class Names:
    """Text names of all values: kept where they are unique, numbers otherwise."""

    def __init__(self, module: Module) -> None:
        self._of: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._next = 0
        for arg in module.args:
            self._add(arg)
        self._visit(module.body)

    def _visit(self, block: Block) -> None:
        for op in block.ops:
            for value in op.results:
                self._add(value)
            for region in op.regions:
                for arg in region.args:
                    self._add(arg)
                self._visit(region)

    def _add(self, value: Value) -> None:
        name = value.name
        if not name or name in self._taken:
            self._of[value] = f"%{self._next}"
            self._next += 1
            return
        self._taken.add(name)
        self._of[value] = f"%{name}" if _PLAIN.match(name) else f"%{quote(name)}"

    def __getitem__(self, value: Value | None) -> str:
        return "_" if value is None else self._of.get(value, "%?undefined")


def _block(block: Block, names: Names, lines: list[str], indent: str, locations: bool) -> None:
    for op in block.ops:
        lines.append(indent + _head(op, names))
        for region in op.regions:
            args = ", ".join(f"{names[a]}: {a.type}" for a in region.args)
            lines[-1] += f" {{ ^({args}):"
            _block(region, names, lines, indent + "  ", locations)
            lines.append(indent + "}")
        lines[-1] += _tail(op, locations)


def _head(op: Op, names: Names) -> str:
    text = ", ".join(names[v] for v in op.results)
    text = f"{text} = {op.name}" if text else op.name
    text += f"({', '.join(names[v] for v in op.operands)})"
    return f"{text} {print_attrs(op.attrs)}" if op.attrs else text


def _tail(op: Op, locations: bool) -> str:
    text = f" : {print_types([v.type for v in op.results])}" if op.results else ""
    if locations and (op.loc.node or op.loc.module_path):
        path = f" {quote(op.loc.module_path)}" if op.loc.module_path else ""
        text += f" loc({quote(op.loc.node)}{path})"
    return text


def print_types(types: list[Type]) -> str:
    """One type, or several in parentheses."""
    return str(types[0]) if len(types) == 1 else f"({', '.join(map(str, types))})"


def print_op(op: Op) -> str:
    """One op on one line with local names; for messages."""
    values = [v for v in (*op.operands, *op.results) if v is not None]
    block = Block()
    names = Names(Module("", block))
    for value in values:
        if value not in names._of:  # pyright: ignore[reportPrivateUsage]
            names._add(value)  # pyright: ignore[reportPrivateUsage]
    return _head(op, names) + _tail(op, False)


def quote(text: str) -> str:
    """A string literal."""
    return json.dumps(text)


def print_attrs(attrs: dict[str, Any]) -> str:
    """`{key = value, ...}`."""
    return "{" + ", ".join(f"{_key(k)} = {print_attr(v)}" for k, v in attrs.items()) + "}"


def _key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", key) else quote(key)


def print_attr(value: Any) -> str:
    """One attribute value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, str)):
        return quote(value) if isinstance(value, str) else str(value)
    if isinstance(value, float):
        return print_float(value)
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(map(print_attr, value)) + "]"
    if isinstance(value, dict):
        return print_attrs(value)
    if isinstance(value, Resource):
        return print_resource(value)
    raise TypeError(f"an attribute holds a {type(value).__name__}")


def print_float(value: float) -> str:
    """Shortest text that reads back to the same f64."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(value)


def print_resource(value: Resource) -> str:
    """`resource<"name">`, or the values of a small array."""
    if value.size > INLINE:
        return f"resource<{quote(value.name)}>"
    dims = "x".join([*map(str, value.shape), value.dtype])
    flat = value.array.reshape(-1)
    return f"dense<{dims}, [{', '.join(_element(v, value.dtype) for v in flat)}]>"


def _element(value: Any, dtype: str) -> str:
    if dtype == "bool":
        return "true" if value else "false"
    if not np.issubdtype(DTYPES[dtype], np.floating):
        return str(int(value))
    short = repr(float(str(value)))
    with np.errstate(over="ignore"):
        exact = DTYPES[dtype].type(float(short)) == value
    return print_float(float(short)) if exact else print_float(float(value))
