"""Atomic file writing: a reader sees the old file or the whole new one, and a failure leaves nothing behind."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from focusc.isa.errors import IsaError

__all__ = ["atomic_open", "atomic_write"]


@contextlib.contextmanager
def atomic_open(path: str | os.PathLike[str]) -> Iterator[BinaryIO]:
    """A binary file that becomes `path` when the block ends without an exception.

    Written beside the target, flushed to disk, then renamed. IsaError(`file.write`) if the system refuses.
    """
    target = Path(path)
    part = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
    try:
        # O_EXCL instead of the tempfile module, so that the file gets the user's usual permissions.
        handle = os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666), "wb")
    except OSError as error:
        raise _refused(target, error) from None
    try:
        with handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        if target.is_dir():
            raise IsaError("file.write", "cannot write: it is a directory", where=str(target))
        os.replace(part, target)
    except OSError as error:
        raise _refused(target, error) from None
    finally:
        # After a successful rename there is nothing left to remove.
        with contextlib.suppress(OSError):
            part.unlink()
    _sync_directory(target.parent)


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
