"""Named arrays in .npz files, read without trusting them and written whole or not at all."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

import numpy as np

from focusc.driver.errors import InputError
from focusc.driver.files import atomic_writer, existing
from focusc.isa.arrays import ArraysError, load_npz

Array = np.ndarray[Any, np.dtype[Any]]

_AGAIN = "write it with numpy.savez(file, name=array, ...)"


def read_npz(path: str | os.PathLike[str], what: str = "file of arrays (.npz)") -> dict[str, Array]:
    """All arrays of an .npz file, by name. Pickled objects are refused: reading them would run code from the file."""
    file = existing(path, what)
    try:
        return load_npz(file)
    except ArraysError as error:
        message = f"{error}; named arrays of numbers were expected"
        raise InputError("inputs.file", message, where=str(file), hint=_AGAIN) from None


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays under their names."""
    with atomic_writer(path) as file:
        named: dict[str, Any] = dict(arrays)
        np.savez(file, **named)
