"""The token layout that a module carries: where the visual tokens are, and on which grid."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from focusc.ir.core import Module
from focusc.ir.diagnostics import CompileError, fail

HINT = "give visual = [first row, tokens], grid = [frames, rows, columns], strides = [frame, row, column], query = rows"


@dataclass(frozen=True)
class Layout:
    """Visual span [start, start + length) of the sequence, its grid and strides, and the `query` rows at the end.

    The position (index in the span) of grid point (f, h, w) is the dot product with `strides`; a span may hold further
    tokens between the grid's (newlines, tags).
    """

    start: int
    length: int
    grid: tuple[int, int, int]
    strides: tuple[int, int, int]
    query: int

    @classmethod
    def of(cls, module: Module) -> Layout:
        """The layout in `module.attrs["layout"]`, checked by itself."""
        found: Any = module.attrs.get("layout")
        if not isinstance(found, dict) or not found:
            raise fail(
                "layout.absent", f"module {module.name} has no token layout, which concentration needs", hint=HINT
            )
        return cls.parse(cast(dict[str, Any], found))

    @classmethod
    def parse(cls, found: Mapping[str, Any]) -> Layout:
        """A layout from its dictionary form; strides default to a dense grid's."""
        start, length = _numbers(found, "visual", 2)
        grid = _numbers(found, "grid", 3)
        dense = (grid[1] * grid[2], grid[2], 1)
        strides = _numbers(found, "strides", 3) if found.get("strides") else dense
        query = found.get("query")
        if not isinstance(query, int) or query < 1:
            raise fail("layout.query", f"query is {query!r}, expected a number of rows >= 1", hint=HINT)
        if length < 1 or min(*grid, *strides) < 1:
            raise fail(
                "layout.grid",
                f"visual tokens ({length}), grid {list(grid)} and strides {list(strides)} must be at least 1",
            )
        points = grid[0] * grid[1] * grid[2]
        if strides == dense and points != length:
            raise fail(
                "layout.grid",
                f"grid {list(grid)} has {points} tokens, but the visual span has {length}",
                hint="if newline or tag tokens lie between rows or frames, give the strides",
            )
        last = sum((g - 1) * s for g, s in zip(grid, strides, strict=True))
        if last >= length:
            raise fail(
                "layout.grid",
                f"grid {list(grid)} with strides {list(strides)} ends at position {last}, beyond the "
                f"visual span of {length} tokens",
            )
        return cls(start, length, (grid[0], grid[1], grid[2]), (strides[0], strides[1], strides[2]), query)

    def fit(self, rows: int) -> None:
        """CompileError if the span or the query does not fit a sequence of `rows`."""
        if error := self.misfit(rows):
            raise error

    def misfit(self, rows: int) -> CompileError | None:
        """What is wrong with this layout for a sequence of `rows`, or None."""
        end = self.start + self.length
        if end > rows:
            return fail(
                "layout.span", f"visual span [{self.start}, {end}) leaves the sequence of {rows} rows", hint=HINT
            )
        if end + self.query > rows:
            return fail(
                "layout.query",
                f"query is {self.query} rows, but only {rows - end} of the {rows} rows follow the visual span",
                hint="the query is the text after the visual span",
            )
        return None


def _numbers(found: Mapping[str, Any], key: str, n: int) -> tuple[int, ...]:
    value: Any = found.get(key)
    numbers: list[Any] = list(cast(Sequence[Any], value)) if isinstance(value, (list, tuple)) else []
    if len(numbers) != n or any(type(v) is not int or v < 0 for v in numbers):
        raise fail("layout.type", f"{key} is {value!r}, expected {n} whole numbers", hint=HINT)
    return tuple(numbers)
