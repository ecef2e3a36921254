"""The demo model: a miniature video vision-language model with a procedural question-answering task.

`data` and `tokenizer` need numpy and Pillow only; `load` imports torch when called.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .model import DemoModel

__all__ = ["WEIGHTS", "load"]

WEIGHTS = Path(__file__).with_name("weights.safetensors")


def load(random_weights: int | None = None) -> DemoModel:
    """The demo model in eval mode, float32 on the CPU.

    `random_weights` seeds random weights instead of reading the trained ones (float16 in the file). Without the file
    it raises FileNotFoundError.
    """
    from .model import DemoModel, read_weights

    if random_weights is not None:
        return DemoModel.random(random_weights)
    return read_weights(WEIGHTS)
