"""Arrays from `.npz` files that nobody should trust: one place that knows how reading one can fail."""

from __future__ import annotations

import os
import tokenize
import zipfile
import zlib
from typing import Any, cast

import numpy as np

__all__ = ["ArraysError", "load_arrays", "load_npz"]

Array = np.ndarray[Any, np.dtype[Any]]

_FAILURES = (OSError, ValueError, KeyError, EOFError, TypeError, AttributeError, IndexError, RuntimeError,
             OverflowError, SyntaxError, zipfile.BadZipFile, zlib.error, tokenize.TokenError,
             RecursionError, MemoryError)
"""What zipfile, zlib and numpy raise for damaged, encrypted or crafted files; a NotImplementedError is one too."""


class ArraysError(Exception):
    """A file that is no `.npz` of plain arrays; `array` names the one at fault, or is empty."""

    def __init__(self, reason: str, array: str = "") -> None:
        super().__init__(f"array {array}: {reason}" if array else reason)
        self.reason = reason
        self.array = array


def load_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """All arrays of an `.npz`, by name. ArraysError for anything else."""
    found = load_arrays(path)
    if not isinstance(found, dict):
        raise ArraysError("this is one array without a name (.npy)")
    return found


def load_arrays(path: str | os.PathLike[str]) -> Array | dict[str, Array]:
    """The array of an `.npy`, or all arrays of an `.npz` by name, in this machine's byte order.

    ArraysError for anything else; nothing is unpickled, which would run code.
    """
    try:
        archive: Any = np.load(path, allow_pickle=False)
    except _FAILURES as error:
        pickled = isinstance(error, ValueError) and "allow_pickle" in str(error) and zipfile.is_zipfile(path)
        raise ArraysError("the file holds Python objects" if pickled else _reason(error)) from None
    if not hasattr(archive, "files"):
        return _native(archive)
    found: dict[str, Array] = {}
    with archive:
        for name in archive.files:
            try:
                array: Any = archive[name]
            except _FAILURES as error:
                pickled = isinstance(error, ValueError) and "allow_pickle" in str(error)
                raise ArraysError("it holds Python objects" if pickled else _reason(error), str(name)) from None
            if not isinstance(array, np.ndarray):
                raise ArraysError("it is not in numpy's format", str(name))
            found[str(name)] = _native(cast(Array, array))
    return found


def _native(array: Array) -> Array:
    return array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))


def _reason(error: BaseException) -> str:
    """Why, in one line of at most 200 characters."""
    if isinstance(error, MemoryError):
        return f"it does not fit in memory: {error}" if str(error) else "it does not fit in memory"
    if isinstance(error, (SyntaxError, tokenize.TokenError)):
        return "its header is damaged"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, ValueError) and "allow_pickle" in str(error):
        return "the file is not an .npz file"
    return " ".join((str(error) or type(error).__name__).split())[:200]
