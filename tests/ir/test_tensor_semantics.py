"""The tensor dialect against ONNX: every example runs as a single-node ONNX model in onnxruntime."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from focusc.ir import OPS

# op -> ONNX operator; attributes that ONNX takes as inputs are moved by the builders below
SAME = {
    "add": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max", "min": "Min", "pow": "Pow", "neg": "Neg",
    "abs": "Abs", "sign": "Sign", "sqrt": "Sqrt", "reciprocal": "Reciprocal", "exp": "Exp", "log": "Log",
    "sigmoid": "Sigmoid", "tanh": "Tanh", "erf": "Erf", "cos": "Cos", "sin": "Sin", "floor": "Floor", "ceil": "Ceil",
    "round": "Round", "equal": "Equal", "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less",
    "less_equal": "LessOrEqual", "and": "And", "or": "Or", "xor": "Xor", "not": "Not", "isnan": "IsNaN",
    "where": "Where", "matmul": "MatMul", "transpose": "Transpose", "softmax": "Softmax", "gather": "Gather",
    "gather_elements": "GatherElements", "gather_nd": "GatherND", "scatter_nd": "ScatterND", "concat": "Concat",
    "gelu": "Gelu", "argmax": "ArgMax", "conv": "Conv", "mod": "Mod", "trilu": "Trilu",
    "bitwise_and": "BitwiseAnd", "bitwise_or": "BitwiseOr", "bitwise_xor": "BitwiseXor", "bitwise_not": "BitwiseNot",
}  # fmt: skip
AS_INPUTS = {
    "reshape": ("Reshape", ("shape",)), "expand": ("Expand", ("shape",)), "tile": ("Tile", ("repeats",)),
    "reduce_sum": ("ReduceSum", ("axes",)), "reduce_mean": ("ReduceMean", ("axes",)),
    "reduce_max": ("ReduceMax", ("axes",)), "reduce_min": ("ReduceMin", ("axes",)),
    "reduce_prod": ("ReduceProd", ("axes",)),
}  # fmt: skip
RENAMED = {"kernel": "kernel_shape"}
TO = {"i64": TensorProto.INT64, "f16": TensorProto.FLOAT16, "bool": TensorProto.BOOL}


def ints(values: Any) -> np.ndarray:
    return np.array(values, np.int64)


def node_of(kind: str, attrs: dict[str, Any]) -> tuple[str, Sequence[np.ndarray | None], dict[str, Any]]:
    """ONNX operator, extra inputs, attributes."""
    attrs = {k: v for k, v in attrs.items() if v is not None}
    extra: Sequence[np.ndarray | None]
    if kind in AS_INPUTS:
        operator, keys = AS_INPUTS[kind]
        extra = [ints(attrs.pop(k)) if k in attrs else None for k in keys]
    elif kind == "slice":
        count = len(attrs["starts"])
        operator = "Slice"
        extra = [ints(attrs["starts"]), ints(attrs["ends"]), ints(attrs.get("axes", range(count))),
                 ints(attrs.get("steps", [1] * count))]  # fmt: skip
        attrs = {}
    elif kind == "pad":
        operator, extra = "Pad", [ints(attrs["pads"]), np.array(attrs.get("value", 0), np.float32)]
        attrs = {"mode": attrs.get("mode", "constant")}
    elif kind == "range":
        dtype = {"f32": np.float32}.get(attrs.get("dtype", "i64"), np.int64)
        operator, extra = "Range", [np.array(attrs.get(k, 1), dtype) for k in ("start", "limit", "delta")]
        attrs = {}
    elif kind == "cumsum":
        operator, extra = "CumSum", [ints(attrs.pop("axis"))]
    elif kind == "top_k":
        operator, extra = "TopK", [ints([attrs.pop("k")])]
    elif kind == "trilu":
        operator, extra = "Trilu", [ints(attrs.pop("k", 0))]
    elif kind == "cast":
        operator, extra, attrs = "Cast", [], {"to": TO[attrs["to"]]}
    elif kind in ("average_pool", "max_pool"):
        operator, extra = {"average_pool": "AveragePool", "max_pool": "MaxPool"}[kind], []
    elif kind == "constant":
        operator, extra, attrs = "Constant", [], {"value": numpy_helper.from_array(attrs["value"].array)}
    else:
        operator, extra = SAME[kind], []
    if kind == "gather":
        attrs.setdefault("axis", 0)
    attrs = {RENAMED.get(k, k): int(v) if isinstance(v, bool) else v for k, v in attrs.items()}
    return operator, extra, attrs


def run_onnx(operator: str, inputs: list[np.ndarray | None], attrs: dict[str, Any], count: int = 1) -> list[np.ndarray]:
    names = ["" if v is None else f"x{i}" for i, v in enumerate(inputs)]
    while names and not names[-1]:
        names.pop()
    outputs = [f"y{i}" for i in range(count)]
    node = helper.make_node(operator, names, outputs, **attrs)
    infos = [
        helper.make_tensor_value_info(n, helper.np_dtype_to_tensor_dtype(v.dtype), v.shape)
        for n, v in zip(names, inputs, strict=False)
        if v is not None
    ]
    graph = helper.make_graph([node], "one", infos, [onnx.ValueInfoProto(name=name) for name in outputs])
    opset = 28 if operator == "Mod" else 20  # Mod of floats without fmod is new in 28
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9)
    model = onnx.shape_inference.infer_shapes(model)
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    given = {n: v for n, v in zip(names, inputs, strict=False) if v is not None}
    return [np.asarray(v) for v in session.run(None, given)]


def keywords(name: str, attrs: dict[str, Any]) -> dict[str, Any]:
    """All attributes as `evaluate` takes them."""
    full = OPS[name].complete(attrs)
    return {key: full.get(key) for key in OPS[name].spec.attrs}


CASES = [
    pytest.param(name, i, id=f"{name}-{i}")
    for name in sorted(OPS)
    if name.startswith("tensor.")
    for i in range(len(OPS[name].examples()))
]


@pytest.mark.parametrize(("name", "index"), CASES)
def test_example_agrees_with_onnxruntime(name: str, index: int) -> None:
    operands, attrs = OPS[name].examples()[index]
    operator, extra, onnx_attrs = node_of(name.removeprefix("tensor."), attrs)
    with np.errstate(all="ignore"):
        results = OPS[name].evaluate(*operands, **keywords(name, attrs))
    results = results if isinstance(results, tuple) else (results,)
    half = [o for o in operands if o is not None and o.dtype == np.float16]
    if half and name != "tensor.cast":  # onnxruntime has few f16 kernels on the CPU: compare with f32
        operands = [o.astype(np.float32) if o is not None and o.dtype == np.float16 else o for o in operands]
        outputs = [v.astype(np.float16) for v in run_onnx(operator, [*operands, *extra], onnx_attrs, len(results))]
    else:
        outputs = run_onnx(operator, [*operands, *extra], onnx_attrs, len(results))
    for found, expected in zip(results, outputs, strict=True):
        assert found.dtype == expected.dtype
        assert found.shape == expected.shape
        if np.issubdtype(expected.dtype, np.floating):
            tolerance = 2e-3 if half else 2e-6
            np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)
        else:
            np.testing.assert_array_equal(found, expected)


def test_every_tensor_op_is_compared() -> None:
    special = {"top_k", "slice", "pad", "range", "cumsum", "cast", "average_pool", "max_pool", "constant"}
    kinds = {n.removeprefix("tensor.") for n in OPS if n.startswith("tensor.")}
    assert kinds == {*SAME, *AS_INPUTS, *special}
