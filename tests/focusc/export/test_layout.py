"""How the token layout travels in an ONNX file's metadata."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusc.export.layout import Layout, from_metadata, to_metadata
from focusc.ir import CompileError, Loc

GOOD = Layout(3, 288, (8, 6, 6), (36, 6, 1), 10)


def test_metadata() -> None:
    props = to_metadata(GOOD)
    assert props == {"focusc.visual": "3,288", "focusc.grid": "8,6,6", "focusc.strides": "36,6,1", "focusc.query": "10"}
    assert from_metadata({**props, "focusc.producer": "x", "other": "y"}) == GOOD
    assert from_metadata({"focusc.producer": "x"}) is None


@given(st.integers(0, 50), st.tuples(*[st.integers(1, 6)] * 3), st.integers(0, 2), st.integers(1, 9))
def test_any_valid_layout_round_trips(start: int, grid: tuple[int, int, int], newline: int, query: int) -> None:
    f, h, w = grid
    row = w + newline
    layout = Layout(start, f * h * row, (f, h, w), (h * row, row, 1), query)
    assert from_metadata(to_metadata(layout)) == layout
    layout.fit(start + f * h * row + query)


def test_some_facts_without_the_others_are_an_error_of_the_file() -> None:
    with pytest.raises(CompileError, match=r"^m\.onnx: error\[layout\.key\]: grid is missing"):
        from_metadata({"focusc.visual": "3,288", "focusc.query": "10"}, Loc(file="m.onnx"))
