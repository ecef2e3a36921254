"""Types of values. All are frozen, compare by content and print as the text format reads them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from focusc.ir.diagnostics import fail

DTYPES: dict[str, np.dtype] = {
    "f64": np.dtype(np.float64),
    "f32": np.dtype(np.float32),
    "f16": np.dtype(np.float16),
    "i64": np.dtype(np.int64),
    "i32": np.dtype(np.int32),
    "i16": np.dtype(np.int16),
    "i8": np.dtype(np.int8),
    "u16": np.dtype(np.uint16),
    "u8": np.dtype(np.uint8),
    "bool": np.dtype(np.bool_),
}
NAMES: dict[np.dtype, str] = {dtype: name for name, dtype in DTYPES.items()}

MAX_RANK = 16
MAX_ELEMENTS = 1 << 44
"""Largest element count of a type. Far above any model; keeps sizes inside 64-bit arithmetic."""


def dtype_name(dtype: np.dtype) -> str:
    """IR name of a numpy dtype, or a CompileError."""
    name = NAMES.get(np.dtype(dtype))
    if name is None:
        raise fail("type.dtype", f"element type {dtype} has no counterpart; known: {', '.join(DTYPES)}")
    return name


class Type:
    """Base of all types."""

    __slots__ = ()


def _check(shape: tuple[int, ...], dtype: str) -> None:
    if dtype not in DTYPES:
        raise fail("type.dtype", f"element type {dtype!r} is unknown; known: {', '.join(DTYPES)}")
    if len(shape) > MAX_RANK:
        raise fail("type.shape", f"rank {len(shape)} is above the limit of {MAX_RANK}")
    if any(d < 0 for d in shape):
        raise fail("type.shape", f"shape {list(shape)} has a negative extent; all extents are static and >= 0")
    if math.prod(shape) > MAX_ELEMENTS:
        raise fail("type.shape", f"shape {list(shape)} has more than {MAX_ELEMENTS} elements")


def _dims(shape: tuple[int, ...], dtype: str) -> str:
    return "x".join([*map(str, shape), dtype])


@dataclass(frozen=True, slots=True)
class TensorType(Type):
    """A dense tensor of static shape. Text: `tensor<1x310x192xf32>`; a scalar is `tensor<f32>`."""

    shape: tuple[int, ...]
    dtype: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(d) for d in self.shape))
        _check(self.shape, self.dtype)

    def __str__(self) -> str:
        return f"tensor<{_dims(self.shape, self.dtype)}>"

    @property
    def rank(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the dense value."""
        return self.size * DTYPES[self.dtype].itemsize

    @classmethod
    def of(cls, array: np.ndarray) -> TensorType:
        """The type of a numpy array."""
        return cls(array.shape, dtype_name(array.dtype))


@dataclass(frozen=True, slots=True)
class ConcentratedType(Type):
    """Result of the similarity concentrator: `shape` [..., T, D] rows cut into `vector`-wide slots, in tiles of `m`
    retained visual rows. Text: `conc<310x192xf32, v32, m1024>`."""

    shape: tuple[int, ...]
    dtype: str
    vector: int = 32
    m: int = 1024

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(d) for d in self.shape))
        _check(self.shape, self.dtype)
        if len(self.shape) < 2 or self.vector < 1 or self.m < 1:
            raise fail(
                "type.shape",
                f"a concentrated value needs at least [rows, columns], vector >= 1 and m >= 1, "
                f"not {list(self.shape)}, v{self.vector}, m{self.m}",
            )

    def __str__(self) -> str:
        return f"conc<{_dims(self.shape, self.dtype)}, v{self.vector}, m{self.m}>"

    @property
    def slots(self) -> int:
        """Sub-vectors per row; the last one may be zero-padded."""
        return -(-self.shape[-1] // self.vector)

    @property
    def dense(self) -> TensorType:
        """Type of the reconstruction."""
        return TensorType(self.shape, self.dtype)


@dataclass(frozen=True, slots=True)
class TokensType(Type):
    """An i32 list of `count` row numbers, ascending, each below `of`. Text: `tokens<58 of 310>`."""

    count: int
    of: int

    def __post_init__(self) -> None:
        if not 0 <= self.count <= MAX_ELEMENTS or not 0 <= self.of <= MAX_ELEMENTS:
            raise fail("type.shape", f"tokens<{self.count} of {self.of}> is out of range")

    def __str__(self) -> str:
        return f"tokens<{self.count} of {self.of}>"


@dataclass(frozen=True, slots=True)
class IndexType(Type):
    """A Python int: loop counters and row numbers. Text: `index`."""

    def __str__(self) -> str:
        return "index"


@dataclass(frozen=True, slots=True)
class BufferType(Type):
    """A DRAM buffer; `layout` names the storage order. Text: `buffer<310x192xf16, rows>`."""

    shape: tuple[int, ...]
    dtype: str
    layout: str = "rows"

    def __post_init__(self) -> None:
        object.__setattr__(self, "shape", tuple(int(d) for d in self.shape))
        _check(self.shape, self.dtype)

    def __str__(self) -> str:
        return f"buffer<{_dims(self.shape, self.dtype)}, {self.layout}>"


@dataclass(frozen=True, slots=True)
class StreamType(Type):
    """Rows under way to an engine; `kind` says how they were loaded. Text: `stream<310x192, dense>`."""

    rows: int
    cols: int
    kind: str = "dense"

    def __post_init__(self) -> None:
        _check((self.rows, self.cols), "f32")

    def __str__(self) -> str:
        return f"stream<{self.rows}x{self.cols}, {self.kind}>"


@dataclass(frozen=True, slots=True)
class TileType(Type):
    """A window of the output buffer, f32. Text: `tile<310x96>`."""

    rows: int
    cols: int

    def __post_init__(self) -> None:
        _check((self.rows, self.cols), "f32")

    def __str__(self) -> str:
        return f"tile<{self.rows}x{self.cols}>"
