"""Tile extents against the target's buffers."""

import pytest

from focusc.backends import load_hardware
from focusc.backends.lower.views import ConcView, first_rows
from focusc.backends.options import tiling
from focusc.ir import CompileError
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
            "m-tile of 2048 rows does not fit: two k-slices of 2048 x 32 f16 need 262144 bytes, the "
            "activation buffer has 131072 (at most m = 1024)",
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


def test_an_output_buffer_smaller_than_one_accumulator_tile_is_refused() -> None:
    with pytest.raises(CompileError, match="1024 x 32 f32 needs 131072 bytes, the output buffer has 65536"):
        tiling(small(output=65536))


@pytest.mark.parametrize(
    ("total", "m", "visual", "first"),
    [
        (300, 1024, (3, 288), 300),
        (1100, 1024, (14, 1010), 1024),
        (1100, 1024, (14, 1050), 14),
        (2000, 1024, None, 1024),
        (2000, 1024, (0, 1900), 1024),
        (50, 16, (20, 30), 16),
    ],
)
def test_no_tile_holds_rows_of_two_sic_tiles(total: int, m: int, visual: tuple[int, int] | None, first: int) -> None:
    assert first_rows(total, m, visual) == first


def test_pieces_of_a_concentrated_view_are_cut_at_tiles() -> None:
    view = ConcView(None, 50, 64, 10, 16)  # type: ignore[arg-type]
    assert view.pieces(5, 45) == [(0, 5, 5, 5), (1, 0, 10, 16), (2, 0, 26, 16), (3, 0, 42, 3)]
