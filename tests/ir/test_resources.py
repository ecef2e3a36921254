"""Resources: digests, names, the file format, and files that are not what they claim."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.numpy
from hypothesis import given
from hypothesis import strategies as st

from focusc.ir import (
    Builder,
    CompileError,
    Resource,
    ResourceTable,
    print_module,
    read_module,
    read_resources,
    same_module,
    write_module,
    write_resources,
)
from focusc.ir.types import DTYPES


def arrays() -> dict[str, np.ndarray]:
    r = np.random.default_rng(0)
    return {f"w/{name}": r.integers(0, 2, (3, 5)).astype(dtype) for name, dtype in DTYPES.items()} | {
        "scalar": np.array(2.5, np.float32), "empty": np.zeros((0, 4), np.float16),
    }  # fmt: skip


def test_written_file_is_safetensors(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    write_resources(path, {k: Resource(k, v) for k, v in arrays().items()})
    for key, value in safetensors.numpy.load_file(path).items():
        np.testing.assert_array_equal(value, arrays()[key])


def test_safetensors_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "r.safetensors"
    safetensors.numpy.save_file(arrays(), path, metadata={"made by": "someone"})
    found = read_resources(path)
    assert set(found) == set(arrays())
    for key, value in arrays().items():
        np.testing.assert_array_equal(found[key].array, value)
        assert found[key] == Resource(key, value)


def test_values_are_read_only(tmp_path: Path) -> None:
    resource = Resource("w", np.zeros(3, np.float32))
    with pytest.raises(ValueError, match="read-only"):
        resource.array[0] = 1


def test_digest_depends_on_content_shape_and_type() -> None:
    base = np.arange(6, dtype=np.int32)
    others = [base.reshape(2, 3), base.astype(np.int64), base.view(np.float32), base + 1]
    assert Resource("a", base).digest == Resource("b", base.copy()).digest
    assert len({Resource("", a).digest for a in [base, *others]}) == 5


def test_loader_runs_once_and_late() -> None:
    calls: list[int] = []

    def load() -> np.ndarray:
        calls.append(1)
        return np.ones((2, 2), np.float32)

    resource = Resource("w", shape=(2, 2), dtype="f32", loader=load)
    assert (resource.nbytes, calls) == (16, [])
    assert resource.array.sum() == resource.array.sum() == 4
    assert calls == [1]


def test_names_are_unique_in_a_table() -> None:
    table = ResourceTable()
    a, b, c = (Resource("w", np.full(20, v, np.float32)) for v in (1, 2, 1))
    assert [table.name_of(r) for r in (a, b, c, a)] == ["w", "w~2", "w", "w"]
    assert table.name_of(Resource("", np.zeros(20, np.float32))) == "constant"


def test_module_file_reads_back_with_colliding_names(tmp_path: Path) -> None:
    b = Builder()
    first = b.constant(Resource("w", np.full((4, 8), 1, np.float32)))
    second = b.constant(Resource("w", np.full((4, 8), 2, np.float32)))
    module = b.module("m", {"y": b.emit("tensor.add", first, second)})
    path = write_module(module, tmp_path / "m.fir")
    assert 'resource<"w~2">' in path.read_text()
    assert same_module(read_module(path), module)
    assert print_module(read_module(path)) == print_module(module)


@pytest.mark.parametrize("name", ["absent.fir", "folder"])
def test_unreadable_module_is_a_clear_error(tmp_path: Path, name: str) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(CompileError, match=r"error\[file.read\]: .* cannot be read"):
        read_module(tmp_path / name)


def test_binary_module_is_a_clear_error(tmp_path: Path) -> None:
    (tmp_path / "m.fir").write_bytes(b"module \xff\xfe")
    with pytest.raises(CompileError, match="is not UTF-8 text: byte 7"):
        read_module(tmp_path / "m.fir")


def file_with(path: Path, header: Any, data: bytes = b"\0" * 16, length: int | None = None) -> Path:
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    path.write_bytes((len(text) if length is None else length).to_bytes(8, "little") + text + data)
    return path


GOOD = {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}


@pytest.mark.parametrize(
    "entry",
    [
        {**GOOD, "dtype": "Q4"},
        {**GOOD, "shape": [2, 3]},
        {**GOOD, "shape": [-2, -2]},
        {**GOOD, "shape": [2.0, 2]},
        {**GOOD, "shape": [1 << 60, 1 << 60]},
        {**GOOD, "shape": "22"},
        {**GOOD, "data_offsets": [16, 32]},
        {**GOOD, "data_offsets": [0]},
        {**GOOD, "data_offsets": [-16, 0]},
        {"dtype": "F32"},
        {**GOOD, "dtype": ["F32"]},
        7,
        None,
    ],
)
def test_false_entry_is_refused(tmp_path: Path, entry: Any) -> None:
    with pytest.raises(CompileError, match=r"error\[resource.file\]"):
        read_resources(file_with(tmp_path / "r.safetensors", {"w": entry}))


@pytest.mark.parametrize(
    ("header", "length"),
    [(b"{", None), (b"[]", None), (b"{}", 1 << 62), (b"{}", 100), (b"[" * 50_000, None), (b"", None)],
)
def test_false_header_is_refused(tmp_path: Path, header: bytes, length: int | None) -> None:
    with pytest.raises(CompileError, match=r"error\[resource.file\]"):
        read_resources(file_with(tmp_path / "r.safetensors", header, length=length))


@given(st.binary(max_size=60))
def test_any_bytes_are_a_file_or_a_clear_error(data: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "r.safetensors"
        path.write_bytes(data)
        try:
            read_resources(path)
        except CompileError as error:
            assert error.diagnostics[0].code == "resource.file"
