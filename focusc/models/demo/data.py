"""The task: procedural video question answering. Every sample is a function of (split, seed, index). numpy only."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from . import photos
from .questions import DEEP, FAMILIES, STANDARD, TRANSIENT, ask
from .scene import FRAMES, GRID, Scene, draw, make_scene
from .tokenizer import prompt_ids, token_id

__all__ = ["SPLITS", "VISUAL", "Sample", "Split", "heldout", "sample", "samples"]

VISUAL = FRAMES * GRID * GRID
"""Visual tokens in a prompt: 8 x 6 x 6."""


@dataclass(frozen=True)
class Split:
    """A named distribution: photographs of the backgrounds, question families (asked in turn), and what it is for."""

    photographs: tuple[str, ...]
    families: tuple[str, ...]
    note: str


SPLITS = {
    "train": Split(photos.TRAIN, tuple(FAMILIES), "training photographs, all families"),
    "heldout": Split(photos.VALIDATION, STANDARD, "the held-out test: the seven standard families, unseen photographs"),
    "deep": Split(photos.VALIDATION, DEEP, "event order and count by colour, unseen photographs"),
    # Fixed before any model was trained: importance against random pruning is measured on exactly this split,
    # seed 0, the first 2,048 indices or more.
    "transient": Split(photos.VALIDATION, TRANSIENT, "the evidence is one small object in two or three frames"),
    "validation": Split(photos.VALIDATION, tuple(FAMILIES), "all families; watched during training, never reported"),
}


@dataclass(frozen=True)
class Sample:
    """One question about one video.

    pixel_values: float32 [8, 3, 48, 48]; input_ids: int64 [1, 301]; answer_id: token expected at the last position;
    answer, question: text; family: see `questions`.
    """

    pixel_values: np.ndarray
    input_ids: np.ndarray
    answer_id: int
    answer: str
    question: str
    family: str


def scene_for(family: str, rng: np.random.Generator, names: tuple[str, ...], turn: int) -> Scene:
    """A scene of the kind that `family` asks about; `turn` numbers the family's questions, to balance its answers."""
    if family in TRANSIENT or family == "order":
        return make_scene(rng, names, transient=True)
    if family == "count":
        return make_scene(rng, names, transient=False, count=1 + turn % 3)
    repeat = family == "count_colour" and rng.random() < 0.5
    return make_scene(rng, names, transient=False, repeat=repeat, count=int(rng.integers(2, 4)) if repeat else None)


def sample(split: str, index: int, seed: int = 0) -> Sample:
    """Sample number `index` of a split; ValueError names the splits when `split` is none of them."""
    if split not in SPLITS:
        raise ValueError(f"no split {split!r}; there are {', '.join(SPLITS)}")
    spec = SPLITS[split]
    family = spec.families[index % len(spec.families)]
    rng = np.random.default_rng([zlib.crc32(split.encode()), seed, index])
    while True:                                          # a scene may not admit the question; the next one may
        scene = scene_for(family, rng, spec.photographs, index // len(spec.families))
        asked = ask(family, scene, rng)
        if asked:
            pixels, _ = draw(scene)
            return Sample(pixels, prompt_ids(asked[0], VISUAL), token_id(asked[1]), asked[1], asked[0], family)


def samples(split: str, n: int, seed: int = 0, start: int = 0) -> Iterator[Sample]:
    """Samples `start` .. `start + n` of a split, made one at a time (3 ms each)."""
    return (sample(split, index, seed) for index in range(start, start + n))


def heldout(n: int, seed: int = 0) -> Iterator[Sample]:
    """The first `n` questions of the held-out test."""
    return samples("heldout", n, seed)
