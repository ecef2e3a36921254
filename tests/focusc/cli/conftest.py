"""Running commands in the test's own folder, and comparing what they print with golden texts."""

from __future__ import annotations

import difflib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import pytest

from benchmarks.synthetic import Decoder
from tests.arrays import save_arrays

GOLDEN = Path(__file__).parents[2] / "golden" / "cli"


@dataclass(frozen=True)
class Outcome:
    """What a command left: exit status and both streams."""

    command: str
    status: int
    out: str
    err: str

    def __str__(self) -> str:
        return f"$ focusc {self.command}\n{self.out}{self.err}exit {self.status}\n"


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run `focusc ARGUMENTS` in an empty folder; messages then hold relative paths only."""
    from focusc.cli import main

    monkeypatch.chdir(tmp_path)

    def run(*arguments: str) -> Outcome:
        capsys.readouterr()
        try:
            main(arguments)
            status = 0
        except SystemExit as leaving:
            status = int(leaving.code or 0)
        streams = capsys.readouterr()
        return Outcome(" ".join(arguments), status, streams.out, streams.err)

    return run


@pytest.fixture
def golden(request: pytest.FixtureRequest) -> Callable[[str, str], None]:
    """golden(name, text): the text must be what tests/golden/cli/NAME.txt holds; --bless rewrites the file."""

    def compare(name: str, text: str) -> None:
        file = GOLDEN / f"{name}.txt"
        if request.config.getoption("--bless", default=False):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text(text)
            return
        assert file.exists(), f"no golden text {file.name}; run pytest --bless and review it:\n{text}"
        expected = file.read_text()
        changes = difflib.unified_diff(expected.splitlines(), text.splitlines(), "expected", "found", lineterm="")
        assert text == expected, "\n" + "\n".join(changes)

    return compare


DECODER = Decoder()


@pytest.fixture
def decoder(tmp_path: Path) -> Path:
    """A two-layer decoder of width 64 with a 2 x 4 x 4 visual span, as decoder.onnx."""
    return DECODER.write(tmp_path / "decoder.onnx")


@pytest.fixture
def decoder_inputs(tmp_path: Path) -> Path:
    """Inputs of `decoder`, as in.npz."""
    path = tmp_path / "in.npz"
    save_arrays(path, DECODER.inputs())
    return path


@pytest.fixture
def small_model() -> onnx.ModelProto:
    """Relu(x @ w), 2 x 3 by 3 x 4: something to break."""
    node = onnx.helper.make_node("MatMul", ["x", "w"], ["y0"], name="product")
    relu = onnx.helper.make_node("Relu", ["y0"], ["y"], name="relu")
    weight = onnx.numpy_helper.from_array(np.ones((3, 4), np.float32), "w")
    x = onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [2, 3])
    y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [2, 4])
    graph = onnx.helper.make_graph([node, relu], "small", [x], [y], [weight])
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 20)], ir_version=9)
