"""sec.* against the per-token transcription of the algorithm."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.ir import CompileError, TensorType, TokensType
from focusc.ir.concentration.schedule import budget
from focusc.ir.ops.sec import Compact, Importance, Select, Subset, rounded
from tests import reference_concentration as reference


def importance(q: np.ndarray, k: np.ndarray, **attrs: Any) -> np.ndarray:
    return Importance.evaluate(q, k, **Importance.complete(attrs))


@settings(max_examples=40, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([(2, 2), (4, 2), (3, 1)]),
    st.integers(0, 99),
)
def test_importance_is_the_largest_attention_weight(
    start: int, visual: int, query: int, heads: tuple[int, int], seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows, extra = start + visual + query, seed % 2  # text between the span and the asking rows is possible
    q = rng.standard_normal((rows + extra, heads[0] * 8)).astype(np.float32)
    k = rng.standard_normal((rows + extra, heads[1] * 8)).astype(np.float32)
    attrs: dict[str, Any] = {
        "heads": heads[0],
        "kv_heads": heads[1],
        "scale": 0.7,
        "query": query,
        "visual_start": start,
        "visual_len": visual,
    }
    expected = reference.importance(q, k, **attrs)
    found = importance(q[None], k[None], **attrs)
    np.testing.assert_allclose(found, expected, rtol=2**-10)  # a weight beside a rounding boundary may fall either way
    assert [reference.significant(x, 11) for x in found.tolist()] == found.tolist()


@settings(max_examples=30, deadline=None)
@given(
    st.integers(0, 3),
    st.integers(1, 9),
    st.integers(1, 4),
    st.sampled_from([0, 1, 4, 9]),
    st.booleans(),
    st.sampled_from(["", "bool", "added"]),
    st.integers(0, 99),
)
def test_importance_under_masks_and_windows(
    start: int, visual: int, query: int, window: int, dropped: bool, kind: str, seed: int
) -> None:
    rng = np.random.default_rng(seed)
    rows = start + visual + query
    q, k = rng.standard_normal((rows, 32)).astype(np.float32), rng.standard_normal((rows, 16)).astype(np.float32)
    seen = rng.random((4, rows, rows)) < 0.6
    bias = np.where(seen, rng.standard_normal((4, rows, rows)), -np.inf).astype(np.float32)
    mask = {"": None, "bool": seen, "added": bias}[kind]
    stood = np.cumsum(rng.integers(1, 4, rows)).astype(np.float32) if dropped else None
    attrs: dict[str, Any] = {"heads": 4, "kv_heads": 2, "scale": 0.7, "query": query, "visual_start": start,
                             "visual_len": visual, "window": window}
    expected = reference.importance(q, k, mask=mask, positions=None if stood is None else stood.tolist(), **attrs)
    operands = (mask, None if stood is None else stood[:, None])
    found = Importance.evaluate(q[None], k[None], *operands, **Importance.complete(attrs))
    np.testing.assert_allclose(found, expected, rtol=2**-10, atol=1e-9)


def test_importance_multiplies_f16() -> None:
    """What the machine stores is what counts: operands that f16 cannot tell apart give the same bits."""
    rng = np.random.default_rng(1)
    q, k = (rng.standard_normal((12, 16)).astype(np.float32) for _ in range(2))
    attrs: dict[str, Any] = {"heads": 2, "kv_heads": 2, "scale": 0.3, "query": 2, "visual_start": 1, "visual_len": 9}
    stored = [x.astype(np.float16).astype(np.float32) for x in (q, k)]
    np.testing.assert_array_equal(importance(q, k, **attrs), importance(*stored, **attrs))


@given(st.lists(st.floats(0, 1, width=32), min_size=1, max_size=20))
def test_rounding_keeps_eleven_significant_bits(values: list[float]) -> None:
    normal = [v for v in values if v == 0 or v >= 2**-126]
    found = rounded(np.array(normal, np.float32))
    assert found.tolist() == [reference.significant(v, 11) for v in normal]


def test_weights_closer_than_f16_resolves_are_ties() -> None:
    """Two keys whose scores differ by 2^-14: the lower index is kept, whichever weight is larger."""
    for first in (0, 1):
        k = np.zeros((4, 32), np.float32)
        k[first, 0] = 2**-14
        q = np.ones((4, 32), np.float32)
        attrs: dict[str, Any] = {"heads": 1, "kv_heads": 1, "scale": 1.0, "query": 1, "visual_start": 0}
        found = importance(q, k, visual_len=2, **attrs)
        chosen = Select.complete({"k": 1, "visual_start": 0, "visual_len": 2, "rows": 4})
        _, kept = Select.evaluate(found, None, **chosen)
        assert kept.tolist() == [0]


@given(st.lists(st.integers(0, 4), min_size=1, max_size=24), st.integers(1, 24), st.integers(0, 3), st.integers(0, 3))
def test_select_keeps_the_largest_in_order_ties_to_the_lower_index(
    values: list[int], k: int, start: int, tail: int
) -> None:
    k, n = min(k, len(values)), len(values)
    positions = np.arange(n, dtype=np.int32) * 3 + 1
    attrs = Select.complete({"k": k, "visual_start": start, "visual_len": n, "rows": start + n + tail})
    rows, kept = Select.evaluate(np.array(values, np.float32), positions, **attrs)
    chosen = reference.select(values, k)
    assert kept.tolist() == [3 * c + 1 for c in chosen]
    assert rows.tolist() == [*range(start), *(start + c for c in chosen), *range(start + n, start + n + tail)]
    assert rows.dtype == kept.dtype == np.int32


@given(st.integers(1, 500), st.floats(0.001, 1), st.integers(1, 500))
def test_budget_is_a_share_of_the_original_count(original: int, alpha: float, present: int) -> None:
    assert budget(original, alpha, present) == reference.budget(original, alpha, present)


def test_select_types_carry_both_counts() -> None:
    attrs = Select.complete({"k": 3, "visual_start": 2, "visual_len": 6, "rows": 11})
    assert Select.infer(TensorType((6,), "f32"), None, **attrs) == (TokensType(8, 11), TokensType(3, 6))
    assert Select.infer(TensorType((6,), "f32"), TokensType(6, 40), **attrs) == (TokensType(8, 11), TokensType(3, 40))


def test_controls_depend_on_the_seed_only_or_invert_or_spread() -> None:
    rng = np.random.default_rng(0)
    q, k = (rng.standard_normal((12, 16)).astype(np.float32) for _ in range(2))
    common: dict[str, Any] = {"heads": 2, "kv_heads": 2, "scale": 0.3, "query": 2, "visual_start": 1, "visual_len": 9}
    plain = importance(q, k, **common)
    np.testing.assert_array_equal(importance(q, k, **common, importance="inverse"), -plain)
    one, two = (importance(q, k, **common, importance="random", seed=s) for s in (1, 2))
    assert sorted(one) == list(range(9)) and (one != two).any()
    np.testing.assert_array_equal(one, importance(q * 2, k, **common, importance="random", seed=1))
    spread = importance(q, k, **common, importance="uniform", keep=3)
    assert np.flatnonzero(spread).tolist() == [1, 4, 7]


def test_compact_gathers_rows_of_any_axis() -> None:
    x = np.arange(24, dtype=np.float32).reshape(2, 4, 3)
    rows = np.array([0, 2], np.int32)
    np.testing.assert_array_equal(Compact.evaluate(x, rows, axis=1), x[:, [0, 2]])
    assert Compact.infer(TensorType((2, 4, 3), "f32"), TokensType(2, 4), axis=-2) == TensorType((2, 2, 3), "f32")


def test_subset_is_fixed_at_compile_time() -> None:
    attrs: dict[str, Any] = {"positions": (1, 4), "visual_start": 2, "visual_len": 5, "rows": 9}
    rows, kept = Subset.evaluate(**attrs)
    assert rows.tolist() == [0, 1, 3, 6, 7, 8] and kept.tolist() == [1, 4]
    assert Subset.infer(**attrs) == (TokensType(6, 9), TokensType(2, 5))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Importance.infer(
                TensorType((1, 9, 64), "f32"),
                TensorType((1, 8, 32), "f32"),
                **Importance.complete(
                    {"heads": 4, "kv_heads": 2, "scale": 1.0, "query": 2, "visual_start": 0, "visual_len": 4}
                ),
            ),
            "rows and head sizes",
        ),
        (
            lambda: Importance.infer(
                TensorType((1, 9, 64), "f32"),
                TensorType((1, 9, 32), "f32"),
                **Importance.complete(
                    {"heads": 4, "kv_heads": 2, "scale": 1.0, "query": 12, "visual_start": 0, "visual_len": 4}
                ),
            ),
            "more than the 9 rows",
        ),
        (
            lambda: Select.infer(
                TensorType((6,), "f32"),
                None,
                **Select.complete({"k": 7, "visual_start": 0, "visual_len": 6, "rows": 8}),
            ),
            "k is 7, more than the 6",
        ),
        (
            lambda: Select.infer(
                TensorType((5,), "f32"),
                None,
                **Select.complete({"k": 2, "visual_start": 0, "visual_len": 6, "rows": 8}),
            ),
            "one for each visual row",
        ),
        (lambda: Compact.infer(TensorType((1, 8, 4), "f32"), TokensType(3, 9), axis=1), "tokens<... of 8>"),
        (lambda: Subset.infer(positions=(3, 1), visual_start=0, visual_len=6, rows=8), "must ascend"),
    ],
)
def test_operands_that_do_not_fit_are_explained(make: Any, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        make()
