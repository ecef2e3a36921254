"""Attention for any head size and any number of keys: strict emulator against the nn interpreter."""

from __future__ import annotations

from itertools import accumulate
from typing import Any

import numpy as np
import pytest

from focusc.backends import compile_module, load_hardware
from focusc.backends.codegen import generate
from focusc.backends.lower import lower_module
from focusc.backends.options import tiling
from focusc.ir import Builder, CompileError, Module, PassManager, StreamType, TensorType, interpret
from focusc.ir.matching import shape_of
from focusc.ir.passes.concentrate import concentrate
from focusc.isa.emulator import Emulator
from focusc.isa.insns import LdWgt
from focusc.isa.machine import Machine
from focusc.isa.sequencer import expand
from tests.backends.models import Shape, inputs, vlm

FOCUS = load_hardware("focus")
Arrays = dict[str, np.ndarray]


def attention(
    size: int,
    *,
    wide: int = 0,
    rows: int = 6,
    keys: int = 0,
    heads: tuple[int, int] = (2, 1),
    batch: int = 1,
    causal: bool = True,
    packed: bool = False,
) -> Module:
    """One nn.attention; `packed` sends q through SIC first."""
    b = Builder()
    count, kv = heads
    q = b.argument("q", TensorType((batch, rows, count * size), "f32"))
    k = b.argument("k", TensorType((batch, keys or rows, kv * size), "f32"))
    v = b.argument("v", TensorType((batch, keys or rows, kv * (wide or size)), "f32"))
    if packed:
        where = {"visual_start": 1, "visual_len": rows - 2, "grid": (1, 1, rows - 2), "strides": (rows, rows, 1)}
        q = b.emit("sic.gather", q, None, **where, threshold=0.7, m=1024)
    y = b.emit("nn.attention", q, k, v, heads=count, kv_heads=kv, scale=size**-0.5, causal=causal)
    return b.module("m", {"y": y})


def data(module: Module, seed: int = 0) -> Arrays:
    """Inputs that f16 holds exactly, so that SIC sees the same values everywhere."""
    rng = np.random.default_rng(seed)
    return {arg.name: rng.standard_normal(shape_of(arg)).astype(np.float16).astype(np.float32) for arg in module.args}


def difference(module: Module, machine: Machine = FOCUS) -> float:
    """Largest difference relative to the largest magnitude."""
    x = data(module)
    wanted = interpret(module, x)["y"].astype(np.float64)
    found = Emulator(compile_module(module, machine), strict=True).run(x).outputs["y"]
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@pytest.mark.parametrize("size", [32, 72, 96, 100, 128, 160, 256])
@pytest.mark.parametrize("causal", [False, True])
def test_dense_queries_of_any_head_size(size: int, causal: bool) -> None:
    assert difference(attention(size, causal=causal)) < 2e-3


@pytest.mark.parametrize("size", [64, 128, 160])
@pytest.mark.parametrize("causal", [False, True])
def test_concentrated_queries_of_any_head_size(size: int, causal: bool) -> None:
    assert difference(attention(size, rows=9, causal=causal, packed=True)) < 2e-3


@pytest.mark.parametrize("size", [32, 128, 160])
@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("causal", [False, True])
def test_more_keys_than_one_block(size: int, packed: bool, causal: bool) -> None:
    """230 keys are two whole blocks of 96 and a part; the running maximum and sum carry over."""
    assert difference(attention(size, rows=230, causal=causal, packed=packed)) < 2e-3


def test_keys_before_the_first_query_and_batches() -> None:
    assert difference(attention(128, rows=5, keys=203, batch=2, heads=(4, 2))) < 2e-3


def test_value_heads_of_their_own_width() -> None:
    assert difference(attention(64, wide=192, rows=110)) < 2e-3
    assert difference(attention(192, wide=64, rows=110)) < 2e-3


@pytest.mark.parametrize("size", [128, 160, 256])
def test_no_weight_panel_is_wider_than_the_weight_buffer(size: int) -> None:
    tiles = tiling(FOCUS)
    panels = [op for op in lower_module(attention(size, rows=230), tiles).walk() if op.name == "tile.load_weight"]
    kinds = [op.results[0].type for op in panels]
    assert all(isinstance(t, StreamType) and t.cols <= tiles.n for t in kinds)
    widths = [op.attrs["max_n"] for op in panels if not op.attrs["trans"]]
    chains = range(size, sum(widths) + 1, size)  # two blocks of a round and a last one
    assert sum(widths) % size == 0 and {*chains} <= {*accumulate(widths)} and max(widths) - min(widths) <= 32


def test_importance_and_selection_with_wide_heads() -> None:
    shape = Shape(grid=(2, 6, 9), heads=4, kv_heads=2, size=128, layers=1, prefix=4, query=6)
    module = concentrate(vlm(shape), method="focus", threshold=0.7, schedule="0:0.5")
    x = inputs(shape)
    wanted = interpret(module, x)["logits"]
    found = Emulator(compile_module(module, FOCUS), strict=True).run(x).outputs["logits"]
    assert np.abs(found - wanted).max() < 2e-2 * np.abs(wanted).max()


def with_output_buffer(size: int) -> Machine:
    """The focus machine with an output buffer of `size` bytes."""
    found = FOCUS.to_dict()
    found["buffers"]["output"]["bytes"] = size
    return Machine.from_dict(found)


def test_little_room_narrows_the_key_block() -> None:
    """32 rows of a 128-wide head fit a 24 KiB buffer beside blocks of 32 keys, not beside 96."""
    machine = with_output_buffer(24 * 1024)
    module = attention(128, rows=110)
    lowered = lower_module(module, tiling(machine, 64))
    found = [op.attrs["max_n"] for op in lowered.walk() if op.name == "tile.load_weight" and op.attrs["trans"]]
    assert max(found) == 32
    program = generate(PassManager("plan-memory,place-fences").run(lowered), machine)
    x = data(module)
    found_y, wanted = Emulator(program, strict=True).run(x).outputs["y"], interpret(module, x)["y"]
    assert np.abs(found_y - wanted).max() < 2e-3 * np.abs(wanted).max()


def test_a_row_that_does_not_fit_is_an_error() -> None:
    machine = with_output_buffer(1024)
    with pytest.raises(CompileError, match="value heads of 256 columns needs 1172 bytes a query row for 32 keys"):
        lower_module(attention(256), tiling(machine, 1))


GROUPED: dict[str, dict[str, Any]] = {
    "one tile for all rows": {"size": 32, "rows": 100, "heads": (6, 2)},
    "several tiles, the last shorter": {"size": 32, "rows": 203, "heads": (6, 2)},
    "wide heads in panels": {"size": 160, "rows": 110, "heads": (4, 2)},
    "one key/value head": {"size": 64, "rows": 130, "heads": (7, 1)},
    "keys before the first query, batches": {"size": 32, "rows": 20, "keys": 203, "batch": 2, "heads": (4, 2)},
    "one block of keys": {"size": 32, "rows": 64, "heads": (4, 2)},
    "one block of keys of no good pitch": {"size": 32, "rows": 57, "heads": (4, 2)},
    "value heads of their own width": {"size": 64, "wide": 48, "rows": 40, "heads": (4, 2)},
}


@pytest.mark.parametrize("name", GROUPED)
@pytest.mark.parametrize("causal", [False, True])
def test_heads_of_a_group_share_panels_of_keys_and_values(name: str, causal: bool) -> None:
    module = attention(**GROUPED[name], causal=causal)
    assert any(op.name == "tile.store_heads" for op in lower_module(module, tiling(FOCUS)).walk())
    assert difference(module) < 2e-3


def test_a_window_of_a_fused_projection_is_stacked_too() -> None:
    b = Builder()
    x = b.argument("x", TensorType((1, 70, 4 * 32 + 2 * 32), "f32"))
    k, v = (b.argument(n, TensorType((1, 70, 2 * 32), "f32")) for n in "kv")
    q = b.emit("tensor.slice", x, starts=(64,), ends=(192,), axes=(2,), steps=(1,))
    y = b.emit("nn.attention", q, k, v, heads=4, kv_heads=2, scale=0.2, causal=True)
    module = b.module("m", {"y": y})
    assert any(op.name == "tile.store_heads" for op in lower_module(module, tiling(FOCUS)).walk())
    assert difference(module) < 2e-3


def key_bytes(module: Module) -> int:
    """DRAM bytes that the weight channel moves, mostly keys and values here."""
    program = compile_module(module, FOCUS)
    trace = expand(program)
    rows = trace.fields[trace.op == LdWgt.opcode]
    return 2 * int((rows[:, list(LdWgt.fields).index("k")] * rows[:, list(LdWgt.fields).index("n")]).sum())


def test_shared_panels_are_loaded_once_for_a_group() -> None:
    """Keys and values of 70 rows, 2 heads of 32: once each where all rows fit a tile, whatever the group."""
    for heads in (2, 4, 6):
        assert key_bytes(attention(32, rows=70, heads=(heads, 2), causal=False)) == 2 * 70 * 2 * 32 * 2


def test_where_sharing_saves_nothing_heads_stay_alone() -> None:
    """858 rows fill two tiles of one head, as 429 fit; without a mask as many tiles of three heads see as many keys."""
    module = attention(32, rows=858, heads=(6, 2), causal=False)
    assert not any(op.name == "tile.store_heads" for op in lower_module(module, tiling(FOCUS)).walk())
