"""What the target cannot run: `ops` says which nodes and why, `compile` leaves it to the host, `run` runs all."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from .conftest import Cli

Golden = Callable[[str, str], None]


def node(kind: str, inputs: list[str], name: str, **attributes: Any) -> onnx.NodeProto:
    return helper.make_node(kind, inputs, [name], name=name, **attributes)


def write(nodes: list[onnx.NodeProto], output: str = "third") -> None:
    """m.onnx: f32 input x [2, 32, 64] through `nodes`; in.npz with values for it."""
    r = np.random.default_rng(0)
    weights = {
        "w": r.standard_normal((64, 64)).astype(np.float32) / 8,
        "axis": np.array(1),
        "zero": np.array(0.0, np.float32),
    }
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 32, 64]) for name in ("x", output))
    graph = helper.make_graph(nodes, "m", [x], [y], [numpy_helper.from_array(v, k) for k, v in weights.items()])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), "m.onnx")
    np.savez("in.npz", x=r.standard_normal((2, 32, 64)).astype(np.float32))


MIDDLE = [
    node("MatMul", ["x", "w"], "first"),
    node("CumSum", ["first", "axis"], "scan"),
    node("Neg", ["scan"], "turned"),
    node("Greater", ["turned", "zero"], "big"),
    node("Not", ["big"], "small"),
    node("Where", ["small", "turned", "x"], "pick"),
    node("MatMul", ["pick", "w"], "second"),
    node("Trilu", ["second"], "tri"),
    node("MatMul", ["tri", "w"], "third"),
]
"""Products with a scan, truth values and a triangle between them."""


def expected() -> np.ndarray:
    return np.asarray(onnxruntime.InferenceSession("m.onnx").run(None, {"x": np.load("in.npz")["x"]})[0])


def test_ops_names_the_nodes_the_reasons_and_the_share(cli: Cli, golden: Golden) -> None:
    write(MIDDLE)
    found = cli("ops", "m.onnx")
    assert found.status == 0
    golden("ops_host", str(found))
    report = json.loads(cli("ops", "m.onnx", "--json").out)
    assert report["supported"] and report["host"] == {"segments": 2, "nodes": 5, "macs": 0, "share": 0.0}
    fine = "supported"
    assert [n["status"] for n in report["nodes"]] == [fine, *["host"] * 4, fine, fine, "host", fine]
    assert report["nodes"][2]["problem"]["code"] == "host.between"


def test_both_sides_run_and_agree_with_onnxruntime(cli: Cli) -> None:
    write(MIDDLE)
    made = cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none", "--json")
    assert made.status == 0, made.err
    host = json.loads(made.out)["host"]
    assert (host["segments"], host["nodes"], host["macs"]) == (2, 5, 0)
    assert {"tri"} in [set(reason["nodes"]) for reason in host["reasons"]]
    ran = cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz", "--strict", "--json")
    assert ran.status == 0, ran.err
    stats = json.loads(ran.out)
    want = expected()
    assert np.abs(np.load("out.npz")["third"] - want).max() <= 5e-3 * np.abs(want).max()
    assert stats["host"]["segments"] == 2 and stats["host"]["seconds"] > 0
    simulated = json.loads(cli("simulate", "m.fbin", "--json").out)
    assert simulated["cycles"] == stats["cycles"] and simulated["host"]["seconds"] is None


def test_the_tables_name_the_host(cli: Cli) -> None:
    write(MIDDLE)
    made = cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none")
    assert "host: 2 segments of 5 ops, 0.0 % of the MACs; the accelerator waits meanwhile" in made.out
    assert "  scan: tensor.cumsum has no lowering to the accelerator [lower.op]" in made.out
    ran = cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz")
    assert "host    2 segments of 5 ops, 0.0 % of the MACs," in ran.out and "not in cycles and energy" in ran.out
    listed = cli("objdump", "m.fbin")
    assert "scan] tensor.cumsum" in listed.out or "[scan]" in listed.out


def test_assembly_gives_the_same_bytes_back(cli: Cli) -> None:
    write(MIDDLE)
    assert cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none").status == 0
    assert cli("objdump", "m.fbin", "--fasm", "m.fasm").status == 0
    assert cli("asm", "m.fasm", "-o", "again.fbin").status == 0
    assert Path("again.fbin").read_bytes() == Path("m.fbin").read_bytes()


def test_host_none_refuses_as_before(cli: Cli) -> None:
    write(MIDDLE)
    for refused in (
        cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none", "--host", "none"),
        cli("ops", "m.onnx", "--host", "none"),
    ):
        assert refused.status == 1 and "error[lower.op]: tensor.cumsum" in refused.out + refused.err
    assert not Path("m.fbin").exists()
    Path("c.toml").write_text("host = 'sometimes'\n")
    wrong = cli("compile", "m.onnx", "-o", "m.fbin", "--config", "c.toml")
    assert (
        wrong.status == 1
        and "c.toml:1: error[config.value]: host: is 'sometimes', expected one of auto, none" in wrong.err
    )


def test_snapshots_go_back_in_and_every_pass_is_checked(cli: Cli) -> None:
    write(MIDDLE)
    made = cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none", "--dump-ir", "ir", "--verify-each")
    assert made.status == 0, made.err
    (snapshot,) = Path("ir").glob("*outline-host.fir")
    assert cli("compile", str(snapshot), "-o", "again.fbin", "--concentrate", "none").status == 0
    assert cli("run", "again.fbin", "--inputs", "in.npz", "-o", "out.npz").status == 0
    want = expected()
    assert np.abs(np.load("out.npz")["third"] - want).max() <= 5e-3 * np.abs(want).max()


def test_without_weights_it_can_be_timed_and_not_run(cli: Cli) -> None:
    write(MIDDLE)
    assert cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none", "--no-weights").status == 0
    assert json.loads(cli("simulate", "m.fbin", "--json").out)["host"]["segments"] == 2
    refused = cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz")
    assert refused.status == 1 and "compiled without weights" in refused.err


def test_a_weight_beyond_f16_goes_to_the_host_with_its_reason(cli: Cli) -> None:
    x, y = (helper.make_tensor_value_info(name, TensorProto.FLOAT, [2, 32, 64]) for name in ("x", "y"))
    large = numpy_helper.from_array(np.eye(64, dtype=np.float32) * 1e5, "w")
    small = numpy_helper.from_array(np.array(1e-5, np.float32), "s")
    nodes = [node("MatMul", ["x", "w"], "product"), node("Mul", ["product", "s"], "y")]
    graph = helper.make_graph(nodes, "m", [x], [y], [large, small])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), "m.onnx")
    report = json.loads(cli("ops", "m.onnx", "--json").out)
    assert report["nodes"][0]["problem"]["code"] == "codegen.range"
    assert report["host"]["share"] == pytest.approx(1.0)
    assert cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none").status == 0
    np.savez("in.npz", x=np.full((2, 32, 64), 0.25, np.float32))
    assert cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz").status == 0
    np.testing.assert_allclose(np.load("out.npz")["y"], 0.25, rtol=1e-3)


def test_values_beyond_f16_are_exact_in_outputs_and_counted_where_they_are_clipped(cli: Cli) -> None:
    """Running sums of 1e4: as an output they are f32; the product behind reads them as f16."""
    scan, scaled = node("CumSum", ["x", "axis"], "scan"), node("MatMul", ["scan", "w"], "third")
    write([scan], "scan")
    np.savez("in.npz", x=np.full((2, 32, 64), 1e4, np.float32))
    assert cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none").status == 0
    ran = cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz", "--strict", "--json")
    assert ran.status == 0 and json.loads(ran.out)["host"]["clipped"] == 0, ran.err
    np.testing.assert_array_equal(np.load("out.npz")["scan"][0, :, 0], np.arange(1, 33) * 1e4)
    write([scan, scaled])
    np.savez("in.npz", x=np.full((2, 32, 64), 1e4, np.float32))
    assert cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none").status == 0
    ran = cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz")
    assert ran.status == 0 and "3,328 values beyond f16 clipped" in " ".join(ran.out.split()), ran.out
    refused = cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz", "--strict")
    assert refused.status == 1 and "error[run.nonfinite]: the host gave y0 3328 finite values" in refused.err


def test_names_with_control_characters_are_shown_escaped(cli: Cli) -> None:
    """As they stand they would move the cursor, or start a line that looks like one of ours."""
    scan = node("CumSum", ["x", "axis"], "scan")
    scan.name = "s\n\x1b[31merror: fake"
    write([scan, node("MatMul", ["scan", "w"], "third")])
    np.savez("in.npz", x=np.full((2, 32, 64), 1e4, np.float32))
    ran = [
        cli("ops", "m.onnx"),
        cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none"),
        cli("objdump", "m.fbin", "-t", "-S"),
        cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz", "--strict"),
        cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none", "--host", "none"),
    ]
    assert [each.status for each in ran] == [0, 0, 0, 1, 1]
    for each in ran:
        assert r"s\n\x1b[31merror: fake" in each.out + each.err and "\x1b" not in each.out + each.err, each


def test_compare_does_not_hide_what_the_host_does(cli: Cli) -> None:
    write(MIDDLE)
    np.savez("many.npz", x=np.load("in.npz")["x"][None])
    found = cli("compare", "m.onnx", "--inputs", "many.npz", "--methods", "none", "--samples", "1")
    assert found.status == 0, found.err
    assert (
        "note: host: 2 segments of 5 ops, 0.0 % of the MACs (dense); cycles, energy and speed-up are of the rest"
        in found.out
    )


@pytest.mark.parametrize(
    ("kind", "shapes", "constant", "status"),
    [
        ("MatMul", ([3, 0], [3, 5]), np.zeros((0, 5), np.float32), 0),
        ("Gather", ([3, 4], [0, 4]), np.zeros(0, np.int64), 1),
    ],
)
def test_a_constant_without_elements_moves_its_reader(
    cli: Cli, kind: str, shapes: tuple[list[int], list[int]], constant: np.ndarray, status: int
) -> None:
    """The constant itself is refused; what reads it goes to the host, or the model is refused: never a crash."""
    x, y = (helper.make_tensor_value_info(n, TensorProto.FLOAT, s) for n, s in zip("xy", shapes, strict=True))
    graph = helper.make_graph([node(kind, ["x", "c"], "y")], "m", [x], [y], [numpy_helper.from_array(constant, "c")])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), "m.onnx")
    asked = cli("ops", "m.onnx")
    made = cli("compile", "m.onnx", "-o", "m.fbin", "--concentrate", "none")
    assert (asked.status, made.status) == (status, status), made.err
    if status:
        assert "error[lower.empty]: return works on tensor<0x4xf32>" in made.err and "lower.empty" in asked.out
    else:
        np.savez("in.npz", x=np.zeros(shapes[0], np.float32))
        assert cli("run", "m.fbin", "--inputs", "in.npz", "-o", "out.npz", "--strict").status == 0
        np.testing.assert_array_equal(np.load("out.npz")["y"], np.zeros(shapes[1]))
