"""The similarity search of SIC on numpy arrays: which 32-vectors link to which, their groups, the groups' means.

Source: arXiv 2512.14661. A *position* is a token's index in the visual span before pruning. Retained tokens are in
order of position; retained token j belongs to m-tile j // m, and nothing crosses tiles. All arithmetic is float32.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]
Triple = tuple[int, int, int]

CACHED = 1 << 18
"""Bytes of rows that are compared at a time; rows and candidates should fit the second-level cache."""


def _count(*bounds: int) -> Array:
    """np.arange in i64."""
    out: Array = np.arange(*bounds, dtype=np.int64)
    return out


@dataclass(frozen=True)
class Window:
    """Everything that shapes the search but the data. `strides` turn (frame, row, column) into a position."""

    grid: Triple
    strides: Triple
    block: Triple = (2, 2, 2)
    vector: int = 32
    threshold: float = 0.9
    boundary: str = "linear"
    chase: str = "root"
    m: int = 1024

    @cached_property
    def offsets(self) -> tuple[tuple[Triple, int], ...]:
        """((df, dh, dw), linear offset) of every candidate, lexicographic; the block is clipped to the grid."""
        block = [min(b, g) for b, g in zip(self.block, self.grid, strict=True)]
        steps = list(product(range(block[0]), range(block[1]), range(block[2])))[1:]
        return tuple((step, sum(d * s for d, s in zip(step, self.strides, strict=True))) for step in steps)


def pairs(positions: Array, w: Window) -> list[tuple[Array, Array]]:
    """For each candidate offset: (rows that have a legal candidate there, the candidates' rows), both i64 [n_legal].

    `positions` [n] ascend. With boundary "grid" a candidate must not leave the frame, row or column of its token, whose
    coordinates follow from its position by successive division (a newline token's column is one past the grid).
    """
    n = len(positions)
    if not n:
        return [(positions, positions) for _ in w.offsets]
    at = np.full(int(positions[-1]) + 1, -1, dtype=np.int64)
    at[positions] = _count(n)
    tile = _count(n) // w.m
    in_frame = positions % w.strides[0]
    coordinates = (positions // w.strides[0], in_frame // w.strides[1], in_frame % w.strides[1] // w.strides[2])
    out: list[tuple[Array, Array]] = []
    for step, offset in w.offsets:
        candidate = positions - offset
        row = np.where(candidate >= 0, at[np.maximum(candidate, 0)], -1)
        legal = (row >= 0) & (tile[np.maximum(row, 0)] == tile)
        if w.boundary == "grid":
            for d, c in zip(step, coordinates, strict=True):
                legal &= c >= d
        rows = np.flatnonzero(legal)
        out.append((rows, row[rows]))
    return out


def split(x: Array, vector: int) -> Array:
    """Rows [n, D] cut into slots: float32 [n, ceil(D / vector), vector], the last slot padded with zeros."""
    n, width = x.shape
    slots = math.ceil(width / vector)
    x = x.astype(np.float32, copy=False)
    if slots * vector != width:
        x = np.concatenate([x, np.zeros((n, slots * vector - width), np.float32)], axis=1)
    return x.reshape(n, slots, vector)


def join(parts: Array, width: int) -> Array:
    """The inverse of `split`: [n, slots, vector] to [n, width]."""
    return parts.reshape(parts.shape[0], -1)[:, :width]


def _run(rows: Array) -> slice | Array:
    """A slice if the rows are consecutive, which spares a copy of them."""
    if len(rows) and rows[-1] - rows[0] == len(rows) - 1:
        return slice(int(rows[0]), int(rows[-1]) + 1)
    return rows


def dot(a: Array, b: Array) -> Array:
    """Inner products over the last axis, float32, summed by halves: [0:16] + [16:32], then [0:8] + [8:16] and so on.

    The order is part of the definition: near ties are common between merged vectors, and with it every implementation
    gets the same bits.
    """
    terms = a * b
    while terms.shape[-1] > 1:
        half, odd = divmod(terms.shape[-1], 2)
        folded = terms[..., :half] + terms[..., half : 2 * half]
        if odd:
            folded[..., 0] += terms[..., -1]
        terms = folded
    return terms[..., 0]


def cosine_links(parts: Array, legal: list[tuple[Array, Array]], threshold: float) -> Array:
    """link i64 [n, slots]: the row that each vector links to, itself for a root. parts [n, slots, vector] float32.

    The candidate of greatest cosine dot / (norm * norm) wins, ties to the earlier offset, if strictly above
    `threshold`; the cosine is 0 if either norm is.
    """
    n, slots, _ = parts.shape
    link: Array = np.repeat(_count(n)[:, None], slots, axis=1)
    best = np.full((n, slots), np.float32(threshold), dtype=np.float32)
    norm = np.sqrt(dot(parts, parts))
    zeros = not norm.all()
    for rows, candidates in chunks(legal, n, max(1, CACHED // parts[0].nbytes) if n else 1):
        i, j = _run(rows), _run(candidates)
        scale = norm[i] * norm[j]
        cosine = dot(parts[i], parts[j])
        if zeros:
            np.divide(cosine, scale, out=cosine, where=scale != 0)
            cosine[scale == 0] = 0
        else:
            cosine /= scale
        held = best[i]
        better = cosine > held
        if isinstance(i, slice):  # views: written in place
            np.copyto(held, cosine, where=better)
            np.copyto(link[i], candidates[:, None], where=better)
        else:
            best[i] = np.where(better, cosine, held)
            link[i] = np.where(better, candidates[:, None], link[i])
    return link


def chunks(legal: list[tuple[Array, Array]], n: int, size: int) -> Iterator[tuple[Array, Array]]:
    """(rows, candidates) of every offset in turn, for one run of `size` rows after the other, so that the rows
    compared stay in the cache. Order within a row is that of the offsets."""
    for start in range(0, n, size):
        for rows, candidates in legal:
            a, b = np.searchsorted(rows, (start, start + size)) if size < n else (0, len(rows))
            if a < b:
                yield rows[a:b], candidates[a:b]


def random_links(rate_from: Array, legal: list[tuple[Array, Array]], rng: np.random.Generator) -> Array:
    """A control: as many links in each slot as `rate_from` has, from random rows that have a legal candidate, each to a
    random one of them."""
    n, slots = rate_from.shape
    link: Array = np.repeat(_count(n)[:, None], slots, axis=1)
    table = np.full((n, len(legal)), -1, dtype=np.int64)
    for c, (rows, candidates) in enumerate(legal):
        table[rows, c] = candidates
    able = np.flatnonzero((table >= 0).any(axis=1))
    for slot in range(slots):
        wanted = int((rate_from[:, slot] != _count(n)).sum())
        rows = rng.permutation(able)[:wanted]
        draw = np.where(table[rows] >= 0, rng.random((len(rows), len(legal))), -1.0)
        link[rows, slot] = table[rows, draw.argmax(axis=1)]
    return link


def follow(link: Array, chase: str, frames: int) -> Array:
    """label i64 [n, slots]: the end of each vector's chain of links ("root"), or where at most `frames` rounds of
    pointer doubling get to ("published")."""
    n, slots = link.shape
    flat: Array = (link * slots + _count(slots)).reshape(-1)
    rounds = frames if chase == "published" else max(1, n.bit_length())
    for _ in range(rounds):
        further: Array = flat[flat]
        if np.array_equal(further, flat):
            break
        flat = further
    return flat.reshape(n, slots) // slots


def group_means(parts: Array, label: Array) -> Array:
    """Every vector replaced by the mean of its group: float32 sum in order of the members' rows, over their number.

    As with `dot`, the order is part of the definition.
    """
    n, slots, vector = parts.shape
    total = n * slots
    group: Array = (label * slots + _count(slots)).reshape(-1)
    size = np.bincount(group, minlength=total)
    members = np.flatnonzero(size[group] > 1)
    if not len(members):
        return parts
    number = np.cumsum(size > 1) - 1  # groups of more than one, counted
    of: Array = number[group[members]]
    flat = np.array(parts).reshape(total, vector)
    sums: Array = np.zeros((int(number[-1]) + 1) * vector, dtype=np.float32)
    np.add.at(sums, (of[:, None] * vector + _count(vector)).reshape(-1), flat[members].reshape(-1))
    means = sums.reshape(-1, vector) / size[size > 1].astype(np.float32)[:, None]
    flat[members] = means[of]
    return flat.reshape(n, slots, vector)


def first_members(label: Array) -> Array:
    """root i64 [n, slots]: the first row of each vector's group. It is the label itself unless a chain was cut."""
    n, slots = label.shape
    first = np.empty((n, slots), dtype=np.int64)
    rows: Array = np.broadcast_to(_count(n - 1, -1, -1)[:, None], (n, slots))
    first[label[::-1], _count(slots)] = rows  # the last write, of the smallest row, stays
    return np.take_along_axis(first, label, axis=0)
