"""What import keeps: weights in place, conversions noted, unused inputs dropped, locations, layouts from the caller."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from focusc.frontend import import_onnx, op_report
from focusc.ir import CompileError, Module, Resource, interpret
from tests.focusc.frontend.test_errors import F32, X, Y, external, laid_out, model, tensor


def constants(module: Module) -> dict[str, Resource]:
    return {op.attrs["value"].name: op.attrs["value"] for op in module.walk() if op.name == "tensor.constant"}


def test_external_weights_stay_in_the_mapped_file(tmp_path: Path) -> None:
    external("weights.bin", 64)(tmp_path / "model.onnx")
    weight = constants(import_onnx(tmp_path / "model.onnx"))["w"]
    base: object = weight.array
    while isinstance(base, np.ndarray) and not isinstance(base, np.memmap):
        base = base.base
    assert isinstance(base, np.memmap) and base.mode == "r"


@pytest.mark.parametrize("kind", [TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16])
@pytest.mark.parametrize("outside", [False, True], ids=["inline", "external"])
def test_other_floats_become_f32_and_are_noted(kind: int, outside: bool, tmp_path: Path) -> None:
    values = [1.0, -2.5, 0.375, 1000.0]
    made = model([helper.make_node("Cast", ["w"], ["c"], to=F32), helper.make_node("Add", ["c", "x"], ["y"])],
                 [tensor("x", [4])], [tensor("y", [4])])
    made.graph.initializer.append(helper.make_tensor("w", kind, [4], values))
    path = tmp_path / "model.onnx"
    onnx.save(made, str(path), save_as_external_data=outside, size_threshold=0, location="w.bin")
    module = import_onnx(path)
    weight = constants(module)["w"]
    assert weight.dtype == "f32" and weight.array.tolist() == values
    assert module.attrs["notes"] == (f"1 tensor is converted from {TensorProto.DataType.Name(kind).lower()} to f32: w",)
    assert interpret(module, {"x": np.zeros(4, np.float32)})["y"].tolist() == values


def test_unused_inputs_are_dropped_and_noted(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model([helper.make_node("Relu", ["x"], ["y"])], [X, tensor("mask", [7])], [Y]), str(path))
    module = import_onnx(path)
    assert [a.name for a in module.args] == ["x"]
    assert module.attrs["notes"] == ("input mask is not used and was dropped",)
    assert op_report(path).notes == ("input mask is not used and was dropped",)
    assert module.attrs["unused_inputs"] == ("mask",)


def test_inputs_without_influence_are_dropped_and_noted(tmp_path: Path) -> None:
    """Only the shape of `ids` is read; `mask` goes through nodes whose results nobody needs."""
    nodes = [helper.make_node("Shape", ["ids"], ["s"]), helper.make_node("Expand", ["x", "s"], ["y"]),
             helper.make_node("Cast", ["mask"], ["m"], to=F32), helper.make_node("Sub", ["x", "m"], ["unread"])]
    path = tmp_path / "model.onnx"
    onnx.save(model(nodes, [tensor("mask", [2, 4], TensorProto.INT64), tensor("ids", [2, 4], TensorProto.INT64), X],
                    [Y]), str(path))
    module = import_onnx(path)
    assert [(a.name, a.index) for a in module.args] == [("x", 0)]
    assert module.attrs["notes"] == ("input mask has no influence on any output and was dropped",
                                     "input ids has no influence on any output and was dropped")
    x = np.ones((2, 4), np.float32)
    assert np.array_equal(interpret(module, {"x": x})["y"], x)


def test_layout_given_by_the_caller_wins_over_metadata(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    laid_out(visual="1,8", grid="2,2,2", query="3")(path)
    assert import_onnx(path).attrs["layout"]["visual"] == (1, 8)
    given = import_onnx(path, {"visual": (2, 8), "grid": (2, 2, 2), "query": 2})
    assert given.attrs["layout"] == {"visual": (2, 8), "grid": (2, 2, 2), "strides": (4, 2, 1), "query": 2}
    with pytest.raises(CompileError, match=r"layout\.visual"):
        import_onnx(path, {"visual": (8, 8), "grid": (2, 2, 2), "query": 2})


def test_module_path_comes_from_the_scopes_that_torch_recorded(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="relu_7")
    node.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="['', 'layers.3', 'layers.3.act', 'relu_7']")
    broken = helper.make_node("Abs", ["x"], ["z"], name="abs")
    broken.metadata_props.add(key="pkg.torch.onnx.name_scopes", value="__import__('os').getcwd()")
    path = tmp_path / "model.onnx"
    onnx.save(model([node, broken], [X], [Y, tensor("z", [2, 4])]), str(path))
    found = {op.loc.node: op.loc.module_path for op in import_onnx(path).walk()}
    assert found["relu_7"] == "layers.3.act" and found["abs"] == ""


def test_local_functions_are_inlined(tmp_path: Path) -> None:
    body = helper.make_function("local", "twice", ["a"], ["b"], [helper.make_node("Add", ["a", "a"], ["b"])],
                                [helper.make_opsetid("", 20)])
    made = model([helper.make_node("twice", ["x"], ["y"], domain="local")], [X], [Y], domains=("local",))
    made.functions.append(body)
    path = tmp_path / "model.onnx"
    onnx.save(made, str(path))
    assert interpret(import_onnx(path), {"x": np.ones((2, 4), np.float32)})["y"].tolist() == [[2.0] * 4] * 2


@pytest.mark.parametrize("keep", [0, 1])
def test_log_sum_exp_of_large_numbers(keep: int, tmp_path: Path) -> None:
    """From the maximum, as the exponential of 200 is beyond f32; a row of -infinity stays one."""
    path = tmp_path / "model.onnx"
    axes = helper.make_tensor("a", TensorProto.INT64, [1], [1])
    made = model([helper.make_node("ReduceLogSumExp", ["x", "a"], ["y"], keepdims=keep)], [tensor("x", [3, 4])],
                 [tensor("y", [3, 1] if keep else [3])])
    made.graph.initializer.append(axes)
    onnx.save(made, str(path))
    x = np.array([[200, 201, 199, 0], [-300, -300, -300, -300], [-np.inf] * 4], np.float32)
    with np.errstate(divide="ignore"):
        found = interpret(import_onnx(path), {"x": x})["y"]
    assert found.shape == ((3, 1) if keep else (3,))
    np.testing.assert_allclose(found.reshape(3), np.logaddexp.reduce(x.astype(np.float64), axis=1), rtol=1e-6)
