"""An ONNX graph under construction, and the table of rules that write IR ops into it."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from focusc.ir import DTYPES, Op, TensorType

OPSET = 20
ELEMENTS = {
    "f64": TensorProto.DOUBLE,
    "f32": TensorProto.FLOAT,
    "f16": TensorProto.FLOAT16,
    "i64": TensorProto.INT64,
    "i32": TensorProto.INT32,
    "i16": TensorProto.INT16,
    "i8": TensorProto.INT8,
    "u16": TensorProto.UINT16,
    "u8": TensorProto.UINT8,
    "bool": TensorProto.BOOL,
}
"""ONNX element type of each IR element type."""
WIDER = {"f16": "f32", "i16": "i32", "i8": "i32", "u16": "i32", "u8": "i32"}
"""What narrow types are computed in: onnxruntime has kernels for few operators of these, and the IR computes f16 in f32
too. The result is converted back."""


@dataclass
class Graph:
    """Nodes and constants so far; values are known by their names."""

    nodes: list[onnx.NodeProto] = field(default_factory=list[onnx.NodeProto])
    constants: list[onnx.TensorProto] = field(default_factory=list[onnx.TensorProto])
    made: int = 0

    def name(self) -> str:
        """A name for a new value."""
        self.made += 1
        return f"v{self.made}"

    def outputs(self, kind: str, inputs: Sequence[str], count: int, **attributes: Any) -> list[str]:
        """Add a node with `count` outputs; "" is an input left out. Returns the names of the outputs."""
        names = [self.name() for _ in range(count)]
        given = {key: value for key, value in attributes.items() if value is not None}
        self.nodes.append(helper.make_node(kind, list(inputs), names, name=f"n{len(self.nodes)}", **given))
        return names

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """Add a node with one output and return its name. Attributes that are None are left out."""
        return self.outputs(kind, inputs, 1, **attributes)[0]

    def constant(self, value: Any, dtype: str) -> str:
        """Add a constant and return its name."""
        name = self.name()
        array = np.ascontiguousarray(np.asarray(value, DTYPES[dtype]))
        self.constants.append(numpy_helper.from_array(array.reshape(np.shape(value)), name))
        return name

    def ints(self, values: Sequence[int]) -> str:
        """A constant list of i64, as axes, shapes and pads are given."""
        return self.constant(np.asarray(values, np.int64).reshape(-1), "i64")

    def cast(self, x: str, to: str) -> str:
        """x in another element type."""
        return self.add("Cast", x, to=ELEMENTS[to])


@dataclass
class Site:
    """One op being written: its operands by name (None if absent), in `dtype` if they were of a narrower type."""

    graph: Graph
    op: Op
    inputs: list[str | None]

    def type(self, index: int) -> TensorType:
        """Type of an operand in the IR."""
        value = self.op.operands[index]
        assert value is not None and isinstance(value.type, TensorType)
        return value.type

    def shape(self, index: int) -> tuple[int, ...]:
        """Shape of an operand."""
        return self.type(index).shape

    def dtype(self, index: int) -> str:
        """Element type in which an operand is computed with."""
        found = self.type(index).dtype
        return WIDER.get(found, found)

    @property
    def result(self) -> TensorType:
        """Type of the first result."""
        type_ = self.op.results[0].type
        assert isinstance(type_, TensorType)
        return type_

    def add(self, kind: str, *inputs: str, **attributes: Any) -> str:
        """`Graph.add`."""
        return self.graph.add(kind, *inputs, **attributes)

    def scalar(self, value: float, like: int = 0) -> str:
        """A constant of the type of an operand."""
        return self.graph.constant(value, self.dtype(like))

    def reshape(self, x: str, shape: Sequence[int]) -> str:
        """x in a shape without a free extent."""
        return self.add("Reshape", x, self.graph.ints(shape), allowzero=int(not math.prod(shape)))


Rule = Callable[..., "str | list[str]"]
RULES: dict[str, Rule] = {}
"""By op name: (site, operands by name) to the results' names."""


def rule(*names: str) -> Callable[[Rule], Rule]:
    """Register how these ops are written; a second rule for an op is refused."""

    def register(function: Rule) -> Rule:
        for name in names:
            if name in RULES:
                raise TypeError(f"{name} has two rules")
            RULES[name] = function
        return function

    return register


def write(graph: Graph, op: Op, inputs: Sequence[str | None]) -> list[str]:
    """Write one op; returns the names of its results, which have the IR's types."""
    wide: list[str | None] = []
    for value, name in zip(op.operands, inputs, strict=True):
        dtype = value.type.dtype if value is not None and isinstance(value.type, TensorType) else ""
        narrow = name is not None and dtype in WIDER and op.name != "tensor.cast"
        wide.append(graph.cast(name, WIDER[dtype]) if narrow and name is not None else name)
    made = RULES[op.name](Site(graph, op, wide), *wide)
    names = [made] if isinstance(made, str) else made
    found: list[str] = []
    for value, name in zip(op.results, names, strict=True):
        dtype = value.type.dtype if isinstance(value.type, TensorType) else ""
        back = dtype in WIDER and op.name not in ("tensor.cast", "tensor.constant", "tensor.range")
        found.append(graph.cast(name, dtype) if back else name)
    return found
