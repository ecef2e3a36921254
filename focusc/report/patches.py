"""The picture of one video: which patches survive at each depth, and which were merged with a neighbour."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from focusc.driver.patches import PatchFlow, Stage

Array = np.ndarray[Any, np.dtype[Any]]

MERGED = np.array([0.10, 0.55, 1.00])
"""Colour of a patch whose vectors all come from an earlier patch."""
PRUNED = 0.17
"""Brightness that is left of a pruned patch."""


def frames_of(inputs: dict[str, Array], frames: int) -> Array | None:
    """[F, h, w, 3] pictures in 0..1 from the input that looks like a video: `frames` x 3 channels x height x width."""
    for array in inputs.values():
        video = array.reshape(array.shape[-4:]) if array.ndim >= 4 else array
        if video.ndim == 4 and video.shape[:2] == (frames, 3) and array.size == video.size:
            low, high = np.percentile(video, [0.5, 99.5])
            return np.clip((video.transpose(0, 2, 3, 1) - low) / max(high - low, 1e-6), 0, 1)
    return None


def draw(
    flow: PatchFlow,
    video: Array | None,
    *,
    question: str,
    answers: Sequence[tuple[str, str]],
    layers: Sequence[int] = (),
) -> bytes:
    """A PNG: one column a frame; the video on top, below it what each chosen decoder layer sees.

    Pruned patches are dark; a surviving patch is tinted by the share of its vectors that SIC took from a neighbour.
    `layers` chooses stages (by default every depth at which the number of tokens changes, at most five); `answers` are
    pairs (who, answer).
    """
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot as plt

    stages = [stage for stage in flow.stages if stage.layer in layers] if layers else _changes(flow.stages)
    count, height, width = flow.grid
    if video is None:
        video = np.full((count, height * 8, width * 8, 3), 0.75)
    rows = 1 + len(stages)
    figure, axes = plt.subplots(
        rows,
        count + 1,
        figsize=(1.45 * count + 1.9, 1.36 * rows + 1.5),
        squeeze=False,
        gridspec_kw={"width_ratios": [1.15] + [1] * count, "wspace": 0.06, "hspace": 0.08},
    )
    for frame in range(count):
        axes[0][frame + 1].imshow(video[frame], interpolation="nearest")
        axes[0][frame + 1].set_title(f"frame {frame + 1}", fontsize=10)
    _label(axes[0][0], "video", f"{flow.tokens} patches")
    for row, stage in enumerate(stages, 1):
        alive, share = _on_grid(flow, stage)
        for frame in range(count):
            axes[row][frame + 1].imshow(_tinted(video[frame], alive[frame], share[frame]), interpolation="nearest")
            _grid_lines(axes[row][frame + 1], video.shape[1:3], (height, width))
        merged = "" if stage.merged is None else f"\n{100 * stage.merged.mean():.0f} % of vectors\nmerged"
        kept = len(stage.positions)
        title = f"layer {stage.layer}" if stage.layer < flow.layers else f"after layer {flow.layers - 1}"
        _label(axes[row][0], title, f"{kept} patches ({100 * kept / flow.tokens:.0f} %){merged}")
    for axis in axes.flat:
        axis.set_xticks([])
        axis.set_yticks([])
        for side in axis.spines.values():
            side.set_visible(False)
    said = "     ".join(f"{who}: {answer}" for who, answer in answers)
    high = figure.get_figheight()
    figure.subplots_adjust(top=1 - 1.0 / high, bottom=0.5 / high)
    figure.suptitle(f"“{question}”\n{said}", fontsize=13, y=1 - 0.1 / high, va="top")
    _key(figure)
    picture = io.BytesIO()
    figure.savefig(picture, dpi=110, bbox_inches="tight", facecolor="white")
    plt.close(figure)
    return picture.getvalue()


def _changes(stages: Sequence[Stage], most: int = 5) -> list[Stage]:
    """The stages at which the number of tokens changes, the first and the last always among them."""
    chosen = [
        stage
        for before, stage in zip([None, *stages], stages)
        if before is None or len(before.positions) != len(stage.positions)
    ]
    if len(chosen) == 1 and len(stages) > 1:
        chosen.append(stages[-1])
    if len(chosen) > most:
        picks = np.linspace(0, len(chosen) - 1, most).round().astype(int)
        chosen = [chosen[index] for index in picks]
    return chosen


def _on_grid(flow: PatchFlow, stage: Stage) -> tuple[Array, Array]:
    """(alive, merged share) on the grid [F, H, W]."""
    cells = flow.cells()
    alive = np.zeros(flow.tokens, dtype=bool)
    alive[stage.positions] = True
    share = np.zeros(flow.tokens)
    if stage.merged is not None:
        share[stage.positions] = stage.merged
    return alive[cells], share[cells]


def _tinted(picture: Array, alive: Array, share: Array) -> Array:
    """The frame with pruned patches darkened and merged ones tinted."""
    size = (picture.shape[0] // alive.shape[0], picture.shape[1] // alive.shape[1])
    block = np.ones(size)
    mask = np.kron(alive, block)[..., None]
    tint = 0.65 * np.kron(share, block)[..., None]
    picture = picture[: mask.shape[0], : mask.shape[1]]
    grey = picture.mean(axis=-1, keepdims=True)
    living = (1 - tint) * picture + tint * (0.35 * grey + 0.65 * MERGED)
    return np.clip(np.where(mask > 0, living, PRUNED * grey), 0, 1)


def _grid_lines(axis: Axes, size: tuple[int, ...], cells: tuple[int, int]) -> None:
    for row in range(1, cells[0]):
        axis.axhline(row * size[0] / cells[0] - 0.5, color="white", linewidth=0.4, alpha=0.6)
    for column in range(1, cells[1]):
        axis.axvline(column * size[1] / cells[1] - 0.5, color="white", linewidth=0.4, alpha=0.6)


def _label(axis: Axes, title: str, text: str) -> None:
    axis.text(0.97, 0.62, title, ha="right", va="center", fontsize=12, weight="bold", transform=axis.transAxes)
    axis.text(0.97, 0.50, text, ha="right", va="top", fontsize=9, color="0.3", transform=axis.transAxes)


def _key(figure: Any) -> None:
    from matplotlib.patches import Patch

    handles = [
        Patch(facecolor="0.75", edgecolor="0.5", label="kept, computed by itself"),
        Patch(
            facecolor=tuple(0.35 * 0.6 + 0.65 * (0.35 * 0.6 + 0.65 * MERGED)),
            edgecolor="0.5",
            label="kept, vectors taken from a neighbour (SIC)",
        ),
        Patch(facecolor="0.08", edgecolor="0.5", label="pruned (SEC)"),
    ]
    figure.legend(handles=handles, loc="lower center", ncol=3, frameon=False, fontsize=10, bbox_to_anchor=(0.5, 0.0))
