"""The token layout: what it accepts, how it travels, and every way in which it can contradict itself."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusc.export import LayoutError, TokenLayout

GOOD = TokenLayout(3, 288, (8, 6, 6), (36, 6, 1), 10)


def test_metadata_round_trip() -> None:
    props = GOOD.to_metadata()
    assert props == {"focusc.visual": "3,288", "focusc.grid": "8,6,6", "focusc.strides": "36,6,1", "focusc.query": "10"}
    assert TokenLayout.from_metadata({**props, "focusc.producer": "x", "other": "y"}) == GOOD


@given(st.integers(0, 50), st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 2), st.integers(1, 9))
def test_any_valid_layout_round_trips(start: int, grid: tuple[int, int, int], newline: int, query: int) -> None:
    f, h, w = grid
    row = w + newline
    layout = TokenLayout(start, f * h * row, (f, h, w), (h * row, row, 1), query)
    assert TokenLayout.from_metadata(layout.to_metadata()) == layout
    assert layout.check(start + f * h * row + query) is layout


def test_strides_default_to_packed_rows() -> None:
    assert TokenLayout.from_facts({"visual": [3, 288], "grid": "8,6,6", "query": 10}) == GOOD


def test_toml(tmp_path: Path) -> None:
    file = tmp_path / "layout.toml"
    file.write_text("[layout]\nvisual = [3, 288]\ngrid = [8, 6, 6]\nstrides = [36, 6, 1]\nquery = 10\n")
    assert TokenLayout.from_toml(file) == GOOD


@pytest.mark.parametrize(("text", "match"), [
    ("[layout\n", "layout.file: .* is not TOML"),
    ("[other]\n", "has no table .layout."),
    ("[layout]\nvisual = [3, 288]\nquery = 10\n", "layout.grid: is missing"),
    ("[layout]\nvisual = [3, 288]\ngrid = [8, 6, 6]\nquery = 10\nframes = 8\n", "layout.frames: is not a layout fact"),
])
def test_bad_toml(tmp_path: Path, text: str, match: str) -> None:
    file = tmp_path / "layout.toml"
    file.write_text(text)
    with pytest.raises(LayoutError, match=match):
        TokenLayout.from_toml(file)


@pytest.mark.parametrize(("fact", "arguments", "match"), [
    ("visual", (-1, 288, (8, 6, 6), (36, 6, 1), 10), "starts at -1"),
    ("visual", (3, 0, (8, 6, 6), (36, 6, 1), 10), "has 0 tokens"),
    ("query", (3, 288, (8, 6, 6), (36, 6, 1), 0), "has 0 positions"),
    ("grid", (3, 288, (8, 6, 0), (36, 6, 1), 10), "is 8,6,0"),
    ("grid", (3, 280, (8, 6, 6), (36, 6, 1), 10), "288 tokens do not fit the visual span of 280"),
    ("grid", (3, 300, (8, 6, 6), (36, 6, 1), 10), "multiplies out to 288, the visual span has 300"),
    ("strides", (3, 300, (8, 6, 6), (48, 6, 1), 10), "put the last token of the grid at 371"),
    ("strides", (3, 288, (8, 6, 6), (36, 5, 1), 10), "make one row overlap the next"),
    ("strides", (3, 288, (8, 6, 6), (30, 6, 1), 10), "make one frame overlap the next"),
    ("strides", (3, 288, (8, 6, 6), (36, 6, 0), 10), "each must be at least 1"),
])
def test_contradictions_name_the_fact(fact: str, arguments: tuple, match: str) -> None:
    with pytest.raises(LayoutError, match=match) as caught:
        TokenLayout(*arguments)
    assert caught.value.fact == fact
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize(("value", "match"), [("8,6", "has 2 numbers"), ("8,6,x", "expected 3 whole numbers"),
                                              ([8, 6, 1.5], "expected 3 whole numbers"), (8, "has 1 numbers")])
def test_bad_numbers(value: object, match: str) -> None:
    with pytest.raises(LayoutError, match=match):
        TokenLayout.from_facts({"visual": "3,288", "grid": value, "query": 10})


def test_sequence_length() -> None:
    assert GOOD.check(301) is GOOD
    with pytest.raises(LayoutError, match=r"span \[3, 291\) lies outside the sequence of 200 tokens"):
        GOOD.check(200)
    with pytest.raises(LayoutError, match="is 10 positions, but 14 follow the visual span"):
        GOOD.check(305)


def test_trailing_tokens_within_the_span() -> None:
    """A newline token behind each row belongs to the span, as in LLaVA-Video (13 x 13 patches and a newline a row)."""
    layout = TokenLayout(14, 2 * 13 * 14, (2, 13, 13), (182, 14, 1), 20)
    assert layout.visual_end == 14 + 364
