# ruff: noqa: E501  (golden messages and small programs read better on one line)
"""Number formats, exhaustively, and memory shared by several types against plain bytes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from focusc.isa import Program
from focusc.isa.emulator import kernels
from focusc.isa.emulator.memory import Constants, Memory
from focusc.isa.insns import Halt

F32 = np.float32
ALL = np.arange(65536, dtype=np.uint16)


def rounded(values: np.ndarray, kind: int) -> np.ndarray:
    out = np.empty(values.size, F32)
    kernels.round_rows(values.astype(F32), 0, values.size, out, 0, values.size, 1, values.size, kind)
    return out


def test_every_half_converts_exactly_and_back() -> None:
    out, back = np.empty(65536, F32), np.empty(65536, np.uint16)
    kernels.from_f16(ALL, out)
    kernels.to_f16_bits(out, back)
    nan = np.isnan(ALL.view(np.float16))
    assert (out.view(np.uint32)[~nan] == ALL.view(np.float16).astype(F32).view(np.uint32)[~nan]).all()
    assert np.isnan(out[nan]).all() and (back == ALL).all()


@pytest.mark.parametrize("kind", [0, 1])
def test_rounding_around_every_half_and_bfloat(kind: int) -> None:
    """Each value, each midpoint between neighbours, and the floats next to both."""
    import ml_dtypes

    half = np.float16 if kind == 0 else ml_dtypes.bfloat16
    with np.errstate(invalid="ignore"):
        grid = ALL.view(half).astype(np.float64)
    grid = np.sort(grid[np.isfinite(grid)])
    points = np.concatenate([grid, (grid[1:] + grid[:-1]) / 2, [grid[-1] * (1 + 2.0 ** -(12 if kind == 0 else 9))]]).astype(F32)
    points = np.concatenate([points, np.nextafter(points, F32(np.inf)), np.nextafter(points, F32(-np.inf)),
                             np.array([np.inf, -np.inf, 0.0, -0.0, 65519.9, 65520, 1e38, -1e38], F32)])
    with np.errstate(over="ignore"):
        expected = points.astype(half).astype(F32)
    assert (rounded(points, kind).view(np.uint32) == expected.view(np.uint32)).all()
    assert np.isnan(rounded(np.array([np.nan, -np.nan], F32), kind)).all()


@settings(max_examples=200)
@given(st.lists(st.integers(0, (1 << 32) - 1), min_size=1, max_size=50))
def test_rounding_of_any_float(bits: list[int]) -> None:
    values = np.array(bits, np.uint32).view(F32)
    with np.errstate(all="ignore"):
        expected = values.astype(np.float16).astype(F32)
    found, nan = rounded(values, 0), np.isnan(values)
    assert (found.view(np.uint32)[~nan] == expected.view(np.uint32)[~nan]).all() and np.isnan(found[nan]).all()


SIZE = 320
ITEM = {"f16": 2, "bf16": 2, "i8": 1, "f32": 4}


@settings(max_examples=120, deadline=None)
@example([("i8", True, 0, 1, 2, 0, 234854425), ("f16", True, 2, 1, 1, 0, 0), ("bf16", False, 0, 1, 1, 0, 0)])
@given(st.lists(st.tuples(st.sampled_from(sorted(ITEM)), st.booleans(), st.integers(0, SIZE), st.integers(1, 4),
                          st.integers(1, 20), st.integers(0, 12), st.integers(0, 1 << 30)), max_size=14))
def test_memory_of_mixed_types_is_bytes(steps: list[tuple[str, bool, int, int, int, int, int]]) -> None:
    """Stores and loads of all types at any offset agree with a plain byte array."""
    import ml_dtypes

    numpy_type = {"f16": np.float16, "bf16": ml_dtypes.bfloat16, "i8": np.int8, "f32": F32}
    program = Program([Halt()], arena_bytes=SIZE)
    memory = Memory(program, Constants(program.const))
    model = np.zeros(SIZE, np.uint8)
    for dtype, store, addr, rows, cols, gap, seed in steps:
        item = ITEM[dtype]
        addr, stride = addr // item * item, (cols + gap // item) * item
        if addr + (rows - 1) * stride + cols * item > SIZE:
            continue
        view = np.ndarray((rows, cols), numpy_type[dtype], model, addr, (stride, item))
        if store:
            data = np.random.default_rng(seed).integers(-400, 400, (rows, cols)).astype(F32) * F32(0.25)
            memory.store(addr, stride, dtype, data.reshape(-1), 0, cols, rows, cols)
            view[:] = np.clip(np.rint(data), -128, 127).astype(np.int8) if dtype == "i8" else data.astype(numpy_type[dtype])
        else:
            found, expected = memory.load(addr, rows, cols, stride, dtype), view.astype(F32)
            assert ((found == expected) | (np.isnan(found) & np.isnan(expected))).all()
    assert (memory.bytes(0, SIZE) == model).all()
