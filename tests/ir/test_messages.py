"""Messages of the IR that no text can provoke: modules built or changed in Python, and passes that fail."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusc.ir import (
    Builder,
    Module,
    PassManager,
    Resource,
    Rewriter,
    TensorType,
    interpret,
    parse,
    read_resources,
    verify,
)
from focusc.ir.concentrated import Concentrated
from focusc.ir.core import op_class
from focusc.ir.files import read_module
from focusc.ir.text import tree
from tests.ir.test_manager import sample
from tests.messages import check_message

EXP = """module "m"(%x: tensor<2x3xf32>) -> ("y") {
  %y = tensor.exp(%x) : tensor<2x3xf32> loc("exp" "act")
  return(%y)
}
"""
LOOP = """module "m"(%x: tensor<2x3xf32>) -> ("y") {
  tile.for(_) {total = 2, step = 1, first = 1} { ^(%it: index, %off: index, %len: index):
    yield()
  } loc("loop" "act")
  return(%x)
}
"""


def changed(text: str, change: Callable[[Module], object]) -> Callable[[], None]:
    """Parse, change, verify."""

    def run() -> None:
        module = parse(text)
        change(module)
        verify(module)

    return run


def attributes(module: Module) -> None:
    turned = Builder(module.body, before=module.body.ops[-1]).create("tensor.transpose", module.args[0], perm=(1, 0))
    turned.attrs["perm"] = [1, 0]


def twice() -> Module:
    b = Builder()
    x = b.argument("x", TensorType((2,), "f32"))
    b.argument("x", TensorType((2,), "f32"))
    return b.module("m", {"y": x})


def replaced(module: Module) -> None:
    Rewriter(module).replace(module.body.ops[0], [module.args[0], module.args[0]])


def detached(module: Module) -> None:
    rewriter = Rewriter(module)
    last, first = module.body.ops[-1], module.body.ops[0]
    rewriter.erase(last)
    rewriter.move_before(last, first)


def concentrated(rows: int, tiles: list[tuple[int, int]]) -> Callable[[], object]:
    return lambda: Concentrated((4, 32), tiles, np.zeros((rows, 1), np.int64), np.zeros((4, 32), np.float32))


CASES: dict[str, Callable[[], object]] = {
    "attr.canonical": changed(EXP, attributes),
    "block.parent": changed(LOOP, lambda m: setattr(m.body.ops[0].regions[0], "parent", None)),
    "op.parent": changed(EXP, lambda m: setattr(m.body.ops[0], "parent", None)),
    "value.uses": changed(EXP, lambda m: m.args[0].drop_use(m.body.ops[0])),
    "module.args": lambda: verify(twice()),
    "rewrite.detached": changed(EXP, detached),
    "rewrite.erase": changed(EXP, lambda m: Rewriter(m).erase(m.body.ops[0])),
    "rewrite.results": changed(EXP, replaced),
    "run.concentrated": concentrated(3, [(0, 4)]),
    "run.concentrated-tiles": concentrated(4, [(0, 2), (3, 4)]),
    "run.input": lambda: interpret(parse(EXP), {"x": np.zeros((2, 4), np.float32)}),
    "run.inputs": lambda: interpret(parse(EXP), {}),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str, request: pytest.FixtureRequest) -> None:
    check_message(name, CASES[name], request)


def broken(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("division by zero")


def test_an_op_whose_types_cannot_be_inferred(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(op_class("tensor.exp"), "infer", staticmethod(broken))
    check_message("op.infer", lambda: parse(EXP), request)


def test_an_op_that_cannot_be_executed(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(op_class("tensor.exp"), "evaluate", staticmethod(broken))
    check_message("run.failed", lambda: interpret(parse(EXP), {"x": np.zeros((2, 3), np.float32)}), request)


def test_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.fir").write_bytes(b"module \xff")
    check_message("file.read", lambda: read_module("m.fir"), request)
    Path("r.safetensors").write_bytes((100).to_bytes(8, "little"))
    check_message("resource.file", lambda: read_resources(Path("r.safetensors")), request)
    weight = {"w": Resource("w", np.zeros((4, 8), np.float32))}
    constant = '%w = tensor.constant() {value = resource<"w">} : tensor<9x9xf32>'
    text = f'module "m"() -> ("y") {{\n  {constant}\n  return(%w)\n}}\n'
    check_message("resource.type", lambda: parse(text, resources=weight), request)


def test_a_pass_that_changes_values(request: pytest.FixtureRequest) -> None:
    manager = PassManager("dead-code,test-double-negation,test-scale", verify_each=True)
    check_message("pass.values", lambda: manager.run(sample()), request, hide=r"(?<=by )[\d.e+-]+")


def test_text_that_is_too_long(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.setattr(tree, "MAX_CHARACTERS", 100)
    check_message("parse.size", lambda: parse(EXP), request)


def test_token_numbers_outside_the_table(request: pytest.FixtureRequest) -> None:
    text = """module "m"(%input_ids: tensor<1x3xi64>) -> ("y") {
  %table = tensor.constant() {value = dense<2x2xf32, [1.0, 2.0, 3.0, 4.0]>} : tensor<2x2xf32>
  %ids = tensor.reshape(%input_ids) {shape = [3]} : tensor<3xi64>
  %y = nn.embed(%ids, %table) : tensor<3x2xf32> loc("/embed/Gather" "embed")
  return(%y)
}
"""
    for name, number in (("run.index-input", 2), ("run.index-negative", -1)):
        ids = np.array([[0, 1, number]])
        check_message(name, lambda ids=ids: interpret(parse(text), {"input_ids": ids}), request)
