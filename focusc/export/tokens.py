"""Where the visual tokens lie: the token layout of a sample, found from its placeholder ids and its family's grid."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from focusc.ir.concentration.layout import Layout
from focusc.ir.diagnostics import CompileError

from .errors import ExportError
from .families import Visual, family_of

if TYPE_CHECKING:
    import torch

__all__ = ["find_layout", "made_up_ids", "placeholder_ids", "random_text", "token_types"]

PLACEHOLDERS = ("image_token_id", "video_token_id", "image_token_index", "video_token_index")
PREFIX_TOKENS, QUERY_TOKENS = 4, 6
"""Text of a made-up prompt before and after the visual tokens."""


def placeholder_ids(config: Any) -> dict[str, int]:
    """Token ids that stand for visual features, by name in config.json."""
    found = {name: getattr(config, name, None) for name in PLACEHOLDERS}
    return {name: int(value) for name, value in found.items() if value is not None}


def token_types(config: Any, ids: torch.Tensor) -> torch.Tensor:
    """0 for text, 1 for image, 2 for video placeholders, as the Qwen family's forward wants to be told."""
    import torch

    types = torch.zeros_like(ids, dtype=torch.int32)
    for name, token in placeholder_ids(config).items():
        types[ids == token] = 1 if name.startswith("image") else 2
    return types


def made_up_ids(config: Any, sample: Mapping[str, torch.Tensor], generator: torch.Generator) -> torch.Tensor:
    """Token ids [1, T]: random text, the placeholders that the sample's media need, random text."""
    import torch

    family = family_of(config.model_type)
    assert family is not None
    visual = family.visual(config, sample)
    ids = placeholder_ids(config)
    video = any(name.endswith("videos") for name in sample)
    token = next(value for name, value in ids.items() if name.startswith("video" if video else "image"))

    def text(count: int) -> list[int]:
        return random_text(config, count, generator)

    frame = visual.grid[1] * visual.grid[2]
    if family.SEPARATORS and visual.grid[0] > 1:
        body: list[int] = []
        for index in range(visual.grid[0]):
            body += [token] * frame + text(family.SEPARATORS if index + 1 < visual.grid[0] else 0)
    else:
        body = [token] * visual.tokens
    return torch.tensor([[*text(PREFIX_TOKENS), *body, *text(QUERY_TOKENS)]])


def random_text(config: Any, count: int, generator: torch.Generator) -> list[int]:
    """`count` random token ids that stand for no picture and end no sentence."""
    import torch

    vocabulary = config.get_text_config().vocab_size
    special = {*placeholder_ids(config).values(), *_special(config)}
    words: list[int] = []
    while len(words) < count:
        word = int(torch.randint(vocabulary, (), generator=generator))
        words += [word] * (word not in special)
    return words


def _special(config: Any) -> set[int]:
    names = ("bos_token_id", "eos_token_id", "pad_token_id", "vision_start_token_id", "vision_end_token_id",
             "vision_token_id")
    values = {getattr(owner, name, None) for owner in (config, config.get_text_config()) for name in names}
    return {value for value in values if isinstance(value, int)}


def find_layout(config: Any, sample: Mapping[str, torch.Tensor]) -> tuple[Layout, str]:
    """(layout, how it was found) of a sample with its token ids. ExportError if no token stands for an image."""
    ids = sample["input_ids"][0].tolist()
    known = set(placeholder_ids(config).values())
    positions = [i for i, token in enumerate(ids) if token in known]
    if not positions:
        raise ExportError(
            f"no token of the prompt stands for visual features; {len(ids)} tokens, placeholders {sorted(known)}",
            code="export.no-visual-tokens",
            hint="put the model's image or video placeholder into the prompt (or leave --prompt to the chat template)")
    family = family_of(config.model_type)
    visual = _guess(positions, sample) if family is None else family.visual(config, sample)
    if visual.tokens != len(positions):
        raise ExportError(
            f"the prompt has {len(positions)} visual placeholders, the pixels make {visual.tokens} features",
            code="export.visual-count", hint="tokens and pixels must come from one call of the model's processor")
    how = "guessed from the placeholder tokens" if family is None else f"family {config.model_type}"
    try:
        return _layout(positions, visual, len(ids)), how
    except (CompileError, _Irregular) as error:
        span = positions[len(positions) - 1 - visual.tail] - positions[0] + 1
        flat = Layout(positions[0], span, (1, 1, span), (span, span, 1), len(ids) - positions[0] - span)
        reason = error.diagnostics[0].message if isinstance(error, CompileError) else str(error)
        return flat, f"{how}; taken as one row, because {reason}"


class _Irregular(ValueError):
    """Frames that no three strides describe."""


def _layout(positions: Sequence[int], visual: Visual, total: int) -> Layout:
    span = positions[: len(positions) - visual.tail]
    first, last = span[0], span[-1]
    strides = visual.strides
    if strides is None:
        frames, rows, columns = visual.grid
        cells = rows * columns
        starts = [span[visual.lead + f * cells] for f in range(frames)]
        steps = {b - a for a, b in itertools.pairwise(starts)}
        if len(steps) > 1:
            raise _Irregular(f"the frames start at distances {sorted(steps)}")
        strides = (steps.pop() if steps else cells, columns, 1)
    query = total - last - 1
    if query < 1:
        raise ExportError("no text follows the visual tokens, so nothing asks about them", code="export.no-query",
                          hint="end the prompt with the question")
    return Layout(first, last - first + 1, visual.grid, strides, query)


def _guess(positions: Sequence[int], sample: Mapping[str, torch.Tensor]) -> Visual:
    """Frames are runs of placeholders of one length, or the leading axes of a clip; their tokens a square if they can
    be one."""
    breaks = [i for i in range(1, len(positions)) if positions[i] != positions[i - 1] + 1]
    runs = [b - a for a, b in zip([0, *breaks], [*breaks, len(positions)], strict=True)]
    frames = len(runs) if len(set(runs)) == 1 else 1
    if frames == 1:
        clips = [v.shape[:-3].numel() for k, v in sample.items() if k.startswith("pixel_values") and v.ndim >= 4]
        if clips and len(positions) % clips[0] == 0:
            frames = clips[0]
    cells = len(positions) // frames
    side = math.isqrt(cells)
    grid = (frames, side, side) if side * side == cells else (frames, 1, cells)
    return Visual(grid, len(positions))
