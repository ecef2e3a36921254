"""How long work reports itself: a function called with (what is being done, steps done, steps in all)."""

from __future__ import annotations

from typing import Protocol


class Progress(Protocol):
    """Called as work goes on; it must return at once and must not change anything."""

    def __call__(self, what: str, done: int, total: int, /) -> None: ...


def silent(what: str, done: int, total: int) -> None:
    """The Progress that shows nothing."""
