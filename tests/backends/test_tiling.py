"""Tile extents against the target's buffers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from focusc.backends import load_hardware
from focusc.backends.lower.views import ConcView, first_rows
from focusc.backends.options import tiling
from focusc.ir import Builder, CompileError, TensorType
from focusc.isa.machine import Machine


def small(**bytes_of: int) -> Machine:
    """The focus machine with other buffer sizes."""
    data = load_hardware("focus").to_dict()
    for name, size in bytes_of.items():
        data["buffers"][name]["bytes"] = size
    return Machine.from_dict(data)


def test_defaults_are_the_published_tile() -> None:
    found = tiling(load_hardware("focus"))
    assert (found.m, found.n) == (1024, 96)


@pytest.mark.parametrize(
    ("m", "n", "code", "text"),
    [
        (
            2048,
            0,
            "tile.m",
            "m-tile of 2048 rows does not fit: the activation buffer of 131072 bytes holds at most m = 1024",
        ),
        (0, 128, "tile.n", "n-tile of 128 columns does not fit: expected a multiple of 32 up to 96"),
        (0, 40, "tile.n", "n-tile of 40 columns does not fit"),
        (-1, 0, "tile.m", "m-tile of -1 rows does not fit"),
    ],
)
def test_a_tile_that_does_not_fit_is_refused(m: int, n: int, code: str, text: str) -> None:
    with pytest.raises(CompileError) as caught:
        tiling(load_hardware("focus"), m, n)
    found = caught.value.diagnostics[0]
    assert found.code == code and text in found.message and found.hint


def test_every_buffer_that_holds_rows_bounds_m() -> None:
    with pytest.raises(CompileError, match="the map buffer of 1024 bytes holds at most m = 512"):
        tiling(small(map=1024), 1024)


def test_an_output_buffer_smaller_than_one_accumulator_tile_is_refused() -> None:
    with pytest.raises(CompileError, match="1024 x 32 f32 needs 131072 bytes, the output buffer has 65536"):
        tiling(small(output=65536))


@given(st.integers(0, 70), st.integers(1, 90), st.integers(0, 40), st.integers(1, 33))
def test_no_gemm_tile_holds_rows_of_two_sic_tiles(start: int, visual: int, query: int, m: int) -> None:
    total = start + visual + query
    first = first_rows(total, m, (start, visual))
    assert 1 <= first <= m
    tile_of = [0 if row < first else 1 + (row - first) // m for row in range(total)]
    for row in range(start + 1, start + visual):
        same_sic_tile = (row - start) // m == (row - 1 - start) // m
        assert same_sic_tile == (tile_of[row] == tile_of[row - 1])


def test_a_sequence_without_visual_rows_is_cut_at_m() -> None:
    assert first_rows(2000, 1024, None) == 1024 and first_rows(300, 1024, None) == 300


def test_pieces_of_a_concentrated_view_are_cut_at_tiles() -> None:
    view = ConcView(Builder().argument("x", TensorType((50, 64), "f32")), 50, 64, 10, 16)
    assert view.pieces(5, 45) == [(0, 5, 5, 5), (1, 0, 10, 16), (2, 0, 26, 16), (3, 0, 42, 3)]
