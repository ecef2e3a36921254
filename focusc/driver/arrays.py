"""Named arrays in .npz files, read without trusting them and written whole or not at all."""

from __future__ import annotations

import os
import zipfile
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from focusc.driver.errors import InputError
from focusc.driver.files import atomic_writer, existing

Array = np.ndarray[Any, np.dtype[Any]]

_AGAIN = "write it with numpy.savez(file, name=array, ...)"


def read_npz(path: str | os.PathLike[str], what: str = "file of arrays (.npz)") -> dict[str, Array]:
    """All arrays of an .npz file, by name. Pickled objects are refused: reading them would run code from the file."""
    file = existing(path, what)
    try:
        archive = np.load(file, allow_pickle=False)
        if not hasattr(archive, "files"):
            raise InputError("inputs.file", "this is one array without a name (.npy)", where=str(file), hint=_AGAIN)
        with archive:
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        pickled = "allow_pickle" in str(error) and zipfile.is_zipfile(file)
        holds = "holds Python objects" if pickled else "is not an .npz file"
        message = f"the file {holds}; named arrays of numbers were expected"
        raise InputError("inputs.file", message, where=str(file), hint=_AGAIN) from None
    except (zipfile.BadZipFile, zlib.error, EOFError, OSError, KeyError) as error:
        raise InputError("inputs.file", f"the file is damaged or not an .npz: {error}", str(file), _AGAIN) from None


def write_npz(path: str | os.PathLike[str], arrays: Mapping[str, Array]) -> None:
    """Write arrays under their names."""
    with atomic_writer(path) as file:
        named: dict[str, Any] = dict(arrays)
        np.savez(file, **named)
