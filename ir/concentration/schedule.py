"""Pruning schedules: which decoder layers drop visual tokens, and how many of them stay."""

from __future__ import annotations

import math
import re

from focusc.ir.diagnostics import fail, suggest

Schedule = tuple[tuple[int, float], ...]

_ALPHAS = (0.4, 0.3, 0.2, 0.15, 0.1)
PUBLISHED: dict[str, tuple[int, Schedule]] = {
    "llava-video": (28, tuple(zip((3, 6, 9, 18, 26), _ALPHAS, strict=True))),
    "llava-onevision": (28, tuple(zip((2, 5, 8, 16, 25), _ALPHAS, strict=True))),
    "llava-onevision-mvbench": (28, tuple(zip((2, 5, 8, 16, 25), (0.4, 0.3, 0.25, 0.2, 0.1), strict=True))),
    "minicpm-v": (28, tuple(zip((2, 5, 8, 16, 25), _ALPHAS, strict=True))),
    "qwen2.5-vl": (28, ((10, 0.3), (15, 0.2), (20, 0.1))),
}
"""Family: (decoder layers of the published 7B model, its schedule). Source: arXiv 2512.14661."""

HINT = "write layer:share pairs such as [1:0.5,3:0.2], or published:FAMILY with a family of " + ", ".join(PUBLISHED)


def scaled(family: str, depth: int) -> Schedule:
    """A published schedule for a decoder of `depth` layers.

    Layer i of the published n goes to floor(i * depth / n). Where several fall on one layer, the last (smallest share)
    stays, so that the final share is always the published one.
    """
    if family not in PUBLISHED:
        near = suggest(family, PUBLISHED)
        raise fail(
            "concentrate.schedule",
            f"there is no published schedule for {family!r}",
            hint=f"{near} {HINT}" if near else HINT,
        )
    layers, schedule = PUBLISHED[family]
    return tuple(sorted({layer * depth // layers: alpha for layer, alpha in schedule}.items()))


def parse(text: str, depth: int) -> Schedule:
    """`published:FAMILY`, or pairs `layer:share` separated by commas, slashes or blanks; checked against `depth`."""
    text = text.strip()
    if text.startswith("published:"):
        return scaled(text.removeprefix("published:"), depth)
    pairs: list[tuple[int, float]] = []
    for item in re.split(r"[\s,/]+", text.strip("[]() \t")):
        found = re.fullmatch(r"(-?\d+):([-+.\deE]+)", item)
        try:
            pairs.append((int(found[1]), float(found[2])))  # type: ignore[index]
        except (TypeError, ValueError):
            raise fail(
                "concentrate.schedule", f"in schedule {text!r}: {item!r} is not layer:share", hint=HINT
            ) from None
    return check(tuple(pairs), depth)


def check(schedule: Schedule, depth: int) -> Schedule:
    """The schedule itself, or a CompileError: layers must exist and ascend, shares fall within (0, 1]."""
    before, held = -1, 1.0
    for layer, alpha in schedule:
        if not 0 <= layer < depth:
            raise fail(
                "concentrate.layer", f"the schedule names layer {layer}, but the decoder has layers 0 to {depth - 1}"
            )
        if layer <= before:
            raise fail(
                "concentrate.schedule",
                f"layer {layer} follows layer {before} in the schedule",
                hint="list each layer once, in ascending order",
            )
        if not 0 < alpha <= 1:
            raise fail(
                "concentrate.alpha", f"layer {layer} keeps a share of {alpha:g}, expected more than 0, at most 1"
            )
        if alpha > held:
            raise fail(
                "concentrate.alpha",
                f"layer {layer} keeps a share of {alpha:g}, more than the {held:g} before it",
                hint="shares are of the original tokens and cannot rise: dropped tokens do not come back",
            )
        before, held = layer, alpha
    return schedule


def budget(original: int, alpha: float, present: int) -> int:
    """How many visual tokens a scheduled layer keeps: max(1, min(floor(original * alpha), present))."""
    return max(1, min(math.floor(original * alpha), present))
