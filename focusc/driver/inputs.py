"""Arrays for a program: read from an .npz file, checked against its inputs, every finding with name, found and expected."""

from __future__ import annotations

import difflib
import os
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from focusc.driver.errors import InputError
from focusc.driver.files import existing

Array = np.ndarray[Any, np.dtype[Any]]

_FLOATS = {"f16": np.float16, "bf16": np.float32, "f32": np.float32}
_INTEGERS = {"i8": np.int8, "u8": np.uint8, "u16": np.uint16, "i32": np.int32, "i64": np.int64}
_LARGEST = {"f16": 65504.0, "bf16": 3.38e38, "f32": 3.4e38}


@dataclass(frozen=True)
class Wanted:
    """One input that must be given: `dtype` as the program stores it (f16, i32, ...)."""

    name: str
    dtype: str
    shape: tuple[int, ...]


def read_npz(path: str | os.PathLike[str]) -> dict[str, Array]:
    """All arrays of an .npz file. Pickled objects are refused, since reading them would run code from the file."""
    file = existing(path, "file of arrays (.npz)")
    try:
        with np.load(file, allow_pickle=False) as archive:
            if not hasattr(archive, "files"):
                raise InputError(
                    "inputs.file", "this is one array (.npy), not an .npz with named arrays", where=str(file)
                )
            return {name: archive[name] for name in archive.files}
    except ValueError as error:
        what = "holds Python objects" if "allow_pickle" in str(error) else "is not an .npz file"
        raise InputError(
            "inputs.file",
            f"the file {what}; named arrays of numbers were expected",
            where=str(file),
            hint="write it with numpy.savez(file, name=array, ...)",
        ) from None
    except (zipfile.BadZipFile, EOFError, OSError, KeyError, zlib_error()) as error:
        raise InputError(
            "inputs.file",
            f"the file is damaged or not an .npz: {error}",
            where=str(file),
            hint="write it again with numpy.savez(file, name=array, ...)",
        ) from None


def zlib_error() -> type[Exception]:
    """The exception of a damaged compressed member; zlib may be missing from a minimal Python."""
    import zlib

    return zlib.error


def check_inputs(wanted: Sequence[Wanted], given: Mapping[str, Any], where: str = "inputs") -> dict[str, Array]:
    """`given` as arrays of the stored types, in the order of `wanted`.

    Floats of any width are accepted for a float input, whole numbers of any width for a whole-number input if they fit.
    Raises InputError for the first of: a missing or unknown name, a wrong shape or type, NaN or infinity, a value out of range.
    """
    names = [item.name for item in wanted]
    for name in given:
        if name not in names:
            close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
            raise InputError(
                "inputs.name",
                f"there is an array {name!r}; expected {_list(names)}",
                where=where,
                hint=f"did you mean {close[0]!r}?" if close else "leave it out",
            )
    for name in names:
        if name not in given:
            raise InputError(
                "inputs.missing",
                f"there is no array {name!r}; found {_list(list(given)) or 'none'}, expected {_list(names)}",
                where=where,
            )
    return {item.name: _converted(item, np.asarray(given[item.name]), where) for item in wanted}


def _converted(item: Wanted, array: Array, where: str) -> Array:
    if array.shape != item.shape:
        raise InputError(
            "inputs.shape", f"{item.name!r} has shape {list(array.shape)}, expected {list(item.shape)}", where=where
        )
    if item.dtype in _FLOATS:
        if array.dtype.kind != "f":
            raise InputError(
                "inputs.dtype",
                f"{item.name!r} is {array.dtype}, expected floats",
                where=where,
                hint="convert it with .astype(numpy.float32)",
            )
        return _finite(item, array, where).astype(_FLOATS[item.dtype])
    target = np.dtype(_INTEGERS[item.dtype])
    if array.dtype.kind not in "iu":
        raise InputError(
            "inputs.dtype",
            f"{item.name!r} is {array.dtype}, expected whole numbers",
            where=where,
            hint="convert it with .astype(numpy.int64)",
        )
    bounds = np.iinfo(target)
    if array.size and (int(array.min()) < bounds.min or int(array.max()) > bounds.max):
        raise InputError(
            "inputs.range",
            f"{item.name!r} holds values from {array.min()} to {array.max()}, {target} ends at {bounds.max}",
            where=where,
        )
    return array.astype(target)


def _finite(item: Wanted, array: Array, where: str) -> Array:
    bad = ~np.isfinite(array)
    if bad.any():
        first = [int(axis) for axis in np.argwhere(bad)[0]]
        what = "NaN" if np.isnan(array[tuple(first)]) else "infinity"
        raise InputError(
            "inputs.nan",
            f"{item.name!r} holds {int(bad.sum())} values that are not finite, the first ({what}) "
            f"at {first}; expected finite numbers",
            where=where,
        )
    largest = float(np.abs(array).max(initial=0.0))
    if largest > _LARGEST[item.dtype]:
        raise InputError(
            "inputs.range",
            f"{item.name!r} reaches {largest:.4g}, but it is stored as {item.dtype}, which ends at "
            f"{_LARGEST[item.dtype]:g}",
            where=where,
        )
    return array


def _list(names: Sequence[str]) -> str:
    return ", ".join(repr(name) for name in names)
