"""The host's models are untrusted: what is refused before onnxruntime sees it, and how its own failures are told."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

import focusc
from focusc.host import HostSegments, segment_model
from focusc.ir import CompileError, parse
from focusc.isa import Fault, Program, Symbol
from focusc.isa.host import HostNode, HostSegment
from focusc.isa.insns import Halt, Host
from tests.isa.helpers import HARDWARE

Change = Callable[[onnx.ModelProto], object]


def model(*change: Change) -> onnx.ModelProto:
    """y0 = x0 + c, changed."""
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 3]) for name in ("x0", "y0"))
    c = numpy_helper.from_array(np.ones((2, 3), np.float32), "c")
    graph = helper.make_graph([helper.make_node("Add", ["x0", "c"], ["y0"])], "g", [x], [y], [c])
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9)
    for apply in change:
        apply(made)
    return made


def program(data: bytes) -> Program:
    x, y = Symbol("x", "input", "f16", (2, 3), 0), Symbol("y", "output", "f16", (2, 3), 64)
    segment = HostSegment(
        (Symbol("x0", "input", "f16", (2, 3), 0),),
        (Symbol("y0", "output", "f16", (2, 3), 64),),
        (HostNode("tensor.add", "add"),),
        data,
    )
    return Program([Host(0), Halt()], b"", [x, y], 128, "focus", HARDWARE, host=[segment])


X = {"x": np.arange(6, dtype=np.float32).reshape(2, 3)}


def test_a_sound_model_runs_and_its_time_is_measured() -> None:
    found = focusc.run(program(model().SerializeToString()), X)
    np.testing.assert_array_equal(found.outputs["y"], X["x"] + 1)
    assert found.stats["host"]["seconds"] > 0


def outside(m: onnx.ModelProto) -> None:
    tensor = m.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="/etc/passwd")


def outside_in_an_attribute(m: onnx.ModelProto) -> None:
    value = numpy_helper.from_array(np.ones((2, 3), np.float32), "c")
    value.data_location = TensorProto.EXTERNAL
    m.graph.node.insert(0, helper.make_node("Constant", [], ["d"], value=value))


def sparse(m: onnx.ModelProto) -> None:
    """A sparse constant whose values lie in another file."""
    value = onnx.SparseTensorProto(dims=[2, 3], indices=numpy_helper.from_array(np.arange(6)))
    value.values.CopyFrom(TensorProto(data_type=TensorProto.FLOAT, dims=[6], data_location=TensorProto.EXTERNAL))
    value.values.external_data.add(key="location", value="secret.bin")
    m.graph.node.insert(0, helper.make_node("Constant", [], ["d"], sparse_value=value))


def branch(m: onnx.ModelProto) -> None:
    body = helper.make_graph([], "b", [], [helper.make_tensor_value_info("c", TensorProto.FLOAT, [2, 3])])
    m.graph.node.insert(0, helper.make_node("If", ["c"], ["d"], then_branch=body, else_branch=body))


def shaped(*shape: int | str) -> Change:
    def change(m: onnx.ModelProto) -> None:
        m.graph.input[0].CopyFrom(helper.make_tensor_value_info("x0", TensorProto.FLOAT, shape))

    return change


def typed(kind: int) -> Change:
    return lambda m: m.graph.output[0].CopyFrom(helper.make_tensor_value_info("y0", kind, [2, 3]))


def operator(m: onnx.ModelProto) -> None:
    m.graph.node[0].op_type = "NoSuchOperator"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (outside, "constant 'c' lies in another file"),
        (outside_in_an_attribute, "constant 'c' lies in another file"),
        (sparse, "operator Constant has an attribute with sparse_tensor"),
        (branch, "operator If has an attribute with g, which"),
        (lambda m: m.graph.node[0].attribute.add(name="a", type=5), "an attribute with type 5"),
        (lambda m: m.graph.node[0].attribute.add(name="a", type=2).tp.SetInParent(), "an attribute with tp"),
        (lambda m: setattr(m.graph.initializer[0], "data_location", TensorProto.EXTERNAL), "lies in another file"),
        (lambda m: m.opset_import.add(domain="com.microsoft", version=1), "operators of another domain"),
        (lambda m: setattr(m.graph.node[0], "domain", "evil"), "operator Add of domain evil"),
        (lambda m: m.functions.add(name="f"), "it has functions"),
        (lambda m: m.graph.sparse_initializer.add(), "sparse constants"),
        (lambda m: m.graph.input.add(name="x1"), "its inputs are x0, x1, the program has x0"),
        (lambda m: m.graph.ClearField("output"), "its outputs are none, the program has y0"),
        (shaped(2, 4), "input x0 is float32[2, 4], the program has f16[2, 3]"),
        (shaped("n", 3), "input x0 is float32[-1, 3]"),
        (typed(TensorProto.INT64), "output y0 is int64[2, 3]"),
        (typed(TensorProto.STRING), "output y0 is"),
        (operator, "onnxruntime does not load it"),
    ],
)
def test_models_that_are_refused(change: Change, message: str) -> None:
    with pytest.raises(Fault) as caught:
        focusc.run(program(model(change).SerializeToString()), X)
    assert caught.value.render().startswith("pc 0: host 0: error[host.model]: the ONNX model of host segment 0 cannot")
    assert message in caught.value.message


def test_bytes_that_are_no_model() -> None:
    with pytest.raises(Fault, match="it is no ONNX model"):
        focusc.run(program(b"\xff\xff no model"), X)


def test_a_failure_inside_onnxruntime_is_a_fault() -> None:
    def gather(m: onnx.ModelProto) -> None:
        m.graph.initializer[0].CopyFrom(numpy_helper.from_array(np.array([[7, 7, 7]]), "c"))
        m.graph.node[0].op_type = "Gather"
        m.graph.output[0].CopyFrom(helper.make_tensor_value_info("y0", TensorProto.FLOAT, [2, 3]))
        m.graph.node[0].output[0] = "z"
        m.graph.node.add().CopyFrom(helper.make_node("Squeeze", ["z", "a"], ["y0"]))
        m.graph.initializer.add().CopyFrom(numpy_helper.from_array(np.array([0]), "a"))

    with pytest.raises(Fault) as caught:
        focusc.run(program(model(gather).SerializeToString()), X)
    assert caught.value.render().startswith("pc 0: host 0: error[host.run]: onnxruntime fails in host segment 0: ")
    assert "Traceback" not in caught.value.render()


def test_loading_a_program_runs_nothing(tmp_path: Path) -> None:
    """A model that onnxruntime would refuse does no harm until its segment runs; timing never looks at it."""
    path = tmp_path / "p.fbin"
    program(b"rubbish").save(path)
    loaded = Program.load(path)
    assert focusc.simulate(loaded)["host"]["seconds"] is None
    with pytest.raises(Fault, match="no ONNX model"):
        HostSegments(loaded)(0, {"x0": np.zeros((2, 3), np.float16)})


def test_a_model_that_is_too_large_is_told_before_it_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("focusc.host.model.LARGEST", 10)
    text = """module "m"(%x: tensor<4xf32>) -> ("y") {
      %y = host.call(%x) {nodes = []} { ^(%a: tensor<4xf32>):
        %b = tensor.cumsum(%a) {axis = 0} : tensor<4xf32>
        yield(%b)
      } : tensor<4xf32> loc("scan" "layers.0")
      return(%y)
    }"""
    with pytest.raises(CompileError) as caught:
        segment_model(parse(text).body.ops[0])
    assert re.sub(r"has \d+ bytes", "has N bytes", caught.value.render()) == (
        "<text>:2:12: error[host.size]: the part that the host runs has N bytes, expected at most 10: its weights "
        "belong to ops that the target refuses\n  from: layers.0 (scan)\n  hint: `focusc ops` says which and why"
    )
