"""Scenes of the procedural videos: what is in them, and how a frame is drawn. numpy only.

Lengths are pixels, time is frames. A scene holds one to three *main* objects, visible throughout, and, if it is a
transient scene, one to three *small* ones of one or two patches that are visible in two or three frames only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from . import photos

__all__ = ["FRAMES", "GRID", "PATCH", "SIZE", "Scene", "Thing", "draw", "make_scene", "normalised"]

FRAMES, SIZE, PATCH = 8, 48, 8
GRID = SIZE // PATCH
DIRECTIONS = ("left", "right", "up", "down")
_RGB = np.array([[.90, .13, .13], [.13, .72, .18], [.18, .28, .95], [.95, .88, .15], [.72, .18, .85], [.15, .85, .90]],
                dtype=np.float32)
_YY, _XX = np.meshgrid(np.arange(SIZE, dtype=np.float32), np.arange(SIZE, dtype=np.float32), indexing="ij")


@dataclass(frozen=True)
class Thing:
    """One object: indices of its colour and shape, radius, direction ('' when still), centre [8, 2] (x, y), frames
    [first, last) in which it is visible, and its exact RGB."""

    colour: int
    shape: int
    radius: float
    direction: str
    centre: np.ndarray
    first: int
    last: int
    rgb: np.ndarray


@dataclass(frozen=True)
class Scene:
    """Everything that determines the clean video; `noise_seed` fixes the sensor noise."""

    main: tuple[Thing, ...]
    small: tuple[Thing, ...]
    background: np.ndarray
    noise_seed: int


def _background(rng: np.random.Generator, names: tuple[str, ...]) -> np.ndarray:
    """Crops of one photograph, float32 [8, 48, 48, 3]; 40 % pan by at most one pixel a frame."""
    photo = photos.load(names[rng.integers(len(names))])
    if rng.random() < 0.5:
        photo = photo[:, ::-1]
    pan = rng.uniform(-1, 1, 2) if rng.random() < 0.4 else np.zeros(2)
    path = np.round(pan * np.arange(FRAMES)[:, None]).astype(int)
    path -= path.min(axis=0)
    y0, x0 = (rng.integers(photo.shape[i] - SIZE - path[:, i].max()) for i in (0, 1))
    crop = np.stack([photo[y0 + y:y0 + y + SIZE, x0 + x:x0 + x + SIZE] for y, x in path])
    return crop * np.float32(rng.uniform(0.7, 1.15))


def _main_track(rng: np.random.Generator, radius: float) -> tuple[str, np.ndarray]:
    """A track inside the picture: three in four objects move along an axis at 3 to 5 pixels a frame, up to 6 for small
    radii, the others stand still."""
    low, high = 0.7 * radius, SIZE - 0.7 * radius
    centre = np.tile(rng.uniform(low, high, 2), (FRAMES, 1))
    if rng.random() >= 0.75:
        return "", centre
    direction = int(rng.integers(4))
    speed = rng.uniform(3.0, min(6.0, (high - low) / (FRAMES - 1)))
    travel = speed * np.arange(FRAMES)
    start = rng.uniform(low, max(low, high - travel[-1]) + 1e-6)
    line = start + travel
    centre[:, direction // 2] = SIZE - line if direction % 2 == 0 else line
    return DIRECTIONS[direction], centre


def _colour(rng: np.random.Generator, colour: int) -> np.ndarray:
    return np.clip(_RGB[colour] * rng.uniform(0.88, 1.05) + rng.uniform(-.05, .05, 3), 0, 1).astype(np.float32)


def _crowding(things: list[tuple[float, np.ndarray]]) -> float:
    """How deep the worst pair overlaps on average over the frames, in units of the sum of their radii (0: apart)."""
    worst = 0.0
    for i, (r, a) in enumerate(things):
        for s, b in things[:i]:
            distance = np.hypot(*(a - b).T)
            worst = max(worst, float(np.clip(1 - distance / (r + s), 0, None).mean()))
    return worst


def make_scene(rng: np.random.Generator, names: tuple[str, ...], *, transient: bool, count: int | None = None,
               repeat: bool = False) -> Scene:
    """Draw a scene. `count` fixes the number of main objects (else 1 to 3, in a transient scene 1 or 2); `repeat`
    gives two main objects the same colour. No two objects agree in both colour and shape."""
    n = count or int(rng.integers(1, 3 if transient else 4))
    m = int(rng.integers(1, 4)) if transient else 0
    colours = list(rng.permutation(6)[:n])
    if repeat and n > 1:
        for k in range(1, n if rng.random() < 0.35 else 2):
            colours[k] = colours[0]
    taken: set[tuple[int, int]] = set()
    looks: list[tuple[int, int]] = []
    shapes = rng.permutation(4)
    for i in range(n):
        shape = int(shapes[i]) if rng.random() < 0.7 else int(rng.integers(4))
        while (int(colours[i]), shape) in taken:
            shape = int(rng.integers(4))
        taken.add((int(colours[i]), shape))
        looks.append((int(colours[i]), shape))
    best: tuple[float, list[tuple[float, str, np.ndarray]]] | None = None
    for _ in range(24):
        radii = [rng.uniform(5.5, 9.0) * (0.9 if n == 3 else 1.0) for _ in range(n)]
        tracks = [(r, *_main_track(rng, r)) for r in radii]
        score = _crowding([(r, c) for r, _, c in tracks])
        if best is None or score < best[0]:
            best = (score, tracks)
        if score < 0.06:
            break
    assert best is not None
    main = [Thing(*look, r, d, c, 0, FRAMES, _colour(rng, look[0]))
            for look, (r, d, c) in zip(looks, best[1], strict=True)]
    small: list[Thing] = []
    small_colours, small_shapes = rng.permutation(6)[:m], rng.permutation(4)[:m]
    for i in range(m):
        while (look := (int(small_colours[i]), int(small_shapes[i]))) in taken:
            small_colours[i] = rng.choice([c for c in range(6) if c not in small_colours])
        small.append(_small(rng, look, main, small))
        taken.add(look)
    return Scene(tuple(main), tuple(small), _background(rng, names), int(rng.integers(2**31)))


def _nearest(thing: Thing, point: np.ndarray, first: int, last: int) -> float:
    """Least distance between a thing's centre and a point while both are visible; 99 if they never are."""
    track = thing.centre[max(first, thing.first):min(last, thing.last)]
    return float(np.hypot(*(track - point).T).min(initial=99))


def _small(rng: np.random.Generator, look: tuple[int, int], main: list[Thing], small: list[Thing]) -> Thing:
    """A still object of one or two patches, visible two or three frames, clear of the others while it is visible."""
    best: tuple[float, Thing] | None = None
    for _ in range(24):
        radius = rng.uniform(3.2, 4.0)
        length = int(rng.integers(2, 4))
        first = int(rng.integers(0, FRAMES - length + 1))
        cell = rng.integers(0, GRID, 2) * PATCH + (PATCH - 1) / 2 + rng.uniform(-.7, .7, 2)
        axis = int(rng.integers(2))                      # free along one axis only: two patches at most
        cell[axis] = rng.uniform(4, SIZE - 5)
        gap = min((_nearest(t, cell, first, first + length) - t.radius - radius for t in (*main, *small)), default=99.0)
        thing = Thing(*look, radius, "", np.tile(cell, (FRAMES, 1)), first, first + length, _colour(rng, look[0]))
        if best is None or gap > best[0]:
            best = (gap, thing)
        if gap > 1:
            break
    assert best is not None
    return best[1]


def _inside(shape: int, dx: np.ndarray, dy: np.ndarray, r: float) -> np.ndarray:
    """Signed distance (approximately, in pixels, positive inside) to a shape's outline; areas are roughly equal."""
    if shape == 0:
        return 0.95 * r - np.sqrt(dx * dx + dy * dy)
    if shape == 1:
        return 0.85 * r - np.maximum(np.abs(dx), np.abs(dy))
    if shape == 2:
        slope = 0.866 * np.abs(dx) - 0.5 * dy            # apex up: y grows downwards
        return np.minimum(0.62 * r - dy, 0.62 * r - slope)
    angle = np.abs(np.mod(np.arctan2(dx, -dy) / (2 * np.pi / 5) + 0.5, 1.0) - 0.5) * (2 * np.pi / 5)
    rho, outer, inner, tip = np.sqrt(dx * dx + dy * dy), 1.3 * r, 0.52 * r, np.pi / 5
    px, py = rho * np.cos(angle), rho * np.sin(angle)    # folded into one half-point: edge from outer to inner
    ex, ey = inner * np.cos(tip) - outer, inner * np.sin(tip)
    return (ex * py - ey * (px - outer)) / np.hypot(ex, ey)


def normalised(video: np.ndarray) -> np.ndarray:
    """Pixel values float32 [f, 3, h, w] of RGB in 0..1 [f, h, w, 3]: of about zero mean and unit range."""
    return np.ascontiguousarray(((video - 0.45) / 0.25).transpose(0, 3, 1, 2), dtype=np.float32)


def draw(scene: Scene, frames: np.ndarray | None = None, *,
         labels: bool = False) -> tuple[np.ndarray, np.ndarray | None]:
    """Render `frames` (all by default) of a scene.

    Returns pixel values float32 [f, 3, 48, 48], normalised to about zero mean and unit range, and, with `labels`,
    per-patch labels float32 [f, 36, 5] for pretraining: colour + 1 (0: none), shape, x and y offset of the object's
    centre from the patch's centre in units of two patches, radius / 8.
    """
    which = np.arange(FRAMES) if frames is None else frames
    x = scene.background[which].copy()
    target = np.zeros((len(which), GRID, GRID, 5), dtype=np.float32) if labels else None
    best = np.full((len(which), GRID, GRID), 0.14, dtype=np.float32)
    mid = np.arange(GRID) * PATCH + (PATCH - 1) / 2
    for thing in (*scene.main, *scene.small):
        seen = np.flatnonzero((which >= thing.first) & (which < thing.last))
        if not len(seen):
            continue
        c = thing.centre[which[seen]].astype(np.float32)
        dx, dy = _XX - c[:, 0, None, None], _YY - c[:, 1, None, None]
        alpha = np.clip(_inside(thing.shape, dx, dy, thing.radius) + 0.5, 0, 1)
        x[seen] += alpha[..., None] * (thing.rgb - x[seen])
        if target is not None:
            cover = alpha.reshape(-1, GRID, PATCH, GRID, PATCH).mean((2, 4))
            best[seen] *= 1 - cover                      # what is drawn later hides what was there
            hit = cover > best[seen]
            best[seen] = np.where(hit, cover, best[seen])
            label = np.empty((len(seen), GRID, GRID, 5), dtype=np.float32)
            label[..., 0], label[..., 1], label[..., 4] = thing.colour + 1, thing.shape, thing.radius / 8
            label[..., 2] = (c[:, 0, None, None] - mid[None, None, :]) / (2 * PATCH)
            label[..., 3] = (c[:, 1, None, None] - mid[None, :, None]) / (2 * PATCH)
            target[seen] = np.where(hit[..., None], label, target[seen])
    noise = np.random.default_rng(scene.noise_seed).standard_normal(x.shape, dtype=np.float32)
    x = np.clip(x + 0.03 * noise, 0, 1)
    return normalised(x), None if target is None else target.reshape(len(which), GRID * GRID, 5)
