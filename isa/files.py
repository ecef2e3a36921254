"""Atomic file writing: a reader sees the old file or the whole new one, and a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Generator
from pathlib import Path
from typing import BinaryIO

from focusc.isa.errors import IsaError

__all__ = ["atomic_open", "atomic_write"]


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Generator[BinaryIO]:
    """A binary file that becomes `path` when the block ends without an exception.

    Written in the target's folder, flushed to disk, then renamed. Where the system can, the file has no name until it
    is complete, so that not even a killed process leaves anything. A link is followed: the file it names is replaced.
    IsaError(`file.write`) if the system refuses, or if `path` is a device, a pipe or a socket: a rename would put a
    plain file in its place.
    """
    target = _plain_target(Path(path))
    part = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        handle, named = _create(part)
    except OSError as error:
        raise _refused(target, error) from None
    try:
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
            if target.is_dir():
                raise IsaError("file.write", "cannot write: it is a directory", where=str(target))
            if not named:
                _give_name(handle.fileno(), part)
        os.replace(part, target)
    except OSError as error:
        raise _refused(target, error) from None
    finally:
        # After a successful rename there is nothing left to remove.
        with contextlib.suppress(OSError):
            part.unlink()
    _sync_directory(target.parent)


def _plain_target(path: Path) -> Path:
    """The file to replace, links followed; it may not exist yet. IsaError if something else has the name."""
    # a link, not its target, would be replaced; where there is no link the path stays as given, for the messages
    target = path
    try:
        target = path.resolve() if path.is_symlink() else path
        mode = target.stat().st_mode
    except FileNotFoundError:
        return target
    except (OSError, RuntimeError) as error:  # RuntimeError: a loop of links, before Python 3.13
        raise IsaError("file.write", f"cannot write: {getattr(error, 'strerror', None) or error}",
                       where=str(path)) from None
    if stat.S_ISDIR(mode):
        raise IsaError("file.write", "cannot write: it is a directory", where=str(path))
    if not stat.S_ISREG(mode):
        raise IsaError("file.write", "cannot write: it is a device, a pipe or a socket, not a file", where=str(path),
                       hint="give the name of a file; it is written whole and then takes that name")
    return target


def _create(part: Path) -> tuple[BinaryIO, bool]:
    """(writable file, whether it has the name `part` already)."""
    if hasattr(os, "O_TMPFILE") and os.path.isdir("/proc/self/fd"):
        # Not every file system has files without a name.
        with contextlib.suppress(OSError):
            return os.fdopen(os.open(part.parent, os.O_TMPFILE | os.O_RDWR, 0o666), "wb"), False
    # O_EXCL instead of the tempfile module, so that the file gets the user's usual permissions.
    return os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb"), True


def _give_name(handle: int, part: Path) -> None:
    """Link an open file without a name as `part`."""
    folder = os.open(part.parent, os.O_RDONLY)
    try:
        # Only with a folder handle does Python call linkat, which can follow the /proc link to the file itself.
        os.link(f"/proc/self/fd/{handle}", part.name, dst_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def atomic_write(path: str | os.PathLike[str], data: bytes | memoryview | str) -> None:
    """Write `data` (text as UTF-8) to `path` atomically."""
    with atomic_open(path) as handle:
        handle.write(data.encode() if isinstance(data, str) else data)


def _refused(target: Path, error: OSError) -> IsaError:
    return IsaError("file.write", f"cannot write: {error.strerror or error}", where=str(target))


def _sync_directory(folder: Path) -> None:
    """Make the rename durable where the system allows opening directories."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
