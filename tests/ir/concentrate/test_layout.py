"""The token layout: what it accepts, and every way in which it can contradict itself or the sequence."""

from __future__ import annotations

import re
from typing import Any

import pytest

from focusc.ir import CompileError, Loc
from focusc.ir.concentration.layout import Layout

GOOD = Layout(3, 288, (8, 6, 6), (36, 6, 1), 10)


def test_facts_are_numbers_or_text_and_dense_strides_may_be_left_out() -> None:
    assert Layout.parse({"visual": [3, 288], "grid": "8,6,6", "query": 10}) == GOOD
    assert Layout.parse({"visual": "3, 288", "grid": (8, 6, 6), "strides": [36, 6, 1], "query": "10"}) == GOOD
    assert Layout.parse(GOOD.facts()) == GOOD


@pytest.mark.parametrize(
    ("code", "arguments", "message"),
    [
        ("layout.visual", (-1, 288, (8, 6, 6), (36, 6, 1), 10), "starts at row -1"),
        ("layout.visual", (3, 0, (8, 6, 6), (36, 6, 1), 10), "has 0 rows"),
        ("layout.query", (3, 288, (8, 6, 6), (36, 6, 1), 0), "query is 0"),
        ("layout.grid", (3, 288, (8, 6, 0), (36, 6, 1), 10), "grid is [8, 6, 0]"),
        ("layout.grid", (3, 280, (8, 6, 6), (36, 6, 1), 10), "288 points, but the visual span has 280"),
        ("layout.grid", (3, 300, (8, 6, 6), (36, 6, 1), 10), "288 points, but the visual span has 300"),
        ("layout.strides", (3, 288, (8, 6, 6), (36, 6, 0), 10), "strides are [36, 6, 0]"),
        ("layout.strides", (3, 300, (8, 6, 6), (48, 6, 1), 10), "at position 371, beyond the visual span of 300"),
        ("layout.strides", (3, 288, (8, 6, 6), (36, 5, 1), 10), "make the rows of grid [8, 6, 6] overlap"),
        ("layout.strides", (3, 288, (8, 6, 6), (30, 6, 1), 10), "make the frames of grid [8, 6, 6] overlap"),
    ],
)
def test_contradictions_name_the_fact(code: str, arguments: tuple[Any, ...], message: str) -> None:
    with pytest.raises(CompileError, match=re.escape(message)) as caught:
        Layout(*arguments)
    assert caught.value.diagnostics[0].code == code


@pytest.mark.parametrize("value", ["8,6", "8,6,x", [8, 6, 1.5], [8, 6, True], 8, ""])
def test_facts_are_whole_numbers(value: object) -> None:
    with pytest.raises(CompileError, match=r"error\[layout\.type\]: grid is .*, expected 3 whole numbers"):
        Layout.parse({"visual": "3,288", "grid": value, "query": 10})


def test_unknown_and_absent_facts_and_where_they_are_from() -> None:
    with pytest.raises(CompileError, match=r"^m\.onnx: error\[layout\.key\]: grid is missing"):
        Layout.parse({"visual": "3,288", "query": 10}, Loc(file="m.onnx"))
    with pytest.raises(CompileError, match=r"layout\.key\]: frames is not a fact of the layout"):
        Layout.parse({**GOOD.facts(), "frames": 8})


def test_the_query_is_all_that_follows_the_span() -> None:
    GOOD.fit(301)
    with pytest.raises(CompileError, match=r"layout\.visual\]: visual span \[3, 291\) leaves the sequence of 200 rows"):
        GOOD.fit(200)
    with pytest.raises(CompileError, match=r"layout\.query\]: query is 10 rows, but 14 of the 305 rows follow"):
        GOOD.fit(305)


def test_trailing_tokens_lie_within_the_span() -> None:
    """A newline token behind each row belongs to the span, as in LLaVA-Video (13 x 13 patches and a newline a row)."""
    assert Layout(14, 2 * 13 * 14, (2, 13, 13), (182, 14, 1), 20).end == 14 + 364


def test_any_order_of_the_axes_will_do() -> None:
    assert Layout(0, 24, (2, 3, 4), (1, 2, 6), 1).strides == (1, 2, 6)
