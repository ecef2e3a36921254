"""Questions with known answers for an exported model, for tools that measure accuracy and know no model. torch-free.

The ONNX file names its adapter in the metadata (`focusc.producer = "focusc export NAME"`); the adapter offers
`questions(split, count, start)` and `answer_text(token)`, and for clips `clip_frames()` and `ask_clip(frames)`.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from focusc.export.metadata import PRODUCER

__all__ = ["Evaluation", "Question", "evaluation_of"]

_PRODUCER = "focusc export "


@dataclass(frozen=True)
class Question:
    """One sample: arrays named after the graph's inputs, the token expected at the last position if it is known, the
    question."""

    inputs: dict[str, np.ndarray[Any, Any]]
    answer: int | None
    text: str
    family: str


@dataclass(frozen=True)
class Evaluation:
    """The held-out questions of one model."""

    name: str

    def questions(self, count: int, *, start: int = 0, split: str = "heldout") -> Iterator[Question]:
        """Questions `start` to `start + count` of a split, made one at a time."""
        return self._adapter().questions(split, count, start)

    def clip_frames(self) -> int:
        """Number of frames that the model takes of a clip."""
        return self._adapter().clip_frames()

    def ask_clip(self, frames: np.ndarray[Any, Any]) -> Iterator[Question]:
        """The model's questions about RGB frames uint8 [frames, height, width, 3], through its own preprocessing."""
        return self._adapter().ask_clip(frames)

    def answer_text(self, token: int) -> str:
        """A token as people read it."""
        return self._adapter().answer_text(token)

    def _adapter(self) -> Any:
        return importlib.import_module(f"{__package__}.{self.name}")


def evaluation_of(metadata: Mapping[str, str]) -> Evaluation | None:
    """The evaluation of the model whose ONNX metadata this is; None if it was not exported by us."""
    from focusc.export.onnx_export import ADAPTERS

    producer = metadata.get(PRODUCER, "")
    name = producer.removeprefix(_PRODUCER)
    return Evaluation(name) if producer.startswith(_PRODUCER) and name in ADAPTERS else None
