"""sic.gather against the per-token transcription of the algorithm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.ir import CompileError, ConcentratedType, TensorType, TokensType
from focusc.ir.concentrated import Concentrated
from focusc.ir.ops.sic import Gather, Scatter
from tests.reference_concentration import Merged, Window, sic


def gather(x: np.ndarray, positions: np.ndarray | None = None, **attrs: Any) -> Concentrated:
    return Gather.evaluate(x, positions, **Gather.complete(attrs))


@st.composite
def cases(draw: st.DrawFn) -> tuple[np.ndarray, list[int], Window, int, int]:
    """(rows with text around, positions of the visual ones, window, text rows before, after). Values are small whole
    numbers, so that every sum is exact in float32 and decisions must agree to the bit."""
    f, h, w = (draw(st.integers(1, n)) for n in (4, 4, 5))
    row = w + draw(st.integers(0, 1))  # a newline token may close each row,
    frame = h * row + draw(st.integers(0, 2))  # and tags each frame
    total = f * frame
    kept = sorted(draw(st.sets(st.integers(0, total - 1), min_size=1, max_size=total)))
    width = draw(st.integers(1, 70))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    before, after = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    rows = len(kept) + before + after
    kind = draw(st.sampled_from(("noise", "constant rows", "near copies", "zeros")))
    x = {
        "noise": lambda: rng.integers(-1, 2, (rows, width)),
        "constant rows": lambda: np.repeat(rng.integers(-2, 3, (rows, 1)), width, 1),
        "near copies": lambda: rng.integers(-4, 5, (1, width)) + (rng.random((rows, width)) < 0.1),
        "zeros": lambda: np.zeros((rows, width)),
    }[kind]().astype(np.float32)
    window = Window(
        (f, h, w),
        (frame, row, 1),
        draw(st.tuples(*[st.integers(1, 3)] * 3)),
        draw(st.sampled_from((8, 32))),
        draw(st.sampled_from((0.0, 0.5, 0.75, 0.9, 1.0))),
        draw(st.sampled_from(("linear", "grid"))),
        draw(st.sampled_from(("root", "published"))),
        draw(st.sampled_from((1, 3, 7, 1024))),
    )
    return x, kept, window, before, after


def attributes(w: Window, start: int, length: int) -> dict[str, Any]:
    return {
        "visual_start": start,
        "visual_len": length,
        "grid": w.grid,
        "strides": w.strides,
        "block": w.block,
        "vector": w.vector,
        "threshold": w.threshold,
        "boundary": w.boundary,
        "chase": w.chase,
        "m": w.m,
    }


@settings(max_examples=250, deadline=None)
@given(cases())
def test_links_groups_and_means_equal_the_transcription(case: tuple[np.ndarray, list[int], Window, int, int]) -> None:
    x, kept, window, before, _ = case
    n = len(kept)
    expected = sic(x[before : before + n], kept, window)
    got = gather(x[None], np.array(kept, np.int32), **attributes(window, before, n))
    visual = slice(before, before + n)
    assert got.shape == (1, *x.shape)
    np.testing.assert_allclose(got.dense()[0, visual], expected.rows, atol=1e-5)
    text = np.delete(np.arange(len(x)), np.arange(before, before + n))
    np.testing.assert_array_equal(got.dense()[0, text], x[text])
    assert (got.root[text] == text[:, None]).all()
    same_group = got.root[visual, None, :] == got.root[None, visual, :]
    labels = np.array(expected.labels).T
    assert (same_group == (labels[:, None, :] == labels[None, :, :])).all()
    assert unique_visual(got, before, n, window.m) == expected.unique


def unique_visual(got: Concentrated, before: int, n: int, m: int) -> list[list[int]]:
    """Executed rows by slot and tile of visual tokens; the text rows in the first and last tiles are taken off."""
    starts = list(range(0, n, m))
    text = np.array([b - a - max(0, min(b, before + n) - max(a, before)) for a, b in got.tiles])
    return (got.executed - text[:, None])[: len(starts)].T.tolist()


@settings(max_examples=60, deadline=None)
@given(cases())
def test_packed_vectors_and_map_give_the_reconstruction(case: tuple[np.ndarray, list[int], Window, int, int]) -> None:
    x, kept, window, before, _ = case
    got = gather(x, np.array(kept, np.int32), **attributes(window, before, len(kept)))
    for t, (a, b) in enumerate(got.tiles):
        for slot in range(got.slots):
            rebuilt = got.packed(t, slot)[got.map(t, slot)]
            part = got.dense()[a:b, slot * window.vector : (slot + 1) * window.vector]
            np.testing.assert_array_equal(rebuilt[:, : part.shape[1]], part)
            assert not rebuilt[:, part.shape[1] :].any()
            assert len(got.packed(t, slot)) == got.counts[t, slot]


def test_real_valued_rows_agree_but_for_ties_at_rounding() -> None:
    """Smooth float data, pruned: at most a handful of the decisions may hang on the last bit of a sum."""
    rng = np.random.default_rng(0)
    grid, window = (4, 6, 6), Window((4, 6, 6), (36, 6, 1), threshold=0.9)
    kept = np.sort(rng.choice(144, 90, replace=False))
    points = np.stack(np.unravel_index(kept, grid), -1)
    x = (
        rng.standard_normal(96) + points @ rng.standard_normal((3, 96)) * 0.3 + 0.4 * rng.standard_normal((90, 96))
    ).astype(np.float32)
    expected = sic(x, kept.tolist(), window)
    got = gather(x, kept.astype(np.int32), **attributes(window, 0, 90))
    labels = np.array(expected.labels).T
    assert 0.2 < (got.root != np.arange(90)[:, None]).mean() < 0.95
    assert (got.root == labels).mean() > 0.999


def merge(rows: Sequence[Sequence[float]], **changes: Any) -> Merged:
    w = Window(**{"grid": (1, 1, len(rows)), "strides": (len(rows), len(rows), 1), "vector": 4, **changes})
    return sic(np.array(rows, np.float32), list(range(len(rows))), w)


def test_a_cosine_at_the_threshold_does_not_link() -> None:
    exact = [[3, 4, 0, 0], [1, 0, 0, 0]]  # cosine 3/5, rounded once by both sides
    for threshold, linked in ((0.6, 0), (0.59, 1)):
        got = gather(
            np.array(exact, np.float32),
            None,
            visual_start=0,
            visual_len=2,
            grid=(1, 1, 2),
            strides=(2, 2, 1),
            vector=4,
            threshold=threshold,
        )
        assert int((got.root != np.arange(2)[:, None]).sum()) == linked
        assert merge(exact, threshold=threshold).unique == [[2 - linked]]


def test_zero_vectors_are_never_similar() -> None:
    got = gather(
        np.zeros((6, 8), np.float32),
        None,
        visual_start=0,
        visual_len=6,
        grid=(1, 2, 3),
        strides=(6, 3, 1),
        threshold=-0.5,
        vector=8,
    )
    assert (got.executed == 1).all(), "cosine 0 is above a negative threshold, so all link"
    strict = gather(
        np.zeros((6, 8), np.float32),
        None,
        visual_start=0,
        visual_len=6,
        grid=(1, 2, 3),
        strides=(6, 3, 1),
        threshold=0.0,
        vector=8,
    )
    assert (strict.executed == 6).all()


def test_ties_go_to_the_smallest_step() -> None:
    """Token 3 of a 2 x 2 picture sees (0,0,1) = 2, (0,1,0) = 1, (0,1,1) = 0, all equally similar: it takes 2."""
    x = np.array([[1, 1], [1, -1], [-1, 1], [1, 0]], np.float32) * 2
    x[0], x[1], x[2], x[3] = [2, 1], [2, -1], [2, 1], [2, 0]
    got = gather(x, None, visual_start=0, visual_len=4, grid=(1, 2, 2), strides=(4, 2, 1), threshold=0.85, vector=2)
    assert got.root[3, 0] == got.root[2, 0]


def test_linear_boundary_compares_across_the_end_of_a_row_and_grid_does_not() -> None:
    x = np.array([[1, 0], [0, 1], [0, 1], [1, 0]], np.float32)
    common: dict[str, Any] = {
        "visual_start": 0,
        "visual_len": 4,
        "grid": (1, 2, 2),
        "strides": (4, 2, 1),
        "block": (1, 1, 2),
        "vector": 2,
    }
    assert gather(x, None, **common).root[:, 0].tolist() == [0, 1, 1, 3]
    assert gather(x, None, **common, boundary="grid").root[:, 0].tolist() == [0, 1, 2, 3]


def test_published_chase_cuts_the_chain_of_a_single_image_but_not_its_cost() -> None:
    x = np.ones((8, 2), np.float32)
    common: dict[str, Any] = {"visual_start": 0, "visual_len": 8, "grid": (1, 1, 8), "strides": (8, 8, 1), "vector": 2}
    whole, cut = gather(x, None, **common), gather(x, None, **common, chase="published")
    assert whole.root[:, 0].tolist() == [0] * 8
    assert len(set(cut.root[:, 0].tolist())) > 1
    assert whole.executed.tolist() == cut.executed.tolist() == [[1]]


def test_random_links_match_the_rate_and_are_legal() -> None:
    rng = np.random.default_rng(1)
    x = (rng.standard_normal(64) + 0.5 * rng.standard_normal((72, 64))).astype(np.float32)
    common: dict[str, Any] = {
        "visual_start": 0,
        "visual_len": 72,
        "grid": (2, 6, 6),
        "strides": (36, 6, 1),
        "threshold": 0.8,
    }
    real, fake, other = (
        gather(x, None, **common, **c) for c in ({}, {"links": "random"}, {"links": "random", "seed": 1})
    )
    assert real.executed.tolist() == fake.executed.tolist()
    assert (fake.root <= np.arange(72)[:, None]).all()
    assert (fake.root != real.root).mean() > 0.2
    assert (fake.root != other.root).any()
    again = gather(x, None, **common, links="random")
    assert (again.root == fake.root).all()


def test_type_is_concentrated_and_scatters_back() -> None:
    attrs = Gather.complete({"visual_start": 1, "visual_len": 6, "grid": (1, 2, 3), "strides": (6, 3, 1), "m": 64})
    found = Gather.infer(TensorType((1, 9, 40), "f32"), TokensType(6, 6), **attrs)
    assert found == ConcentratedType((1, 9, 40), "f32", 32, 64)
    assert Scatter.infer(found) == TensorType((1, 9, 40), "f32")


@pytest.mark.parametrize(
    ("operands", "change", "message"),
    [
        ((TensorType((2, 9, 40), "f32"), None), {}, r"expected a tensor \[1, T, D\]"),
        ((TensorType((1, 6, 40), "f32"), None), {}, r"visual rows \[1, 7\) leave the 6 rows"),
        ((TensorType((1, 9, 40), "f32"), TokensType(5, 6)), {}, "one for each visual row"),
        ((TensorType((1, 9, 40), "f32"), None), {"grid": (1, 0, 3)}, "three positive numbers"),
    ],
)
def test_operands_that_do_not_fit_are_explained(
    operands: tuple[Any, ...], change: dict[str, Any], message: str
) -> None:
    attrs = Gather.complete({"visual_start": 1, "visual_len": 6, "grid": (1, 2, 3), "strides": (6, 3, 1), **change})
    with pytest.raises(CompileError, match=message):
        Gather.infer(*operands, **attrs)


@pytest.mark.parametrize(("name", "value"), [("m", 0), ("vector", 0), ("boundary", "torus"), ("site", "head")])
def test_attributes_out_of_range_are_refused(name: str, value: Any) -> None:
    with pytest.raises(CompileError, match=name):
        Gather.complete({"visual_start": 1, "visual_len": 6, "grid": (1, 2, 3), "strides": (6, 3, 1), name: value})
