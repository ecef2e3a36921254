"""Row kernels of the emulator against numpy: equal to the bit."""

from __future__ import annotations

import numpy as np
from hypothesis import example, given
from hypothesis import strategies as st

from focusc.isa.emulator import kernels

F32 = np.float32


def tile(rows: int, cols: int, pad: int, seed: int, odd: list[float]) -> np.ndarray:
    """A window [rows, cols] of a wider array, with some odd numbers in it."""
    rng = np.random.default_rng(seed)
    found = (rng.standard_normal((rows, cols + pad)) * 10.0 ** rng.integers(-6, 6, (rows, 1))).astype(F32)
    for value in odd:
        found[rng.integers(rows), rng.integers(cols)] = value
    return found[:, :cols]


TILE = st.builds(tile, st.integers(1, 6), st.integers(1, 128), st.integers(0, 9), st.integers(0, 99),
                 st.lists(st.sampled_from([np.inf, -np.inf, np.nan, -np.nan, -0.0, 1e-45]), max_size=4))


def place(view: np.ndarray) -> tuple[np.ndarray, int, int, int, int]:
    base = view if view.base is None else view.base
    return base.reshape(-1), 0, base.shape[1], *view.shape


@given(TILE)
@example(np.full((2, 9), -np.inf, F32))
@example(np.full((1, 3), np.nan, F32))
def test_row_maximum(x: np.ndarray) -> None:
    out = np.empty(len(x), F32)
    kernels.row_max(*place(x), out)
    np.testing.assert_array_equal(out, x.max(axis=1))


@given(TILE)
def test_row_sum_in_numpys_order(x: np.ndarray) -> None:
    out = np.empty(len(x), F32)
    kernels.row_sum(*place(x), out)
    with np.errstate(invalid="ignore"):
        np.testing.assert_array_equal(out, x.sum(axis=1))


@given(TILE, st.integers(-200, 200), st.integers(0, 50))
def test_hidden_keys(x: np.ndarray, first: int, window: int) -> None:
    rows, cols = x.shape
    key, query = np.arange(cols)[None, :] - first + 1, np.arange(rows)[:, None]
    hidden = (key > query) | ((key <= query - window) if window else False)
    expected = np.where(hidden, F32(-5), x)
    whole = x.base
    outside = whole[:, cols:].copy() if whole is not None else None
    kernels.hide(*place(x), first, window, F32(-5))
    np.testing.assert_array_equal(x, expected)
    if whole is not None:
        np.testing.assert_array_equal(whole[:, cols:], outside)
