"""One small decoder layer as ONNX in two forms: with Attention and RMSNormalization nodes, and decomposed."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

ROWS, WIDTH, HEADS, KV_HEADS, SIZE, INNER = 6, 16, 4, 2, 4, 24
LOWEST = np.finfo(np.float32).min

TRIANGLE = np.tri(ROWS, dtype=bool)
BAND = TRIANGLE & ~np.tri(ROWS, k=-3, dtype=bool)
PADDED = np.array([True] * (ROWS - 1) + [False])
BLOCKS = np.kron(np.eye(2, dtype=bool), np.ones((ROWS // 2, ROWS // 2), bool))

MASKS = ("full", "causal", "window", "padding", "blocks", "bias", "condition", "added")
"""full, causal, a sliding window of three, causal with a padded key, two blocks of rows that see only themselves, a
constant bias per head, and masks that are inputs: bool, and float."""


@dataclass
class Graph:
    """Nodes and initialisers under construction."""

    nodes: list[onnx.NodeProto] = field(default_factory=list)
    weights: list[onnx.TensorProto] = field(default_factory=list)

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        """One node; its output's name."""
        name = f"{op.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(op, list(inputs), [name], name=name, **attributes))
        return name

    def const(self, value: Any, dtype: type = np.float32) -> str:
        """One initialiser; its name."""
        name = f"w{len(self.weights)}"
        self.weights.append(numpy_helper.from_array(np.asarray(value, dtype), name))
        return name

    def ints(self, *values: int) -> str:
        """A list of integers."""
        return self.const(values, np.int64)


def weights() -> dict[str, np.ndarray]:
    """Seeded weights and rotary angles."""
    rng = np.random.default_rng(3)
    shapes = {"q": (WIDTH, HEADS * SIZE), "k": (WIDTH, KV_HEADS * SIZE), "v": (WIDTH, KV_HEADS * SIZE),
              "o": (HEADS * SIZE, WIDTH), "gate": (WIDTH, INNER), "up": (WIDTH, INNER), "down": (INNER, WIDTH),
              "norm1": (WIDTH,), "norm2": (WIDTH,), "bias": (HEADS, ROWS, ROWS), "angles": (ROWS, SIZE // 2)}
    return {name: rng.standard_normal(shape).astype(np.float32) / 4 for name, shape in shapes.items()}


def decoder(opset: int, mask: str) -> onnx.ModelProto:
    """The layer with this mask (one of MASKS); opset 23 uses Attention, RMSNormalization and RotaryEmbedding."""
    g, w = Graph(), weights()
    fused = opset >= 23
    x = "x"
    h = norm(g, x, w["norm1"], fused)
    q, k, v = (heads(g, g("MatMul", h, g.const(w[n])), count) for n, count in
               (("q", HEADS), ("k", KV_HEADS), ("v", KV_HEADS)))
    q, k = rope(g, q, w["angles"], fused), rope(g, k, w["angles"], fused)
    y = attention_node(g, q, k, v, mask, w["bias"]) if fused else attention_spelled(g, q, k, v, mask, w["bias"])
    rows = g("Reshape", g("Transpose", y, perm=[0, 2, 1, 3]), g.ints(1, ROWS, HEADS * SIZE))
    x = g("Add", x, g("MatMul", rows, g.const(w["o"])))
    h = norm(g, x, w["norm2"], fused)
    gate = g("MatMul", h, g.const(w["gate"]))
    inner = g("Mul", g("Mul", gate, g("Sigmoid", gate)), g("MatMul", h, g.const(w["up"])))
    g.nodes.append(helper.make_node("Add", [x, g("MatMul", inner, g.const(w["down"]))], ["y"], name="y"))
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, ROWS, WIDTH])]
    if mask in ("condition", "added"):
        kind = TensorProto.BOOL if mask == "condition" else TensorProto.FLOAT
        inputs.append(helper.make_tensor_value_info("mask", kind, [1, 1, ROWS, ROWS]))
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, ROWS, WIDTH])
    graph = helper.make_graph(g.nodes, "layer", inputs, [output], g.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def samples(mask: str) -> dict[str, np.ndarray]:
    """Seeded inputs; every row sees at least one key."""
    rng = np.random.default_rng(5)
    found: dict[str, np.ndarray] = {"x": rng.standard_normal((1, ROWS, WIDTH)).astype(np.float32)}
    if mask == "condition":
        found["mask"] = (rng.random((1, 1, ROWS, ROWS)) < 0.6) | np.eye(ROWS, dtype=bool)
    if mask == "added":
        found["mask"] = rng.standard_normal((1, 1, ROWS, ROWS)).astype(np.float32)
    return found


def norm(g: Graph, x: str, gamma: np.ndarray, fused: bool) -> str:
    """Root-mean-square normalisation."""
    if fused:
        return g("RMSNormalization", x, g.const(gamma), epsilon=1e-6, axis=-1)
    mean = g("ReduceMean", g("Pow", x, g.const(2.0)), g.ints(-1), keepdims=1)
    root = g("Reciprocal", g("Sqrt", g("Add", mean, g.const(1e-6))))
    return g("Mul", g("Mul", x, root), g.const(gamma))


def heads(g: Graph, x: str, count: int) -> str:
    """[1, heads, rows, size]."""
    return g("Transpose", g("Reshape", x, g.ints(1, ROWS, count, SIZE)), perm=[0, 2, 1, 3])


def rope(g: Graph, x: str, angles: np.ndarray, fused: bool) -> str:
    """Rotary embedding."""
    if fused:
        return g("RotaryEmbedding", x, g.const(np.cos(angles)[None]), g.const(np.sin(angles)[None]))
    cos, sin = (g.const(np.concatenate([t, t], -1)[None, None]) for t in (np.cos(angles), np.sin(angles)))
    low = g("Slice", x, g.ints(0), g.ints(SIZE // 2), g.ints(3))
    high = g("Slice", x, g.ints(SIZE // 2), g.ints(2**63 - 1), g.ints(3))
    turned = g("Concat", g("Neg", high), low, axis=-1)
    return g("Add", g("Mul", x, cos), g("Mul", turned, sin))


def attention_node(g: Graph, q: str, k: str, v: str, mask: str, bias: np.ndarray) -> str:
    """The Attention node of opset 23."""
    operand = {"window": lambda: g.const(BAND, bool), "padding": lambda: g.const(PADDED[None, None, None], bool),
               "blocks": lambda: g.const(BLOCKS, bool), "bias": lambda: g.const(bias), "condition": lambda: "mask",
               "added": lambda: "mask"}
    masks = [operand[mask]()] if mask in operand else []
    return g("Attention", q, k, v, *masks, is_causal=int(mask in ("causal", "padding")))


def attention_spelled(g: Graph, q: str, k: str, v: str, mask: str, bias: np.ndarray) -> str:
    """Repeated key/value heads, the root of the scale on both sides, an added mask, a guard against NaN."""
    k, v = (g("Reshape", g("Expand", g("Unsqueeze", t, g.ints(2)), g.ints(1, KV_HEADS, HEADS // KV_HEADS, ROWS, SIZE)),
              g.ints(1, HEADS, ROWS, SIZE)) for t in (k, v))
    root = g.const(np.sqrt(1 / np.sqrt(SIZE)))
    score = g("MatMul", g("Mul", q, root), g("Mul", g("Transpose", k, perm=[0, 1, 3, 2]), root))
    constant = {"causal": np.where(TRIANGLE, 0, LOWEST), "window": np.where(BAND, 0, -np.inf),
                "padding": np.where(TRIANGLE & PADDED, 0, LOWEST)[None, None], "blocks": np.where(BLOCKS, 0, -1e4),
                "bias": bias}
    if mask in constant:
        score = g("Add", score, g.const(constant[mask]))
    elif mask == "condition":
        score = g("Add", score, g("Where", "mask", g.const(0.0), g.const(-np.inf)))
    elif mask == "added":
        score = g("Add", "mask", score)
    share = g("Softmax", score, axis=-1)
    return g("MatMul", g("Where", g("IsNaN", share), g.const(0.0), share), v)


def windowed(opset: int) -> onnx.ModelProto:
    """Attention within windows of two rows, as vision encoders export it: Split, one attention a window, Concat."""
    g, w = Graph(), weights()
    qkv = [g("MatMul", "x", g.const(w[n] if n == "q" else np.tile(w[n], 2))) for n in "qkv"]
    parts = []
    for x in qkv:
        names = [f"{x}_{i}" for i in range(3)]
        apart = g("Transpose", g("Reshape", x, g.ints(1, ROWS, HEADS, SIZE)), perm=[0, 2, 1, 3])
        g.nodes.append(helper.make_node("Split", [apart, g.ints(2, 2, 2)], names, axis=2, name=f"split_{x}"))
        parts.append(names)
    windows = []
    for q, k, v in zip(*parts, strict=True):
        if opset >= 23:
            y = g("Attention", q, k, v)
        else:
            score = g("Mul", g("MatMul", q, g("Transpose", k, perm=[0, 1, 3, 2])), g.const(1 / np.sqrt(SIZE)))
            y = g("MatMul", g("Softmax", score, axis=-1), v)
        windows.append(g("Transpose", y, perm=[0, 2, 1, 3]))
    rows = g("Reshape", g("Concat", *windows, axis=1), g.ints(1, ROWS, HEADS * SIZE))
    g.nodes.append(helper.make_node("MatMul", [rows, g.const(w["o"])], ["y"], name="y"))
    value = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, ROWS, WIDTH]) for n in "xy"]
    graph = helper.make_graph(g.nodes, "windows", value[:1], value[1:], g.weights)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)
