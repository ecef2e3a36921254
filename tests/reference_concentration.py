"""SEC and SIC one token at a time: an independent, slow transcription of the algorithm of arXiv 2512.14661.

Shares no code with `focusc`. Arithmetic is float32, one operation at a time (`np.float32` scalars), so that on inputs
whose sums are exact in float32 (small integers) a faster implementation must agree to the bit. The formula of the
similarity is fixed as dot / (norm_a * norm_b), norm = sqrt(sum of squares), 0 when either norm is 0.

Words: a *position* is a token's index in the visual span before any pruning; *retained* tokens are those still present,
in order of position; a *slot* is one of the ceil(D / vector) sub-vectors of a row.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

F32 = np.float32
Triple = tuple[int, int, int]


@dataclass(frozen=True)
class Window:
    """The knobs of SIC: everything but the data. `m` counts retained tokens to an m-tile."""

    grid: Triple
    strides: Triple
    block: Triple = (2, 2, 2)
    vector: int = 32
    threshold: float = 0.9
    boundary: str = "linear"
    chase: str = "root"
    m: int = 1024


# ---------------------------------------------------------------- SEC


def importance(
    q: np.ndarray,
    k: np.ndarray,
    *,
    heads: int,
    kv_heads: int,
    scale: float,
    query: int,
    visual_start: int,
    visual_len: int,
    window: int = 0,
    mask: np.ndarray | None = None,
    positions: Sequence[float] | None = None,
) -> list[float]:
    """Importance of each retained visual token. q [T, heads * hd], k [T, kv_heads * hd]; the last `query` rows ask.

    The largest softmaxed attention weight over heads and query rows; each row sees the columns up to its own, of those
    the ones that stood less than `window` before it, and of those the ones that `mask` [heads, T, T] leaves (bool) or
    weighs (added). q and k are rounded to float16, the result to 11 significant bits (TF32).
    """
    q, k = q.astype(np.float16), k.astype(np.float16)
    rows, head_size = q.shape[0], q.shape[1] // heads
    best = [0.0] * visual_len
    for head in range(heads):
        kv = head // (heads // kv_heads)
        for row in range(rows - query, rows):
            a = [float(x) for x in q[row, head * head_size : (head + 1) * head_size]]
            scores: dict[int, float] = {}
            for column in range(row + 1):
                stood = (row, column) if positions is None else (positions[row], positions[column])
                if window and stood[0] - stood[1] >= window:
                    continue
                added = 0.0 if mask is None or mask.dtype == bool else float(mask[head, row, column])
                if added == -math.inf or (mask is not None and mask.dtype == bool and not mask[head, row, column]):
                    continue
                b = k[column, kv * head_size : (kv + 1) * head_size]
                scores[column] = sum(x * float(y) for x, y in zip(a, b, strict=True)) * scale + added
            top = max(scores.values(), default=0.0)
            weights = {column: math.exp(s - top) for column, s in scores.items()}
            total = sum(weights.values())
            for j in range(visual_len):
                best[j] = max(best[j], weights.get(visual_start + j, 0.0) / (total or 1.0))
    return [significant(x, 11) for x in best]


def significant(x: float, bits: int) -> float:
    """x rounded to `bits` significant bits, ties to even."""
    mantissa, exponent = math.frexp(x)
    return math.ldexp(round(math.ldexp(mantissa, bits)), exponent - bits)


def budget(original: int, alpha: float, present: int) -> int:
    """How many tokens a scheduled layer keeps."""
    return max(1, min(math.floor(original * alpha), present))


def select(values: Sequence[float], k: int) -> list[int]:
    """Indices of the k largest, ties to the lower index, in ascending order."""
    chosen: list[int] = []
    for _ in range(k):
        best = -1
        for i, value in enumerate(values):
            if i not in chosen and (best < 0 or value > values[best]):
                best = i
        chosen.append(best)
    return sorted(chosen)


# ---------------------------------------------------------------- SIC


def coordinates(position: int, strides: Triple) -> Triple:
    """(frame, row, column) of a position by successive division; a newline token's column is one past the grid."""
    in_frame = position % strides[0]
    return position // strides[0], in_frame // strides[1], in_frame % strides[1] // strides[2]


def candidates(position: int, w: Window) -> list[int]:
    """Positions that the token at `position` is compared with, in lexicographic order of (df, dh, dw)."""
    out = []
    block = [min(b, g) for b, g in zip(w.block, w.grid, strict=True)]
    f, h, c = coordinates(position, w.strides)
    for df in range(block[0]):
        for dh in range(block[1]):
            for dw in range(block[2]):
                if (df, dh, dw) == (0, 0, 0):
                    continue
                if w.boundary == "grid" and (df > f or dh > h or dw > c):
                    continue
                out.append(position - (df * w.strides[0] + dh * w.strides[1] + dw * w.strides[2]))
    return out


def norm(a: Sequence[np.float32]) -> np.float32:
    total = F32(0)
    for x in a:
        total = F32(total + F32(x * x))
    return np.sqrt(total)


def cosine(a: Sequence[np.float32], b: Sequence[np.float32]) -> np.float32:
    """Cosine similarity in float32; 0 if either norm is 0."""
    na, nb = norm(a), norm(b)
    if na == 0 or nb == 0:
        return F32(0)
    dot = F32(0)
    for x, y in zip(a, b, strict=True):
        dot = F32(dot + F32(x * y))
    return F32(dot / F32(na * nb))


def sub_vector(row: np.ndarray, slot: int, vector: int) -> list[np.float32]:
    """One slot of a row; the last is padded with zeros."""
    part = [F32(x) for x in row[slot * vector : (slot + 1) * vector]]
    return part + [F32(0)] * (vector - len(part))


def links(x: np.ndarray, positions: Sequence[int], w: Window) -> list[list[int]]:
    """x [n, D]: the retained visual rows; positions: theirs. Returns links[slot][i]: the retained index that token i
    links to, i itself for a root."""
    n, slots = x.shape[0], math.ceil(x.shape[1] / w.vector)
    at = {p: i for i, p in enumerate(positions)}
    out = []
    for slot in range(slots):
        parts = [sub_vector(x[i], slot, w.vector) for i in range(n)]
        row = []
        for i in range(n):
            best, best_similarity = i, F32(-np.inf)
            for p in candidates(positions[i], w):
                if p < 0 or p not in at or at[p] // w.m != i // w.m:
                    continue
                similarity = cosine(parts[i], parts[at[p]])
                if similarity > best_similarity:
                    best, best_similarity = at[p], similarity
            row.append(best if best_similarity > F32(w.threshold) else i)
        out.append(row)
    return out


def labels(link: Sequence[int], w: Window) -> list[int]:
    """Follow the links of one slot: to the root, or ("published") by at most grid[0] rounds of pointer doubling."""
    link = list(link)
    if w.chase == "published":
        for _ in range(w.grid[0]):
            link = [link[j] for j in link]
        return link
    out = []
    for i in range(len(link)):
        j = i
        while link[j] != j:
            j = link[j]
        out.append(j)
    return out


@dataclass(frozen=True)
class Merged:
    """links and labels [slot][token]; unique[slot][tile]: vectors that link to nothing; rows [n, D]: reconstructed."""

    links: list[list[int]]
    labels: list[list[int]]
    unique: list[list[int]]
    rows: np.ndarray


def sic(x: np.ndarray, positions: Sequence[int], w: Window, storage: type = np.float32) -> Merged:
    """All of SIC on the retained visual rows x [n, D]. Members of a group take its mean: float32 sum in order of
    position, divided, then rounded to `storage`."""
    n = x.shape[0]
    tiles = math.ceil(n / w.m)
    found = links(x, positions, w)
    merged = np.array(x, dtype=np.float32)
    all_labels, unique = [], []
    for slot, link in enumerate(found):
        label = labels(link, w)
        low, high = slot * w.vector, min((slot + 1) * w.vector, x.shape[1])
        for root in set(label):
            members = [i for i in range(n) if label[i] == root]
            for column in range(low, high):
                total = F32(0)
                for i in members:
                    total = F32(total + F32(x[i, column]))
                for i in members:
                    merged[i, column] = F32(storage(F32(total / F32(len(members)))))
        all_labels.append(label)
        unique.append([sum(link[i] == i for i in range(t * w.m, min((t + 1) * w.m, n))) for t in range(tiles)])
    return Merged(found, all_labels, unique, merged)
