"""Compiled code on disk, dropped when a source that it was compiled from has changed.

numba keeps what it compiled beside the source and checks that one source: machine code that took in a function or a
constant of another file would outlive a change there.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

__all__ = ["drop_stale"]


def drop_stale(folder: Path, modules: Sequence[str]) -> None:
    """Delete the compiled code of modules that use each other's functions if the source of any of them has changed.

    To be called before they are compiled. A folder that cannot be written, an installed one perhaps, is left as it is.
    """
    cache = folder / "__pycache__"
    stamp = cache / f"{modules[0]}.sources"
    with suppress(OSError):
        digest = hashlib.sha256(b"\0".join((folder / f"{name}.py").read_bytes() for name in modules)).hexdigest()
        if stamp.is_file() and stamp.read_text(encoding="ascii") == digest:
            return
        for name in modules:
            for file in cache.glob(f"{name}.*.nb[ic]"):
                file.unlink(missing_ok=True)
        cache.mkdir(exist_ok=True)
        beside = cache / f"{modules[0]}.{os.getpid()}"
        beside.write_text(digest, encoding="ascii")
        beside.replace(stamp)
