"""The demo model through the front end and every pass: values against onnxruntime, and what is left afterwards."""

from __future__ import annotations

from collections import Counter
from functools import cache
from pathlib import Path

import numpy as np

from focusc.frontend import import_onnx, op_report
from focusc.ir import Module, PassManager, TensorType, interpret, parse_pipeline, verify
from tests.graphs import made_by

PIPELINE = "canonicalise,fold-constants,fuse-nn,dead-code,common-subexpressions"

LEFT = {"tensor.constant", "tensor.add", "tensor.mul", "tensor.concat", "tensor.slice", "tensor.reshape", "return"}
"""Ops other than nn.* that the back ends take."""


def reference(path: Path, inputs: dict[str, np.ndarray]) -> np.ndarray:
    import onnxruntime

    return np.asarray(onnxruntime.InferenceSession(str(path)).run(["logits"], inputs)[0])


def error(module: Module, inputs: dict[str, np.ndarray], expected: np.ndarray) -> float:
    """Largest difference over the largest magnitude."""
    got = interpret(module, inputs)["logits"]
    return float(np.abs(got - expected).max() / np.abs(expected).max())


def test_values_stay_within_1e_5_of_onnxruntime_after_every_pass(
        demo_onnx: Path, demo_inputs: dict[str, np.ndarray]) -> None:
    expected = reference(demo_onnx, demo_inputs)
    module = import_onnx(demo_onnx)
    assert error(module, demo_inputs, expected) <= 1e-5
    for found, options in parse_pipeline(PIPELINE):
        before = module
        module = PassManager([(found, options)]).run(module)
        if module is not before:
            assert error(module, demo_inputs, expected) <= 1e-5, found.name


@cache
def fused(path: Path) -> Module:
    return PassManager(PIPELINE).run(import_onnx(path))


def test_only_nn_ops_and_plain_data_movement_are_left(demo_onnx: Path) -> None:
    names = Counter(op.name for op in fused(demo_onnx).walk())
    assert {n for n in names if not n.startswith("nn.")} <= LEFT
    assert {n: c for n, c in names.items() if n.startswith("nn.")} == {
        "nn.patch_embed": 1, "nn.embed": 1, "nn.layer_norm": 5, "nn.gelu": 3, "nn.attention": 8, "nn.rope": 12,
        "nn.rms_norm": 13, "nn.swiglu": 6, "nn.linear": 57}


def test_every_decoder_layer_has_the_form_that_the_back_ends_lower(demo_onnx: Path) -> None:
    for attention in [op for op in fused(demo_onnx).walk() if op.name == "nn.attention" and op.attrs["causal"]]:
        q, k, v = (made_by(operand) for operand in attention.operands[:3])
        assert attention.operands[3] is None
        assert (q.name, k.name, v.name) == ("nn.rope", "nn.rope", "nn.linear")
        norms = {made_by(op.operands[0]) for op in (made_by(q.operands[0]), made_by(k.operands[0]), v)}
        assert len(norms) == 1
        norm = norms.pop()
        assert norm.name == "nn.rms_norm"
        (project,) = attention.result.users
        (residual,) = project.result.users
        assert project.name == "nn.linear" and residual.name == "tensor.add" and norm.operands[0] in residual.operands
        (mlp,) = [op for op in residual.result.users if op.name == "nn.rms_norm"]
        assert [op.name for op in mlp.result.users] == ["nn.linear", "nn.linear"]
        (glu,) = mlp.result.users[0].result.users
        (down,) = glu.result.users
        (out,) = down.result.users
        assert (glu.name, down.name, out.name) == ("nn.swiglu", "nn.linear", "tensor.add")
        assert residual.result in out.operands


def test_grouped_query_heads_and_causality_are_found(demo_onnx: Path) -> None:
    found = Counter((op.attrs["heads"], op.attrs["kv_heads"], op.attrs["causal"]) for op in fused(demo_onnx).walk()
                    if op.name == "nn.attention")
    assert found == {(6, 2, True): 6, (4, 4, False): 2}


def test_language_model_head_runs_on_the_last_position_only(demo_onnx: Path) -> None:
    module = fused(demo_onnx)
    head = module.results[0].op
    assert head is not None and head.name == "nn.linear"
    last = head.operands[0]
    assert last is not None and isinstance(last.type, TensorType) and last.type.size == 192


def test_both_exports_give_the_same_operators_and_layout(demo_onnx: Path) -> None:
    module = fused(demo_onnx)
    verify(module)
    assert module.attrs["layout"] == {
        "visual": (3, 288), "grid": (8, 6, 6), "strides": (36, 6, 1), "query": 10}


def test_every_op_knows_its_onnx_node_and_layers_their_torch_module(demo_onnx: Path) -> None:
    module = fused(demo_onnx)
    assert all(op.loc.node for op in module.walk() if op.name != "return")
    paths = {op.loc.module_path for op in module.walk() if op.name == "nn.linear"}
    assert {"layers.0.attention.q_proj", "layers.5.mlp.down_proj", "vision.blocks.1.fc1", "lm_head"} <= paths


def test_report_supports_every_node(demo_onnx: Path) -> None:
    report = op_report(demo_onnx)
    assert report.supported and not report.problems
    assert {n.status for n in report.nodes} == {"supported"}
    assert report.to_dict()["layout"]["visual"] == (3, 288)
    assert next(n for n in report.nodes if n.op_type == "Conv").module_path == "vision.patch_embed"
