"""The token layout found from placeholder ids: regular frames, irregular ones, and models of no listed family."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from focusc.export.errors import ExportError
from focusc.export.tokens import find_layout, token_types

IMAGE, VIDEO = 90, 91
Part = int | tuple[int, int]
"""Text tokens, or (placeholder, count)."""


def config(model_type: str, **more: Any) -> SimpleNamespace:
    return SimpleNamespace(model_type=model_type, image_token_id=IMAGE, video_token_id=VIDEO, **more)


SMOLVLM = config("smolvlm", scale_factor=2, vision_config=SimpleNamespace(patch_size=7))


def prompt(*parts: Part) -> dict[str, torch.Tensor]:
    """Token ids: a number is that many text tokens, a pair is (placeholder, count)."""
    ids: list[int] = []
    for part in parts:
        ids += [1] * part if isinstance(part, int) else [part[0]] * part[1]
    return {"input_ids": torch.tensor([ids])}


def test_frames_between_marks() -> None:
    pixels = {"pixel_values": torch.zeros(1, 3, 3, 28, 28)}
    layout, how = find_layout(SMOLVLM, prompt(5, (IMAGE, 4), 3, (IMAGE, 4), 3, (IMAGE, 4), 8) | pixels)
    assert (layout.start, layout.length, layout.grid, layout.strides, layout.query) == (5, 18, (3, 2, 2), (7, 2, 1), 8)
    assert how == "family smolvlm"


def test_frames_at_irregular_distances_count_as_one_row() -> None:
    """Idefics3 ends each row of tiles with a newline: no three strides describe that."""
    pixels = {"pixel_values": torch.zeros(1, 3, 3, 28, 28)}
    layout, how = find_layout(SMOLVLM, prompt(1, (IMAGE, 4), 1, (IMAGE, 4), 2, (IMAGE, 4), 2) | pixels)
    assert (layout.start, layout.length, layout.grid, layout.query) == (1, 15, (1, 1, 15), 2)
    assert "taken as one row, because the frames start at distances [5, 6]" in how


@pytest.mark.parametrize(("parts", "pixels", "grid", "strides"), [
    ((2, (IMAGE, 9), 3), (1, 3, 28, 28), (1, 3, 3), (9, 3, 1)),
    ((2, (IMAGE, 8), 3), (2, 3, 28, 28), (2, 2, 2), (4, 2, 1)),
    ((2, (VIDEO, 24), 3), (1, 4, 3, 28, 28), (4, 1, 6), (6, 6, 1)),
    ((2, (IMAGE, 4), 1, (IMAGE, 4), 3), (8, 3, 14, 14), (2, 2, 2), (5, 2, 1)),
    ((2, (IMAGE, 7), 3), (14, 588), (1, 1, 7), (7, 7, 1)),
])
def test_guesses_for_other_families(
        parts: tuple[Part, ...], pixels: tuple[int, ...], grid: tuple[int, ...], strides: tuple[int, ...]) -> None:
    layout, how = find_layout(config("unheard_of"), prompt(*parts) | {"pixel_values": torch.zeros(pixels)})
    assert (layout.grid, layout.strides, layout.query) == (grid, strides, 3)
    assert how == "guessed from the placeholder tokens"


@pytest.mark.parametrize(("parts", "code"), [
    ((12,), "export.no-visual-tokens"),
    ((2, (IMAGE, 3), 2), "export.visual-count"),
    ((2, (IMAGE, 4)), "export.no-query"),
])
def test_prompts_that_do_not_fit(parts: tuple[Part, ...], code: str) -> None:
    with pytest.raises(ExportError) as caught:
        find_layout(SMOLVLM, prompt(*parts) | {"pixel_values": torch.zeros(1, 1, 3, 28, 28)})
    assert caught.value.code == code


def test_token_types() -> None:
    ids = prompt(1, (IMAGE, 2), 1, (VIDEO, 1), 1)["input_ids"]
    assert token_types(config("qwen2_vl"), ids).tolist() == [[0, 1, 1, 0, 2, 0]]
