"""Files written whole or not at all, and the messages when they cannot be read or written."""

from __future__ import annotations

import os
import secrets
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from focusc.driver.errors import InputError


@contextmanager
def atomic_writer(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """Yield a binary file that becomes `path` when the block ends, and vanishes when it fails or is interrupted.

    A full disk is an InputError, and the file that was there before stays as it was. Where the file system allows it,
    the file has no name until it is complete, so that not even a killed process leaves anything.
    """
    target = Path(path)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        handle, temporary = _open_beside(target)
        with os.fdopen(handle, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.fchmod(file.fileno(), 0o666 & ~_umask())
            if temporary is None:
                temporary = _free_name(target)
                _name(file.fileno(), temporary)
        os.replace(temporary, target)
        temporary = None
    except OSError as error:
        raise write_error(target, error) from error
    finally:
        if temporary is not None:
            with suppress(OSError):
                temporary.unlink()


def _open_beside(target: Path) -> tuple[int, Path | None]:
    """A writable file in the target's folder: without a name if the system can (None), else a hidden temporary."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        with suppress(OSError):
            return os.open(target.parent, os.O_TMPFILE | os.O_RDWR, 0o600), None
    handle, name = tempfile.mkstemp(prefix=f".{target.name}.", suffix=".part", dir=target.parent)
    return handle, Path(name)


def _name(handle: int, path: Path) -> None:
    """Give an open file without a name its first one."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # only with a folder handle does Python call linkat, which can follow the /proc link to the file itself
        os.link(f"/proc/self/fd/{handle}", path.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def _free_name(target: Path) -> Path:
    return target.parent / f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.part"


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
        hint="nothing half-written was left; free some space or choose another place with -o",
    )


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


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
