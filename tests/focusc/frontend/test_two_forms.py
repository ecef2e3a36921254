"""Opset-23 graphs with Attention and RMSNormalization nodes and decomposed graphs reach the same fused IR."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from focusc.driver.compiler import FRONT
from focusc.frontend import import_onnx
from focusc.ir import Module, Op, PassManager, Resource, Value, interpret, print_module
from tests.focusc.frontend.decoder_forms import HEADS, KV_HEADS, MASKS, PADDED, ROWS, SIZE, decoder, samples, windowed
from tests.graphs import made_by, type_of


def fused(made: onnx.ModelProto, folder: Path) -> Module:
    path = folder / "model.onnx"
    onnx.save(made, str(path))
    return PassManager(FRONT).run(import_onnx(path))


def text(module: Module) -> str:
    """The printed module without names: ops in the order in which the outputs need them, numbers to five digits."""
    out = module.clone()
    ordered: list[Op] = []

    def visit(value: Value | None) -> None:
        if value is None or value.op is None or value.op in ordered:
            return
        for operand in value.op.operands:
            visit(operand)
        ordered.append(value.op)

    for value in out.results:
        visit(value)
    out.body.ops[:] = [*ordered, out.body.ops[-1]]
    for op in ordered:
        for value in op.results:
            value.name = ""
        if op.name == "tensor.constant":
            op.attrs["value"] = Resource("", np.round(np.asarray(op.attrs["value"].array, np.float64), 5))
    for op in ordered:
        if op.name == "tensor.constant" and op.attrs["value"].size > 16:
            op.attrs["value"] = Resource(op.attrs["value"].digest, op.attrs["value"].array)
    printed = print_module(out, locations=False)
    return re.sub(r"-?\d+\.\d+(e-?\d+)?", lambda m: f"{float(m[0]):.5g}", printed)


def attentions(module: Module) -> list[Op]:
    return [op for op in module.walk() if op.name == "nn.attention"]


@pytest.mark.parametrize("mask", MASKS)
def test_all_forms_of_a_decoder_layer_become_the_same_text(mask: str, tmp_path: Path) -> None:
    texts = {opset: text(fused(decoder(opset, mask), tmp_path)) for opset in (18, 20, 23)}
    assert texts[18] == texts[20]
    assert texts[20] == texts[23]


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("opset", [20, 23])
def test_values_are_those_of_onnxruntime(opset: int, mask: str, tmp_path: Path) -> None:
    import onnxruntime

    made, inputs = decoder(20, mask), samples(mask)
    expected = np.asarray(onnxruntime.InferenceSession(made.SerializeToString()).run(["y"], inputs)[0])
    found = interpret(fused(decoder(opset, mask), tmp_path), inputs)["y"]
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize(("mask", "causal", "window", "operand"), [
    ("full", False, 0, None), ("causal", True, 0, None), ("window", True, 3, None), ("padding", True, 0, PADDED)])
def test_constant_masks_are_recognised(mask: str, causal: bool, window: int, operand: np.ndarray | None,
                                       tmp_path: Path) -> None:
    (op,) = attentions(fused(decoder(20, mask), tmp_path))
    assert (op.attrs["heads"], op.attrs["kv_heads"]) == (HEADS, KV_HEADS)
    assert (op.attrs["causal"], op.attrs["window"]) == (causal, window)
    if operand is None:
        assert op.operands[3] is None
    else:
        assert np.array_equal(made_by(op.operands[3]).attrs["value"].array, operand)


def test_rows_that_see_their_own_block_become_a_batch(tmp_path: Path) -> None:
    (op,) = attentions(fused(decoder(20, "blocks"), tmp_path))
    assert op.operands[3] is None and str(type_of(op.operands[0])) == f"tensor<2x{ROWS // 2}x{HEADS * SIZE}xf32>"


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("opset", [20, 23])
def test_every_mask_runs_on_the_accelerator_as_onnxruntime_has_it(opset: int, mask: str, tmp_path: Path) -> None:
    import onnxruntime

    from focusc.backends import compile_module, load_hardware
    from focusc.driver.execution import Runner

    made, inputs, machine = decoder(20, mask), samples(mask), load_hardware("focus")
    if mask == "added":
        inputs["mask"][0, 0, np.triu_indices(ROWS, 1)] = np.finfo(np.float32).min  # beyond f16, and forbidden
        inputs["mask"][0, 0, 3, 1] = -np.inf
    expected = np.asarray(onnxruntime.InferenceSession(made.SerializeToString()).run(["y"], inputs)[0])
    found = Runner(compile_module(fused(decoder(opset, mask), tmp_path), machine), machine).outputs(inputs)["y"]
    assert np.abs(found - expected).max() <= 5e-3 * np.abs(expected).max()


def test_windows_of_a_vision_encoder_become_a_batch_in_both_forms(tmp_path: Path) -> None:
    import onnxruntime

    modules = {opset: fused(windowed(opset), tmp_path) for opset in (20, 23)}
    assert text(modules[20]) == text(modules[23])
    (op,) = attentions(modules[23])
    assert str(type_of(op.operands[0])) == f"tensor<3x2x{HEADS * SIZE}xf32>"
    inputs = samples("full")
    expected = np.asarray(onnxruntime.InferenceSession(windowed(20).SerializeToString()).run(["y"], inputs)[0])
    assert np.abs(interpret(modules[23], inputs)["y"] - expected).max() <= 1e-5 * np.abs(expected).max()


def test_rotary_tables_of_several_axes_are_constants(tmp_path: Path) -> None:
    """Qwen2-VL: sections of the columns take their angles from the temporal, the row or the column positions."""
    rng = np.random.default_rng(1)
    angles = rng.standard_normal((3, 1, ROWS, SIZE)).astype(np.float32)
    sections = [1, 1, 2]
    cut = [np.cos(angles)[i, ..., s] for i, s in enumerate((slice(0, 1), slice(1, 2), slice(2, 4)))]
    nodes = [helper.make_node("Cos", ["angles"], ["c"]), helper.make_node("Sin", ["angles"], ["s"])]
    for t in "cs":
        nodes.append(helper.make_node("Split", [t, "sections"], [f"{t}{i}" for i in range(3)], axis=-1))
        nodes += [helper.make_node("Gather", [f"{t}{i}", f"i{i}"], [f"{t}g{i}"], axis=0) for i in range(3)]
        nodes.append(helper.make_node("Concat", [f"{t}g{i}" for i in range(3)], [f"{t}j"], axis=-1))
        nodes.append(helper.make_node("Unsqueeze", [f"{t}j", "one"], [f"{t}t"]))
    nodes += [helper.make_node("Slice", ["x", "zero", "half", "last"], ["low"]),
              helper.make_node("Slice", ["x", "half", "end", "last"], ["high"]),
              helper.make_node("Neg", ["high"], ["negative"]),
              helper.make_node("Concat", ["negative", "low"], ["turned"], axis=-1),
              helper.make_node("Mul", ["x", "ct"], ["a"]), helper.make_node("Mul", ["turned", "st"], ["b"]),
              helper.make_node("Add", ["a", "b"], ["y"])]
    numbers = {"sections": sections, "one": [1], "zero": [0], "half": [SIZE // 2], "end": [2**63 - 1], "last": [3]}
    known = [onnx.numpy_helper.from_array(np.array(v, np.int64), k) for k, v in numbers.items()]
    known += [onnx.numpy_helper.from_array(np.array(i, np.int64), f"i{i}") for i in range(3)]
    known.append(onnx.numpy_helper.from_array(angles, "angles"))
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, HEADS, ROWS, SIZE]) for n in "xy"]
    graph = helper.make_graph(nodes, "rotary", value[:1], value[1:], known)
    module = fused(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), tmp_path)
    (rope,) = [op for op in module.walk() if op.name == "nn.rope"]
    table = made_by(rope.operands[1])
    assert table.name == "tensor.constant"
    assert np.allclose(table.attrs["value"].array, np.concatenate(cut, -1)[0], atol=1e-6)
    assert {op.name for op in module.walk()} <= {"tensor.constant", "nn.rope", "tensor.reshape", "tensor.transpose",
                                                 "return"}
