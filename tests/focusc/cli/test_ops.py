"""`focusc ops`: everything that stops a compilation, at once: import, passes, and the target's own refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from .conftest import Cli

Golden = Callable[[str, str], None]


def write(nodes: list[onnx.NodeProto], outputs: dict[str, list[int]], weights: dict[str, np.ndarray]) -> None:
    """m.onnx: f32 input x [2, 8, 64] through `nodes`."""
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 8, 64])
    made = [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in outputs.items()]
    graph = helper.make_graph(nodes, "m", [x], made, [numpy_helper.from_array(v, k) for k, v in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), "m.onnx")


def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [name], name=name, **attributes)


LINEAR = node("MatMul", ["x", "w"], "linear")
SCAN = node("CumSum", ["linear", "axis"], "scan")
MARGIN = node("Pad", ["scan", "pads"], "margin", mode="edge")
WAVE = node("Sin", ["margin"], "wave")
SCALE = node("Mul", ["wave", "rows"], "scale")
WEIGHTS = {
    "w": np.ones((64, 64), np.float32),
    "axis": np.array(1),
    "pads": np.array([0, 0, 0, 0, 0, 64]),
    "rows": np.ones((1, 8, 1), np.float32),
}


def test_every_refusal_of_the_target_at_once(cli: Cli, golden: Golden) -> None:
    write([LINEAR, SCAN, MARGIN, WAVE, SCALE], {"scale": [2, 8, 128]}, WEIGHTS)
    found = cli("ops", "m.onnx", "--host", "none")
    assert found.status == 1 and found.err == ""
    golden("ops_target", str(found))
    assert [n["status"] for n in json.loads(cli("ops", "m.onnx", "--host", "none", "--json").out)["nodes"]] == [
        "supported", "unsupported", "unsupported", "unsupported", "supported",
    ]  # fmt: skip
    assert cli("compile", "m.onnx", "-o", "out.fbin", "--concentrate", "none", "--host", "none").status == 1


def test_refusals_of_the_front_end_and_of_the_target_at_once(cli: Cli, golden: Golden) -> None:
    write(
        [LINEAR, node("Det", ["w"], "det"), node("Pad", ["linear", "pads"], "margin", mode="edge")],
        {"det": [], "margin": [2, 8, 128]},
        {"w": WEIGHTS["w"], "pads": WEIGHTS["pads"]},
    )
    found = cli("ops", "m.onnx", "--nodes", "unsupported")
    assert found.status == 1
    golden("ops_import_and_target", str(found))


def hardware(**changes: str) -> None:
    """small.toml: the description of focus with some values changed."""
    text = resources.files("focusc.backends").joinpath("focus/focus.toml").read_text()
    for old, new in changes.items():
        assert text.count(old) == 1
        head, _, tail = text.partition(old)
        text = head + old + new + tail[tail.index("\n") :]
    Path("small.toml").write_text(text)


def test_limits_of_the_target_given(cli: Cli, golden: Golden, decoder: Path) -> None:
    hardware(importance_entries=" = 16")
    found = cli("ops", "decoder.onnx", "--target", "small.toml", "--nodes", "unsupported")
    assert found.status == 1
    golden("ops_importance", str(found))
    refused = cli("compile", "decoder.onnx", "-o", "out.fbin", "--target", "small.toml")
    assert refused.status == 1 and "error[target.importance]" in refused.err
    for fine in ("none", "sic"):
        assert cli("ops", "decoder.onnx", "--target", "small.toml", "--concentrate", fine).status == 0


def test_what_was_checked_is_said(cli: Cli, decoder: Path) -> None:
    def report(*arguments: str) -> dict[str, object]:
        return json.loads(cli("ops", "decoder.onnx", "--json", *arguments).out)

    assert (report()["target"], report()["concentrate"], report()["supported"]) == ("focus", "focus", True)
    assert report("--target", "systolic")["concentrate"] == "none"
    assert report("--concentrate", "sec")["concentrate"] == "sec"


def test_options_of_a_pass_are_refused_as_compile_refuses_them(cli: Cli, decoder: Path) -> None:
    Path("c.toml").write_text("[concentrate]\nschedule = '[1:0.5,7:0.2]'\n")
    found = cli("ops", "decoder.onnx", "--config", "c.toml", "--nodes", "none")
    assert found.status == 1 and "error[concentrate.layer]" in found.out


def test_what_code_generation_refuses_is_reported(cli: Cli) -> None:
    f32 = onnx.TensorProto.FLOAT
    x, y = (onnx.helper.make_tensor_value_info(name, f32, [4, 4]) for name in ("x", "y\n;z"))
    large = onnx.numpy_helper.from_array(np.full((4, 4), 1e6, np.float32), "w")
    weight = onnx.helper.make_node("MatMul", ["x", "w"], ["y"], "product")
    plain = onnx.helper.make_tensor_value_info("y", f32, [4, 4])
    graphs = {
        "codegen.range": onnx.helper.make_graph([weight], "g", [x], [plain], [large]),
        "onnx.name": onnx.helper.make_graph([onnx.helper.make_node("Relu", ["x"], [y.name])], "g", [x], [y]),
        "onnx.name-through": onnx.helper.make_graph([], "g", [x], [x]),
    }
    for code, graph in graphs.items():
        model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10)
        onnx.save(model, "m.onnx")
        expected = f"m.onnx: error[{code.split('-')[0]}]"
        report = cli("ops", "m.onnx", "--host", "none")
        compiled = cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none", "--host", "none")
        assert (report.status, compiled.status) == (1, 1)
        assert expected in compiled.err or code == "codegen.range"
        assert f"error[{code.split('-')[0]}]" in report.out + report.err
        assert f"error[{code.split('-')[0]}]" in compiled.err
    copied = onnx.helper.make_graph([onnx.helper.make_node("Identity", ["x"], ["y"])], "g", [x], [plain])
    onnx.save(onnx.helper.make_model(copied, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=10), "m.onnx")
    assert cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none").status == 0
    np.savez("in.npz", x=np.arange(16, dtype=np.float32).reshape(4, 4))
    assert cli("run", "m.fbin", "--inputs", "in.npz", "-o", "o.npz").status == 0
    assert np.array_equal(np.load("o.npz")["y"], np.load("in.npz")["x"])
