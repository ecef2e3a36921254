"""One ONNX node as an import rule sees it: typed access to inputs and attributes, and short forms to emit ops."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx

from focusc.frontend.errors import Unsupported
from focusc.frontend.notes import Notes
from focusc.frontend.weights import ExternalFiles, resource
from focusc.ir import Builder, Resource, TensorType, Value
from focusc.ir.matching import known_array

CONSTANT_HINT = "export with static shapes, so that this value is computed from constants only"


class Node:
    """The node being imported. Rules read it and return the values of its outputs."""

    def __init__(self, proto: onnx.NodeProto, inputs: list[Value | None], opset: int, builder: Builder,
                 files: ExternalFiles, notes: Notes, memo: dict[Value, bool]) -> None:
        self.proto, self.inputs, self.opset, self.builder = proto, inputs, opset, builder
        self._files, self._notes, self._memo = files, notes, memo
        self._attrs = {a.name: a for a in proto.attribute}

    # ---- reading

    @property
    def op_type(self) -> str:
        """The operator's name."""
        return self.proto.op_type

    @property
    def wanted(self) -> tuple[bool, ...]:
        """For each output of the node, whether it has a name (an unnamed one is not needed)."""
        return tuple(bool(name) for name in self.proto.output)

    def wants(self, index: int) -> bool:
        """True if output `index` is named."""
        return index < len(self.wanted) and self.wanted[index]

    def has(self, index: int) -> bool:
        """True if input `index` is given."""
        return index < len(self.inputs) and self.inputs[index] is not None

    def x(self, index: int = 0) -> Value:
        """Input `index`, which must be given."""
        value = self.inputs[index] if index < len(self.inputs) else None
        if value is None:
            raise Unsupported(f"input {index} to be given", "an absent input")
        return value

    def get(self, index: int) -> Value | None:
        """Input `index`, or None."""
        return self.inputs[index] if self.has(index) else None

    def known(self, index: int) -> np.ndarray | None:
        """The value of an input that depends on constants only, else None."""
        value = self.get(index)
        return None if value is None else known_array(value, memo=self._memo)

    def const(self, index: int, what: str) -> np.ndarray:
        """The value of an input that must be known when compiling; `what` names it in the message."""
        value = known_array(self.x(index), memo=self._memo)
        if value is None:
            raise Unsupported(f"{what} (input {index}, {self.proto.input[index]!r}) known when compiling",
                              "a value computed from the graph's inputs", hint=CONSTANT_HINT, code="onnx.dynamic-value")
        return value

    def ints(self, index: int, what: str) -> list[int]:
        """`const` as a flat list of ints."""
        return [int(v) for v in self.const(index, what).reshape(-1)]

    def attr(self, name: str, default: Any = None) -> Any:
        """An attribute as a Python value (str for bytes), or the default."""
        found = self._attrs.get(name)
        if found is None:
            return default
        value = onnx.helper.get_attribute_value(found)
        if isinstance(value, bytes):
            return value.decode("utf-8", "replace")
        return list(value) if found.type in (found.INTS, found.FLOATS, found.STRINGS) else value

    def tensor_attr(self, name: str) -> Resource:
        """A tensor attribute as a resource."""
        found = self._attrs[name].t
        return resource(found, self._files, self._notes)

    def attribute_names(self) -> set[str]:
        """Names of the attributes that the node sets."""
        return set(self._attrs)

    def check(self, holds: bool, constraint: str, found: object, *, hint: str = "") -> None:
        """Refuse the node unless the constraint holds."""
        if not holds:
            raise Unsupported(constraint, str(found), hint=hint)

    def axis(self, value: int, rank: int) -> int:
        """An axis counted from the front."""
        self.check(-rank <= value < max(rank, 1), f"an axis of a rank {rank} tensor", f"axis {value}")
        return value % rank if rank else 0

    def note(self, text: str) -> None:
        """Tell the user what was done differently from the file."""
        self._notes.add(f"{self.proto.name or self.op_type}: {text}")

    # ---- emitting

    def emit(self, op: str, *operands: Value | None, **attrs: Any) -> Value:
        """One op with one result, at this node's location."""
        return self.builder.emit(op, *operands, **attrs)

    def constant(self, array: np.ndarray | Sequence[Any] | float | int, dtype: str | None = None) -> Value:
        """A constant op."""
        values = np.asarray(array)
        if dtype is not None:
            values = values.astype(DTYPE[dtype])
        return self.builder.constant(values)

    def scalar(self, value: float | int, like: Value) -> Value:
        """A scalar constant of the element type of `like`."""
        return self.constant(value, dtype(like))

    def add(self, a: Value, b: Value) -> Value:
        """a + b, broadcast."""
        return self.emit("tensor.add", a, b)

    def sub(self, a: Value, b: Value) -> Value:
        """a - b, broadcast."""
        return self.emit("tensor.sub", a, b)

    def mul(self, a: Value, b: Value) -> Value:
        """a * b, broadcast."""
        return self.emit("tensor.mul", a, b)

    def div(self, a: Value, b: Value) -> Value:
        """a / b, broadcast."""
        return self.emit("tensor.div", a, b)

    def reshape(self, x: Value, dims: Sequence[int]) -> Value:
        """x with another shape of the same size; no op if it already has it."""
        if shape(x) == tuple(dims):
            return x
        self.check(math.prod(dims) == math.prod(shape(x)), f"a shape of {math.prod(shape(x))} elements",
                   f"shape {list(dims)}")
        return self.emit("tensor.reshape", x, shape=tuple(dims))

    def transpose(self, x: Value, perm: Sequence[int]) -> Value:
        """x with its axes permuted; no op for the identity."""
        return x if tuple(perm) == tuple(range(rank(x))) else self.emit("tensor.transpose", x, perm=tuple(perm))

    def cast(self, x: Value, to: str) -> Value:
        """x converted; no op if it has the type already."""
        return x if dtype(x) == to else self.emit("tensor.cast", x, to=to)

    def slice(self, x: Value, axis: int, start: int, end: int) -> Value:
        """x[start:end] along one axis; no op for the whole."""
        if start == 0 and end == shape(x)[axis]:
            return x
        return self.emit("tensor.slice", x, starts=(start,), ends=(end,), axes=(axis,), steps=(1,))

    def concat(self, parts: Sequence[Value], axis: int) -> Value:
        """The parts one after the other along an axis."""
        return parts[0] if len(parts) == 1 else self.emit("tensor.concat", *parts, axis=axis)

    def expand(self, x: Value, dims: Sequence[int]) -> Value:
        """x broadcast to a shape; no op if it has it."""
        return x if shape(x) == tuple(dims) else self.emit("tensor.expand", x, shape=tuple(dims))


DTYPE: dict[str, np.dtype] = {
    "f32": np.dtype(np.float32), "i64": np.dtype(np.int64), "i32": np.dtype(np.int32), "i16": np.dtype(np.int16),
    "i8": np.dtype(np.int8), "u16": np.dtype(np.uint16), "u8": np.dtype(np.uint8), "bool": np.dtype(np.bool_)}
"""numpy type of each element type that an imported value can have."""


def shape(value: Value) -> tuple[int, ...]:
    """Static shape of a tensor value."""
    assert isinstance(value.type, TensorType)
    return value.type.shape


def rank(value: Value) -> int:
    """Number of axes of a tensor value."""
    return len(shape(value))


def dtype(value: Value) -> str:
    """Element type of a tensor value, as the IR names it."""
    assert isinstance(value.type, TensorType)
    return value.type.dtype
