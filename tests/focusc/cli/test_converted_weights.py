"""Models in float64, float16 and bfloat16 from the file to the emulator's outputs: converted, and said so."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, external_data_helper, helper

from .conftest import Cli

X = np.random.default_rng(3).standard_normal((4, 32)).astype(np.float32)
W = np.random.default_rng(4).standard_normal((32, 64)).astype(np.float32)


@pytest.mark.parametrize("outside", [False, True], ids=["inline", "external"])
@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16])
def test_a_model_in_another_float_type(cli: Cli, kind: int, outside: bool) -> None:
    name = TensorProto.DataType.Name(kind).lower()
    bare = helper.make_tensor("w", kind, W.shape, W.reshape(-1))
    weight = onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(bare), "w")  # as raw bytes, which may be outside
    stored = onnx.numpy_helper.to_array(weight).astype(np.float32)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["product"]), helper.make_node("Sigmoid", ["product"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "m",
        [helper.make_tensor_value_info("x", kind, X.shape)],
        [helper.make_tensor_value_info("y", kind, [len(X), W.shape[1]])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    if outside:
        external_data_helper.convert_model_to_external_data(model, location="m.data", size_threshold=0)
    onnx.save(model, "m.onnx")
    assert Path("m.data").exists() == outside

    report = cli("ops", "m.onnx", "--json")
    assert report.status == 0, str(report)
    assert json.loads(report.out)["notes"] == [
        f"1 tensor is converted from {name} to f32: w",
        f"input x: {name} is taken as f32",
    ]
    assert f"note: 1 tensor is converted from {name} to f32: w" in cli("ops", "m.onnx").out
    compiled = cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none")
    assert compiled.status == 0, str(compiled)
    np.savez("in.npz", x=X)
    assert cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz").status == 0
    with np.load("out.npz") as outputs:
        np.testing.assert_allclose(outputs["y"], 1 / (1 + np.exp(-(X @ stored))), atol=2e-3)


def test_compare_takes_samples_of_a_float64_model(cli: Cli) -> None:
    """onnxruntime wants the model's own type, the emulator float32: samples in either are good for both."""
    weight = onnx.numpy_helper.from_array(W.astype(np.float64), "w")
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "m",
        [helper.make_tensor_value_info("x", TensorProto.DOUBLE, X.shape)],
        [helper.make_tensor_value_info("y", TensorProto.DOUBLE, [len(X), W.shape[1]])],
        [weight],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), "m.onnx")
    for dtype in (np.float64, np.float32):
        np.savez("s.npz", x=np.stack([X, -X]).astype(dtype))
        found = cli("compare", "m.onnx", "--methods", "none", "--inputs", "s.npz", "--json")
        assert found.status == 0, str(found)
        assert json.loads(found.out)["rows"][1]["agreement"] == 1.0
