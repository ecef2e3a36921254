"""What focusc knows of each model family: how its visual tokens lie in the sequence, and what its pixel input is.

A family is one module here with three names: `MODEL_TYPES` (values of `model_type` in config.json), `visual(config,
sample)` and `media(config, frames, video, generator)`. Nothing else in the exporter depends on the family. A model of
no listed family is exported with a layout guessed from its placeholder tokens.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, cast

if TYPE_CHECKING:
    import torch

__all__ = ["FAMILIES", "Family", "Visual", "family_of"]

FAMILIES = ("llava", "qwen_vl", "idefics", "minicpm", "qwen3_vl", "fixed")


@dataclass(frozen=True)
class Visual:
    """The visual tokens of one sample. `grid`: frames, rows, columns. `tokens`: placeholders in all.

    `lead` placeholders come before the grid and count to the visual span (a base view); `tail` ones follow it and
    belong to the text. `strides`: None if they follow from the positions of the placeholders, frame by frame.
    """

    grid: tuple[int, int, int]
    tokens: int
    lead: int = 0
    tail: int = 0
    strides: tuple[int, int, int] | None = None


class Family(Protocol):
    """What a module of a family offers."""

    MODEL_TYPES: tuple[str, ...]
    SEPARATORS: int
    """Text tokens between the frames of a made-up prompt."""

    def visual(self, config: Any, sample: Mapping[str, torch.Tensor]) -> Visual:
        """Of a sample as the model's processor makes it (token ids not needed)."""
        ...

    def media(self, config: Any, frames: int, video: bool, generator: torch.Generator) -> dict[str, torch.Tensor]:
        """Random pixels of the smallest sensible size, with the sizes and masks that belong to them."""
        ...


def family_of(model_type: str) -> Family | None:
    """The module that knows a model type, or None."""
    for name in FAMILIES:
        module = importlib.import_module(f"{__package__}.{name}")
        if model_type in module.MODEL_TYPES:
            return cast("Family", module)
    return None
