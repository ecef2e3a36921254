"""Threads of the BLAS library that numpy multiplies with."""

# threadpoolctl has no annotations
# pyright: reportMissingTypeStubs=false, reportUnknownArgumentType=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false
from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from functools import cache
from threading import Lock

from threadpoolctl import ThreadpoolController

__all__ = ["one_thread_each"]

_lock = Lock()
_users = 0
_before: list[int] = []


@cache
def _libraries() -> ThreadpoolController:
    return ThreadpoolController().select(user_api="blas")


@contextmanager
def one_thread_each() -> Generator[None]:
    """Each product is computed by the thread that asks for it while this lasts; may be entered by several threads.

    A tile's product takes some 100 us, about what it costs to share it out, and the library's own threads spin between
    products, at the expense of everything else. Helpers share out whole products instead.
    """
    global _users
    libraries = _libraries().lib_controllers
    with _lock:
        _users += 1
        if _users == 1:
            _before[:] = [library.num_threads for library in libraries]
            for library in libraries:
                library.set_num_threads(1)
    try:
        yield
    finally:
        with _lock:
            _users -= 1
            if _users == 0:
                for library, number in zip(libraries, _before):
                    library.set_num_threads(number)
