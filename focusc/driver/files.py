"""Files written whole or not at all, and the messages when they cannot be read or written."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from focusc.driver.errors import InputError
from focusc.isa.errors import IsaError
from focusc.isa.files import atomic_open

_HINT = "nothing half-written was left; free some space or choose another place with -o"


@contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends, and vanishes when it fails or is interrupted.

    Missing folders are made. A full disk is an InputError, and the file that was there before stays as it was.
    """
    target = Path(path)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(target, error) from error
    try:
        with atomic_open(target) as file:
            yield file
    except IsaError as error:
        raise InputError(error.code, error.message, where=error.where, hint=error.hint or _HINT) from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write UTF-8 text atomically."""
    with atomic_writer(path) as file:
        file.write(text.encode())


def write_error(path: str | os.PathLike[str], error: OSError) -> InputError:
    """The message for a file that cannot be written."""
    return InputError(
        "file.write",
        f"cannot write it: {error.strerror or error}",
        where=os.fspath(path),
        hint=_HINT,
    )


Named = Mapping[str, str | os.PathLike[str] | None]
"""Paths by what they are to the user (an option, "the model"); None where an option was left out."""

_BESIDE = {".fir": ".safetensors", ".fasm": ".const.bin", ".onnx": ".onnx.data"}
"""Endings of files that are read and written with a file of the first ending."""


def check_outputs(outputs: Named, inputs: Named) -> None:
    """InputError `file.same` if an output would replace an input or another output, also through links.

    Files that go with one (the weights of an IR file, of an ONNX model, the constants of assembly) count as that one;
    an output folder must not be the one that an IR file is read from, because snapshots have names of their own there.
    """
    read = [(name, part) for name, path in inputs.items() for part in _with_beside(path)]
    written: list[tuple[str, Path]] = []
    for name, path in outputs.items():
        parts = _with_beside(path)
        for part in parts:
            for kind, others in (("an input", read), ("another output", written)):
                for other, file in others:
                    folder = kind == "an input" and file.suffix == ".fir" and part.is_dir() and _same(part, file.parent)
                    if folder or _same(part, file):
                        what = "the folder of an input" if folder else f"also {kind}"
                        raise InputError(
                            "file.same",
                            f"the output {name} is {what}, {other}",
                            where=str(part),
                            hint="give the output a name of its own; nothing was written",
                        )
        written += [(name, part) for part in parts]


def toml_file(name: str | os.PathLike[str] | None) -> Path | None:
    """`name` if it is the path of a TOML file; None if it is the name of something shipped."""
    return Path(name) if name is not None and Path(name).suffix == ".toml" else None


def _with_beside(path: str | os.PathLike[str] | None) -> list[Path]:
    if path is None:
        return []
    file = Path(path)
    ending = _BESIDE.get(file.suffix)
    return [file, file.with_suffix(ending)] if ending else [file]


def _same(a: Path, b: Path) -> bool:
    """Whether both are one file, or would be once written."""
    try:
        return os.path.samefile(a, b)
    except OSError:
        return os.path.realpath(a) == os.path.realpath(b)


def existing(path: str | os.PathLike[str], what: str) -> Path:
    """`path` as a Path if it is a readable file; `what` ("ONNX model", "program") names it in the error."""
    file = Path(path)
    if file.is_dir():
        raise InputError("file.folder", f"this is a folder, not {_article(what)} {what}", where=str(file))
    if not file.exists():
        raise InputError(
            "file.missing", f"no such file; {_article(what)} {what} was expected", where=str(file), hint=_nearest(file)
        )
    if not os.access(file, os.R_OK):
        raise InputError("file.unreadable", f"no permission to read this {what}", where=str(file))
    return file


def _article(what: str) -> str:
    return "an" if what[0] in "AEIOaeio" else "a"


def _nearest(file: Path) -> str:
    """Name a file of the same folder that is spelt almost like the missing one."""
    import difflib

    try:
        names = [entry.name for entry in file.parent.iterdir()]
    except OSError:
        return f"the folder {file.parent} does not exist either"
    close = difflib.get_close_matches(file.name, names, n=1, cutoff=0.75)
    return f"did you mean {close[0]}?" if close else ""
