"""nn-level modules for tests: a small VLM, of any size, with the structure of a fused export and random weights."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from focusc.ir import Builder, Loc, Module, TensorType, Value
from focusc.ir.matching import shape_of


@dataclass(frozen=True)
class Shape:
    """Sizes of a small VLM. Rows: `prefix` text tokens, frames * rows * cols visual ones, `query` text tokens."""

    grid: tuple[int, int, int] = (2, 3, 4)
    prefix: int = 3
    query: int = 5
    layers: int = 2
    width: int = 64
    heads: int = 2
    kv_heads: int = 1
    size: int = 32
    inner: int = 96
    vision: int = 64
    vocabulary: int = 40
    patch: int = 4
    biases: bool = False

    @property
    def visual(self) -> int:
        """Visual tokens."""
        return self.grid[0] * self.grid[1] * self.grid[2]

    @property
    def rows(self) -> int:
        """Sequence length."""
        return self.prefix + self.visual + self.query


class _Net:
    def __init__(self, shape: Shape, seed: int) -> None:
        self.s, self.b = shape, Builder()
        self.rng = np.random.default_rng(seed)

    def weight(self, *shape: int, scale: float | None = None) -> Value:
        factor = 1 / np.sqrt(shape[0]) if scale is None else scale
        return self.b.constant((self.rng.standard_normal(shape) * factor).astype(np.float32))

    def ones(self, n: int) -> Value:
        return self.b.constant((1 + 0.1 * self.rng.standard_normal(n)).astype(np.float32))

    def linear(self, name: str, x: Value, n: int, bias: bool = False) -> Value:
        k = shape_of(x)[-1]
        with self.b.at(Loc(node=f"/{name}/MatMul", module_path=name)):
            return self.b.emit(
                "nn.linear", x, self.weight(k, n), self.weight(n, scale=0.1) if bias else None, name=name
            )

    def vision(self, pixels: Value) -> Value:
        s, b = self.s, self.b
        f, h, w = s.grid
        x = b.emit(
            "nn.patch_embed",
            pixels,
            self.weight(3 * s.patch**2, s.vision),
            self.weight(s.vision, scale=0.1),
            kernel=(s.patch, s.patch),
            stride=(s.patch, s.patch),
            pads=(0, 0, 0, 0),
            loc=Loc(node="/patch/Conv", module_path="vision.patch"),
        )
        x = b.emit("tensor.add", x, self.weight(1, h * w, s.vision, scale=0.5))
        y = b.emit("nn.layer_norm", x, self.ones(s.vision), self.weight(s.vision, scale=0.1), eps=1e-5)
        q, k, v = (self.linear(f"vision.{n}", y, s.vision, True) for n in "qkv")
        y = b.emit("nn.attention", q, k, v, heads=2, kv_heads=2, scale=0.2, causal=False)
        x = b.emit("tensor.add", x, self.linear("vision.o", y, s.vision, True))
        y = b.emit("nn.gelu", self.linear("project.0", x, s.width, True), approximate="tanh")
        y = self.linear("project.1", y, s.width, True)
        return b.emit("tensor.reshape", y, shape=(1, f * h * w, s.width))

    def layer(self, i: int, x: Value, cos: Value, sin: Value) -> Value:
        s, b = self.s, self.b
        y = b.emit("nn.rms_norm", x, self.ones(s.width), eps=1e-6)
        q = self.linear(f"layers.{i}.q", y, s.heads * s.size, s.biases)
        k = self.linear(f"layers.{i}.k", y, s.kv_heads * s.size, s.biases)
        v = self.linear(f"layers.{i}.v", y, s.kv_heads * s.size, s.biases)
        q = b.emit("nn.rope", q, cos, sin, heads=s.heads)
        k = b.emit("nn.rope", k, cos, sin, heads=s.kv_heads)
        y = b.emit(
            "nn.attention",
            q,
            k,
            v,
            heads=s.heads,
            kv_heads=s.kv_heads,
            scale=s.size**-0.5,
            causal=True,
            loc=Loc(node=f"/layers.{i}/attention", module_path=f"layers.{i}.attention"),
        )
        x = b.emit("tensor.add", x, self.linear(f"layers.{i}.o", y, s.width))
        y = b.emit("nn.rms_norm", x, self.ones(s.width), eps=1e-6)
        gate, up = self.linear(f"layers.{i}.gate", y, s.inner), self.linear(f"layers.{i}.up", y, s.inner)
        y = b.emit("nn.swiglu", gate, up)
        return b.emit("tensor.add", x, self.linear(f"layers.{i}.down", y, s.width))


def vlm(shape: Shape = Shape(), seed: int = 0) -> Module:
    """Pixels [F, 3, H*patch, W*patch] f32 and input_ids [1, rows] i64 -> logits [1, 1, vocabulary]."""
    s, net = shape, _Net(shape, seed)
    b = net.b
    f, h, w = s.grid
    pixels = b.argument("pixel_values", TensorType((f, 3, h * s.patch, w * s.patch), "f32"))
    ids = b.argument("input_ids", TensorType((1, s.rows), "i64"))
    table = net.weight(s.vocabulary, s.width, scale=1.0)
    end = s.prefix + s.visual
    parts = [net.vision(pixels)]
    if s.prefix:
        head = b.emit("tensor.slice", ids, starts=(0,), ends=(s.prefix,), axes=(1,), steps=(1,))
        parts.insert(0, b.emit("nn.embed", head, table))
    tail = b.emit("tensor.slice", ids, starts=(end,), ends=(s.rows,), axes=(1,), steps=(1,))
    parts.append(b.emit("nn.embed", tail, table))
    x = b.emit("tensor.concat", *parts, axis=1)
    angle = np.arange(s.rows)[:, None] / 10.0 ** (np.arange(s.size // 2) / 4)[None]
    angle = np.concatenate([angle, angle], 1)
    cos, sin = b.constant(np.cos(angle).astype(np.float32)), b.constant(np.sin(angle).astype(np.float32))
    for i in range(s.layers):
        x = net.layer(i, x, cos, sin)
    x = b.emit("tensor.slice", x, starts=(s.rows - 1,), ends=(s.rows,), axes=(1,), steps=(1,))
    x = b.emit("nn.rms_norm", x, net.ones(s.width), eps=1e-6)
    x = net.linear("head", x, s.vocabulary)
    layout = {"visual": (s.prefix, s.visual), "grid": s.grid, "strides": (h * w, w, 1), "query": s.query}
    return b.module("small", {"logits": x}, {"layout": layout})


def inputs(shape: Shape = Shape(), seed: int = 0, redundancy: float = 0.8) -> dict[str, np.ndarray]:
    """Random inputs; consecutive frames agree up to `redundancy`, as in video."""
    rng = np.random.default_rng(seed)
    f, h, w = shape.grid
    one = rng.standard_normal((1, 3, h * shape.patch, w * shape.patch))
    pixels = redundancy * one + (1 - redundancy) * rng.standard_normal((f, *one.shape[1:]))
    ids = rng.integers(0, shape.vocabulary, (1, shape.rows))
    return {"pixel_values": pixels.astype(np.float32), "input_ids": ids.astype(np.int64)}
