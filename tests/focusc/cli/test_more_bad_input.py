"""More bad input at the command line: comparisons, files that cannot be read, options that do not go together."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest

from focusc.driver import load_workload, ops, write_workload
from focusc.driver.exporter import export
from focusc.driver.patches import patch_flow
from focusc.driver.traces import load_trace
from focusc.ir import parse
from focusc.isa.dynamic import DynamicCounts
from focusc.report.reproduce.figures import Number
from tests.messages import check_message

from .conftest import Cli
from .test_bad_input import Golden, refused

IR = """module "m"(%x: tensor<2x3xf32>) -> ("y") {layout = {visual = [0, 1], grid = [1, 1, 1], strides = [1, 1, 1], query = 1}} {
  %y = tensor.exp(%x) : tensor<2x3xf32>
  return(%y)
}
"""  # noqa: E501


def test_assembly_that_is_no_text(cli: Cli, golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "p.fasm").write_bytes(b"\x89FBIN\xff\xfe")
    refused(cli, golden, "asm_text", "asm", "p.fasm", "-o", "out.fbin")


def test_compare(cli: Cli, golden: Golden, small_model: onnx.ModelProto) -> None:
    Path("m.onnx").write_bytes(small_model.SerializeToString())
    refused(cli, golden, "compare_method", "compare", "m.onnx", "--methods", "none,most")
    refused(cli, golden, "compare_no_questions", "compare", "m.onnx", "--methods", "none")
    np.savez("s.npz", x=np.ones((2, 3), np.float32), answer=np.array(["cat", "dog"]))
    refused(cli, golden, "compare_answers", "compare", "m.onnx", "--methods", "none", "--inputs", "s.npz")


def test_a_file_without_permission(
    monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("m.onnx").touch()
    monkeypatch.setattr(os, "access", lambda *_: False)  # tests may run as root, who may read everything
    check_message("file.unreadable", lambda: ops("m.onnx"), request)


def test_a_layout_for_ir(cli: Cli, golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "m.fir").write_text(IR)
    layout = ("--visual", "0,1", "--grid", "1,1,1", "--query", "1")
    refused(cli, golden, "layout_given", "compile", "m.fir", "-o", "out.fbin", *layout)


def test_a_timeline_of_another_kind(cli: Cli, golden: Golden, tmp_path: Path) -> None:
    (tmp_path / "p.fbin").touch()
    arguments = ("run", "p.fbin", "--inputs", "in.npz", "-o", "out.npz", "--timeline", "t.txt")
    refused(cli, golden, "timeline_format", *arguments)


def test_a_workload_is_written_as_text(request: pytest.FixtureRequest) -> None:
    found = load_workload("llava-video-7b")
    check_message("file.suffix", lambda: write_workload(found, "model.onnx"), request)


def test_a_picture_of_a_dense_module(request: pytest.FixtureRequest) -> None:
    check_message("patches.none", lambda: patch_flow(parse(IR), {"x": np.zeros((2, 3), np.float32)}), request)


def test_counts_alone_are_no_trace(
    tmp_path: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    DynamicCounts().save("t.npz")
    check_message("trace.tables", lambda: load_trace("t.npz"), request)


def test_an_opset_that_the_demo_is_not_exported_with(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    check_message("export.model", lambda: export("demo", tmp_path / "m.onnx", opset=18), request)


def test_a_number_of_unknown_provenance(request: pytest.FixtureRequest) -> None:
    check_message("reproduce.number", lambda: Number({"row": "a"}, "cycles", "", 1.0, None, "guessed"), request)
