"""A model exported without weights: its external tensors have shapes and no values, its other constants are whole."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from focusc.driver.compiler import FRONT
from focusc.frontend import import_onnx
from focusc.ir import Module, PassManager, Resource
from focusc.ir.diagnostics import CompileError


def write(folder: Path, absent: bool) -> Path:
    """y = (x @ w) * s, where w is external and its file a hole."""
    weight = TensorProto(name="w", data_type=TensorProto.FLOAT, dims=[3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", "m.onnx.data"), ("offset", "0"), ("length", "48")):
        weight.external_data.add(key=key, value=value)
    nodes = [helper.make_node("MatMul", ["x", "w"], ["p"], name="product"),
             helper.make_node("Mul", ["p", "s"], ["y"], name="scale")]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])
    y = helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])
    scale = numpy_helper.from_array(np.full(4, 2, np.float32), "s")
    model = helper.make_model(helper.make_graph([*nodes], "g", [x], [y], [weight, scale]),
                              opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    if absent:
        helper.set_model_props(model, {"focusc.weights": "absent"})
    with open(folder / "m.onnx.data", "wb") as file:
        file.truncate(48)
    onnx.save(model, folder / "m.onnx")
    return folder / "m.onnx"


def constants(module: Module) -> dict[str, Resource]:
    return {op.attrs["value"].name: op.attrs["value"] for op in module.walk() if op.name == "tensor.constant"}


def test_external_tensors_are_absent_when_the_file_says_so(tmp_path: Path) -> None:
    found = constants(import_onnx(write(tmp_path, absent=True)))
    assert found["w"].absent and found["w"].shape == (3, 4) and found["w"].dtype == "f32"
    with pytest.raises(CompileError, match="has a shape and no values"):
        _ = found["w"].array
    assert not found["s"].absent
    np.testing.assert_array_equal(found["s"].array, np.full(4, 2))


def test_a_hole_is_zeros_otherwise(tmp_path: Path) -> None:
    found = constants(import_onnx(write(tmp_path, absent=False)))
    assert not found["w"].absent
    np.testing.assert_array_equal(found["w"].array, np.zeros((3, 4)))


def test_a_model_without_weights_takes_the_same_form(tmp_path: Path) -> None:
    """Biases, norms and transposed weights are fused and folded though their values are absent."""
    rng = np.random.default_rng(0)
    weights = {"w": (4, 3), "bias": (4,), "g": (3,), "conv": (4, 1, 2, 2), "shift": (4,)}
    nodes = [helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]),
             helper.make_node("LayerNormalization", ["x", "g", "g"], ["n"], axis=-1),
             helper.make_node("MatMul", ["n", "t"], ["p"]), helper.make_node("Add", ["p", "bias"], ["y"]),
             helper.make_node("Conv", ["image", "conv", "shift"], ["z"], strides=[2, 2])]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3]),
              helper.make_tensor_value_info("image", TensorProto.FLOAT, [1, 1, 4, 4])]
    outputs = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4]),
               helper.make_tensor_value_info("z", TensorProto.FLOAT, [1, 4, 2, 2])]
    tensors = [numpy_helper.from_array(rng.standard_normal(shape).astype(np.float32), name)
               for name, shape in weights.items()]
    model = helper.make_model(helper.make_graph(nodes, "g", inputs, outputs, tensors),
                              opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    forms: list[list[tuple[str, str]]] = []
    for absent in (False, True):
        if absent:
            helper.set_model_props(model, {"focusc.weights": "absent"})
        path = tmp_path / f"{absent}.onnx"
        onnx.save(model, path, save_as_external_data=True, location=f"{absent}.data", size_threshold=0)
        module = PassManager(FRONT).run(import_onnx(path))
        assert any(r.absent for r in constants(module).values()) is absent
        forms.append([(op.name, str([v.type for v in op.results])) for op in module.walk()])
    assert sorted(forms[0]) == sorted(forms[1])
    assert {"nn.linear", "nn.layer_norm", "nn.patch_embed"} <= {name for name, _ in forms[1]}
    assert "tensor.transpose" not in [name for name, kind in forms[1] if kind.endswith("(3, 4), dtype='f32')]")]
