"""Bad models, each with its message as a golden text; the message never depends on where the file lies."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from focusc.frontend import import_onnx, op_report
from focusc.ir import CompileError
from tests.golden_text import compare_golden

F32, I64 = TensorProto.FLOAT, TensorProto.INT64


def tensor(name: str, shape: list[int | str | None] | None, kind: int = F32) -> onnx.ValueInfoProto:
    return helper.make_tensor_value_info(name, kind, shape)


def model(nodes: list[onnx.NodeProto], inputs: list[onnx.ValueInfoProto], outputs: list[onnx.ValueInfoProto],
          weights: dict[str, np.ndarray] | None = None, *, opset: int = 20, metadata: dict[str, str] | None = None,
          domains: tuple[str, ...] = ()) -> onnx.ModelProto:
    for index, node in enumerate(nodes):
        node.name = node.name or f"node_{index}"
    graph = helper.make_graph(nodes, "bad", inputs, outputs, [numpy_helper.from_array(v, k) for k, v in
                                                             (weights or {}).items()])
    imports = [helper.make_opsetid("", opset), *(helper.make_opsetid(d, 1) for d in domains)]
    made = helper.make_model(graph, opset_imports=imports, ir_version=10)
    helper.set_model_props(made, metadata or {})
    return made


X, Y = tensor("x", [2, 4]), tensor("y", [2, 4])
RELU = helper.make_node("Relu", ["x"], ["y"])


def written(made: onnx.ModelProto) -> Callable[[Path], object]:
    return lambda path: onnx.save(made, str(path))


def external(location: str, size: int, *, length: str = "", offset: str = "0") -> Callable[[Path], object]:
    """x + w with w in another file of `size` bytes (none if it is 0)."""

    def write(path: Path) -> None:
        made = model([helper.make_node("Add", ["x", "w"], ["y"])], [X], [Y])
        weight = made.graph.initializer.add(name="w", data_type=F32, dims=[2, 4], data_location=TensorProto.EXTERNAL)
        for key, value in {"location": location, "offset": offset, "length": length or "32"}.items():
            weight.external_data.add(key=key, value=value)
        path.write_bytes(made.SerializeToString())
        if size:
            (path.parent / location).write_bytes(bytes(size))

    return write


def sparse() -> onnx.ModelProto:
    """A model with a weight given by one value and its index; shape inference refuses to use it."""
    made = model([RELU], [X], [Y])
    value, index = numpy_helper.from_array(np.ones(1, np.float32), "w"), numpy_helper.from_array(np.array([3]), "w_at")
    made.graph.sparse_initializer.append(helper.make_sparse_tensor(value, index, [2, 4]))
    return made


def iterated() -> onnx.ModelProto:
    """x, put through Relu three times."""
    body = helper.make_graph(
        [helper.make_node("Identity", ["go"], ["on"]), helper.make_node("Relu", ["v"], ["r"])], "body",
        [tensor("i", [], I64), tensor("go", [], TensorProto.BOOL), tensor("v", [2, 4])],
        [tensor("on", [], TensorProto.BOOL), tensor("r", [2, 4])])
    return model([helper.make_node("Loop", ["n", "", "x"], ["y"], body=body)], [X], [Y], {"n": np.array(3)})


def through_a_sequence() -> onnx.ModelProto:
    """x into a sequence and out of it again: no sequence at the graph's border."""
    nodes = [helper.make_node("SequenceConstruct", ["x"], ["s"]), helper.make_node("SequenceAt", ["s", "i"], ["y"])]
    return model(nodes, [X], [Y], {"i": np.array(0)})


def lying(data: bytes) -> Callable[[Path], object]:
    """x + w, where the file holds `data` as the 32 bytes of w."""
    made = model([helper.make_node("Add", ["x", "w"], ["y"])], [X], [Y])
    made.graph.initializer.add(name="w", data_type=F32, dims=[2, 4], raw_data=data)
    return lambda path: path.write_bytes(made.SerializeToString())


def strings() -> onnx.ModelProto:
    """A string weight that only Identity reads."""
    made = model([helper.make_node("Identity", ["w"], ["y"])], [], [tensor("y", [1], TensorProto.STRING)])
    made.graph.initializer.append(numpy_helper.from_array(np.array([b"text"], object), "w"))
    return made


def loop(op: str) -> onnx.ModelProto:
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["b"])], "branch", [], [tensor("b", [2, 4])])
    node = helper.make_node(op, ["c"], ["y"], then_branch=body, else_branch=body)
    return model([node], [tensor("c", [], TensorProto.BOOL), X], [Y])


SOFTMAX = helper.make_node("Softmax", ["x"], ["y"])


def laid_out(**facts: str) -> Callable[[Path], object]:
    return written(model([SOFTMAX], [tensor("x", [1, 2, 12, 12])], [tensor("y", [1, 2, 12, 12])],
                         metadata={f"focusc.{k}": v for k, v in facts.items()}))


CASES: dict[str, Callable[[Path], object]] = {
    "onnx.missing": lambda path: None,
    "onnx.read": lambda path: path.write_bytes(b"\xff\xfe not a model"),
    "onnx.opset-old": written(model([RELU], [X], [Y], opset=17)),
    "onnx.opset-new": written(model([RELU], [X], [Y], opset=29)),
    "onnx.opset-none": lambda path: path.write_bytes(b""),
    "onnx.checker": written(model([helper.make_node("Relu", ["nowhere"], ["y"])], [X], [Y])),
    "onnx.checker-shapes": written(model([helper.make_node("MatMul", ["x", "x"], ["y"])], [X], [Y])),
    "onnx.dynamic-shape": written(model([RELU], [tensor("x", ["batch", 4])], [tensor("y", ["batch", 4])])),
    "onnx.dynamic-shape-unknown": written(model([RELU], [tensor("x", [2, None])], [tensor("y", [2, None])])),
    "onnx.operator": written(model([helper.make_node("Det", ["x"], ["y"])], [tensor("x", [3, 3])], [tensor("y", [])])),
    "onnx.domain": written(model([helper.make_node("FusedThing", ["x"], ["y"], domain="com.vendor")], [X], [Y],
                                 domains=("com.vendor",))),
    "onnx.control-flow": written(loop("If")),
    "onnx.control-flow-loop": written(iterated()),
    "onnx.operator-sequence": written(through_a_sequence()),
    "onnx.dtype-string-weight": written(strings()),
    "onnx.checker-weight-short": lying(bytes(20)),
    "onnx.checker-weight-long": lying(bytes(40)),
    "onnx.read-cut": lambda path: path.write_bytes(model([RELU], [X], [Y]).SerializeToString()[:-20]),
    "onnx.input-kind-optional": written(model(
        [helper.make_node("OptionalGetElement", ["o"], ["y"])],
        [helper.make_value_info("o", helper.make_optional_type_proto(helper.make_tensor_type_proto(F32, [2, 4])))],
        [Y])),
    "onnx.input-kind": written(model([helper.make_node("SequenceAt", ["s", "i"], ["y"])], [
        helper.make_tensor_sequence_value_info("s", F32, [2, 4]), tensor("i", [], I64)], [Y])),
    "onnx.dtype": written(model([helper.make_node("Identity", ["x"], ["y"])], [tensor("x", [2], TensorProto.STRING)],
                                [tensor("y", [2], TensorProto.STRING)])),
    "onnx.dtype-weight": written(model([helper.make_node("Cast", ["w"], ["y"], to=F32)], [],
                                       [tensor("y", [2])], {"w": np.zeros(2, np.uint64)})),
    "onnx.name": written(model([RELU], [X], [Y, X])),
    "onnx.metadata": written(model([RELU], [X], [Y], metadata={"focusc.visul": "1,8"})),
    "onnx.metadata-unlike": written(model([RELU], [X], [Y], metadata={"focusc.quantisation": "int8"})),
    "onnx.sparse": written(sparse()),
    "onnx.dynamic-value": written(model([helper.make_node("Reshape", ["x", "s"], ["y"])], [X, tensor("s", [1], I64)],
                                        [tensor("y", [8])])),
    "onnx.data-dependent": written(model([helper.make_node("NonZero", ["x"], ["y"])], [X],
                                         [tensor("y", [2, None], I64)])),
    "onnx.unsupported": written(model([helper.make_node("Resize", ["x", "roi", "", "sizes"], ["y"], mode="linear",
                                                        coordinate_transformation_mode="tf_crop_and_resize")],
                                      [tensor("x", [1, 1, 4, 4])], [tensor("y", [1, 1, 2, 2])],
                                      {"sizes": np.array([1, 1, 2, 2]), "roi": np.zeros(8, np.float32)})),
    "onnx.external-missing": external("weights.bin", 0),
    "onnx.external-path": external("../weights.bin", 0),
    "onnx.external-path-absolute": external("/etc/hostname", 0),
    "onnx.external-path-through-a-folder": external("folder/../../weights.bin", 0),
    "onnx.external-data": external("weights.bin", 20),
    "onnx.external-data-offset": external("weights.bin", 40, offset="16"),
    "onnx.external-data-negative": external("weights.bin", 40, offset="-8"),
    "onnx.external-data-number": external("weights.bin", 32, offset="first"),
    "onnx.external-data-length": external("weights.bin", 32, length="16"),
    "layout.visual": laid_out(visual="6,8", grid="2,2,2", query="1"),
    "layout.type": laid_out(visual="six", grid="2,2,2", query="1"),
    "layout.grid": laid_out(visual="1,8", grid="2,2,3", query="3"),
    "layout.query": laid_out(visual="1,8", grid="2,2,2", query="9"),
    "layout.key": laid_out(visual="1,8", grid="2,2,2"),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    path = tmp_path / "model.onnx"
    CASES[name](path)
    with pytest.raises(CompileError) as caught:
        import_onnx(path)
    error = caught.value
    assert name.startswith(error.diagnostics[0].code)
    assert str(tmp_path) not in error.render()
    compare_golden(f"frontend/errors/{name}.txt", error.render() + "\n", request)


def test_symbolic_link_out_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere.bin").write_bytes(bytes(32))
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "weights.bin").symlink_to(tmp_path / "elsewhere.bin")
    external("weights.bin", 0)(tmp_path / "model" / "model.onnx")
    with pytest.raises(CompileError, match=r"onnx\.external-path"):
        import_onnx(tmp_path / "model" / "model.onnx")


def test_all_problems_are_reported_at_once_and_later_nodes_are_checked(tmp_path: Path) -> None:
    nodes = [helper.make_node("Det", ["x"], ["d"]), helper.make_node("Relu", ["x"], ["r"]),
             helper.make_node("Reshape", ["r", "s"], ["y"]), helper.make_node("Abs", ["d"], ["z"])]
    path = tmp_path / "model.onnx"
    outputs = [tensor("y", [9]), tensor("z", [])]
    onnx.save(model(nodes, [tensor("x", [3, 3]), tensor("s", [1], I64)], outputs), str(path))
    report = op_report(path)
    assert [n.status for n in report.nodes] == ["unsupported", "supported", "unsupported", "supported"]
    assert [n.problem.code for n in report.nodes if n.problem] == ["onnx.operator", "onnx.dynamic-value"]
    assert not report.supported and not report.problems
    with pytest.raises(CompileError) as caught:
        import_onnx(path)
    assert len(caught.value.diagnostics) == 2


def test_nodes_behind_a_dynamic_input_are_unchecked_not_lost(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    onnx.save(model([RELU, helper.make_node("Det", ["w"], ["z"])], [tensor("x", ["batch", 4])],
                    [tensor("y", ["batch", 4]), tensor("z", [])], {"w": np.eye(2, dtype=np.float32)}), str(path))
    report = op_report(path)
    assert [n.status for n in report.nodes] == ["unchecked", "unsupported"]
    assert [p.code for p in report.problems] == ["onnx.dynamic-shape"]
    assert report.to_dict()["problems"][0]["node"] == "x"
