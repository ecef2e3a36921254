"""SIC, the similarity concentrator: vectors of neighbouring tokens that are alike are computed once.

The algorithm is in `focusc.ir.concentration.similarity`; source: arXiv 2512.14661.
"""

from __future__ import annotations

import zlib
from functools import lru_cache
from typing import Any

import numpy as np

from focusc.ir.concentrated import Concentrated
from focusc.ir.concentration import similarity
from focusc.ir.concentration.similarity import Window
from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.types import ConcentratedType, TensorType, TokensType, Type

Array = np.ndarray[Any, Any]

SITES = ("qkv_in", "query", "o_in", "mlp_in", "down_in")
"""The activations of a decoder layer that feed a GEMM and are concentrated, in order of execution."""


@lru_cache(maxsize=64)
def _pairs(positions: bytes, window: Window) -> list[tuple[Array, Array]]:
    return similarity.pairs(np.frombuffer(positions, np.int64), window)


def tiles(rows: int, visual_start: int, m: int) -> list[tuple[int, int]]:
    """Row ranges of the m-tiles: the first ends after `m` retained visual rows, each other has `m` rows."""
    starts = [0, *range(visual_start + m, rows, m)]
    return list(zip(starts, [*starts[1:], rows], strict=True))


@defop("sic.gather")
class Gather(Op):
    """Merge similar 32-vectors of the visual rows: each visual row's slot links to the most similar legal candidate.

    x [1, T, D] or [T, D]; rows [visual_start, visual_start + visual_len) are the retained visual tokens. positions
    [visual_len]: their indices in the visual span before pruning; absent: 0, 1, 2 ... Candidates are the tokens at
    smaller positions within `block` of the grid, if retained and in the same tile of `m` retained tokens. Text rows are
    neither compared nor merged. `links="random"` (a control) makes as many links, to random legal candidates.
    """

    __slots__ = ()

    x = operand()
    positions = operand(optional=True)
    visual_start = attr(int, minimum=0)
    visual_len = attr(int, minimum=0, doc="visual rows now present")
    grid = attr(tuple, of=int, doc="frames, rows, columns before pruning")
    strides = attr(tuple, of=int, doc="linear index of (f, h, w) is the dot product with these")
    block = attr(tuple, (2, 2, 2), of=int)
    vector = attr(int, 32, minimum=1)
    threshold = attr(float, 0.9, doc="a cosine must be strictly greater")
    m = attr(int, 1024, minimum=1)
    boundary = attr(str, "linear", one_of=("linear", "grid"))
    chase = attr(str, "root", one_of=("root", "published"))
    links = attr(str, "cosine", one_of=("cosine", "random", "none"))
    seed = attr(int, 0, minimum=0)
    layer = attr(int, 0, minimum=0)
    site = attr(str, "qkv_in", one_of=SITES)

    @staticmethod
    def infer(
        x: Type,
        positions: Type | None,
        *,
        visual_start: int,
        visual_len: int,
        grid: tuple[int, ...],
        strides: tuple[int, ...],
        block: tuple[int, ...],
        vector: int,
        m: int,
        **_: Any,
    ) -> Type:
        if not isinstance(x, TensorType) or x.rank < 2 or x.size != x.shape[-2] * x.shape[-1]:
            raise InferError(f"x is {x}, expected a tensor [1, T, D] or [T, D]")
        if visual_start + visual_len > x.shape[-2]:
            raise InferError(
                f"visual rows [{visual_start}, {visual_start + visual_len}) leave the {x.shape[-2]} rows of x"
            )
        for name, triple in (("grid", grid), ("strides", strides), ("block", block)):
            if len(triple) != 3 or min(triple) < 1:
                raise InferError(f"{name} is {list(triple)}, expected three positive numbers for frame, row, column")
        if positions is not None and (not isinstance(positions, TokensType) or positions.count != visual_len):
            raise InferError(f"positions is {positions}, expected tokens<{visual_len} of ...>: one for each visual row")
        return ConcentratedType(x.shape, x.dtype, vector, m)

    @staticmethod
    def evaluate(
        x: Array,
        positions: Array | None,
        *,
        visual_start: int,
        visual_len: int,
        grid: tuple[int, int, int],
        strides: tuple[int, int, int],
        block: tuple[int, int, int],
        vector: int,
        threshold: float,
        m: int,
        boundary: str,
        chase: str,
        links: str,
        seed: int,
        layer: int,
        site: str,
    ) -> Concentrated:
        window = Window(grid, strides, block, vector, threshold, boundary, chase, m)
        where = np.arange(visual_len) if positions is None else np.asarray(positions, np.int64)
        rows = np.asarray(x).reshape(-1, x.shape[-1])
        visual = slice(visual_start, visual_start + visual_len)
        parts = similarity.split(rows[visual], vector)
        alone = np.repeat(np.arange(visual_len)[:, None], parts.shape[1], axis=1)
        link = alone
        if links != "none":
            legal = _pairs(where.astype(np.int64).tobytes(), window)
            link = similarity.cosine_links(parts, legal, threshold)
            if links == "random":
                rng = np.random.default_rng([seed, layer, zlib.crc32(site.encode())])
                link = similarity.random_links(link, legal, rng)
        label = similarity.follow(link, chase, grid[0])
        out = np.array(rows)
        out[visual] = similarity.join(similarity.group_means(parts, label), rows.shape[1])
        root = np.repeat(np.arange(len(rows))[:, None], parts.shape[1], axis=1)
        root[visual] = similarity.first_members(label) + visual_start
        linked = np.zeros(root.shape, dtype=np.bool_)
        linked[visual] = link != alone
        return Concentrated(x.shape, tiles(len(rows), visual_start, m), root, out, vector, linked)

    @staticmethod
    def examples() -> list[tuple[list[Any], dict[str, Any]]]:
        x = np.random.default_rng(0).integers(-1, 2, (1, 14, 40)).astype(np.float32)
        common: dict[str, Any] = {
            "visual_start": 1,
            "visual_len": 12,
            "grid": (2, 2, 3),
            "strides": (6, 3, 1),
            "threshold": 0.25,
        }
        return [
            ([x, None], common),
            ([x, None], {**common, "m": 5, "boundary": "grid", "chase": "published"}),
            ([x[0], None], {**common, "links": "random", "vector": 8}),
            ([x, None], {**common, "links": "none"}),
        ]


@defop("sic.scatter")
class Scatter(Op):
    """The dense tensor that a concentrated value stands for: every vector is its group's mean."""

    __slots__ = ()

    c = operand()

    @staticmethod
    def infer(c: Type) -> Type:
        if not isinstance(c, ConcentratedType):
            raise InferError(f"c is {c}, expected a concentrated value (the result of sic.gather)")
        return c.dense

    @staticmethod
    def evaluate(c: Concentrated) -> Array:
        return c.dense()
