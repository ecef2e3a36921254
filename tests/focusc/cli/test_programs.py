"""Damaged, foreign and unfit program files, and unfit inputs: one golden message each."""

from __future__ import annotations

import json
import signal
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest

from benchmarks.synthetic import Decoder
from focusc.isa import disassemble, load
from tests.arrays import save_arrays

from .conftest import Cli
from .test_bad_input import Golden, refused


@pytest.fixture
def program(cli: Cli, decoder: Path, decoder_inputs: Path) -> Path:
    """decoder.onnx compiled to p.fbin in the test's folder, with in.npz beside it."""
    done = cli("compile", "decoder.onnx", "-o", "p.fbin")
    assert done.status == 0, str(done)
    return Path("p.fbin")


def damaged(path: Path, change: Callable[[bytearray], bytes | bytearray]) -> None:
    path.write_bytes(change(bytearray(path.read_bytes())))


RUN = ("run", "p.fbin", "--inputs", "in.npz", "-o", "out.npz")


class TestContainer:
    @pytest.mark.parametrize("part", [0.0, 0.01, 0.3, 0.9, 0.9999])
    def test_truncated(self, cli: Cli, program: Path, part: float) -> None:
        damaged(program, lambda data: data[: int(len(data) * part)])
        found = cli(*RUN)
        assert found.status == 1
        assert found.err.startswith("p.fbin")
        assert "error[container." in found.err
        assert not Path("out.npz").exists()

    def test_cut_in_half(self, cli: Cli, golden: Golden, program: Path) -> None:
        program.write_bytes(bytes(program.read_bytes()[:8]) + bytes(100))
        refused(cli, golden, "program_truncated", *RUN)

    def test_not_a_program(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        (tmp_path / "p.fbin").write_bytes(b"this is text, not a program" * 40)
        refused(cli, golden, "program_not_one", *RUN)

    @pytest.mark.parametrize("place", [0.02, 0.2, 0.4, 0.6, 0.8, 0.99])
    def test_bit_flipped(self, cli: Cli, program: Path, place: float) -> None:
        def flip(data: bytearray) -> bytearray:
            # a byte that lies in a section, not in the zeros between sections
            at = next(i for i in range(int(len(data) * place), len(data)) if data[i])
            data[at] ^= 0x10
            return data

        damaged(program, flip)
        found = cli(*RUN)
        assert found.status == 1
        assert "error[container." in found.err

    def test_wrong_version(self, cli: Cli, golden: Golden, program: Path) -> None:
        damaged(program, lambda data: data[:8] + struct.pack("<I", 999) + data[12:])
        refused(cli, golden, "program_version", *RUN)

    def test_wrong_target(self, cli: Cli, golden: Golden, program: Path) -> None:
        refused(cli, golden, "program_target", *RUN, "--target", "systolic")


class TestInputs:
    @pytest.mark.parametrize(
        ("name", "arrays"),
        [
            ("inputs_missing", {}),
            ("inputs_misnamed", {"embedings": np.zeros((1, 38, 64), np.float32)}),
            ("inputs_unrelated", {"zzz": np.zeros(3, np.float32)}),
            ("inputs_shape", {"embeddings": np.zeros((1, 38, 63), np.float32)}),
            ("inputs_dtype", {"embeddings": np.zeros((1, 38, 64), np.int64)}),
            ("inputs_nan", {"embeddings": np.full((1, 38, 64), np.nan, np.float32)}),
            ("inputs_range", {"embeddings": np.full((1, 38, 64), 1e6, np.float32)}),
        ],
    )
    def test_wrong_arrays(
        self, cli: Cli, golden: Golden, program: Path, name: str, arrays: dict[str, np.ndarray]
    ) -> None:
        save_arrays("in.npz", arrays)
        refused(cli, golden, name, *RUN)

    def test_token_ids_outside_the_vocabulary(self, cli: Cli, golden: Golden, tmp_path: Path) -> None:
        helper = onnx.helper
        nodes = [
            helper.make_node("Reshape", ["input_ids", "flat"], ["ids"]),
            helper.make_node("Gather", ["embed.weight", "ids"], ["rows"], name="embed"),
            helper.make_node("Relu", ["rows"], ["y"]),
        ]
        weights = {"embed.weight": np.ones((5, 32), np.float32), "flat": np.array([4])}
        graph = helper.make_graph(
            nodes,
            "ids",
            [helper.make_tensor_value_info("input_ids", onnx.TensorProto.INT64, [2, 2])],
            [helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [4, 32])],
            [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
        )
        onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=9), "ids.onnx")
        assert cli("compile", "ids.onnx", "-o", "p.fbin", "--concentrate", "none").status == 0
        np.savez("in.npz", input_ids=np.array([[0, 4], [3, 0]]))
        assert cli(*RUN).status == 0
        Path("out.npz").unlink()
        for name, wrong in (("inputs_above_the_vocabulary", 5), ("inputs_below_the_vocabulary", -1)):
            np.savez("in.npz", input_ids=np.array([[0, 4], [wrong, 0]]))
            refused(cli, golden, name, *RUN)

    def test_not_an_npz(self, cli: Cli, golden: Golden, program: Path) -> None:
        Path("in.npz").write_text("hello")
        refused(cli, golden, "inputs_file", *RUN)

    def test_another_byte_order(self, cli: Cli, program: Path) -> None:
        """Arrays of a big-endian machine are converted: the outputs are the same to the bit."""
        with np.load("in.npz") as arrays:
            swapped = {name: array.astype(array.dtype.newbyteorder(">")) for name, array in arrays.items()}
        assert cli(*RUN).status == 0
        here = Path("out.npz").read_bytes()
        np.savez("in.npz", **swapped)
        assert b">f4" in Path("in.npz").read_bytes()
        assert cli(*RUN).status == 0
        assert Path("out.npz").read_bytes() == here

    def test_missing_file(self, cli: Cli, golden: Golden, program: Path) -> None:
        Path("in.npz").unlink()
        refused(cli, golden, "inputs_no_file", *RUN)

    def test_trace_of_another_program(self, cli: Cli, golden: Golden, program: Path) -> None:
        np.savez("t.npz", x=np.zeros(3))
        refused(cli, golden, "trace_foreign", "simulate", "p.fbin", "--trace", "t.npz")


def test_a_reader_that_leaves_is_no_error(tmp_path: Path) -> None:
    Decoder(layers=30).write(tmp_path / "d.onnx")
    command = [sys.executable, "-c", "from focusc.cli import main; main()", "ops", str(tmp_path / "d.onnx"), "--json"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None and process.stderr is not None
    assert process.stdout.read(2) == b"{\n"
    process.stdout.close()  # its report is longer than a pipe holds
    assert process.stderr.read() == b""
    assert process.wait(60) == -signal.SIGPIPE
    process.stderr.close()


STATS = {"cycles", "time_s", "energy_mj", "dram_bytes", "macs_dense", "macs", "sparsity", "engines", "stalls", "sites"}


def test_every_command_from_model_to_statistics(cli: Cli, decoder: Path, decoder_inputs: Path) -> None:
    def done(*arguments: str) -> dict[str, Any]:
        found = cli(*arguments, "--json")
        assert found.status == 0, str(found)
        return json.loads(found.out)

    compiled = done("compile", "decoder.onnx", "-o", "p.fbin", "--dump-ir", "ir")
    assert compiled["concentrate"] == "focus"
    assert compiled["bytes"] == Path("p.fbin").stat().st_size
    run = ("run", "p.fbin", "--inputs", "in.npz", "-o", "out.npz", "--stats", "s.json")
    done(*run, "--record-trace", "t.npz", "--timeline", "t.pftrace")
    with np.load("out.npz") as outputs:
        assert outputs["logits"].shape == (1, 1, 32)
    stats = json.loads(Path("s.json").read_text())
    assert stats.keys() >= STATS | {"nodes", "digests"}
    assert stats["energy_mj"].keys() >= {"dram", "sram", "core", "total"}
    assert stats["dram_bytes"].keys() >= {"read", "write"}
    assert stats["sparsity"] > 0
    assert Path("t.pftrace").stat().st_size > 1000
    done("simulate", "p.fbin", "--trace", "t.npz", "--stats", "again.json")
    assert json.loads(Path("again.json").read_text()) == stats
    assert done("objdump", "p.fbin", "-h", "-d", "-t")
    Path("p.fasm").write_text(disassemble(load("p.fbin")))
    assert done("asm", "p.fasm", "-o", "again.fbin")["instructions"] == compiled["instructions"]
    snapshot = next(Path("ir").glob("*-concentrate.fir"))
    assert done("opt", str(snapshot), "-p", "dead-code", "-o", "again.fir")["passes"][0]["name"] == "dead-code"
    assert Path("again.fir").exists()
