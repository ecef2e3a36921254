"""Layers of other shapes than the usual one: all sites are found, and their pruned and merged modules run."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import pytest

from focusc.ir import Builder, Module, TensorType, Value, interpret, verify
from focusc.ir.concentration.sites import macs
from focusc.ir.concentration.structure import find_decoder_layers
from focusc.ir.passes.concentrate import concentrate
from tests.graphs import shape_of
from tests.ir.concentrate.decoder import Shape, decoder, video_like

S = Shape(layers=2)
SITES = ["qkv_in", "query", "o_in", "mlp_in", "down_in"]
OFF = {"method": "focus", "threshold": 1.5, "schedule": "0:1"}
"""Concentrates everywhere and changes nothing."""


@dataclass
class Made:
    """A decoder under construction: weights, and the parts that its layers are made of."""

    b: Builder
    rng: np.random.Generator

    def constant(self, *shape: int, scale: float = 1.0) -> Value:
        return self.b.constant((self.rng.standard_normal(shape) * scale).astype(np.float32))

    def norm(self, x: Value) -> Value:
        return self.b.emit("nn.rms_norm", x, self.constant(S.width), eps=1e-6)

    def linear(self, x: Value, n: int, biased: bool = False) -> Value:
        k = shape_of(x)[-1]
        weight = self.constant(k, n, scale=k**-0.5)
        return self.b.emit("nn.linear", x, weight, self.constant(n)) if biased else self.b.emit("nn.linear", x, weight)

    def add(self, a: Value, b: Value) -> Value:
        return self.b.emit("tensor.add", a, b)

    def attention(self, x: Value, biased: bool = False, normed: bool = False) -> Value:
        """Projections (with biases; with a norm of every head) and causal attention."""
        q, k, v = (self.linear(x, n * S.head_size, biased) for n in (S.heads, S.kv_heads, S.kv_heads))
        if normed:
            q, k = (self.head_norm(q, S.heads), self.head_norm(k, S.kv_heads))
        a = self.b.emit("nn.attention", q, k, v, heads=S.heads, kv_heads=S.kv_heads, scale=0.2, causal=True)
        return self.linear(a, S.width, biased)

    def head_norm(self, x: Value, heads: int) -> Value:
        rows = shape_of(x)[-2]
        split = self.b.emit("tensor.reshape", x, shape=(1, rows, heads, S.head_size))
        split = self.b.emit("nn.rms_norm", split, self.constant(S.head_size), eps=1e-6)
        return self.b.emit("tensor.reshape", split, shape=(1, rows, heads * S.head_size))

    def mlp(self, x: Value, gated: bool = True, biased: bool = False) -> Value:
        one = self.linear(x, S.hidden, biased)
        hidden = self.b.emit("nn.swiglu", one, self.linear(x, S.hidden)) if gated else self.b.emit("nn.gelu", one)
        return self.linear(hidden, S.width, biased)

    def scan(self, x: Value) -> Value:
        """A mixer that is no attention: running means of gated rows."""
        gate = self.b.emit("tensor.sigmoid", self.linear(x, S.width))
        mixed = self.b.emit("tensor.cumsum", self.b.emit("tensor.mul", self.linear(x, S.width), gate), axis=1)
        return self.linear(self.b.emit("tensor.mul", mixed, self.b.constant(np.float32(1 / S.rows))), S.width)

    def layer(self, h: Value, kind: str) -> Value:
        x = self.norm(h)
        if kind == "attention, then MLP, added to the stream":
            return self.add(self.add(h, self.attention(x)), self.mlp(x))
        if kind == "attention and MLP, added to each other":
            return self.add(self.add(self.mlp(x, gated=False), self.attention(x)), h)
        if kind == "MLP with a norm of its own beside the attention":
            return self.add(self.add(h, self.attention(x)), self.mlp(self.norm(h), gated=False))
        if kind == "norms before and behind":
            h = self.add(h, self.norm(self.attention(x)))
            return self.add(h, self.norm(self.mlp(self.norm(h))))
        if kind == "linear attention":
            h = self.add(h, self.scan(x))
            return self.add(h, self.mlp(self.norm(h)))
        h = self.add(self.attention(x, biased=True, normed=True), h)
        return self.add(self.mlp(self.norm(h), gated=False, biased=True), h)


PARALLEL = ["attention, then MLP, added to the stream", "attention and MLP, added to each other",
            "MLP with a norm of its own beside the attention"]
KINDS = [*PARALLEL, "norms before and behind", "biases, norms of heads, GELU"]


def made(*kinds: str, shape: Shape = S) -> Module:
    build = Made(Builder(), np.random.default_rng(0))
    b = build.b
    h = b.argument("x", TensorType((1, shape.rows, shape.width), "f32"))
    for kind in kinds:
        h = build.layer(h, kind)
    last = b.emit("tensor.slice", h, starts=(shape.rows - 1,), ends=(shape.rows,), axes=(1,), steps=(1,))
    logits = build.linear(build.norm(last), 10)
    return b.module("m", {"logits": logits}, {"layout": decoder(shape).attrs["layout"]})


def gathers(module: Module) -> list[tuple[int, str]]:
    return [(op.attrs["layer"], op.attrs["site"]) for op in module.walk() if op.name == "sic.gather"]


@pytest.mark.parametrize("kind", KINDS)
def test_all_sites_of_a_layer_are_found(kind: str) -> None:
    module = made(kind, kind)
    layers = find_decoder_layers(module)
    assert [layer.index for layer in layers] == [0, 1]
    assert all(layer.parallel == (kind in PARALLEL) for layer in layers)
    assert len({id(op) for layer in layers for op in layer.linears}) == sum(len(layer.linears) for layer in layers)
    assert all(not layer.missing for layer in layers)
    x = {"x": video_like(S)}
    same = concentrate(module, **OFF)
    np.testing.assert_array_equal(interpret(same, x)["logits"], interpret(module, x)["logits"])
    out = concentrate(module, schedule="0:0.5,1:0.25")
    verify(out)
    assert sorted(gathers(out)) == sorted((i, site) for i in (0, 1) for site in SITES)
    assert "left_out" not in out.attrs["concentrate"]
    interpret(out, x)
    rows = [shape_of(op.result)[1] for op in out.walk() if op.name == "nn.attention"]
    assert rows == [42, 24]


@pytest.mark.parametrize("kind", PARALLEL)
def test_the_mlp_beside_an_attention_sees_the_tokens_of_before(kind: str) -> None:
    """A pruning shortens the stream behind the layer, whose MLP was computed from the same rows as its attention."""
    out = concentrate(made(kind, kind), method="sec", schedule="0:0.5")
    first, second = (shape_of(layer.down[0].result)[1] for layer in find_decoder_layers(out))
    assert (first, second) == (42, 24)
    assert macs(out).executed < macs(out).dense


@pytest.mark.parametrize("places", [(0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_layers_without_a_causal_attention_are_counted_and_said(places: tuple[int, ...]) -> None:
    kinds = ["linear attention" if i in places else "usual" for i in range(3)]
    module = made(*kinds)
    layers = find_decoder_layers(module)
    assert [layer.index for layer in layers] == [0, 1, 2]
    assert [i for i, layer in enumerate(layers) if layer.attention is None] == list(places)
    out = concentrate(module, threshold=0.8)
    verify(out)
    interpret(out, {"x": video_like(S)})
    assert sorted(gathers(out)) == sorted(
        (i, site) for i in range(3) for site in SITES if site != "query" or i not in places)
    last = max((i for i in range(3) if i not in places), default=-1)
    able = last if last > max(places) else None
    assert [layer for layer, _ in out.attrs["concentrate"]["schedule"]] == ([] if able is None else (
        list(range(max(places) + 1, 3))))
    said = [(layer, site) for layer, site, _ in out.attrs["concentrate"]["left_out"]]
    assert set(said) == {(i, "query") for i in places} | {(i, "prune") for i in range(max(places) + 1)}


def prefix(shape: Shape = S) -> Module:
    """A decoder of a prefix model, behind a vision encoder of as many rows: no attention is causal."""
    build = Made(Builder(), np.random.default_rng(0))
    b = build.b
    image = b.argument("image", TensorType((1, shape.rows, shape.width), "f32"))
    seen = build.layer(image, "usual")
    ids = b.argument("ids", TensorType((1, shape.rows), "i64"))
    h = b.emit("tensor.add", b.emit("nn.embed", ids, build.constant(20, shape.width)), seen)
    for _ in range(2):
        h = build.layer(h, "usual")
    last = b.emit("tensor.slice", h, starts=(shape.rows - 1,), ends=(shape.rows,), axes=(1,), steps=(1,))
    module = b.module("m", {"logits": build.linear(build.norm(last), 10)}, {"layout": decoder(shape).attrs["layout"]})
    for op in module.walk():
        if op.name == "nn.attention":
            op.attrs["causal"] = False
    return module


def test_a_prefix_decoder_is_told_from_a_vision_encoder_by_its_text() -> None:
    module = prefix()
    attentions = [op for op in module.walk() if op.name == "nn.attention"]
    assert [layer.attention for layer in find_decoder_layers(module)] == attentions[1:]
    out = concentrate(module, schedule="0:0.5", threshold=0.8)
    verify(out)
    assert len(find_decoder_layers(out)) == 2
    (ranked,) = (op for op in out.walk() if op.name == "sec.importance")
    assert ranked.attrs["causal"] is False
    inputs = {"image": video_like(S), "ids": np.arange(S.rows, dtype=np.int64)[None] % 20}
    interpret(out, inputs)
    found, plain = macs(out), macs(module)
    pairs = 2 * S.rows**2 * S.heads * S.head_size
    assert plain.dense - sum(42 * math.prod(shape_of(op.operands[1])) for layer in find_decoder_layers(module)
                             for op in layer.linears) == 2 * pairs
    assert found.dense == plain.dense > found.executed
