"""The token layout of a prefill: where the visual span lies, its grid, and which rows are the prompt. torch-free.

The same facts travel in an ONNX file's metadata_props under `focusc.`, in a TOML table `[layout]`, or in flags.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

__all__ = ["LayoutError", "TokenLayout"]

PREFIX = "focusc."


class LayoutError(ValueError):
    """A token layout that is missing a fact or contradicts itself; `fact` names which one."""

    def __init__(self, fact: str, message: str) -> None:
        super().__init__(f"layout.{fact}: {message}")
        self.fact = fact


def _numbers(fact: str, text: object, count: int) -> tuple[int, ...]:
    """`count` whole numbers from "8,6,6", from a list, or from one number."""
    parts = text.split(",") if isinstance(text, str) else list(text) if isinstance(text, list | tuple) else [text]
    try:
        if any(isinstance(p, bool | float) for p in parts):
            raise ValueError
        values = tuple(int(str(p)) for p in parts)
    except (TypeError, ValueError):
        raise LayoutError(fact, f"is {text!r}, expected {count} whole number{'s' if count > 1 else ''}") from None
    if len(values) != count:
        raise LayoutError(fact, f"has {len(values)} numbers in {text!r}, expected {count}")
    return values


@dataclass(frozen=True)
class TokenLayout:
    """Positions are tokens, counted from 0 in a prefill of T tokens.

    visual_start, visual_len: the visual span, before any pruning. grid: frames, rows, columns. strides: the linear
    index of (f, h, w) within the span is f*strides[0] + h*strides[1] + w*strides[2]; a model that ends rows or frames
    with an extra token counts it in the span, so the span may be longer than the grid. query: number of last
    positions, the text behind the span. LayoutError tells which fact is wrong.
    """

    visual_start: int
    visual_len: int
    grid: tuple[int, int, int]
    strides: tuple[int, int, int]
    query: int

    def __post_init__(self) -> None:
        if self.visual_start < 0:
            raise LayoutError("visual", f"starts at {self.visual_start}, before the sequence")
        if self.visual_len < 1:
            raise LayoutError("visual", f"has {self.visual_len} tokens, expected at least 1")
        if self.query < 1:
            raise LayoutError("query", f"has {self.query} positions, expected at least 1")
        if min(self.grid) < 1:
            raise LayoutError("grid", f"is {self._text(self.grid)}, every dimension must be at least 1")
        if min(self.strides) < 1:
            raise LayoutError("strides", f"are {self._text(self.strides)}, each must be at least 1")
        f, h, w = self.grid
        cells = f * h * w
        if cells > self.visual_len:
            raise LayoutError("grid", f"{f} x {h} x {w} = {cells} tokens do not fit the visual span of "
                              f"{self.visual_len}")
        if self.strides == (h * w, w, 1) and cells != self.visual_len:
            raise LayoutError("grid", f"{f} x {h} x {w} multiplies out to {cells}, the visual span has "
                              f"{self.visual_len}; tokens between rows or frames need other strides")
        last = sum((n - 1) * s for n, s in zip(self.grid, self.strides, strict=True))
        if last >= self.visual_len:
            raise LayoutError("strides", f"{self._text(self.strides)} put the last token of the grid at {last}, the "
                              f"visual span has {self.visual_len} tokens")
        frame, row, column = self.strides
        for name, count, inner, outer in (("row", h, w * column, row), ("frame", f, h * row, frame)):
            if count > 1 and outer < inner:
                raise LayoutError("strides", f"{self._text(self.strides)} make one {name} overlap the next")

    @staticmethod
    def _text(numbers: tuple[int, ...]) -> str:
        return ",".join(map(str, numbers))

    @property
    def visual_end(self) -> int:
        """First position behind the visual span."""
        return self.visual_start + self.visual_len

    def check(self, tokens: int) -> Self:
        """Return self if the layout fits a sequence of `tokens` positions, else raise LayoutError."""
        if self.visual_end > tokens:
            raise LayoutError("visual", f"span [{self.visual_start}, {self.visual_end}) lies outside the sequence of "
                              f"{tokens} tokens")
        if self.visual_end + self.query != tokens:
            raise LayoutError("query", f"is {self.query} positions, but {tokens - self.visual_end} follow the visual "
                              f"span [{self.visual_start}, {self.visual_end}) of the {tokens} tokens")
        return self

    def to_metadata(self) -> dict[str, str]:
        """As metadata_props entries: focusc.visual, focusc.grid, focusc.strides, focusc.query."""
        return {PREFIX + "visual": f"{self.visual_start},{self.visual_len}", PREFIX + "grid": self._text(self.grid),
                PREFIX + "strides": self._text(self.strides), PREFIX + "query": str(self.query)}

    @classmethod
    def from_metadata(cls, props: Mapping[str, str]) -> Self:
        """From metadata_props; other keys are ignored."""
        return cls.from_facts({k.removeprefix(PREFIX): v for k, v in props.items()
                               if k in (f"{PREFIX}{f}" for f in ("visual", "grid", "strides", "query"))})

    @classmethod
    def from_facts(cls, facts: Mapping[str, Any]) -> Self:
        """From `visual` (start, length), `grid`, `strides` (optional: packed rows) and `query`, as text or numbers.

        This is what flags and TOML give: {"visual": "3,288", "grid": [8, 6, 6], "query": 10}.
        """
        known = ("visual", "grid", "strides", "query")
        for fact in facts:
            if fact not in known:
                raise LayoutError(str(fact), f"is not a layout fact; there are {', '.join(known)}")
        for fact in ("visual", "grid", "query"):
            if facts.get(fact) is None:
                raise LayoutError(fact, "is missing; give it in the model's metadata_props, in TOML under [layout], or "
                                  "as a flag")
        start, length = _numbers("visual", facts["visual"], 2)
        f, h, w = _numbers("grid", facts["grid"], 3)
        sf, sh, sw = (h * w, w, 1) if facts.get("strides") is None else _numbers("strides", facts["strides"], 3)
        return cls(start, length, (f, h, w), (sf, sh, sw), _numbers("query", facts["query"], 1)[0])

    @classmethod
    def from_toml(cls, path: Path | str) -> Self:
        """From the table `[layout]` of a TOML file."""
        try:
            table = tomllib.loads(Path(path).read_text(encoding="utf-8"))
        except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
            raise LayoutError("file", f"{path} is not TOML: {error}") from None
        layout = table.get("layout")
        if not isinstance(layout, dict):
            raise LayoutError("file", f"{path} has no table [layout]")
        return cls.from_facts(layout)
