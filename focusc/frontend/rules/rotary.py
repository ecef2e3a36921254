"""The RotaryEmbedding operator: `nn.rope` over token-major rows; a partial rotation keeps the rest of each head."""

from __future__ import annotations

from focusc.frontend.node import Node, rank, shape
from focusc.frontend.registry import rule
from focusc.ir import Value


@rule("RotaryEmbedding", since=23)
def rotary_embedding(n: Node) -> Value:
    """Rotate pairs of columns of each head by cos and sin caches [max, size/2] with position ids, or [B, T, size/2]."""
    x, flat = n.x(0), rank(n.x(0)) == 3
    if flat:
        heads = int(n.attr("num_heads", 0))
        n.check(heads > 0, "num_heads for an operand of rank 3", heads)
        rows = n.reshape(x, (*shape(x)[:2], heads, shape(x)[2] // heads))
    else:
        rows = n.transpose(x, (0, 2, 1, 3))
    batch, tokens, heads, size = shape(rows)
    turned = int(n.attr("rotary_embedding_dim", 0)) or size
    interleaved = bool(n.attr("interleaved", 0))
    rotated = _rotate(n, n.slice(rows, 3, 0, turned), interleaved)
    y = n.concat([rotated, n.slice(rows, 3, turned, size)], 3) if turned < size else rotated
    if flat:
        return n.reshape(y, (batch, tokens, heads * size))
    return n.transpose(y, (0, 2, 1, 3))


def _rotate(n: Node, x: Value, interleaved: bool) -> Value:
    """[B, T, heads, size] rotated; per batch entry if the caches differ between them."""
    batch, tokens, heads, size = shape(x)
    caches = [_cache(n, index, (batch, tokens, size), interleaved) for index in (1, 2)]
    shared = all(shape(c)[0] == 1 for c in caches)
    parts = []
    for b in range(1 if shared else batch):
        part = x if shared else n.slice(x, 0, b, b + 1)
        cos, sin = (n.reshape(n.slice(c, 0, b, b + 1), (tokens, size)) if shape(c)[0] > 1 else
                    n.reshape(c, (tokens, size)) for c in caches)
        lead = shape(part)[0]
        y = n.emit("nn.rope", n.reshape(part, (lead, tokens, heads * size)), cos, sin, heads=heads,
                   interleaved=interleaved)
        parts.append(n.reshape(y, (lead, tokens, heads, size)))
    return n.concat(parts, 0)


def _cache(n: Node, index: int, dims: tuple[int, int, int], interleaved: bool) -> Value:
    """cos or sin as [B or 1, T, size]: gathered by position, each angle given to both columns of its pair."""
    batch, tokens, size = dims
    cache = n.x(index)
    if n.has(3):
        positions = n.known(3)
        if positions is not None and (positions == positions[:1]).all():
            cache = n.emit("tensor.gather", cache, n.constant(positions[:1]), axis=0)
        else:
            cache = n.emit("tensor.gather", cache, n.x(3), axis=0)
    else:
        known = n.known(index)
        if known is not None and known.shape[0] > 1 and (known == known[:1]).all():
            cache = n.slice(cache, 0, 0, 1)
    count = shape(cache)[0]
    n.check(shape(cache) == (count, tokens, size // 2) and count in (1, batch),
            f"a cache of shape [{batch}, {tokens}, {size // 2}]", list(shape(cache)))
    if not interleaved:
        return n.concat([cache, cache], 2)
    pairs = n.expand(n.reshape(cache, (count, tokens, size // 2, 1)), (count, tokens, size // 2, 2))
    return n.reshape(pairs, (count, tokens, size))
