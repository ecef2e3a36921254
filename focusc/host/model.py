"""The ONNX model of a host call."""

from __future__ import annotations

import onnx
from onnx import helper

from focusc.host import nn_rules, tensor_rules, window_rules  # noqa: F401  # pyright: ignore[reportUnusedImport]  # the rules
from focusc.host.graph import ELEMENTS, OPSET, Graph, write
from focusc.ir import Op, TensorType, Value

LARGEST = (1 << 31) - 1
"""Bytes that a serialised protobuf message can have."""


def segment_model(call: Op) -> bytes:
    """The body of a `host.call` as a serialised ONNX model: inputs x0, x1 ... of the arguments, outputs y0, y1 ...

    Equal bodies give equal bytes. Raises CompileError `resource.absent` for a constant without values and `host.size`
    for more than 2 GiB.
    """
    from focusc.ir.diagnostics import fail

    body = call.regions[0]
    graph = Graph()
    names: dict[Value, str] = {arg: f"x{i}" for i, arg in enumerate(body.args)}
    end = body.terminator
    assert end is not None
    for op in body.ops:
        if op is not end:
            made = write(graph, op, [names[v] if v is not None else None for v in op.operands])
            names.update(zip(op.results, made, strict=True))
    for i, value in enumerate(end.operands):
        assert value is not None
        graph.nodes.append(helper.make_node("Identity", [names[value]], [f"y{i}"], name=f"y{i}"))
    inputs = [_info(f"x{i}", arg) for i, arg in enumerate(body.args)]
    outputs = [_info(f"y{i}", value) for i, value in enumerate(end.operands) if value is not None]
    made = helper.make_graph(graph.nodes, "host", inputs, outputs, graph.constants)
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=9)
    size = model.ByteSize()
    if size > LARGEST:
        raise fail(
            "host.size",
            f"the part that the host runs has {size} bytes, expected at most {LARGEST}: its weights belong to ops that "
            "the target refuses",
            call.loc,
            hint="`focusc ops` says which and why",
        )
    return model.SerializeToString(deterministic=True)


def _info(name: str, value: Value) -> onnx.ValueInfoProto:
    assert isinstance(value.type, TensorType)
    return helper.make_tensor_value_info(name, ELEMENTS[value.type.dtype], value.type.shape)
