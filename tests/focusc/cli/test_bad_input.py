"""Bad input ends with status 1 and one clear message, never with a traceback; the messages are golden texts."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import external_data_helper

from .conftest import Cli

Golden = Callable[[str, str], None]


def refused(cli: Cli, golden: Golden, name: str, *arguments: str) -> None:
    """The command fails with status 1 and the golden message on stderr, and leaves no output file."""
    found = cli(*arguments)
    assert found.status == 1
    assert "Traceback" not in found.err
    assert "error[bug]" not in found.err
    assert found.out == ""
    for option in ("-o", "--stats"):
        if option in arguments:
            written = Path(arguments[arguments.index(option) + 1])
            assert not list(Path(".").rglob(f"*{written.name}*")), "something half-written was left"
    # which passes there are is no part of the message under test
    text = re.sub(r"(passes before it:|hint: known:) .*", r"\1 ...", str(found))
    golden(name, re.sub(r"\b[0-9a-f]{12}\b", "<digest>", text))


class TestFiles:
    def test_missing_model(self, cli: Cli, golden: Golden) -> None:
        refused(cli, golden, "model_missing", "compile", "nothing.onnx", "-o", "out.fbin")

    def test_misspelt_model(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "model.onnx").touch()
        refused(cli, golden, "model_misspelt", "compile", "modle.onnx", "-o", "out.fbin")

    def test_folder_instead_of_a_model(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "folder.onnx").mkdir()
        refused(cli, golden, "model_folder", "ops", "folder.onnx")

    def test_unknown_kind(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "model.pt").touch()
        refused(cli, golden, "model_kind", "compile", "model.pt", "-o", "out.fbin")

    def test_program_instead_of_a_model(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "p.fbin").touch()
        refused(cli, golden, "model_is_program", "compile", "p.fbin", "-o", "out.fbin")

    def test_model_instead_of_a_program(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").touch()
        refused(cli, golden, "program_is_model", "run", "m.onnx", "--inputs", "in.npz", "-o", "out.npz")


class TestOnnx:
    def save(self, model: onnx.ModelProto) -> None:
        Path("m.onnx").write_bytes(model.SerializeToString())

    def test_not_onnx(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "m.onnx").write_bytes(b"\x00\xffnot a protobuf" * 9)
        refused(cli, golden, "onnx_not_a_model", "compile", "m.onnx", "-o", "out.fbin")

    def test_checker(self, cli: Cli, golden: Golden, small_model: onnx.ModelProto) -> None:
        small_model.graph.node[0].input[1] = "nowhere"
        self.save(small_model)
        refused(cli, golden, "onnx_checker", "compile", "m.onnx", "-o", "out.fbin")

    def test_dynamic_shape(self, cli: Cli, golden: Golden, small_model: onnx.ModelProto) -> None:
        small_model.graph.input[0].type.tensor_type.shape.dim[0].dim_param = "batch"
        self.save(small_model)
        refused(cli, golden, "onnx_dynamic_shape", "compile", "m.onnx", "-o", "out.fbin")

    def test_unsupported_op(self, cli: Cli, golden: Golden, small_model: onnx.ModelProto) -> None:
        small_model.graph.node[1].op_type = "Det"
        del small_model.graph.output[:]
        y = onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [])
        small_model.graph.output.append(y)
        small_model.graph.node[0].input[0] = "x"
        del small_model.graph.initializer[:]
        small_model.graph.initializer.append(onnx.numpy_helper.from_array(np.ones((3, 2), np.float32), "w"))
        self.save(small_model)
        refused(cli, golden, "onnx_unsupported_op", "compile", "m.onnx", "-o", "out.fbin")
        listed = cli("ops", "m.onnx")
        assert listed.status == 1
        golden("ops_unsupported", str(listed))

    def test_imported_but_not_lowered(self, cli: Cli, small_model: onnx.ModelProto) -> None:
        small_model.graph.node[1].op_type = "CumSum"
        small_model.graph.node[1].input.append("axis")
        small_model.graph.initializer.append(onnx.numpy_helper.from_array(np.array(1), "axis"))
        self.save(small_model)
        found = cli("ops", "m.onnx", "--host", "none", "--json")
        assert found.status == 1
        report = json.loads(found.out)
        assert "supported" in report, str(found)
        assert not report["supported"]
        assert [node["status"] for node in report["nodes"]] == ["supported", "unsupported"]
        assert report["nodes"][1]["problem"]["code"] == "lower.op"
        assert cli("compile", "m.onnx", "-o", "out.fbin", "--concentrate", "none", "--host", "none").status == 1

    def test_missing_external_data(
        self, cli: Cli, golden: Golden, small_model: onnx.ModelProto, tmp_path: Path
    ) -> None:
        weight = small_model.graph.initializer[0]
        external_data_helper.set_external_data(weight, "weights.bin", offset=0, length=48)
        weight.ClearField("raw_data")
        self.save(small_model)
        refused(cli, golden, "onnx_external_data", "compile", "m.onnx", "-o", "out.fbin")


class TestLayout:
    def test_span_outside_the_sequence(self, cli: Cli, golden: Golden, decoder: Path) -> None:
        refused(
            cli,
            golden,
            "layout_visual",
            "compile",
            "decoder.onnx",
            "-o",
            "out.fbin",
            "--visual",
            "20,32",
            "--grid",
            "2,4,4",
            "--query",
            "4",
        )

    def test_ops_uses_and_checks_the_layout_given(self, cli: Cli, decoder: Path) -> None:
        own = cli("ops", "decoder.onnx", "--nodes", "none")
        assert own.status == 0
        assert "token layout: visual (2, 32); grid (2, 4, 4)" in own.out
        flags = ("--grid", "2,4,4", "--query", "4")
        given = cli("ops", "decoder.onnx", "--visual", "2,32", "--json", *flags)
        assert given.status == 0
        assert json.loads(given.out)["layout"]["visual"] == [2, 32]
        outside = cli("ops", "decoder.onnx", "--visual", "20,32", *flags)
        assert outside.status == 1
        assert "error[layout.visual]" in outside.out

    def test_grid_does_not_multiply_out(self, cli: Cli, golden: Golden, decoder: Path) -> None:
        refused(
            cli,
            golden,
            "layout_grid",
            "compile",
            "decoder.onnx",
            "-o",
            "out.fbin",
            "--visual",
            "2,32",
            "--grid",
            "2,4,5",
            "--query",
            "4",
        )

    def test_not_numbers(self, cli: Cli, golden: Golden, decoder: Path) -> None:
        refused(cli, golden, "layout_text", "compile", "decoder.onnx", "-o", "out.fbin", "--visual", "two,32")

    def test_no_layout_table(self, cli: Cli, golden: Golden, decoder: Path, tmp_path: Path) -> None:
        (tmp_path / "l.toml").write_text("grid = [2, 4, 4]\n")
        refused(cli, golden, "layout_table", "compile", "decoder.onnx", "-o", "out.fbin", "--layout", "l.toml")

    def test_a_file_and_flags_for_a_model_that_does_not_say(self, cli: Cli, decoder: Path) -> None:
        model = onnx.load(decoder)
        del model.metadata_props[:]
        onnx.save(model, "foreign.onnx")
        Path("l.toml").write_text("[layout]\nvisual = [2, 32]\ngrid = [2, 4, 4]\nquery = 4\n")
        Path("part.toml").write_text("[layout]\nvisual = [2, 32]\ngrid = [2, 4, 4]\nquery = 5\n")
        flags = ("--visual", "2,32", "--grid", "2,4,4", "--query", "4")
        for given in (("--layout", "l.toml"), flags, ("--layout", "part.toml", "--query", "4")):
            layout = json.loads(cli("ops", "foreign.onnx", "--json", *given).out)["layout"]
            assert layout == {"visual": [2, 32], "grid": [2, 4, 4], "strides": [16, 4, 1], "query": 4}
        done = cli("compile", "foreign.onnx", "-o", "out.fbin", "--concentrate", "sec", "--layout", "l.toml")
        assert done.status == 0, done.err

    def test_contradiction_in_a_file_names_its_line(self, cli: Cli, golden: Golden, decoder: Path) -> None:
        Path("l.toml").write_text("[layout]\nvisual = [2, 32]\n\ngrid = [2, 4, 5]\nquery = 4\n")
        refused(cli, golden, "layout_line", "compile", "decoder.onnx", "-o", "out.fbin", "--layout", "l.toml")
        Path("c.toml").write_text("target = 'focus'\n[layout]\nvisual = [2, 32]\nquery = 4\n")
        refused(cli, golden, "layout_config", "compile", "decoder.onnx", "-o", "out.fbin", "--config", "c.toml")

    def test_concentrate_without_a_layout(self, cli: Cli, golden: Golden, small_model: onnx.ModelProto) -> None:
        Path("m.onnx").write_bytes(small_model.SerializeToString())
        refused(cli, golden, "layout_missing", "compile", "m.onnx", "-o", "out.fbin", "--concentrate", "sec")


class TestOptions:
    @pytest.mark.parametrize(
        ("name", "text"),
        [
            ("config_syntax", "target = focus\n"),
            ("config_key", "target = 'focus'\n\n[tilling]\nm = 8\n"),
            ("config_layout_key", "[layout]\nvisul = [2, 32]\n"),
            ("config_schedule", "[concentrate]\nschedule = 'published:lava-video'\n"),
            ("config_method", "[concentrate]\nthreshold = 0.9\nmethod = 'most'\n"),
            ("config_option", "[concentrate]\ntreshold = 0.9\n"),
            ("config_type", "[concentrate]\nthreshold = 'high'\n"),
            ("config_target", "target = 'gpu'\n"),
            ("schedule_no_such_layer", "[concentrate]\nschedule = '[1:0.5,7:0.2]'\n"),
            ("schedule_rising", "[concentrate]\nschedule = '[0:0.2,1:0.5]'\n"),
            ("tile_m_too_large", "[tiling]\nm = 4096\n"),
            ("tile_unknown_option", "[tiling]\nmm = 64\n"),
        ],
    )
    def test_config_file(self, cli: Cli, golden: Golden, decoder: Path, name: str, text: str) -> None:
        Path("c.toml").write_text(text)
        refused(cli, golden, name, "compile", "decoder.onnx", "-o", "out.fbin", "--config", "c.toml")

    def test_hardware_buffer_too_small(self, cli: Cli, golden: Golden, decoder: Path) -> None:
        from importlib import resources

        text = resources.files("focusc.backends").joinpath("focus/focus.toml").read_text()
        head, _, tail = text.partition("[buffers.output]\nbytes = ")
        Path("small.toml").write_text(head + "[buffers.output]\nbytes = 4_096 #" + tail)
        refused(cli, golden, "hardware_buffer", "compile", "decoder.onnx", "-o", "out.fbin", "--target", "small.toml")

    def test_concentrating_on_a_target_without_the_unit(self, cli: Cli, golden: Golden, decoder: Path) -> None:
        refused(
            cli,
            golden,
            "target_without_sic",
            "compile",
            "decoder.onnx",
            "-o",
            "out.fbin",
            "--target",
            "systolic",
            "--concentrate",
            "sic",
        )

    def test_unknown_pass(self, cli: Cli, golden: Golden, decoder: Path) -> None:
        refused(cli, golden, "pass_unknown", "opt", "decoder.onnx", "-p", "fuse-everything", "-o", "out.fir")


class TestText:
    def test_ir_syntax(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "m.fir").write_text("module @m {\n  %0 = = nn.gelu(%x)\n}\n")
        refused(cli, golden, "ir_syntax", "opt", "m.fir", "-p", "canonicalise", "-o", "out.fir")

    def test_asm_syntax(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "p.fasm").write_text("  li r1, 5\n  mma t0, k=32,\n  halt\n")
        refused(cli, golden, "asm_syntax", "asm", "p.fasm", "-o", "out.fbin")

    def test_asm_type(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "p.fasm").write_text("  li t1, 5\n  halt\n")
        refused(cli, golden, "asm_operand", "asm", "p.fasm", "-o", "out.fbin")
