"""Training's forward pass: several questions share one visual prefix, and only text rows see their own question.

The visual rows of a causal prefill do not depend on the text behind them, so N questions cost one visual pass.
Attention is written as batched products, which trains about three times faster on a CPU than the fused kernel here.
Thinning imitates, at training time, what token pruning does later: see `Thinning`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor

from .model import Attention, DecoderLayer, DemoModel
from .scene import GRID
from .tokenizer import PREFIX, QUERY, token_id

__all__ = ["Thinning", "forward"]


@dataclass(frozen=True)
class Thinning:
    """Which visual tokens later layers see.

    drop: {layer: share of the original tokens that remain after that layer's attention}, at random, gone for good.
    focus: the same, but chosen per question by its text rows' attention, and hidden from the text rows alone (visual
    rows are shared by all questions here, so they keep seeing everything).
    merge: cosine above which a 32-wide piece of a visual row is replaced by the same piece of the frame before, at the
    inputs of the projections and of the MLP. Needs all frames in place, so it does not go with drop.
    """

    drop: tuple[tuple[int, float], ...] = ()
    focus: tuple[tuple[int, float], ...] = ()
    merge: float | None = None


def _merged(x: Tensor, start: int, visual: int, threshold: float | None) -> Tensor:
    """Imitate vector merging: chains of similar pieces along time take their first member's values."""
    if threshold is None:
        return x
    b, _, d = x.shape
    pieces = x[:, start:start + visual].reshape(b, -1, GRID * GRID, d // 32, 32)
    with torch.no_grad():
        unit = torch.nn.functional.normalize(pieces, dim=-1)
        linked = ((unit[:, 1:] * unit[:, :-1]).sum(-1, keepdim=True) > threshold).float()
    out = [pieces[:, 0]]
    for t in range(1, pieces.shape[1]):
        out.append(torch.lerp(pieces[:, t], out[-1], linked[:, t - 1]))
    merged = torch.stack(out, dim=1).reshape(b, visual, d)
    return torch.cat([x[:, :start], merged, x[:, start + visual:]], dim=1)


def _heads(x: Tensor, kv: int) -> Tensor:
    """[B, heads, T, s] -> [B, kv, group * T, s]: a group's query heads share one product with its key head."""
    b, h, t, s = x.shape
    return x.reshape(b, kv, h // kv * t, s)


def _visual_rows(q: Tensor, k: Tensor, v: Tensor, mask: Tensor) -> Tensor:
    """Causal attention of the prefix on itself: q [B, heads, P, s], k and v [B, kv, P, s]. In four runs of rows, each
    with the keys up to its end, which leaves out most of what the mask would hide."""
    b, heads, p, s = q.shape
    kv, out = k.shape[1], []
    ends = [round(p * i / 4) for i in range(5)]
    for first, last in pairwise(ends):
        rows = last - first
        scores = (_heads(q[:, :, first:last], kv) @ k[:, :, :last].transpose(-1, -2)).view(b, heads, rows, last)
        weights = torch.softmax(scores + mask[first:last, :last], dim=-1).view(b, kv, -1, last)
        out.append((weights @ v[:, :, :last]).view(b, heads, rows, s))
    return torch.cat(out, dim=2)


def _attend(attention: Attention, x: Tensor, rope: tuple[Tensor, Tensor], prefix: int, mask: Tensor,
            hidden: Tensor | None, *, answer_only: bool = False) -> tuple[Tensor, Tensor]:
    """Attention output [B, T, width] and the text rows' weights on the prefix [B, heads, N, Q, prefix].

    x is [B, prefix + N * Q, width]; mask is the causal bias [prefix, prefix]; hidden, if given, is a bias
    [B, N, prefix] on what each question may see. With `answer_only`, only the last row of each question is computed:
    [B, N, width].
    """
    b, t, _ = x.shape
    kv, heads, size = attention.kv_heads, attention.heads, attention.size
    n = (t - prefix) // QUERY
    rows = 1 if answer_only else QUERY
    q, k, v = attention.project(x, *rope)
    q = q * size**-0.5
    kp, vp = k[:, :, :prefix], v[:, :, :prefix]
    qt = q[:, :, prefix:].view(b, heads, n, QUERY, size)[:, :, :, -rows:].reshape(b, heads, n * rows, size)
    seen = (_heads(qt, kv) @ kp.transpose(-1, -2)).view(b, heads, n, rows, prefix)
    if hidden is not None:
        seen = seen + hidden[:, None, :, None]
    own_q = qt.reshape(b, kv, heads // kv, n, rows, size)
    own_k, own_v = (z[:, :, None, prefix:].reshape(b, kv, 1, n, QUERY, size) for z in (k, v))
    own = (own_q @ own_k.transpose(-1, -2)).view(b, heads, n, rows, QUERY) + mask[QUERY - rows:QUERY, :QUERY]
    both = torch.softmax(torch.cat([seen, own], dim=-1), dim=-1)
    on_prefix = both[..., :prefix]
    out = (on_prefix.reshape(b, kv, -1, prefix) @ vp).view(b, heads, n * rows, size)
    on_own = both[..., prefix:].reshape(b, kv, heads // kv, n, rows, QUERY) @ own_v
    out = out + on_own.view(b, heads, n * rows, size)
    if not answer_only:
        out = torch.cat([_visual_rows(q[:, :, :prefix], kp, vp, mask), out], dim=2)
    return attention.o_proj(out.transpose(1, 2).reshape(b, out.shape[2], -1)), on_prefix


def forward(model: DemoModel, pixels: Tensor, queries: Tensor, frames: Tensor,
            thinning: Thinning = Thinning(), tap: list[Tensor] | None = None) -> tuple[Tensor, Tensor]:
    """Logits [B, N, vocabulary] of N questions per video, and the vision tower's features [B * f, 36, width].

    pixels [B, f, 3, 48, 48]; queries int64 [B, N, 10]; frames int64 [B, f] are the numbers of the frames given, so that
    training may look at some of the eight. `tap`, if given, receives the text rows [B, N, 10, width]
    after three layers.
    """
    b, f = frames.shape
    n = queries.shape[1]
    start, cells = len(PREFIX), GRID * GRID
    features = model.vision(pixels.flatten(0, 1))
    visual = (model.projector(features) + model.position[frames.flatten()]).reshape(b, f * cells, -1)
    length = f * cells
    before = model.embed_tokens(torch.tensor([token_id(w) for w in PREFIX])).expand(b, -1, -1)
    x = torch.cat([before, visual, model.embed_tokens(queries).flatten(1, 2)], dim=1)
    at = start + (frames[:, :, None] * cells + torch.arange(cells)).flatten(1)
    at = torch.cat([torch.arange(start).expand(b, -1), at,
                    (torch.arange(QUERY) + model.cos.shape[0] - QUERY).repeat(b, n)], dim=1)
    cos, sin = model.cos[at][:, None], model.sin[at][:, None]
    causal = torch.full((start + length,) * 2, -1e9).triu(1)
    hidden: Tensor | None = None
    drop, focus = dict(thinning.drop), dict(thinning.focus)
    now = length
    for i, layer in enumerate(cast("list[DecoderLayer]", list(model.layers))):
        prefix = start + now
        h = _merged(layer.input_norm(x), start, now, thinning.merge)
        mask = causal[:prefix, :prefix]
        if i == len(model.layers) - 1:
            out, _ = _attend(layer.attention, h, (cos, sin), prefix, mask, hidden, answer_only=True)
            x = x[:, prefix:].view(b, n, QUERY, -1)[:, :, -1] + out
            x = x + layer.mlp(layer.mlp_norm(x))
            break
        out, weights = _attend(layer.attention, h, (cos, sin), prefix, mask, hidden)
        x = x + out
        if i in focus:
            importance = weights[..., start:].detach().amax(dim=(1, 3))                  # [B, N, visual]
            if hidden is not None:
                importance = importance + hidden[..., start:]
            kept = importance.topk(max(1, int(length * focus[i])), dim=-1).indices
            hidden = torch.full((b, n, prefix), -1e9)
            hidden[..., :start] = 0
            hidden.scatter_(2, kept + start, 0.0)
        if i in drop:
            k = min(now, max(1, int(length * drop[i])))
            kept = torch.rand(b, now).topk(k, dim=-1).indices.sort(dim=-1).values + start
            rows = torch.cat([torch.arange(start).expand(b, -1), kept,
                              torch.arange(prefix, x.shape[1]).expand(b, -1)], dim=1)
            x = x.gather(1, rows[..., None].expand(-1, -1, x.shape[-1]))
            cos, sin = (z.gather(2, rows[:, None, :, None].expand(-1, -1, -1, z.shape[-1])) for z in (cos, sin))
            now = k
        x = x + layer.mlp(_merged(layer.mlp_norm(x), start, now, thinning.merge))
        if i == 2 and tap is not None:
            tap.append(x[:, start + now:].view(b, n, QUERY, -1))
    return model.lm_head(model.norm(x)), features
