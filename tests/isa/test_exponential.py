"""exp and its relatives in the emulator: accurate, right at the ends of the range, in any layout."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusc.isa.emulator import Emulator, kernels
from focusc.isa.insns import LdAct, St, Tile, VExp, VExps, VGeluQuick, VLd, VSigmoid, VSilu
from tests.isa.helpers import Layout

F32 = np.float32
ENDS = [0.0, -0.0, np.inf, -np.inf, np.nan, 88.7228, 88.72284, 88.7229, 1e38, -87.4, -103.97, -103.98, -3.4028235e38,
        1e-45, -1e-45]


def exp(x: np.ndarray) -> np.ndarray:
    out = np.empty_like(x)
    kernels.exp_rows(x, 0, x.size, out, 0, x.size, 1, x.size)
    return out


def ulps(found: np.ndarray, expected: np.ndarray) -> np.ndarray:
    """How many float32 numbers lie between `found` and the float64 `expected`."""
    step = np.spacing(np.maximum(np.abs(expected.astype(F32)), F32(1e-45)))
    return np.abs(found.astype(np.float64) - expected) / step


@given(st.lists(st.floats(-104, 88.5, width=32), min_size=1, max_size=40))
def test_exp_is_within_three_ulps(values: list[float]) -> None:
    x = np.array(values, F32)
    assert (ulps(exp(x), np.exp(x.astype(np.float64))) < 2.6).all()


def test_exp_at_the_ends_of_its_range() -> None:
    x = np.array(ENDS, F32)
    found = exp(x)
    with np.errstate(over="ignore"):
        expected = np.exp(x.astype(np.float64)).astype(F32)
    sure = ~np.isfinite(expected) | (expected < 1e-44) | (x == 0)
    np.testing.assert_array_equal(found[sure], expected[sure])
    assert (ulps(found[~sure], expected[~sure].astype(np.float64)) < 2.6).all()


def test_exp_does_not_depend_on_its_place_in_a_row() -> None:
    """Lanes of a vector register and what remains of a row take the same steps."""
    x = np.linspace(-100, 88, 1001, dtype=F32)
    alone = np.array([exp(x[i:i + 1])[0] for i in range(len(x))])
    np.testing.assert_array_equal(exp(x), alone)


def sigmoid(x: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-x))


ROWS, COLS, PITCH = 5, 24, 48
MEANING = {
    VExp: np.exp, VSigmoid: sigmoid, VSilu: lambda x: x * sigmoid(x), VGeluQuick: lambda x: x * sigmoid(1.702 * x),
}


def run(command: VExp | VExps | VGeluQuick | VSigmoid | VSilu, a: np.ndarray) -> np.ndarray:
    """t3 after a command on windows of one buffer: t0 is `a`, t1 its rows a row later, t2 its columns 16 columns
    later, t5 one of them."""
    at = Layout()
    x, y = at.add("a", "input", (ROWS + 1, PITCH), "f32"), at.add("y", "output", (ROWS, COLS), "f32")
    where = {
        4: (0, ROWS + 1, PITCH), 0: (0, ROWS, COLS), 1: (4 * PITCH, ROWS, COLS), 2: (64, ROWS, COLS), 5: (64, ROWS, 1),
    }
    tiles = [Tile(t, off, rows, cols, PITCH) for t, (off, rows, cols) in where.items()]
    program = at.program([*tiles, LdAct(x, ROWS + 1, PITCH, 4 * PITCH, "f32"), VLd(4), command,
                          St(command.d, y, 4 * COLS, "f32")])
    return Emulator(program, strict=True).run({"a": a}).outputs["y"]


@pytest.mark.parametrize("d", [0, 1, 2])
@pytest.mark.parametrize("cls", [*MEANING, VExps])
def test_a_destination_that_overlaps_its_sources(cls: Any, d: int) -> None:
    """All of a source is read before any of it is overwritten."""
    a = np.random.default_rng(d).uniform(-3, 3, (ROWS + 1, PITCH)).astype(F32)
    x = a[:ROWS, :COLS]
    if cls is VExps:  # less a column that lies in the source, and in two of the destinations
        found, expected = run(VExps(d, 0, 5), a), np.exp(x - a[:ROWS, 16:17])
    else:
        found, expected = run(cls(d, 0), a), MEANING[cls](x)
    np.testing.assert_allclose(found, expected, rtol=2e-6)


def test_rows_that_repeat_are_subtracted_from_groups_of_columns() -> None:
    a = np.random.default_rng(0).uniform(-3, 3, (ROWS + 1, PITCH)).astype(F32)
    at = Layout()
    x, y = at.add("a", "input", (ROWS + 1, PITCH), "f32"), at.add("y", "output", (ROWS, COLS), "f32")
    program = at.program([
        Tile(0, 0, ROWS, COLS, COLS), LdAct(x, ROWS, COLS, 4 * PITCH, "f32"), LdAct(x + 4 * PITCH, 1, 4, 0, "f32"),
        VExps(0, "s", "s"), St(0, y, 4 * COLS, "f32")])
    found = Emulator(program, strict=True).run({"a": a}).outputs["y"]
    np.testing.assert_allclose(found, np.exp(a[:ROWS, :COLS] - np.tile(a[1, :4], 6)), rtol=2e-6)
