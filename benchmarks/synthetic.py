"""A decoder of any size with random weights, written as ONNX (opset 23), and inputs that resemble video.

It has what a Qwen2-shaped decoder has: RMSNorm, rotary positions, grouped-query causal attention, SwiGLU, a head for
the last position; its input is the sequence of embeddings. Used to measure speed and program size, where no trained
model is needed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

Array = np.ndarray[Any, np.dtype[Any]]


@dataclass(frozen=True)
class Decoder:
    """Shape of a synthetic decoder. Tokens: `prefix` text, frames x rows x columns visual, `query` text."""

    width: int = 64
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    mlp: int = 96
    frames: int = 2
    rows: int = 4
    columns: int = 4
    prefix: int = 2
    query: int = 4
    vocabulary: int = 32
    seed: int = 0

    @property
    def visual(self) -> int:
        """Visual tokens."""
        return self.frames * self.rows * self.columns

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return self.prefix + self.visual + self.query

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the linears, of causal attention counted in full, and of the head."""
        head = self.width // self.heads
        linears = self.width * (2 * self.width + 2 * self.kv_heads * head + 3 * self.mlp)
        return self.layers * self.tokens * (linears + 2 * self.tokens * self.width) + self.width * self.vocabulary

    def onnx(self) -> onnx.ModelProto:
        """The model; weights are drawn from `seed`."""
        return _Writer(self).model()

    def write(self, path: Path) -> Path:
        """Write the model to `path`."""
        onnx.save(self.onnx(), path)
        return path

    def inputs(self, seed: int = 0) -> dict[str, Array]:
        """Embeddings of a slowly changing picture: neighbours in space and time are alike, with some noise."""
        rng = np.random.default_rng(seed)
        still = rng.standard_normal((1, (self.rows + 1) // 2, (self.columns + 1) // 2, self.width))
        picture = still.repeat(2, 1)[:, : self.rows].repeat(2, 2)[:, :, : self.columns]
        moving = 0.1 * rng.standard_normal((self.frames, self.rows, self.columns, self.width)) + picture
        text = rng.standard_normal((self.prefix + self.query, self.width))
        rows = [text[: self.prefix], moving.reshape(-1, self.width), text[self.prefix :]]
        return {"embeddings": np.concatenate(rows).astype(np.float32)[None]}


class _Writer:
    """Collects nodes and weights of one model."""

    def __init__(self, shape: Decoder) -> None:
        self.shape = shape
        self.rng = np.random.default_rng(shape.seed)
        self.nodes: list[onnx.NodeProto] = []
        self.weights: list[onnx.TensorProto] = []

    def weight(self, name: str, *shape: int) -> str:
        scale = 1 / math.sqrt(shape[0]) if len(shape) > 1 else 0.0
        values = self.rng.standard_normal(shape, dtype=np.float32) * scale if scale else np.ones(shape, np.float32)
        return self.constant(name, values)

    def constant(self, name: str, values: Array) -> str:
        self.weights.append(numpy_helper.from_array(np.ascontiguousarray(values), name))
        return name

    def node(self, kind: str, inputs: list[str], name: str, **attributes: Any) -> str:
        self.nodes.append(helper.make_node(kind, inputs, [name], name=name, **attributes))
        return name

    def linear(self, x: str, name: str, rows: int, columns: int) -> str:
        return self.node("MatMul", [x, self.weight(f"{name}.weight", rows, columns)], name)

    def norm(self, x: str, name: str) -> str:
        weight = self.weight(f"{name}.weight", self.shape.width)
        return self.node("RMSNormalization", [x, weight], name, axis=-1, epsilon=1e-6)

    def layer(self, x: str, index: int) -> str:
        s, at = self.shape, f"layers.{index}"
        head = s.width // s.heads
        normed = self.norm(x, f"{at}.input_norm")
        q = self.linear(normed, f"{at}.q_proj", s.width, s.width)
        k = self.linear(normed, f"{at}.k_proj", s.width, s.kv_heads * head)
        v = self.linear(normed, f"{at}.v_proj", s.width, s.kv_heads * head)
        q = self.node("RotaryEmbedding", [q, "cos", "sin"], f"{at}.q_rope", num_heads=s.heads)
        k = self.node("RotaryEmbedding", [k, "cos", "sin"], f"{at}.k_rope", num_heads=s.kv_heads)
        attributes = {"q_num_heads": s.heads, "kv_num_heads": s.kv_heads, "is_causal": 1}
        mixed = self.node("Attention", [q, k, v], f"{at}.attention", **attributes)
        x = self.node("Add", [x, self.linear(mixed, f"{at}.o_proj", s.width, s.width)], f"{at}.attention_residual")
        normed = self.norm(x, f"{at}.mlp_norm")
        gate = self.linear(normed, f"{at}.gate_proj", s.width, s.mlp)
        up = self.linear(normed, f"{at}.up_proj", s.width, s.mlp)
        silu = self.node("Mul", [gate, self.node("Sigmoid", [gate], f"{at}.sigmoid")], f"{at}.silu")
        down = self.linear(self.node("Mul", [silu, up], f"{at}.gated"), f"{at}.down_proj", s.mlp, s.width)
        return self.node("Add", [x, down], f"{at}.mlp_residual")

    def model(self) -> onnx.ModelProto:
        s = self.shape
        half = s.width // s.heads // 2
        angles = np.arange(s.tokens)[:, None] / 10000 ** (np.arange(half) / half)
        self.constant("cos", np.cos(angles).astype(np.float32)[None])
        self.constant("sin", np.sin(angles).astype(np.float32)[None])
        x = "embeddings"
        for index in range(s.layers):
            x = self.layer(x, index)
        bounds = [
            self.constant(name, np.array([value]))
            for name, value in (("start", s.tokens - 1), ("end", s.tokens), ("axis", 1))
        ]
        last = self.node("Slice", [x, *bounds], "last")
        self.node("MatMul", [self.norm(last, "norm"), self.weight("lm_head.weight", s.width, s.vocabulary)], "logits")
        graph = helper.make_graph(
            self.nodes,
            "decoder",
            [helper.make_tensor_value_info("embeddings", TensorProto.FLOAT, [1, s.tokens, s.width])],
            [helper.make_tensor_value_info("logits", TensorProto.FLOAT, [1, 1, s.vocabulary])],
            self.weights,
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 23)], ir_version=10)
        layout = {
            "focusc.visual": f"{s.prefix},{s.visual}",
            "focusc.grid": f"{s.frames},{s.rows},{s.columns}",
            "focusc.query": str(s.query),
        }
        helper.set_model_props(model, layout)
        return model
