"""SEC keeps the same tokens on the emulator and in the interpreter when both get the same queries and keys."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.backends import compile_module
from focusc.ir import Builder, Module, Op, TensorType, interpret
from focusc.ir.matching import shape_of
from focusc.ir.ops.sec import rounded
from focusc.isa.emulator import Emulator, SicEvent, TopkEvent
from focusc.isa.insns.concentrate import _tf32
from tests.backends.machine import FOCUS, UNHURRIED


def selection(size: int, heads: tuple[int, int], text: tuple[int, int], visual: int, keep: int) -> Module:
    """q, k -> the rows of q that stay after the last `text[1]` rows chose `keep` of `visual` tokens."""
    before, asking = text
    rows = before + visual + asking
    b = Builder()
    q = b.argument("q", TensorType((1, rows, heads[0] * size), "f32"))
    k = b.argument("k", TensorType((1, rows, heads[1] * size), "f32"))
    where: dict[str, Any] = {"visual_start": before, "visual_len": visual}
    vector = b.emit("sec.importance", q, k, heads=heads[0], kv_heads=heads[1], scale=size**-0.5, query=asking, **where)
    rows_left, _ = b.create("sec.select", vector, None, k=keep, rows=rows, **where).results
    return b.module("m", {"y": b.emit("sec.compact", q, rows_left)})


def both(module: Module, x: dict[str, np.ndarray]) -> tuple[np.ndarray, np.ndarray, TopkEvent]:
    """The interpreter's importance and kept positions, and what the emulator saw."""
    found: dict[str, np.ndarray] = {}

    def watch(op: Op, results: tuple[np.ndarray, ...]) -> None:
        found[op.name] = results[-1]

    interpret(module, x, watch)
    events: list[SicEvent | TopkEvent] = []
    Emulator(compile_module(module, FOCUS), strict=True, observe=events.append).run(x)
    (event,) = events
    assert isinstance(event, TopkEvent)
    return found["sec.importance"], found["sec.select"], event


@settings(max_examples=15, suppress_health_check=UNHURRIED, deadline=None)
@given(
    st.sampled_from([32, 128]),
    st.sampled_from([(2, 2), (4, 2), (3, 1)]),
    st.integers(2, 230),
    st.integers(1, 6),
    st.sampled_from([0.3, 1.0, 6.0]),
    st.integers(0, 999),
)
def test_the_same_tokens_stay(
    size: int, heads: tuple[int, int], visual: int, asking: int, sharpness: float, seed: int
) -> None:
    """Sharp attention too: many weights near 1, or far below it."""
    module = selection(size, heads, (3, asking), visual, max(1, visual // 3))
    rng = np.random.default_rng(seed)
    x = {a.name: (sharpness * rng.standard_normal(shape_of(a))).astype(np.float32) for a in module.args}
    importance, kept, event = both(module, x)
    # the last bit of TF32, which below the normal numbers is 2^-136
    np.testing.assert_allclose(event.importance, importance, rtol=2**-10, atol=2**-136)
    assert event.positions.tolist() == kept.tolist()


def test_tokens_that_weigh_the_same_are_kept_from_the_front() -> None:
    """Every fourth key is the same vector: sums in another order differ in the last bits, the choice does not."""
    module = selection(128, (4, 2), (2, 5), 200, 75)
    rng = np.random.default_rng(3)
    x = {a.name: rng.standard_normal(shape_of(a)).astype(np.float32) for a in module.args}
    x["k"] = np.tile(x["k"][:, :4], (1, 52, 1))[:, : x["k"].shape[1]]
    _, kept, event = both(module, x)
    assert event.positions.tolist() == kept.tolist()


@pytest.mark.parametrize("seed", range(3))
def test_both_round_to_the_same_bits(seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 0x7F000000, 100_000).astype(np.uint32)
    np.testing.assert_array_equal(_tf32(bits.view(np.float32)), rounded(bits.view(np.float32)))
