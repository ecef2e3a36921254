"""Weights and other constant arrays: named, lazily loaded, hashed on demand and never copied.

A resource may also be absent: a weight of known shape and type without values, for programs that are only timed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable

import numpy as np

from focusc.ir.diagnostics import fail
from focusc.ir.types import DTYPES, TensorType, dtype_name


class Resource:
    """A constant array with a name. Cheap to share: clones and passes hold the same object.

    `loader` delivers the array on first use (for example a view into a memory-mapped file).
    """

    __slots__ = ("_array", "_digest", "_loader", "absent", "dtype", "name", "shape")

    def __init__(
        self,
        name: str,
        array: np.ndarray | None = None,
        *,
        shape: tuple[int, ...] = (),
        dtype: str = "f32",
        loader: Callable[[], np.ndarray] | None = None,
    ) -> None:
        if array is None and loader is None:
            raise ValueError("a Resource needs an array or a loader")
        self.name = name
        self._array = array
        self._loader = loader
        self._digest = ""
        self.absent = False
        self.shape: tuple[int, ...] = tuple(array.shape) if array is not None else tuple(shape)
        self.dtype: str = dtype_name(array.dtype) if array is not None else dtype

    @classmethod
    def without_values(cls, name: str, shape: tuple[int, ...], dtype: str = "f32") -> Resource:
        """An absent resource. Its name stands for its contents: equal exactly to absent ones of the same name and type.

        Reading `array` raises CompileError `resource.absent`.
        """

        def load() -> np.ndarray:
            raise fail(
                "resource.absent",
                f"constant {name!r} has a shape and no values",
                hint="a module without weights can be compiled with --no-weights and simulated, not executed",
            )

        found = cls(name, shape=shape, dtype=dtype, loader=load)
        found.absent = True
        return found

    @property
    def array(self) -> np.ndarray:
        """The values, read-only. CompileError if they are absent."""
        if self._array is None:
            assert self._loader is not None
            self._array = self._loader()
        view = self._array.view()
        view.flags.writeable = False
        return view

    @property
    def size(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the values."""
        return self.size * DTYPES[self.dtype].itemsize

    @property
    def type(self) -> TensorType:
        """Type of the values."""
        return TensorType(self.shape, self.dtype)

    @property
    def digest(self) -> str:
        """blake2b of dtype, shape and bytes (or of the name, if they are absent): equal exactly for equal contents."""
        if not self._digest:
            h = hashlib.blake2b(f"{self.dtype}{list(self.shape)}".encode(), digest_size=16)
            if self.absent:
                h.update(f"absent {self.name}".encode())
            else:
                h.update(np.ascontiguousarray(self.array).reshape(-1).view(np.uint8).data)
            self._digest = h.hexdigest()
        return self._digest

    def __eq__(self, other: object) -> bool:
        if self is other:
            return True
        if not isinstance(other, Resource) or self.shape != other.shape or self.dtype != other.dtype:
            return False
        return self.digest == other.digest

    def __hash__(self) -> int:
        return hash((self.shape, self.dtype))

    def __repr__(self) -> str:
        return f"Resource({self.name!r}, {self.type})"
