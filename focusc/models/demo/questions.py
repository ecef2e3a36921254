"""Question families: each writes a question with a single-token answer about a scene, or declines. numpy only."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from .scene import Scene, Thing
from .tokenizer import COLOURS, SHAPES

__all__ = ["DEEP", "FAMILIES", "STANDARD", "TRANSIENT", "ask"]

Asked = tuple[str, str] | None
STANDARD = ("colour", "shape", "motion", "count", "larger", "left_of", "exists")
"""About main objects, visible throughout."""
TRANSIENT = ("small_colour", "small_shape")
"""Their evidence is one small object: one or two patches in two or three frames."""
DEEP = ("order", "count_colour")
"""Need several places of the video to be combined."""


def _pick(rng: np.random.Generator, items: Sequence[Thing]) -> Thing | None:
    return items[int(rng.integers(len(items)))] if items else None


def _unique(items: Sequence[Thing], field: str) -> list[Thing]:
    """Those whose colour (or shape) no other of `items` has."""
    values = [getattr(t, field) for t in items]
    return [t for t in items if values.count(getattr(t, field)) == 1]


def _colour(s: Scene, rng: np.random.Generator) -> Asked:
    t = _pick(rng, _unique(s.main, "shape"))
    return t and (f"what colour is the {SHAPES[t.shape]} ?", COLOURS[t.colour])


def _shape(s: Scene, rng: np.random.Generator) -> Asked:
    t = _pick(rng, _unique(s.main, "colour"))
    return t and (f"what shape is the {COLOURS[t.colour]} object ?", SHAPES[t.shape])


def _motion(s: Scene, rng: np.random.Generator) -> Asked:
    t = _pick(rng, [t for t in s.main if t.direction])
    return t and (f"which way does the {COLOURS[t.colour]} {SHAPES[t.shape]} move ?", t.direction)


def _count(s: Scene, rng: np.random.Generator) -> Asked:
    return None if s.small else ("how many objects are there ?", str(len(s.main)))


def _larger(s: Scene, rng: np.random.Generator) -> Asked:
    things = _unique(s.main, "colour")
    pairs = [(a, b) for a in things for b in things
             if a is not b and max(a.radius, b.radius) > 1.3 * min(a.radius, b.radius)]
    if not pairs:
        return None
    a, b = pairs[rng.integers(len(pairs))]
    larger = a if a.radius > b.radius else b
    return f"which is larger {COLOURS[a.colour]} or {COLOURS[b.colour]} ?", COLOURS[larger.colour]


def _left_of(s: Scene, rng: np.random.Generator) -> Asked:
    """Only pairs whose order holds, with 4 pixels to spare, in every frame."""
    things = _unique(s.main, "colour")
    pairs = []
    for a in things:
        for b in things:
            gap = b.centre[:, 0] - a.centre[:, 0]
            if a is not b and (gap.min() > 4 or gap.max() < -4):
                pairs.append((a, b, "yes" if gap[0] > 0 else "no"))
    if not pairs:
        return None
    a, b, answer = pairs[rng.integers(len(pairs))]
    return f"is the {COLOURS[a.colour]} object left of the {COLOURS[b.colour]} ?", answer


def _exists(s: Scene, rng: np.random.Generator) -> Asked:
    """Two in three negatives are near misses: an object that is there with one attribute changed."""
    present = {(t.colour, t.shape) for t in (*s.main, *s.small)}
    t = s.main[rng.integers(len(s.main))]
    colour, shape, answer = t.colour, t.shape, "yes"
    if rng.random() < 0.5:
        answer, kind = "no", int(rng.integers(3))
        while (colour, shape) in present:
            colour = t.colour if kind == 0 else int(rng.integers(6))
            shape = t.shape if kind == 1 else int(rng.integers(4))
    return f"is there a {COLOURS[colour]} {SHAPES[shape]} ?", answer


def _small_colour(s: Scene, rng: np.random.Generator) -> Asked:
    t = _pick(rng, _unique(s.small, "shape"))
    return t and (f"what colour was the small {SHAPES[t.shape]} ?", COLOURS[t.colour])


def _small_shape(s: Scene, rng: np.random.Generator) -> Asked:
    t = _pick(rng, _unique(s.small, "colour"))
    return t and (f"what shape was the small {COLOURS[t.colour]} object ?", SHAPES[t.shape])


def _order(s: Scene, rng: np.random.Generator) -> Asked:
    """Of two small objects, one gone before the other comes."""
    things = _unique(s.small, "colour")
    pairs = [(a, b) for a in things for b in things if a.last <= b.first]
    if not pairs:
        return None
    a, b = pairs[rng.integers(len(pairs))]
    x, y = (a, b) if rng.random() < 0.5 else (b, a)
    return f"which came first {COLOURS[x.colour]} or {COLOURS[y.colour]} ?", COLOURS[a.colour]


def _count_colour(s: Scene, rng: np.random.Generator) -> Asked:
    if s.small:
        return None
    colours = [t.colour for t in s.main]
    if len(set(colours)) < len(colours):                 # a repeated colour is rare: ask about it
        colour = max(colours, key=colours.count)
    else:
        colour = int(rng.integers(6)) if rng.random() < 0.3 else colours[rng.integers(len(colours))]
    return f"how many {COLOURS[colour]} objects are there ?", str(colours.count(colour))


FAMILIES: dict[str, Callable[[Scene, np.random.Generator], Asked]] = {
    "colour": _colour, "shape": _shape, "motion": _motion, "count": _count, "larger": _larger, "left_of": _left_of,
    "exists": _exists, "small_colour": _small_colour, "small_shape": _small_shape, "order": _order,
    "count_colour": _count_colour,
}


def ask(family: str, scene: Scene, rng: np.random.Generator) -> Asked:
    """A (question, answer) of `family` about `scene`, or None when the scene does not admit an unambiguous one."""
    return FAMILIES[family](scene, rng)
