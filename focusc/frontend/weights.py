"""Initialisers as resources: inline bytes without a copy, external data memory-mapped and bounds-checked."""

from __future__ import annotations

import math
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto

from focusc.frontend.errors import bad_model
from focusc.frontend.notes import Notes
from focusc.ir.diagnostics import CompileError, Diagnostic, Loc
from focusc.ir.resource import Resource

STORED: dict[int, np.dtype] = {
    TensorProto.FLOAT: np.dtype("<f4"),
    TensorProto.DOUBLE: np.dtype("<f8"),
    TensorProto.FLOAT16: np.dtype("<f2"),
    TensorProto.BFLOAT16: np.dtype("<u2"),
    TensorProto.INT64: np.dtype("<i8"),
    TensorProto.INT32: np.dtype("<i4"),
    TensorProto.INT16: np.dtype("<i2"),
    TensorProto.INT8: np.dtype("i1"),
    TensorProto.UINT16: np.dtype("<u2"),
    TensorProto.UINT8: np.dtype("u1"),
    TensorProto.BOOL: np.dtype("?"),
}
"""How ONNX stores the element types that can be imported."""

IMPORTED: dict[int, str] = {
    TensorProto.FLOAT: "f32",
    TensorProto.DOUBLE: "f32",
    TensorProto.FLOAT16: "f32",
    TensorProto.BFLOAT16: "f32",
    TensorProto.INT64: "i64",
    TensorProto.INT32: "i32",
    TensorProto.INT16: "i16",
    TensorProto.INT8: "i8",
    TensorProto.UINT16: "u16",
    TensorProto.UINT8: "u8",
    TensorProto.BOOL: "bool",
}
"""IR element type of each; every floating type becomes f32, the only one that the compiler computes in."""

WIDENED = frozenset({TensorProto.DOUBLE, TensorProto.FLOAT16, TensorProto.BFLOAT16})


def type_name(elem_type: int) -> str:
    """ONNX's name of an element type, also for one this version of onnx does not know."""
    names = {v: k for k, v in TensorProto.DataType.items()}
    return names.get(elem_type, f"type {elem_type}")


class ExternalFiles:
    """The external-data files of one model, each mapped once and read-only.

    `absent`: the model was exported without weights; the files have their size, and their values mean nothing.
    """

    def __init__(self, directory: Path, model: str, *, absent: bool = False) -> None:
        self._directory, self.model, self.absent = directory, model, absent
        self._maps: dict[str, np.ndarray] = {}

    def bytes_of(self, tensor: TensorProto) -> np.ndarray:
        """The tensor's bytes as a view into the mapped file, or a CompileError (missing, escaping, too short)."""
        info = {e.key: e.value for e in tensor.external_data}
        location = info.get("location", "")
        data = self._map(location, tensor.name)
        wanted = math.prod(tensor.dims) * STORED[tensor.data_type].itemsize
        try:
            offset, length = int(info.get("offset", "0")), int(info.get("length", str(wanted)))
        except ValueError:
            raise self._error("onnx.external-data", tensor.name, f"offset or length of {location!r} is not a number",
                              "write the model again") from None
        if length != wanted:
            raise self._error("onnx.external-data", tensor.name,
                              f"length in {location!r} is {length} bytes, but its shape {list(tensor.dims)} of "
                              f"{type_name(tensor.data_type)} takes {wanted}", "write the model again")
        if offset < 0 or offset + wanted > data.size:
            raise self._error("onnx.external-data", tensor.name,
                              f"bytes {offset} to {offset + wanted} of {location!r} are needed, but the file has "
                              f"{data.size} bytes", "the file is truncated or belongs to another export; copy it again")
        return data[offset : offset + wanted]

    def _map(self, location: str, tensor: str) -> np.ndarray:
        if location in self._maps:
            return self._maps[location]
        root = os.path.realpath(self._directory)
        path = os.path.realpath(os.path.join(root, location))
        if not location or os.path.isabs(location) or os.path.commonpath([root, path]) != root or path == root:
            raise self._error("onnx.external-path", tensor, f"its external data is at {location!r}, outside the "
                              "model's directory", "keep external data next to the model and reference it by a "
                              "relative path")
        if not os.path.isfile(path):
            raise self._error("onnx.external-missing", tensor, f"its external data file {location!r} does not exist "
                              "beside the model", "copy the file that was written together with the model")
        empty = os.path.getsize(path) == 0
        mapped: np.ndarray = np.empty(0, np.uint8) if empty else np.memmap(path, dtype=np.uint8, mode="r")
        self._maps[location] = mapped
        return mapped

    def _error(self, code: str, tensor: str, message: str, hint: str) -> CompileError:
        loc = Loc(file=self.model, node=tensor)
        return CompileError(Diagnostic(code, f"initialiser {tensor!r}: {message}", loc, hint=hint))


def is_external(tensor: TensorProto) -> bool:
    """True if the values are in another file."""
    return tensor.data_location == TensorProto.EXTERNAL


def resource(tensor: TensorProto, files: ExternalFiles, notes: Notes) -> Resource:
    """The tensor as a lazily read Resource. Floating types other than f32 are widened or narrowed, and noted."""
    kind = tensor.data_type
    if kind not in STORED:
        raise bad_model("onnx.dtype", f"tensor {tensor.name!r} has element type {type_name(kind)}; "
                        f"expected one of {', '.join(type_name(k) for k in STORED)}", file=files.model,
                        node=tensor.name, hint="export the model in float32 or float16, without quantised tensors")
    shape = tuple(tensor.dims)
    if kind in WIDENED:
        notes.converted(type_name(kind).lower(), tensor.name or "a constant")
    if files.absent and is_external(tensor):
        return Resource.without_values(tensor.name, shape, IMPORTED[kind])
    return Resource(tensor.name, shape=shape, dtype=IMPORTED[kind], loader=_loader(tensor, files))


def _loader(tensor: TensorProto, files: ExternalFiles) -> Callable[[], np.ndarray]:
    """A function that delivers the values; external bytes are checked now and read later."""
    kind, shape = tensor.data_type, tuple(tensor.dims)
    if is_external(tensor):
        raw = files.bytes_of(tensor)
        return lambda: _decode(raw.view(STORED[kind]).reshape(shape), kind)
    if tensor.raw_data:
        inline = np.frombuffer(tensor.raw_data, STORED[kind])
        if inline.size != math.prod(shape):
            raise bad_model("onnx.checker", f"tensor {tensor.name!r} has shape {list(shape)} but holds "
                            f"{inline.size} values", file=files.model, node=tensor.name, hint="write the model again")
        return lambda: _decode(inline.reshape(shape), kind)
    return lambda: onnx.numpy_helper.to_array(tensor).astype(_numpy(kind)).reshape(shape)


def _decode(stored: np.ndarray, kind: int) -> np.ndarray:
    if kind == TensorProto.BFLOAT16:  # the upper half of a float32
        return np.asarray(stored.astype(np.uint32) << np.uint32(16)).view(np.float32)
    return stored.astype(_numpy(kind), copy=False)


def _numpy(kind: int) -> np.dtype:
    return np.dtype(np.float32) if IMPORTED[kind] == "f32" else STORED[kind].newbyteorder("=")
