"""A small decoder in the nn dialect, of the structure that export and fusion give a real one; for the tests here."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from focusc.ir import Builder, Loc, Module, TensorType, Value


@dataclass(frozen=True)
class Shape:
    """Sizes of the decoder; the sequence is `start` text rows, the grid's visual rows, `query` text rows."""

    layers: int = 3
    grid: tuple[int, int, int] = (3, 3, 4)
    start: int = 2
    query: int = 4
    width: int = 64
    heads: int = 4
    kv_heads: int = 2
    head_size: int = 32
    hidden: int = 96
    packed: bool = False

    @property
    def visual(self) -> int:
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def rows(self) -> int:
        return self.start + self.visual + self.query


def decoder(s: Shape = Shape(), seed: int = 0) -> Module:
    """Residual stream [1, T, width] in, the last row's logits [1, 1, 10] out. `packed` fuses q/k/v and gate/up."""
    rng = np.random.default_rng(seed)
    b = Builder()

    def weight(*shape: int) -> Value:
        return b.constant((rng.standard_normal(shape) * shape[0] ** -0.5).astype(np.float32))

    def ones(n: int) -> Value:
        return b.constant(rng.uniform(0.8, 1.2, n).astype(np.float32))

    def columns(x: Value, start: int, end: int) -> Value:
        return b.emit("tensor.slice", x, starts=(start,), ends=(end,), axes=(2,), steps=(1,))

    angle = np.outer(np.arange(s.rows), 100.0 ** -np.linspace(0, 1, s.head_size // 2)).astype(np.float32)
    cos, sin = (b.constant(np.concatenate([f(angle)] * 2, axis=1)) for f in (np.cos, np.sin))
    q_width, kv_width = s.heads * s.head_size, s.kv_heads * s.head_size
    h = b.argument("x", TensorType((1, s.rows, s.width), "f32"))
    for i in range(s.layers):
        b.loc = Loc(node=f"layer{i}")
        x = b.emit("nn.rms_norm", h, ones(s.width), eps=1e-6)
        if s.packed:
            qkv = b.emit("nn.linear", x, weight(s.width, q_width + 2 * kv_width))
            q, k, v = (
                columns(qkv, a, e)
                for a, e in ((0, q_width), (q_width, q_width + kv_width), (q_width + kv_width, q_width + 2 * kv_width))
            )
        else:
            q, k, v = (b.emit("nn.linear", x, weight(s.width, n)) for n in (q_width, kv_width, kv_width))
        q = b.emit("nn.rope", q, cos, sin, heads=s.heads)
        k = b.emit("nn.rope", k, cos, sin, heads=s.kv_heads)
        a = b.emit("nn.attention", q, k, v, heads=s.heads, kv_heads=s.kv_heads, scale=s.head_size**-0.5, causal=True)
        h = b.emit("tensor.add", h, b.emit("nn.linear", a, weight(q_width, s.width)))
        x = b.emit("nn.rms_norm", h, ones(s.width), eps=1e-6)
        if s.packed:
            both = b.emit("nn.linear", x, weight(s.width, 2 * s.hidden))
            gate, up = columns(both, 0, s.hidden), columns(both, s.hidden, 2 * s.hidden)
        else:
            gate, up = (
                b.emit("nn.linear", x, weight(s.width, s.hidden)),
                b.emit("nn.linear", x, weight(s.width, s.hidden)),
            )
        x = b.emit("nn.swiglu", gate, up)
        h = b.emit("tensor.add", h, b.emit("nn.linear", x, weight(s.hidden, s.width)))
    b.loc = Loc(node="head")
    last = b.emit("tensor.slice", h, starts=(s.rows - 1,), ends=(s.rows,), axes=(1,), steps=(1,))
    logits = b.emit("nn.linear", b.emit("nn.rms_norm", last, ones(s.width), eps=1e-6), weight(s.width, 10))
    _f, r, c = s.grid
    layout = {"visual": (s.start, s.visual), "grid": s.grid, "strides": (r * c, c, 1), "query": s.query}
    return b.module("decoder", {"logits": logits}, {"layout": layout})


def video_like(s: Shape, seed: int = 0, noise: float = 0.2) -> np.ndarray:
    """Input rows whose visual tokens resemble their neighbours: smooth over the grid, plus noise."""
    rng = np.random.default_rng(seed)
    x = rng.standard_normal((1, s.rows, s.width)).astype(np.float32)
    base = rng.standard_normal(s.width)
    drift = rng.standard_normal((3, s.width)) * 0.15
    points = np.stack(np.meshgrid(*map(np.arange, s.grid), indexing="ij"), -1).reshape(-1, 3)
    visual = base + points @ drift + noise * rng.standard_normal((s.visual, s.width))
    x[0, s.start : s.start + s.visual] = visual
    return x
