"""Files are written whole or not at all."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
import zipfile
from pathlib import Path

import numpy as np
import pytest

from focusc.backends.trace_file import read_arrays
from focusc.driver import files
from focusc.driver.arrays import read_npz, write_npz
from focusc.driver.errors import InputError
from focusc.ir.diagnostics import CompileError
from focusc.isa import IsaError
from focusc.isa.dynamic import DynamicCounts


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_a_file_appears_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "new" / "out.bin"
    with files.atomic_writer(target) as file:
        file.write(b"whole")
        assert not target.exists()
    assert target.read_bytes() == b"whole"
    assert names(target.parent) == ["out.bin"]
    (tmp_path / "other").touch()
    assert target.stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("unnamed", [True, False])
def test_a_failure_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, unnamed: bool) -> None:
    if not unnamed:
        monkeypatch.delattr(os, "O_TMPFILE")
    target = tmp_path / "out.bin"
    target.write_bytes(b"before")
    with pytest.raises(KeyboardInterrupt), files.atomic_writer(target) as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert target.read_bytes() == b"before"
    assert names(tmp_path) == ["out.bin"]


def test_a_full_disk_is_one_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(InputError) as caught, files.atomic_writer(tmp_path / "out.bin") as file:
        file.write(b"half")
    assert caught.value.code == "file.write"
    assert "No space left on device" in caught.value.render()
    assert names(tmp_path) == []


def test_a_real_limit_on_the_file_size_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import resource, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))\n"
        "import numpy; from focusc.driver.arrays import write_npz\n"
        "write_npz(sys.argv[1], {'x': numpy.zeros(1_000_000)})"
    )
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path / "out.npz")], capture_output=True, text=True)
    assert done.returncode == 1
    assert "file.write" in done.stderr
    assert names(tmp_path) == []


def test_a_killed_writer_leaves_nothing(tmp_path: Path) -> None:
    code = (
        "import sys, time; from focusc.driver.files import atomic_writer\n"
        "with atomic_writer(sys.argv[1]) as file:\n"
        "    file.write(b'half' * 100_000); file.flush(); print('wrote', flush=True); time.sleep(60)"
    )
    process = subprocess.Popen([sys.executable, "-c", code, str(tmp_path / "out.bin")], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"wrote\n"
    process.send_signal(signal.SIGKILL)
    process.wait(10)
    time.sleep(0.05)
    assert names(tmp_path) == []


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"file\.write"), files.atomic_writer(tmp_path / "file" / "out.bin"):
        pass


def test_a_pipe_is_refused_and_stays(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for target in (pipe, link):
        with (
            pytest.raises(InputError, match=r"file\.write.*a device, a pipe or a socket"),
            files.atomic_writer(target) as file,
        ):
            file.write(b"lost")
    assert pipe.is_fifo()
    assert names(tmp_path) == ["link", "pipe"]


@pytest.mark.parametrize("there", [True, False])
def test_a_link_is_followed(tmp_path: Path, there: bool) -> None:
    real, link = tmp_path / "folder" / "real.bin", tmp_path / "link.bin"
    real.parent.mkdir()
    if there:
        real.write_bytes(b"before")
    link.symlink_to("folder/real.bin")
    with files.atomic_writer(link) as file:
        file.write(b"after")
    assert link.is_symlink()
    assert real.read_bytes() == b"after"
    assert names(real.parent) == ["real.bin"]


def test_a_loop_of_links_is_one_message(tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    with pytest.raises(InputError, match=r"file\.write"), files.atomic_writer(tmp_path / "a") as file:
        file.write(b"lost")
    assert names(tmp_path) == ["a", "b"]


class TestArrays:
    def test_round_trip(self, tmp_path: Path) -> None:
        given = {"pixels": np.arange(6, dtype=np.float32).reshape(2, 3), "ids": np.array([[1, 2]])}
        write_npz(tmp_path / "a.npz", given)
        found = read_npz(tmp_path / "a.npz")
        assert list(found) == list(given)
        for name, array in given.items():
            np.testing.assert_array_equal(found[name], array)
            assert found[name].dtype == array.dtype

    def test_pickled_objects_are_refused(self, tmp_path: Path) -> None:
        np.savez(tmp_path / "a.npz", x=np.array([{"not": "numbers"}], dtype=object))
        with pytest.raises(InputError, match="Python objects"):
            read_npz(tmp_path / "a.npz")

    def test_one_array_is_refused(self, tmp_path: Path) -> None:
        np.save(tmp_path / "a.npy", np.zeros(3))
        with pytest.raises(InputError, match="without a name"):
            read_npz(tmp_path / "a.npy")

    @pytest.mark.parametrize("damage", ["cut", "flipped", "text", "empty"])
    def test_damage_is_one_message(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "a.npz"
        np.savez_compressed(path, x=np.arange(1000.0))
        data = bytearray(path.read_bytes())
        if damage == "cut":
            data = data[: len(data) // 2]
        elif damage == "flipped":
            data[len(data) // 3] ^= 0xFF
        else:
            data = bytearray(b"hello" if damage == "text" else b"")
        path.write_bytes(data)
        with pytest.raises(InputError) as caught:
            read_npz(path)
        assert caught.value.code == "inputs.file"

    @pytest.mark.parametrize("damage", ["encrypted", "compression", "parenthesis", "dtype", "huge"])
    def test_crafted_archives_name_the_file_and_the_array(self, tmp_path: Path, damage: str) -> None:
        path = tmp_path / "a.npz"
        np.savez(path, pixels=np.arange(8, dtype=np.float32))
        data = bytearray(path.read_bytes())
        entry = data.index(b"PK\x01\x02")
        if damage == "encrypted":
            data[6] |= 1
            data[entry + 8] |= 1
        elif damage == "compression":
            data[8] = data[entry + 10] = 77
        else:
            header = {"parenthesis": "{'descr': ('<f4', 'fortran_order': False, 'shape': (8,), }",
                      "dtype": "{'descr': '<f4,,', 'fortran_order': False, 'shape': (8,), }",
                      "huge": f"{{'descr': '<f4', 'fortran_order': False, 'shape': ({1 << 60},), }}"}[damage]
            text = header.ljust(117).encode() + b"\n"
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("pixels.npy", b"\x93NUMPY\x01\x00" + len(text).to_bytes(2, "little") + text)
            data = bytearray(path.read_bytes())
        path.write_bytes(data)
        with pytest.raises(InputError, match=r"a\.npz: error\[inputs\.file\]: array pixels") as caught:
            read_npz(path)
        assert len(caught.value.render()) < 500
        with pytest.raises(IsaError, match=r"a\.npz: error\[counts\.format\]: not a recorded trace: array pixels"):
            DynamicCounts.load(path)
        with pytest.raises(CompileError, match=r"a\.npz: error\[trace\.format\]: not a trace: array pixels"):
            read_arrays(path)


def test_an_output_must_not_be_an_input_or_another_output(tmp_path: Path) -> None:
    model, link = tmp_path / "m.onnx", tmp_path / "link.fbin"
    model.write_bytes(b"model")
    link.symlink_to("m.onnx")
    os.link(model, tmp_path / "hard.fbin")
    for output in (model, link, tmp_path / "hard.fbin", tmp_path / "." / "m.onnx", tmp_path / "m.onnx.data"):
        with pytest.raises(InputError, match=r"error\[file\.same\]: the output -o is also an input, the model"):
            files.check_outputs({"-o": output}, {"the model": model, "--config": None})
    fresh = tmp_path / "new" / "o.npz"
    with pytest.raises(InputError, match="the output --stats is also another output, -o"):
        files.check_outputs({"-o": fresh, "--stats": tmp_path / "new" / ".." / "new" / "o.npz"}, {})
    with pytest.raises(InputError, match="the output --dump-ir is the folder of an input, the model"):
        files.check_outputs({"--dump-ir": tmp_path}, {"the model": tmp_path / "00-import.fir"})
    with pytest.raises(InputError, match="the output -o is also an input, the model"):
        files.check_outputs({"-o": tmp_path / "m.safetensors"}, {"the model": tmp_path / "m.fir"})
    files.check_outputs({"-o": fresh, "--stats": None, "--dump-ir": tmp_path}, {"the model": model, "--config": None})


def test_every_command_that_writes_checks_first(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    from focusc.cli import main

    monkeypatch.chdir(tmp_path)
    for name in ("m.onnx", "m.fir", "p.fbin", "p.fasm", "in.npz", "t.npz", "w.npz", "c.json", "x.npz", "x.npy"):
        Path(name).write_bytes(name.encode())
    for command in (
        "compile m.onnx -o m.onnx",
        "run p.fbin --inputs in.npz -o p.fbin",
        "run p.fbin --inputs in.npz -o in.npz",
        "run p.fbin --inputs in.npz -o o.npz --stats o.npz",
        "simulate p.fbin --trace t.npz --stats t.npz",
        "asm p.fasm -o p.fasm",
        "opt m.fir -p dead-code -o m.fir",
        "trace import t.npz -o t.npz",
        "export c.json -o x.onnx --tokens x.npy --pixels x.npz",
    ):
        with pytest.raises(SystemExit) as left:
            main(command.split())
        assert left.value.code == 1, command
        assert "error[file.same]" in capsys.readouterr().err, command
    assert all(path.read_bytes() == path.name.encode() for path in tmp_path.iterdir())
    assert not Path("o.npz").exists()
