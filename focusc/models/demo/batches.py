"""Training batches: scenes drawn with their per-patch labels and many questions each. numpy only.

Every batch is a function of (seed, phase, step), so a resumed run sees the very same data.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from . import photos
from .questions import DEEP, STANDARD, TRANSIENT, ask
from .scene import FRAMES, Scene, draw, make_scene
from .tokenizer import COLOURS, QUERY, SHAPES, encode_query, token_id

__all__ = ["Batch", "frames_batch", "question_batch"]

_HARD = ("motion", "larger", "left_of")                  # learnt last, so asked twice as often
_PLAIN = (*STANDARD, *_HARD, "left_of", DEEP[1])
_EVENTS = (*TRANSIENT, *TRANSIENT, DEEP[0], "colour", "shape", "exists", *_HARD, "left_of")


@dataclass(frozen=True)
class Batch:
    """pixels f32 [B, f, 3, 48, 48], frames i64 [B, f], queries i64 [B, N, 10], answers i64 [B, N],
    labels f32 [B * f, 36, 5] (see `scene.draw`), places f32 [B, N, 10, 6] (see `_places`)."""

    pixels: np.ndarray
    frames: np.ndarray
    queries: np.ndarray
    answers: np.ndarray
    labels: np.ndarray
    places: np.ndarray


def _places(scene: Scene, query: np.ndarray, frames: np.ndarray) -> np.ndarray:
    """What each word of a question refers to, float32 [10, 6]: mean x and y, radius, x and y travel, all about unit
    size, and 1 where the word is a colour or shape that exactly one object of the scene has (else all 0)."""
    out = np.zeros((QUERY, 6), dtype=np.float32)
    for i, word in enumerate(query):
        meant = [t for t in (*scene.main, *scene.small) if _REFERS.get(int(word)) in (("c", t.colour), ("s", t.shape))]
        if len(meant) == 1:
            c = meant[0].centre[frames]
            out[i] = (*((c.mean(0) - 23.5) / 12), (meant[0].radius - 7) / 1.5, *((c[-1] - c[0]) / 20), 1)
    return out


_REFERS = {token_id(w): ("c", i) for i, w in enumerate(COLOURS)} | {token_id(w): ("s", i) for i, w in enumerate(SHAPES)}


def _scene(rng: np.random.Generator) -> Scene:
    if rng.random() < 0.3:
        return make_scene(rng, photos.TRAIN, transient=True)
    repeat = rng.random() < 0.2
    count = int(rng.integers(2, 4)) if repeat else None
    return make_scene(rng, photos.TRAIN, transient=False, repeat=repeat, count=count)


def _pair(rng: np.random.Generator, scene: Scene) -> tuple[np.ndarray, Scene]:
    """Two frames, showing small objects if there are any, and the scene without the small objects they miss."""
    first = scene.small[0] if scene.small else None
    a = int(rng.integers(first.first, first.last)) if first else int(rng.integers(FRAMES))
    other = scene.small[1] if len(scene.small) > 1 else None
    b = int(rng.integers(other.first, other.last)) if other else int(rng.integers(FRAMES))
    while b == a:
        b = int(rng.integers(FRAMES))
    frames = np.array(sorted((a, b)))
    return frames, replace(scene, small=tuple(t for t in scene.small if any(t.first <= f < t.last for f in frames)))


def _questions(rng: np.random.Generator, scene: Scene, n: int) -> list[tuple[str, str]]:
    families, out = _EVENTS if scene.small else _PLAIN, []
    while len(out) < n:
        for i in rng.permutation(len(families)):
            asked = ask(families[i], scene, rng)
            if asked and len(out) < n:
                out.append(asked)
    return out


def question_batch(seed: int, phase: int, step: int, *, videos: int, questions: int, frames: int) -> Batch:
    """`videos` training videos with `questions` questions each; `frames` is 2 (a random pair) or 8 (all)."""
    rng = np.random.default_rng([seed, phase, step])
    pixels, numbers, labels, queries, answers, places = [], [], [], [], [], []
    for _ in range(videos):
        scene, which = _scene(rng), np.arange(FRAMES)
        if frames < FRAMES:
            which, scene = _pair(rng, scene)
        x, y = draw(scene, which, labels=True)
        asked = _questions(rng, scene, questions)
        pixels.append(x)
        labels.append(y)
        numbers.append(which)
        queries.append([encode_query(q) for q, _ in asked])
        places.append([_places(scene, q, which) for q in queries[-1]])
        answers.append([token_id(a) for _, a in asked])
    return Batch(np.stack(pixels), np.stack(numbers), np.array(queries), np.array(answers), np.concatenate(labels),
                 np.array(places))


def frames_batch(seed: int, step: int, *, scenes: int) -> tuple[np.ndarray, np.ndarray]:
    """Two frames of each of `scenes` scenes for pretraining: pixels f32 [2 * scenes, 3, 48, 48] and labels."""
    rng = np.random.default_rng([seed, 0, step])
    pixels, labels = [], []
    for _ in range(scenes):
        scene = _scene(rng)
        which, scene = _pair(rng, scene)
        x, y = draw(scene, which, labels=True)
        pixels.append(x)
        labels.append(y)
    return np.concatenate(pixels), np.concatenate(labels)
