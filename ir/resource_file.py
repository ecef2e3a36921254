"""Resources on disk, in the safetensors layout: u64 header length, JSON header, raw little-endian data.

Reading maps the file; nothing is copied or executed, and every offset is checked. Format:
https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import secrets
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from focusc.ir.attributes import is_mapping
from focusc.ir.diagnostics import CompileError, fail
from focusc.ir.resource import Resource
from focusc.ir.types import DTYPES

_CODES = {
    "f64": "F64",
    "f32": "F32",
    "f16": "F16",
    "i64": "I64",
    "i32": "I32",
    "i16": "I16",
    "i8": "I8",
    "u16": "U16",
    "u8": "U8",
    "bool": "BOOL",
}
_NAMES = {code: name for name, code in _CODES.items()}

MAX_HEADER = 1 << 27
"""Largest header in bytes."""


class ResourceTable:
    """Unique names for resources: equal contents share a name, different contents never do.

    One table serves all snapshots of a compilation, so that they share one file.
    """

    def __init__(self) -> None:
        self.by_name: dict[str, Resource] = {}
        self._names: dict[int, str] = {}
        self._keep: list[Resource] = []  # an id is only unique while the object lives

    def name_of(self, resource: Resource) -> str:
        """The name under which the resource is printed and stored."""
        known = self._names.get(id(resource))
        if known is not None:
            return known
        base = resource.name or "constant"
        name, number = base, 1
        while name in self.by_name and self.by_name[name] != resource:
            number += 1
            name = f"{base}~{number}"
        self.by_name.setdefault(name, resource)
        self._names[id(resource)] = name
        self._keep.append(resource)
        return name


def write_resources(path: Path, resources: Mapping[str, Resource]) -> None:
    """Write all resources to `path`, in order of their names; the data starts 64-byte aligned.

    Written beside and renamed: resources that are mapped from `path` itself stay readable. OSError if it fails.
    """
    header: dict[str, Any] = {}
    offset = 0
    names = sorted(resources)
    for name in names:
        r = resources[name]
        header[name] = {"dtype": _CODES[r.dtype], "shape": list(r.shape), "data_offsets": [offset, offset + r.nbytes]}
        offset += r.nbytes
    text = json.dumps(header).encode()
    text += b" " * (-(8 + len(text)) % 64)
    with replacing(path) as file:
        file.write(len(text).to_bytes(8, "little"))
        file.write(text)
        for name in names:
            file.write(np.ascontiguousarray(resources[name].array).reshape(-1).view(np.uint8).data)


@contextlib.contextmanager
def replacing(path: Path) -> Generator[BinaryIO]:
    """A file that takes the name `path` when the block ends, and vanishes if it fails; links are followed.

    OSError if it cannot be written, or if `path` is something else than a file.
    """
    target = path.resolve()
    if target.exists() and not target.is_file():
        raise FileExistsError(errno.EEXIST, "there is something that is not a file", str(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        with part.open("xb") as file:
            yield file
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)


def read_resources(path: Path) -> dict[str, Resource]:
    """All resources of a file, mapped lazily. CompileError `resource.file` if it is malformed."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            if size < 8 or length > min(size - 8, MAX_HEADER):
                raise fail("resource.file", f"{path.name}: the header has {length} bytes, the file {size}")
            header: Any = json.loads(file.read(length))
    except OSError as e:
        raise fail("resource.file", f"{path.name} cannot be read: {e.strerror}") from None
    except (ValueError, RecursionError):
        raise fail("resource.file", f"{path.name}: the header is not JSON") from None
    if not is_mapping(header):
        raise fail("resource.file", f"{path.name}: the header is not a JSON object")
    found: dict[str, Resource] = {}
    for name, entry in header.items():
        if name == "__metadata__":
            continue
        try:
            found[name] = _entry(path, name, entry, 8 + length, size)
        except (KeyError, TypeError, ValueError):
            raise fail("resource.file", f"{path.name}: the entry of {name!r} is malformed") from None
        except CompileError as e:
            raise fail("resource.file", f"{path.name}: {name!r}: {e.diagnostics[0].message}") from None
    return found


def _entry(path: Path, name: str, entry: Any, base: int, size: int) -> Resource:
    dtype = _NAMES.get(entry["dtype"])
    shape = tuple(entry["shape"])
    start, stop = entry["data_offsets"]
    if dtype is None:
        raise fail("resource.file", f"element type {entry['dtype']} is not supported")
    if not all(type(v) is int and 0 <= v < 1 << 48 for v in (*shape, start, stop)) or len(shape) > 16:
        raise ValueError
    if stop - start != math.prod(shape) * DTYPES[dtype].itemsize or base + stop > size:
        raise fail("resource.file", f"bytes {start} to {stop} do not hold {dtype}{list(shape)} inside the file")
    return Resource(name, shape=shape, dtype=dtype, loader=_loader(path, dtype, shape, base + start))


def _loader(path: Path, dtype: str, shape: tuple[int, ...], offset: int) -> Callable[[], np.ndarray]:
    def load() -> np.ndarray:
        if not math.prod(shape):
            return np.zeros(shape, DTYPES[dtype])
        return np.memmap(path, DTYPES[dtype], "r", offset, shape)

    return load
