"""A workload as an IR module without weights: the decoder's prefill in nn-level ops, as an import would give it."""

from __future__ import annotations

from typing import Any

from focusc.backends.workload import Workload
from focusc.ir import Builder, Loc, Module, Resource, TensorType, Value

__all__ = ["build"]


def build(workload: Workload) -> Module:
    """The module of one prefill: token numbers `text` [1, n] and embedded visual tokens `visual` [1, L, D] in, the last
    row's `logits` [1, 1, vocab] out. Where the workload has no vocabulary, embedded rows `hidden` [1, T, D] go in and
    the last row of D comes out. All weights are absent resources; the token layout is in the module's attributes.
    """
    return _Prefill(workload).module()


class _Prefill:
    def __init__(self, workload: Workload) -> None:
        self.w = workload
        self.b = Builder()

    def module(self) -> Module:
        w, b = self.w, self.b
        hidden = self.embedded()
        cos, sin = (self.weight(f"rotary.{name}", w.tokens, w.head_size) for name in ("cos", "sin"))
        for i in range(w.layers):
            hidden = self.layer(i, hidden, cos, sin)
        self.at("norm", "model.norm")
        last = b.emit("tensor.slice", hidden, starts=(w.tokens - 1,), ends=(w.tokens,), axes=(1,), steps=(1,))
        out = self.norm("model.norm", last)
        if w.vocab:
            self.at("lm_head", "lm_head")
            out = self.linear("lm_head", out, w.width, w.vocab)
        attrs: dict[str, Any] = {"workload": {"name": w.name}}
        if w.visual_tokens:
            attrs["workload"]["concentrate"] = {"schedule": w.schedule, "threshold": w.threshold}
            layout = w.layout
            attrs["layout"] = {
                "visual": (layout.start, layout.length),
                "grid": layout.grid,
                "strides": layout.strides,
                "query": layout.query,
            }
        return b.module(w.name, {"logits" if w.vocab else "out": out}, attrs)

    def at(self, node: str, path: str) -> None:
        """Later ops carry this source location."""
        self.b.loc = Loc(node=node, module_path=path)

    def weight(self, name: str, *shape: int) -> Value:
        """A constant of which only the shape is known."""
        return self.b.constant(Resource.without_values(name, shape))

    def linear(self, path: str, x: Value, inputs: int, outputs: int, *, bias: bool = False) -> Value:
        """x @ weight (+ bias)."""
        weight = self.weight(f"{path}.weight", inputs, outputs)
        return self.b.emit("nn.linear", x, weight, self.weight(f"{path}.bias", outputs) if bias else None)

    def norm(self, path: str, x: Value) -> Value:
        """RMSNorm with its gains."""
        return self.b.emit("nn.rms_norm", x, self.weight(f"{path}.weight", self.w.width), eps=self.w.norm_eps)

    def embedded(self) -> Value:
        """The rows of the whole sequence [1, T, D]."""
        w, b = self.w, self.b
        if not w.vocab:
            return b.argument("hidden", TensorType((1, w.tokens, w.width), "f32"))
        self.at("embed_tokens", "model.embed_tokens")
        ids = b.argument("text", TensorType((1, w.text_tokens), "i64"))
        visual = b.argument("visual", TensorType((1, w.visual_tokens, w.width), "f32")) if w.visual_tokens else None
        table = self.weight("model.embed_tokens.weight", w.vocab, w.width)
        text = b.emit("nn.embed", ids, table)
        if visual is None:
            return text
        before, after = (
            [b.emit("tensor.slice", text, starts=(start,), ends=(end,), axes=(1,), steps=(1,))] if end > start else []
            for start, end in ((0, w.text_before), (w.text_before, w.text_tokens))
        )
        return b.emit("tensor.concat", *before, visual, *after, axis=1)

    def layer(self, index: int, hidden: Value, cos: Value, sin: Value) -> Value:
        """One decoder layer of the Qwen2 kind: RMSNorm, grouped-query attention with rotary positions, SwiGLU."""
        w, b = self.w, self.b
        path, node = f"model.layers.{index}", f"layers.{index}"

        def project(name: str, part: str, x: Value, inputs: int, outputs: int, *, bias: bool = False) -> Value:
            self.at(f"{node}.{name}", f"{path}.{part}.{name}")
            return self.linear(f"{path}.{part}.{name}", x, inputs, outputs, bias=bias)

        self.at(f"{node}.input_layernorm", f"{path}.input_layernorm")
        x = self.norm(f"{path}.input_layernorm", hidden)
        q, k, v = (
            project(f"{name}_proj", "self_attn", x, w.width, width, bias=w.qkv_bias)
            for name, width in (("q", w.q_width), ("k", w.kv_width), ("v", w.kv_width))
        )
        self.at(f"{node}.rotary", f"{path}.self_attn.rotary_emb")
        q = b.emit("nn.rope", q, cos, sin, heads=w.heads)
        k = b.emit("nn.rope", k, cos, sin, heads=w.kv_heads)
        self.at(f"{node}.attention", f"{path}.self_attn")
        a = b.emit(
            "nn.attention", q, k, v, heads=w.heads, kv_heads=w.kv_heads, scale=w.head_size**-0.5, causal=True
        )
        o = project("o_proj", "self_attn", a, w.q_width, w.width)
        self.at(f"{node}.attention_add", path)
        hidden = b.emit("tensor.add", hidden, o)
        self.at(f"{node}.post_attention_layernorm", f"{path}.post_attention_layernorm")
        x = self.norm(f"{path}.post_attention_layernorm", hidden)
        gate, up = (project(f"{name}_proj", "mlp", x, w.width, w.ffn) for name in ("gate", "up"))
        self.at(f"{node}.act", f"{path}.mlp.act_fn")
        x = b.emit("nn.swiglu", gate, up)
        down = project("down_proj", "mlp", x, w.ffn, w.width)
        self.at(f"{node}.mlp_add", path)
        return b.emit("tensor.add", hidden, down)
