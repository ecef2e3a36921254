"""Printer of the text format. `parse(print_module(m))` gives `m` back."""

from __future__ import annotations

import json
import math
import re
from typing import Any

import numpy as np

from focusc.ir.attributes import is_mapping, is_sequence
from focusc.ir.core import Block, Module, Op, Value
from focusc.ir.resource import Resource
from focusc.ir.resource_file import ResourceTable
from focusc.ir.types import DTYPES, Type

INLINE = 16
"""Constants of at most this many elements are printed in full."""

_PLAIN = re.compile(r"[A-Za-z_$.][A-Za-z0-9_$.]*\Z")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\Z")


def print_module(module: Module, *, locations: bool = True, table: ResourceTable | None = None) -> str:
    """The module as text, ending in a newline. `table` collects the resources that the text refers to by name."""
    return _Printer(Names(module), table or ResourceTable(), locations).module(module)


class Names:
    """Text names of all values: kept where they are unique, numbers otherwise."""

    def __init__(self, module: Module) -> None:
        self._of: dict[Value, str] = {}
        self._taken: set[str] = set()
        self._next = 0
        self.add(*module.args)
        self._visit(module.body)

    def _visit(self, block: Block) -> None:
        for op in block.ops:
            self.add(*op.results)
            for region in op.regions:
                self.add(*region.args)
                self._visit(region)

    def add(self, *values: Value) -> None:
        """Name values that have no name yet."""
        for value in values:
            name = value.name
            if value in self._of:
                continue
            if not name or name in self._taken:
                self._of[value] = f"%{self._next}"
                self._next += 1
                continue
            self._taken.add(name)
            self._of[value] = f"%{name}" if _PLAIN.match(name) else f"%{quote(name)}"

    def __getitem__(self, value: Value | None) -> str:
        return "_" if value is None else self._of.get(value, "%?undefined")


class _Printer:
    """Lines of one module."""

    def __init__(self, names: Names, table: ResourceTable, locations: bool) -> None:
        self.names, self.table, self.locations = names, table, locations
        self.lines: list[str] = []

    def module(self, module: Module) -> str:
        """The whole text."""
        args = ", ".join(f"{self.names[a]}: {a.type}" for a in module.args)
        outputs = ", ".join(map(quote, module.outputs))
        attrs = f" {print_attr(module.attrs, self.table)}" if module.attrs else ""
        self.lines.append(f"module {quote(module.name)}({args}) -> ({outputs}){attrs} {{")
        self.block(module.body, "  ")
        self.lines.append("}")
        return "\n".join(self.lines) + "\n"

    def block(self, block: Block, indent: str) -> None:
        """The ops of a block, one a line."""
        for op in block.ops:
            self.lines.append(indent + self.head(op))
            for region in op.regions:
                args = ", ".join(f"{self.names[a]}: {a.type}" for a in region.args)
                self.lines[-1] += f" {{ ^({args}):"
                self.block(region, indent + "  ")
                self.lines.append(indent + "}")
            self.lines[-1] += self.tail(op)

    def head(self, op: Op) -> str:
        """Results, name, operands, attributes."""
        text = ", ".join(self.names[v] for v in op.results)
        text = f"{text} = {op.name}" if text else op.name
        text += f"({', '.join(self.names[v] for v in op.operands)})"
        return f"{text} {print_attr(op.attrs, self.table)}" if op.attrs else text

    def tail(self, op: Op) -> str:
        """Result types and location."""
        text = f" : {print_types([v.type for v in op.results])}" if op.results else ""
        if self.locations and (op.loc.node or op.loc.module_path):
            path = f" {quote(op.loc.module_path)}" if op.loc.module_path else ""
            text += f" loc({quote(op.loc.node)}{path})"
        return text


def print_types(types: list[Type]) -> str:
    """One type, or several in parentheses."""
    return str(types[0]) if len(types) == 1 else f"({', '.join(map(str, types))})"


def print_op(op: Op) -> str:
    """One op on one line, with values numbered as they come; for messages."""
    block = Block()
    names = Names(Module("", block))
    names.add(*[v for v in (*op.operands, *op.results) if v is not None])
    printer = _Printer(names, ResourceTable(), False)
    return printer.head(op) + printer.tail(op)


def quote(text: str) -> str:
    """A string literal."""
    return json.dumps(text)


def _key(key: str) -> str:
    return key if _KEY.match(key) and key not in ("true", "false") else quote(key)


def print_attr(value: Any, table: ResourceTable | None = None) -> str:
    """One attribute value."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (int, str)):
        return quote(value) if isinstance(value, str) else str(value)
    if isinstance(value, float):
        return print_float(value)
    if is_sequence(value):
        return "[" + ", ".join(print_attr(v, table) for v in value) + "]"
    if is_mapping(value):
        return "{" + ", ".join(f"{_key(k)} = {print_attr(v, table)}" for k, v in value.items()) + "}"
    if isinstance(value, Resource):
        return print_resource(value, table)
    raise TypeError(f"an attribute holds a {type(value).__name__}")


def print_float(value: float) -> str:
    """Shortest text that reads back to the same f64."""
    if math.isnan(value):
        return "nan"
    if math.isinf(value):
        return "inf" if value > 0 else "-inf"
    return repr(value)


def print_resource(value: Resource, table: ResourceTable | None = None) -> str:
    """`resource<"name">`, the values of a small array, or `absent<type, "name">` where there are no values."""
    dims = "x".join([*map(str, value.shape), value.dtype])
    if value.absent:
        return f"absent<{dims}, {quote(value.name)}>"
    if value.size > INLINE:
        return f"resource<{quote(table.name_of(value) if table else value.name)}>"
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
