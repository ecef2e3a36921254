"""Attention masks: the op against a direct computation, and their simplest form against what they were."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusc.ir import Builder, TensorType, interpret
from focusc.ir.diagnostics import CompileError
from focusc.ir.masks import Mask, resolve, split
from focusc.ir.matching import dtype_of
from focusc.ir.ops.attention import ROWS, Attention, seen_keys

HEADS, KV_HEADS, SIZE = 4, 2, 3


def operands(batch: int, rows: int, keys: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    rng = np.random.default_rng([batch, rows, keys])
    q, k, v = (rng.standard_normal(s).astype(np.float32) for s in (
        (batch, rows, HEADS * SIZE), (batch, keys, KV_HEADS * SIZE), (batch, keys, KV_HEADS * SIZE)))
    return q, k, v


def direct(q: np.ndarray, k: np.ndarray, v: np.ndarray, scores: np.ndarray, scale: float) -> np.ndarray:
    """softmax(scale * q @ k^T + scores) @ v in f64, for `scores` [B, heads, T, S]; zeros where no key is left."""
    def apart(x: np.ndarray, count: int) -> np.ndarray:
        return x.astype(np.float64).reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)

    a, b, c = apart(q, HEADS), apart(k, KV_HEADS), apart(v, KV_HEADS)
    b, c = (np.repeat(x, HEADS // KV_HEADS, axis=1) for x in (b, c))
    with np.errstate(all="ignore"):
        weight = np.exp(scale * a @ b.transpose(0, 1, 3, 2) + scores)
        weight = np.nan_to_num(weight / weight.sum(-1, keepdims=True))
    return (weight @ c).transpose(0, 2, 1, 3).reshape(*q.shape[:2], -1)


@pytest.mark.parametrize(("rows", "keys"), [(5, 5), (3, 8), (ROWS + 9, ROWS + 12)])
@pytest.mark.parametrize(("causal", "window"), [(True, 0), (True, 1), (True, 4), (False, 3), (False, 0)])
def test_rows_see_the_keys_of_their_window(rows: int, keys: int, causal: bool, window: int) -> None:
    q, k, v = operands(2, rows, keys)
    position = np.arange(rows)[:, None] + keys - rows
    key = np.arange(keys)[None]
    seen = ((key <= position) | (not causal)) & ((key > position - window) | (window == 0))
    assert np.array_equal(seen_keys(rows, keys, causal, window), seen)
    found = Attention.evaluate(q, k, v, None, heads=HEADS, kv_heads=KV_HEADS, scale=0.4, causal=causal, window=window)
    expected = direct(q, k, v, np.where(seen, 0, -np.inf)[None, None], 0.4)
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("shape", [(7,), (5, 7), (5, 1), (4, 5, 7), (2, 1, 1, 7), (2, 4, 5, 7)])
@pytest.mark.parametrize("kind", ["bool", "added"])
def test_masks_broadcast_and_rows_without_keys_give_zeros(shape: tuple[int, ...], kind: str) -> None:
    q, k, v = operands(2, 5, 7)
    rng = np.random.default_rng(len(shape))
    seen = rng.random(shape) < 0.5
    mask = seen if kind == "bool" else np.where(seen, rng.standard_normal(shape), -np.inf).astype(np.float32)
    found = Attention.evaluate(q, k, v, mask, heads=HEADS, kv_heads=KV_HEADS, scale=0.4, causal=False)
    scores = np.where(seen, 0, -np.inf) if kind == "bool" else mask
    np.testing.assert_allclose(found, direct(q, k, v, np.broadcast_to(scores, (2, 4, 5, 7)), 0.4), atol=2e-6)
    assert np.isfinite(found).all()


def test_a_row_whose_keys_are_all_far_down_takes_their_mean() -> None:
    """An added -1e4 moves all scores alike: softmax does not see it. (So exports of padding rows behave.)"""
    q, k, v = operands(1, 2, 3)
    mask = np.full((2, 1), -1e4, np.float32)
    found = Attention.evaluate(q, k, v, mask, heads=HEADS, kv_heads=KV_HEADS, scale=0.0, causal=False)
    expected = np.repeat(v.reshape(1, 3, KV_HEADS, SIZE).mean(1), HEADS // KV_HEADS, axis=1).reshape(1, 1, -1)
    np.testing.assert_allclose(found, np.broadcast_to(expected, found.shape), atol=1e-6)


@pytest.mark.parametrize(("mask", "message"), [
    (TensorType((5, 6), "f32"), "expected a shape that broadcasts to [1, 2, 5, 5]"),
    (TensorType((1, 1, 1, 5, 5), "f32"), "expected a shape that broadcasts"),
    (TensorType((5, 5), "i64"), "element type i64, expected bool or f32")])
def test_a_mask_that_does_not_fit_is_refused(mask: TensorType, message: str) -> None:
    b = Builder()
    x = b.argument("x", TensorType((1, 5, 8), "f32"))
    with pytest.raises(CompileError) as caught:
        b.emit("nn.attention", x, x, x, b.argument("mask", mask), heads=2, kv_heads=2, scale=1.0)
    assert message in caught.value.render()


@given(st.data())
def test_the_simplest_form_sees_the_same_keys(data: st.DataObject) -> None:
    """Random bands, choices of keys, per batch and head, and noise."""
    batch, heads = data.draw(st.integers(1, 2)), data.draw(st.integers(1, 2))
    rows = data.draw(st.integers(1, 5))
    keys = rows + data.draw(st.integers(0, 3))
    causal, window = data.draw(st.booleans()), data.draw(st.integers(0, keys))
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    columns = rng.random((batch if data.draw(st.booleans()) else 1, 1, 1, keys)) < data.draw(st.sampled_from([0.6, 1]))
    noise = rng.random((batch, heads, rows, keys)) < data.draw(st.sampled_from([0.7, 1, 1]))
    seen = np.broadcast_to(seen_keys(rows, keys, causal, window) & columns & noise, (batch, heads, rows, keys))
    found_causal, found_window, left = split(seen)
    again = seen_keys(rows, keys, found_causal, found_window) & (True if left is None else left)
    assert np.array_equal(np.broadcast_to(again, seen.shape), seen)
    if columns.all() and noise.all():
        assert left is None


@pytest.mark.parametrize("zeros", [False, True])
def test_rows_without_keys_keep_their_meaning(zeros: bool) -> None:
    """-inf without a guard gives NaN, which is left alone; a finite fill gives the mean, so it stays an added mask."""
    b = Builder()
    for fill, form in ((-np.inf, "bool" if zeros else None), (-1e4, "f32")):
        values = np.array([[0, fill], [fill, fill]], np.float32)
        found = resolve([Mask(b.constant(values))], (1, 1, 2, 2), b, zeros=zeros)
        if form is None:
            assert found is None
        else:
            assert found is not None and found.mask is not None and dtype_of(found.mask) == form


def test_several_masks_are_joined() -> None:
    b = Builder()
    condition = b.argument("c", TensorType((3, 3), "bool"))
    bias = b.argument("b", TensorType((3, 3), "f32"))
    triangle = b.constant(np.where(np.tri(3), 0, -np.inf).astype(np.float32))
    masks = [Mask(triangle), Mask(bias), Mask(condition, fill=-np.inf, negated=True)]
    found = resolve(masks, (1, 1, 3, 3), b, zeros=True)
    assert found is not None and found.mask is not None and (found.causal, found.window) == (True, 0)
    inputs = {"c": np.eye(3, dtype=bool), "b": np.arange(9, dtype=np.float32).reshape(3, 3)}
    got = interpret(b.module("m", {"mask": found.mask}), inputs)["mask"]
    assert np.array_equal(got, np.where(np.eye(3), -np.inf, inputs["b"]))
