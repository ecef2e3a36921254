"""Threads of the BLAS library that numpy multiplies with."""

# threadpoolctl has no annotations
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from threading import Lock
from typing import Any

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread_each"]

_lock = Lock()
_users = 0
_before: list[int] = []


@cache
def _libraries() -> list[Any]:
    return ThreadpoolController().select(user_api="blas").lib_controllers


def _set(library: Any, number: int) -> None:
    """Set the number of threads, whichever thread asks.

    threadpoolctl 3.8 ignores all threads but the first that set OpenBLAS's number until that one is cleared; clearing
    it afterwards as well leaves the next turn to anybody, such as a caller's own `threadpool_limits`.
    """
    clear = getattr(library, "clear_controlling_thread", None)
    if clear is not None:
        clear(force=True)
    library.set_num_threads(number)
    if clear is not None:
        clear(force=True)


def _of_thread(library: Any) -> bool:
    """Whether each thread has a number of its own: OpenBLAS over OpenMP. Others have one for the process."""
    return library.internal_api == "openblas" and getattr(library, "threading_layer", "") == "openmp"


@contextmanager
def one_thread_each() -> Generator[None]:
    """Each product is computed by the thread that asks for it while this lasts.

    Any threads may be in it at once, and it nests; each thread that multiplies enters it. The number of threads of
    before comes back when the last one leaves.

    A tile's product takes some 100 us, about what it costs to share it out, and the library's own threads spin between
    products, at the expense of everything else. Helpers share out whole products instead. Results depend on it: a
    product that is shared out is summed in another order.
    """
    global _users
    libraries = _libraries()
    with _lock:
        here = [library.num_threads for library in libraries]
        if _users == 0:
            _before[:] = here
        _users += 1
        for library in libraries:
            _set(library, 1)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            for library, own, first in zip(libraries, here, _before):
                if _of_thread(library):
                    _set(library, own)
                elif _users == 0:
                    _set(library, first)
