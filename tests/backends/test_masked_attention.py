"""Attention with windows and masks: strict emulator and tile interpreter against the nn interpreter."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.backends import compile_module
from focusc.backends.lower import lower_module
from focusc.backends.lower.masks import Band
from focusc.backends.options import tiling
from focusc.ir import Builder, Module, PassManager, Rewriter, TensorType, interpret, verify
from focusc.ir.matching import shape_of
from focusc.ir.ops.attention import seen_keys
from focusc.isa.emulator import Emulator
from focusc.isa.stats import stats
from focusc.isa.timing import simulate
from tests.backends.machine import FOCUS, UNHURRIED
from tests.backends.models import Shape, inputs, vlm

LOWEST = np.finfo(np.float32).min


@dataclass(frozen=True)
class Case:
    """One attention. `mask` names axes that it has in full, of batch, heads, rows, keys; `kind` what it holds."""

    rows: int = 9
    before: int = 0
    batch: int = 1
    heads: tuple[int, int] = (2, 1)
    size: int = 32
    wide: int = 32
    causal: bool = True
    window: int = 0
    mask: str = ""
    kind: str = "none"
    constant: bool = True
    packed: bool = False
    seed: int = 0


def values(c: Case, rng: np.random.Generator) -> np.ndarray:
    """A mask. Some rows of it hide every key."""
    full = dict(zip("bhts", (c.batch, c.heads[0], c.rows, c.rows + c.before), strict=True))
    shape = tuple(full[axis] if axis in c.mask else 1 for axis in "bhts")
    seen = (rng.random(shape) < 0.6) & (rng.random((*shape[:3], 1)) < 0.8)
    if c.kind == "bool":
        return seen
    if c.kind == "local":  # few keys on both sides of each row
        near = np.abs(np.arange(c.rows)[:, None] + c.before - np.arange(c.rows + c.before)) <= 1 + c.seed
        return seen & near[: shape[2], : shape[3]]
    bias = rng.standard_normal(shape).astype(np.float32)
    fill = {"bias": 0.0, "infinite": -np.inf, "lowest": LOWEST, "-1e4": -1e4}[c.kind]
    return np.where(seen, bias, np.float32(fill)).astype(np.float32)


def build(c: Case) -> tuple[Module, dict[str, np.ndarray]]:
    """The module, and inputs that f16 holds exactly, so that SIC sees the same values everywhere."""
    rng = np.random.default_rng(c.seed)
    b = Builder()
    keys, (heads, kv) = c.rows + c.before, c.heads
    q = b.argument("q", TensorType((c.batch, c.rows, heads * c.size), "f32"))
    k = b.argument("k", TensorType((c.batch, keys, kv * c.size), "f32"))
    v = b.argument("v", TensorType((c.batch, keys, kv * c.wide), "f32"))
    x = {n.name: rng.standard_normal(shape_of(n)).astype(np.float16).astype(np.float32) for n in (q, k, v)}
    mask = None
    if c.kind != "none":
        data = values(c, rng)
        lead = next((i for i, d in enumerate(data.shape) if d != 1), 3)
        data = data.reshape(data.shape[lead:])  # leading axes of extent 1 may be left out
        if c.constant:
            mask = b.constant(data)
        else:
            mask, x["mask"] = b.argument("mask", TensorType.of(data)), data
    if c.packed:
        seen = c.rows - 2
        where = {"visual_start": 1, "visual_len": seen, "grid": (1, 1, seen), "strides": (seen, seen, 1)}
        q = b.emit("sic.gather", q, None, **where, threshold=0.7, m=1024)
    y = b.emit("nn.attention", q, k, v, mask, heads=heads, kv_heads=kv, scale=c.size**-0.5, causal=c.causal,
               window=c.window)
    return b.module("m", {"y": y}), x


def check(c: Case) -> None:
    """Tile level and strict emulator give what the interpreter gives, zeros for rows without keys included."""
    module, x = build(c)
    wanted = interpret(module, x)["y"].astype(np.float64)
    lowered = lower_module(module, tiling(FOCUS))
    verify(lowered)
    scale = max(float(np.abs(wanted).max()), 0.1)
    assert np.abs(interpret(lowered, x)["y"] - wanted).max() < 4e-3 * scale
    found = Emulator(compile_module(module, FOCUS), strict=True).run(x).outputs["y"]
    assert np.abs(found - wanted).max() < 4e-3 * scale


@settings(max_examples=40, suppress_health_check=UNHURRIED, deadline=None)
@given(
    st.builds(
        Case,
        rows=st.sampled_from([3, 9, 40, 130]),
        before=st.sampled_from([0, 0, 5, 101]),
        batch=st.sampled_from([1, 1, 2]),
        heads=st.sampled_from([(1, 1), (2, 1), (4, 2)]),
        size=st.sampled_from([32, 48]),
        wide=st.sampled_from([32, 48, 128]),
        causal=st.booleans(),
        window=st.sampled_from([0, 0, 1, 7, 33, 400]),
        mask=st.sampled_from(["", "s", "t", "ts", "bs", "bts", "hts", "hs", "bhts"]),
        kind=st.sampled_from(["none", "bool", "local", "bias", "infinite", "lowest", "-1e4"]),
        constant=st.booleans(),
        seed=st.integers(0, 9),
    )
)
def test_any_small_attention(c: Case) -> None:
    check(c)


PACKED = {
    "window": Case(rows=230, packed=True, size=32, window=50),
    "bool": Case(rows=70, packed=True, size=64, wide=64, mask="ts", kind="bool"),
    "added, one block": Case(rows=20, packed=True, size=64, wide=64, mask="hts", kind="infinite"),
    "input": Case(rows=150, packed=True, mask="s", kind="lowest", constant=False, window=60),
}


@pytest.mark.parametrize("name", PACKED)
def test_concentrated_queries(name: str) -> None:
    check(PACKED[name])


GROUPED = {
    "window": Case(rows=203, heads=(6, 2), window=40, wide=48),
    "window of one block": Case(rows=50, heads=(4, 2), window=9),
    "no later keys hidden": Case(rows=40, before=170, batch=2, heads=(4, 2), window=100, causal=False),
}


@pytest.mark.parametrize("name", GROUPED)
def test_heads_of_a_group_share_panels_under_a_window(name: str) -> None:
    module, _ = build(GROUPED[name])
    assert any(op.name == "tile.store_heads" for op in lower_module(module, tiling(FOCUS)).walk())
    check(GROUPED[name])


@pytest.mark.parametrize("rows", [1, 2, 20, 33])
@pytest.mark.parametrize("before", [4, 28, 131])
@pytest.mark.parametrize("window", [1, 7, 40])
def test_fewer_rows_than_keys_under_a_window(rows: int, before: int, window: int) -> None:
    """The keys that a tile visits are few, of any number, and stand anywhere."""
    for heads, causal in (((2, 1), True), ((2, 1), False), ((2, 2), True)):
        check(Case(rows=rows, before=before, heads=heads, causal=causal, window=window))


def test_a_window_of_original_positions() -> None:
    """Keys stood far apart, so that a window of 40 holds a few of 150; the last 120 of them are rows."""
    rng = np.random.default_rng(0)
    at = np.cumsum(rng.integers(1, 12, 150)).astype(np.float32)[:, None] + 3000
    b = Builder()
    q, k = b.argument("q", TensorType((1, 120, 64), "f32")), b.argument("k", TensorType((1, 150, 64), "f32"))
    y = b.emit("nn.attention", q, k, k, None, b.constant(at), heads=2, kv_heads=2, scale=0.2, causal=True, window=40)
    module = b.module("m", {"y": y})
    x = {"q": rng.standard_normal((1, 120, 64)).astype("f4"), "k": rng.standard_normal((1, 150, 64)).astype("f4")}
    seen = (at[30:] >= at.T) & (at[30:] - 40 < at.T)
    assert 1 < seen.sum(1).mean() < 12
    wanted = np.zeros((120, 64))
    for h in (slice(0, 32), slice(32, 64)):
        s = np.where(seen, 0.2 * x["q"][0, :, h].astype(np.float64) @ x["k"][0, :, h].T, -np.inf)
        p = np.exp(s - s.max(1, keepdims=True))
        wanted[:, h] = p / p.sum(1, keepdims=True) @ x["k"][0, :, h]
    np.testing.assert_allclose(interpret(module, x)["y"][0], wanted, atol=1e-5)
    found = Emulator(compile_module(module, FOCUS), strict=True).run(x).outputs["y"][0]
    assert np.abs(found - wanted).max() < 4e-3 * np.abs(wanted).max()


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("window", [0, 1, 5, 99])
@pytest.mark.parametrize(("rows", "keys"), [(9, 9), (9, 14), (1, 30)])
def test_bands_count_pairs_and_keys(causal: bool, window: int, rows: int, keys: int) -> None:
    band = Band(rows, keys, 0 if causal else None, window)
    seen = seen_keys(rows, keys, causal, window)
    assert band.pairs == seen.sum()
    for row in range(rows):
        for count in range(1, rows - row + 1):
            columns = np.flatnonzero(seen[row : row + count].any(0))
            assert (band.first(row), band.visited(row, count)) == (columns[0], columns[-1] + 1 - columns[0])
            assert band.visited(row, count) <= band.reach(count)


def account(rows: int, window: int, mask: np.ndarray | None = None) -> dict[str, float]:
    """Statistics of a self-attention of two heads; causal unless it has a mask."""
    b = Builder()
    q = b.argument("q", TensorType((1, rows, 64), "f32"))
    seen = None if mask is None else b.constant(mask)
    y = b.emit("nn.attention", q, q, q, seen, heads=2, kv_heads=2, scale=0.2, causal=mask is None, window=window)
    program = compile_module(b.module("m", {"y": y}), FOCUS)
    return stats(program, FOCUS, None, simulate(program, FOCUS, None, "pipelined"))


def test_work_under_a_window_grows_with_the_rows_not_with_their_square() -> None:
    short, long = account(600, 64), account(1200, 64)
    for what in ("macs_array", "cycles", "macs_dense"):
        assert long[what] / short[what] < 2.2, what
    assert account(1200, 0)["macs_array"] / account(600, 0)["macs_array"] > 3.2
    dense = 2 * 64 * seen_keys(1200, 1200, True, 64).sum()
    assert long["macs_dense"] == dense
    assert long["macs"] == pytest.approx(dense, rel=1e-6), "useful MACs are those of keys in the window"
    assert long["macs_array"] < 3 * dense


def test_key_blocks_that_a_constant_mask_hides_are_not_visited() -> None:
    """Rows that see 20 keys on either side; blocks of rows that see only themselves."""
    for make in (lambda i, j: np.abs(i - j) <= 20, lambda i, j: i // 40 == j // 40):
        masks = [make(*np.ogrid[:rows, :rows]) for rows in (600, 1200)]
        added = np.where(masks[0], 0, LOWEST).astype(np.float32)
        short, long, same = account(600, 0, masks[0]), account(1200, 0, masks[1]), account(600, 0, added)
        assert long["macs_array"] / short["macs_array"] < 2.2 and long["cycles"] / short["cycles"] < 2.2
        assert same["macs_array"] == short["macs_array"]
        dense = 2 * 64 * masks[1].sum()
        assert long["macs_dense"] == dense
        assert long["macs"] == pytest.approx(dense, rel=1e-6)


def test_a_forbidding_value_beyond_f16_is_no_error_and_stays_f16_where_rows_keep_a_key() -> None:
    def stored(mask: np.ndarray) -> str:
        b = Builder()
        q = b.argument("q", TensorType((1, 4, 32), "f32"))
        y = b.emit("nn.attention", q, q, q, b.constant(mask), heads=1, kv_heads=1, scale=0.2)
        lowered = lower_module(b.module("m", {"y": y}), tiling(FOCUS))
        return [op.attrs["dtype"] for op in lowered.walk() if op.name == "tile.bind"][-1]

    bias = np.linspace(-1, 1, 16, dtype=np.float32).reshape(4, 4)
    some = np.where(np.tri(4, dtype=bool), bias, LOWEST).astype(np.float32)
    assert stored(bias) == stored(some) == "f16"
    some[2] = LOWEST  # this row takes the mean of all values: only numbers of that size say so
    assert stored(some) == "f32"


def masked_decoder(mask: np.ndarray | None, *windows: int) -> Module:
    """A small VLM whose i-th decoder attention has windows[i] (0: none), and the mask where it has one."""
    module = vlm(PRUNED)
    rewriter = Rewriter(module)
    attentions = [op for op in module.walk() if op.name == "nn.attention" and op.attrs["causal"]]
    for op, window in zip(attentions, windows, strict=True):
        op.attrs["window"] = window
        if mask is not None:
            rewriter.set_operand(op, 3, rewriter.builder_before(op).constant(mask))
    return module


PRUNED = Shape(grid=(2, 3, 8), prefix=3, query=5, layers=3, heads=4, kv_heads=2)
ROWS = PRUNED.rows


def hiding_text(kind: str) -> np.ndarray:
    """Masks that show the prompt every visual token."""
    rng = np.random.default_rng(5)
    if kind == "keys":
        return np.arange(ROWS)[None] != 1
    seen = rng.random((ROWS, ROWS)) < 0.7
    seen[-PRUNED.query :, PRUNED.prefix : PRUNED.prefix + PRUNED.visual] = True
    if kind == "rows and keys":
        return seen
    bias = rng.standard_normal((4, 1, ROWS)).astype(np.float32)
    return np.where(seen, bias, LOWEST).astype(np.float32)


CONCENTRATED = {
    "window after pruning": (None, (0, 9, 9), "method=sec,schedule=[0:0.5]"),
    "windows that rank, twice": (None, (54, 0, 20), "method=sec,schedule=[0:0.6,1:0.3]"),
    "with SIC": (None, (0, 30, 9), "method=focus,schedule=[0:0.5],threshold=0.7"),
    "keys": ("keys", (0, 0, 9), "method=focus,schedule=[1:0.5],threshold=0.7"),
    "rows and keys": ("rows and keys", (0, 0, 0), "method=sec,schedule=[0:0.6,1:0.3]"),
    "added": ("added", (0, 0, 12), "method=sec,schedule=[0:0.6,1:0.3]"),
}


@pytest.mark.parametrize("name", CONCENTRATED)
def test_tokens_are_ranked_and_dropped_under_windows_and_masks(name: str) -> None:
    kind, windows, options = CONCENTRATED[name]
    module = masked_decoder(hiding_text(kind) if kind else None, *windows)
    module = PassManager(f"concentrate{{{options}}}").run(module)
    assert any(op.name == "sec.importance" for op in module.walk())
    x = inputs(PRUNED)
    wanted = interpret(module, x)["logits"].astype(np.float64)
    lowered = lower_module(module, tiling(FOCUS))
    tiled = interpret(lowered, x)["logits"]
    found = Emulator(compile_module(module, FOCUS), strict=True).run(x).outputs["logits"]
    scale = np.abs(wanted).max()
    assert np.abs(tiled - wanted).max() < 2e-2 * scale
    assert np.abs(found - tiled).max() < 5e-3 * scale
