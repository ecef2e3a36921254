"""Einsum as matrix products, against numpy."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from focusc.frontend import import_onnx
from focusc.ir import CompileError, interpret

EXTENT = {"a": 2, "b": 3, "c": 4, "d": 5, "h": 2, "i": 3, "j": 4, "k": 5}


def run(equation: str, arrays: list[np.ndarray], folder: Path) -> np.ndarray:
    names = [f"x{i}" for i in range(len(arrays))]
    expected = np.einsum(equation, *arrays)
    inputs = [helper.make_tensor_value_info(n, TensorProto.FLOAT, x.shape) for n, x in zip(names, arrays, strict=True)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, expected.shape)
    node = helper.make_node("Einsum", names, ["y"], equation=equation)
    graph = helper.make_graph([node], "einsum", inputs, [output])
    path = folder / "einsum.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
    found = interpret(import_onnx(path), dict(zip(names, arrays, strict=True)))["y"]
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    return found


def values(terms: str) -> list[np.ndarray]:
    rng = np.random.default_rng(len(terms))
    return [rng.standard_normal([EXTENT[c] for c in t]).astype(np.float32) for t in terms.split(",")]


@pytest.mark.parametrize("equation", [
    "bhid,bhjd->bhij",  # attention scores
    "bhij,bhjd->bihd",  # weights times values, heads back behind the rows
    "bid,dk->bik",  # a linear layer
    "bcd,dc->b",  # all of one operand contracted
    "i,j->ij", "i,i->", "ij,ij->ij", "ij,ij->ji", "ij,jk", "ab,bc,cd->ad", "ab,cd,bc->da", "ij->ji", "ij->", "ij->i",
    "iij->j", "ii", "abc,adc,bd->cb", "bhk,bkh->", "a,ab,abc->abc", "ab,c->b"])
def test_equation(equation: str, tmp_path: Path) -> None:
    run(equation, values(equation.partition("->")[0]), tmp_path)


@pytest.mark.parametrize(("equation", "shapes"), [
    ("...ij,...jk->...ik", [(2, 3, 2, 4), (1, 3, 4, 5)]), ("...i,i", [(2, 3, 4), (4,)]), ("i...->...", [(3, 2, 2)]),
    ("...ij,...ij->...", [(2, 1, 3, 4), (1, 5, 3, 4)]), ("b...d,...dk->b...k", [(2, 3, 4), (1, 4, 5)])])
def test_an_ellipsis_broadcasts(equation: str, shapes: list[tuple[int, ...]], tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    run(equation, [rng.standard_normal(s).astype(np.float32) for s in shapes], tmp_path)


def test_attention_scores_are_one_product(tmp_path: Path) -> None:
    run("bhid,bhjd->bhij", values("bhid,bhjd"), tmp_path)
    names = [op.name for op in import_onnx(tmp_path / "einsum.onnx").walk()]
    assert sorted(names) == ["return", "tensor.matmul", "tensor.transpose"]


def test_terms_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    """onnx's checker does not look at the letters of a term; the rule does."""
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [2, 2]) for n in "xy"]
    for equation in ("ij,jk->ik", "ijk->ij"):
        graph = helper.make_graph([helper.make_node("Einsum", ["x"], ["y"], equation=equation)], "e", value[:1],
                                  value[1:])
        path = tmp_path / "einsum.onnx"
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), str(path))
        with pytest.raises(CompileError, match=r"onnx\.(unsupported|checker)"):
            import_onnx(path)
