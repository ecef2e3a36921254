"""Finding the decoder layers of a module by what is connected to what, never by names.

A decoder layer is a (causal) attention of the whole sequence with itself, the linears that feed it, the output
projection and the residual add behind it, and the MLP between that add and the next, or beside it (parallel). A layer
that mixes tokens by other means (linear attention) is found by its place between two layers on the residual stream.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np

from focusc.ir.concentration.layout import Layout
from focusc.ir.concentration.neighbours import (
    ATTENTION,
    ancestors,
    computed_from,
    constant,
    joins,
    linears_after,
    linears_behind,
    operand,
    residual_add,
    shape,
    stream_of,
)
from focusc.ir.core import Module, Op, Value
from focusc.ir.diagnostics import fail

Use = tuple[Op, int]
"""An op and the number of one of its operands."""
PRUNE = "prune"
"""Stands for the dropping of tokens (SEC) where sites are named."""
HIDDEN = -1e3
"""What an added mask holds where a key counts as hidden: this or less."""


@dataclass(frozen=True)
class DecoderLayer:
    """One layer: its attention (None if it mixes tokens otherwise), the linears around it, and its residual adds.

    `parallel`: the MLP reads what the attention reads, and both are added to the stream together. `missing` says why a
    site, or `prune`, does not exist in the layer.
    """

    index: int
    attention: Op | None
    qkv: tuple[Op, ...]
    o_proj: tuple[Op, ...]
    attention_add: Op | None
    gate_up: tuple[Op, ...]
    down: tuple[Op, ...]
    mlp_add: Op | None
    parallel: bool = False
    missing: dict[str, str] = field(default_factory=dict[str, str])

    @property
    def heads(self) -> int:
        """Query heads; 0 without an attention."""
        return int(self.attention.attrs["heads"]) if self.attention is not None else 0

    @property
    def head_size(self) -> int:
        """Columns of a head; 0 without an attention."""
        return shape(operand(self.attention, 0))[-1] // self.heads if self.attention is not None else 0

    @property
    def linears(self) -> tuple[Op, ...]:
        """All GEMMs with weights, in order of execution."""
        return (*self.qkv, *self.o_proj, *self.gate_up, *self.down)

    @property
    def first(self) -> Op:
        """An op to point at in messages."""
        return next(op for op in (self.attention, self.attention_add, self.mlp_add) if op is not None)

    def site(self, name: str) -> tuple[Use, ...]:
        """Where the activation of a site is read."""
        ops = {
            "qkv_in": self.qkv,
            "query": (self.attention,) if self.attention is not None else (),
            "o_in": self.o_proj,
            "mlp_in": self.gate_up,
            "down_in": self.down,
        }[name]
        return tuple((op, 0) for op in ops)

    @property
    def stream_after_attention(self) -> Value | None:
        """The residual stream that the layer's pruning shortens."""
        add = self.mlp_add if self.parallel else self.attention_add
        return add.result if add is not None else None

    @property
    def hidden(self) -> Value:
        """The residual stream as it enters the layer."""
        assert self.attention_add is not None and self.o_proj
        behind = ancestors(self.o_proj[0].result)
        for value in self.attention_add.operands:
            if value is not None and value.op not in behind and not constant(value):
                return value
        return operand(self.attention_add, 0)


def decoder_attentions(module: Module, layout: Layout | None) -> list[Op]:
    """The causal attentions of a whole sequence with itself; with a layout, those that can hold the visual span.

    A prefix decoder (PaliGemma) has none in a prefill: there, those of the layout's whole sequence that depend on
    embedded text, as no vision encoder does.
    """
    found = [op for op in module.body.ops if op.name == ATTENTION and _of_itself(op)]
    causal = [op for op in found if op.attrs["causal"] and (layout is None or _rows(op) > layout.start)]
    if causal or layout is None:
        return causal
    text: set[Op] = set()
    for op in module.body.ops:
        if op.name == "nn.embed" or any(v is not None and v.op in text for v in op.operands):
            text.add(op)
    total = layout.end + layout.query
    pruned = "concentrate" in module.attrs
    return [op for op in found if op in text and (_rows(op) == total or (pruned and layout.start < _rows(op) < total))]


def _rows(op: Op) -> int:
    return shape(operand(op, 0))[-2]


def _of_itself(op: Op) -> bool:
    return _rows(op) == shape(operand(op, 1))[-2] and _rows(op) > 1


def find_decoder_layers(module: Module) -> list[DecoderLayer]:
    """The decoder layers in order, in a module of level `nn`, concentrated or not. CompileError if there is none."""
    layout = Layout.of(module) if module.attrs.get("layout") else None
    found = decoder_attentions(module, layout)
    if not found:
        raise fail(
            "concentrate.structure",
            f"module {module.name} has no attention of the whole sequence with itself, so there are no "
            "decoder layers to concentrate",
            hint="run the fusion passes first (fuse-nn)",
        )
    order = {op: i for i, op in enumerate(module.body.ops)}
    layers: list[DecoderLayer] = []
    for op in found:
        layer = _layer(op, layout, order)
        if layer.attention_add is not None and layer.o_proj:
            layers += _between(layers[-1] if layers else None, layer.hidden, order)
        layers.append(layer)
    layers += _behind(layers[-1], order)
    return [replace(layer, index=i) for i, layer in enumerate(layers)]


def _layer(attention: Op, layout: Layout | None, order: dict[Op, int]) -> DecoderLayer:
    missing: dict[str, str] = {}
    qkv: list[Op] = []
    for i in range(3):
        behind = linears_behind(operand(attention, i))
        if not behind:
            missing["qkv_in"] = f"the {'qkv'[i]} operand of its attention does not come from an nn.linear"
        qkv += [op for op in behind if op not in qkv]
    o_proj = linears_after([attention], lambda u: u.name == ATTENTION or u.name.startswith("sec."))
    if not o_proj:
        missing["o_in"] = "no nn.linear follows its attention"
    add = residual_add((o_proj[0] if o_proj else attention).result)
    if add is None:
        missing[PRUNE] = missing["mlp_in"] = missing["down_in"] = "no residual add follows its output projection"
        return DecoderLayer(-1, attention, tuple(qkv), tuple(o_proj), None, (), (), None, missing=missing)
    gate_up, down, mlp_add = _mlp(add, missing)
    parallel = not gate_up and len(o_proj) > 0
    if parallel:
        gate_up, down, mlp_add = _parallel_mlp(add, o_proj[0], order)
        parallel = bool(gate_up)
    if parallel:
        missing = {site: why for site, why in missing.items() if site not in ("mlp_in", "down_in")}
    blind = _blind(attention, layout) if layout is not None else ""
    if blind:
        missing[PRUNE] = blind
    return DecoderLayer(
        -1, attention, tuple(qkv), tuple(o_proj), add, tuple(gate_up), tuple(down), mlp_add, parallel, missing
    )


def _blind(attention: Op, layout: Layout) -> str:
    """Why the prompt does not see all visual tokens, so that its attention cannot rank them; "" if it does."""
    window = attention.attrs["window"]
    if 0 < window < shape(operand(attention, 0))[-2] - layout.start:
        return f"its attention has a window of {window} tokens, so the prompt does not see them all"
    mask = attention.operands[3]
    if mask is None:
        return ""
    if not constant(mask) or mask.op is None or mask.op.attrs["value"].absent:
        return "its attention has a mask that is not known when compiling"
    values = np.atleast_2d(mask.op.attrs["value"].array)
    seen = values if values.dtype == bool else values > HIDDEN
    asking = seen[..., -layout.query :, :] if seen.shape[-2] > 1 else seen
    if asking[..., layout.start : layout.end].all():
        return ""
    return "its attention's mask hides visual tokens from the prompt"


def _mlp(add: Op, missing: dict[str, str]) -> tuple[list[Op], list[Op], Op | None]:
    """First linears, second linears and residual add of the MLP that reads the stream behind `add`."""
    gate_up = linears_after([add], joins)
    down = linears_after(gate_up, joins)
    if not gate_up:
        missing["mlp_in"] = missing["down_in"] = "no MLP follows its first residual add"
    elif not down:
        missing["down_in"] = "its MLP has no second nn.linear"
    return gate_up, down, residual_add(down[0].result) if down else None


def _parallel_mlp(add: Op, o_proj: Op, order: dict[Op, int]) -> tuple[list[Op], list[Op], Op | None]:
    """The MLP whose result is added to the stream together with the attention's, in either order."""
    after = residual_add(add.result)
    if after is None:
        return [], [], None
    attention_side = ancestors(o_proj.result)
    rest = [v for v in (*add.operands, *after.operands) if v is not None and v.op not in {add, *attention_side}]
    if len(rest) != 2:
        return [], [], None
    stream = next((a for a, b in (rest, rest[::-1]) if computed_from(b, a, order)), None)
    down = [op for value in rest if value is not stream for op in linears_behind(value)]
    if stream is None or not down:
        return [], [], None
    gate_up = [
        op for last in down for op in linears_behind(operand(last, 0)) if computed_from(op.result, stream, order)
    ]
    return list(dict.fromkeys(gate_up)), down, after


def _between(before: DecoderLayer | None, hidden: Value, order: dict[Op, int]) -> list[DecoderLayer]:
    """Layers without a causal attention on the stream before `hidden`, back to the layer before or to its start."""
    end = before.mlp_add.result if before is not None and before.mlp_add is not None else None
    adds: list[Op] = []
    value = hidden
    while value is not end and value.op is not None and joins(value.op):
        stream = stream_of(value.op, order)
        if stream is None:
            break
        adds.insert(0, value.op)
        value = stream
    if len(adds) % 2 or (before is not None and value is not end):
        return []
    streams = [value, *(op.result for op in adds)]
    return [_mixer(streams[i], *adds[i : i + 2]) for i in range(0, len(adds), 2)]


def _behind(last: DecoderLayer, order: dict[Op, int]) -> list[DecoderLayer]:
    """Layers without a causal attention behind the last one that has one."""
    found: list[DecoderLayer] = []
    value = last.mlp_add.result if last.mlp_add is not None else None
    while value is not None:
        adds: list[Op] = []
        stream = value
        for _ in range(2):
            add = next((u for u in stream.users if joins(u) and stream_of(u, order) is stream), None)
            if add is None:
                return found
            adds.append(add)
            stream = add.result
        found.append(_mixer(value, *adds))
        value = stream
    return found


def _mixer(stream: Value, add: Op, mlp_add: Op) -> DecoderLayer:
    """The layer whose two residual adds are given, the first of which adds something else than a causal attention."""
    why = "it mixes tokens without a causal softmax attention"
    missing = {"query": why, PRUNE: f"{why}, so there are no weights to rank them by"}
    branch = next(v for v in add.operands if v is not None and v is not stream)
    qkv = [op for user in stream.users if user is not add for op in _first_linears(user)]
    o_proj = linears_behind(branch)
    for site, found in (("qkv_in", qkv), ("o_in", o_proj)):
        if not found:
            missing[site] = "no nn.linear was found there"
    gate_up, down, _ = _mlp(add, missing)
    return DecoderLayer(
        -1, None, tuple(dict.fromkeys(qkv)), tuple(o_proj), add, tuple(gate_up), tuple(down), mlp_add, missing=missing
    )


def _first_linears(op: Op) -> list[Op]:
    return [op] if op.name == "nn.linear" else linears_after([op], joins)
