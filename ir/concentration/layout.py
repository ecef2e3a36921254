"""The token layout: where the visual tokens of a sequence are, and on which grid. The one place that checks it.

The facts come from a module's attribute `layout`, from an ONNX file's metadata, from flags or from TOML; all of them go
through `Layout.parse`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from focusc.ir.core import Module
from focusc.ir.diagnostics import UNKNOWN, CompileError, Loc, fail, suggest

FACTS = ("visual", "grid", "strides", "query")
"""Names of the facts, the same in every form; `strides` may be left out."""

HINT = (
    "give visual = first row, number of rows; grid = frames, rows, columns; query = rows behind the span; and strides "
    "if other tokens lie between those of the grid"
)
_AXES = ("frames", "rows", "columns")


@dataclass(frozen=True)
class Layout:
    """Visual span [start, start + length) of the sequence before any pruning, its grid and strides, and the `query`
    rows behind it, which are all the rows behind it.

    The position (index in the span) of grid point (f, h, w) is the dot product with `strides`; a span may hold further
    tokens between the grid's (newlines, tags). Raises CompileError `layout.visual`, `layout.grid`, `layout.strides` or
    `layout.query` for facts that contradict themselves or each other.
    """

    start: int
    length: int
    grid: tuple[int, int, int]
    strides: tuple[int, int, int]
    query: int

    def __post_init__(self) -> None:
        grid, strides = list(self.grid), list(self.strides)
        if self.start < 0 or self.length < 1:
            raise fail(
                "layout.visual",
                f"visual starts at row {self.start} and has {self.length} rows; expected a row >= 0 and at least 1",
                hint=HINT,
            )
        if self.query < 1:
            raise fail("layout.query", f"query is {self.query}, expected at least 1 row behind the span", hint=HINT)
        if min(grid) < 1:
            raise fail("layout.grid", f"grid is {grid}, expected at least 1 of each", hint=HINT)
        if min(strides) < 1:
            raise fail("layout.strides", f"strides are {strides}, expected at least 1 of each", hint=HINT)
        points = grid[0] * grid[1] * grid[2]
        if points > self.length or (points != self.length and self.strides == dense_strides(self.grid)):
            raise fail(
                "layout.grid",
                f"grid {grid} has {points} points, but the visual span has {self.length} rows",
                hint=HINT,
            )
        last = sum((n - 1) * s for n, s in zip(grid, strides, strict=True))
        if last >= self.length:
            raise fail(
                "layout.strides",
                f"strides {strides} put the last point of grid {grid} at position {last}, beyond the visual span of "
                f"{self.length} rows",
                hint=HINT,
            )
        reach = 0  # of the axes with smaller strides: the last position of their points
        for stride, count, axis in sorted(s for s in zip(strides, grid, _AXES, strict=True) if s[1] > 1):
            if stride <= reach:
                raise fail("layout.strides", f"strides {strides} make the {axis} of grid {grid} overlap", hint=HINT)
            reach += (count - 1) * stride

    @classmethod
    def of(cls, module: Module) -> Layout:
        """The layout in `module.attrs["layout"]`, checked by itself."""
        found: Any = module.attrs.get("layout")
        if not isinstance(found, dict) or not found:
            raise fail(
                "layout.missing", f"module {module.name} has no token layout, which concentration needs", hint=HINT
            )
        return cls.parse(cast(dict[str, Any], found))

    @classmethod
    def parse(cls, facts: Mapping[str, Any], loc: Loc = UNKNOWN) -> Layout:
        """A layout from its facts, each as numbers or as text ("8,6,6"); strides default to a dense grid's.

        `loc` is where the facts are from. Raises CompileError: `layout.key` (unknown or absent fact), `layout.type`
        (not whole numbers), and those of the class.
        """
        try:
            return cls._parse(facts)
        except CompileError as error:
            raise error.at(loc) from None

    @classmethod
    def _parse(cls, facts: Mapping[str, Any]) -> Layout:
        for fact in facts:
            if fact not in FACTS:
                near = suggest(fact, FACTS)
                raise fail(
                    "layout.key",
                    f"{fact} is not a fact of the layout; there are {', '.join(FACTS)}",
                    hint=f"{near} {HINT}" if near else HINT,
                )
        start, length = _numbers(facts, "visual", 2)
        grid = _triple(facts, "grid")
        strides = _triple(facts, "strides") if facts.get("strides") else dense_strides(grid)
        return cls(start, length, grid, strides, _numbers(facts, "query", 1)[0])

    @property
    def end(self) -> int:
        """First row behind the visual span."""
        return self.start + self.length

    def facts(self) -> dict[str, Any]:
        """The facts as `parse` takes them, and as a module's attribute `layout` holds them."""
        return {
            "visual": (self.start, self.length),
            "grid": self.grid,
            "strides": self.strides,
            "query": self.query,
        }

    def fit(self, rows: int, loc: Loc = UNKNOWN) -> None:
        """CompileError if the span does not lie in a sequence of `rows`, or if the query is not all that follows it."""
        if self.end > rows:
            raise fail(
                "layout.visual",
                f"visual span [{self.start}, {self.end}) leaves the sequence of {rows} rows",
                loc,
                hint=HINT,
            )
        if self.end + self.query != rows:
            raise fail(
                "layout.query",
                f"query is {self.query} rows, but {rows - self.end} of the {rows} rows follow the visual span "
                f"[{self.start}, {self.end})",
                loc,
                hint="the query is all the text behind the visual span",
            )


def dense_strides(grid: tuple[int, int, int]) -> tuple[int, int, int]:
    """Strides of a grid without other tokens between its points."""
    return grid[1] * grid[2], grid[2], 1


def _triple(facts: Mapping[str, Any], fact: str) -> tuple[int, int, int]:
    first, second, third = _numbers(facts, fact, 3)
    return first, second, third


def _numbers(facts: Mapping[str, Any], fact: str, count: int) -> tuple[int, ...]:
    """`count` whole numbers from a list, from text with commas, or from one number."""
    value: Any = facts.get(fact)
    if value is None:
        raise fail("layout.key", f"{fact} is missing", hint=HINT)
    parts: list[Any] = list(cast(Sequence[Any], value)) if isinstance(value, (list, tuple)) else [value]
    shown: Any = parts if isinstance(value, (list, tuple)) else value
    if isinstance(value, str):
        parts = [_whole(part) for part in value.split(",")]
    if len(parts) != count or any(type(part) is not int for part in parts):
        numbers = "a whole number" if count == 1 else f"{count} whole numbers"
        raise fail("layout.type", f"{fact} is {shown!r}, expected {numbers}", hint=HINT)
    return tuple(parts)


def _whole(text: str) -> int | None:
    try:
        return int(text)
    except ValueError:
        return None
