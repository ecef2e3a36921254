"""fuse-rope: rotary position embedding, however it is spelled, token-major."""

from __future__ import annotations

import math

from focusc.ir.core import Module, Op, Value
from focusc.ir.matching import both_orders, factors, producer, rewrite, shape_of
from focusc.ir.passes.canonicalise import ranges
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Builder, Rewriter
from focusc.ir.views import view_of


@defpass("fuse-rope", whole="x * cos + rotate(x) * sin", halves="the two halves computed apart")
def fuse_rope(module: Module, stats: Stats) -> Module:
    """Make `nn.rope` of rotary embeddings over [B, heads, T, size], [B, T, heads, size], [T, heads, size] or [T, size]
    operands.

    Forms: x * cos + rotate(x) * sin with rotate = concat(-high, low) of halves or of neighbouring pairs; and
    concat(low * cos - high * sin, high * cos + low * sin). cos and sin vary over tokens and columns only.
    """
    return rewrite(module, stats, [whole, halves])


def whole(op: Op, rewriter: Rewriter) -> str | None:
    """x * cos + rotate(x) * sin."""
    if op.name != "tensor.add":
        return None
    for first, second in both_orders(op):
        plain, turned = producer(first, "tensor.mul"), producer(second, "tensor.mul")
        if plain is None or turned is None:
            continue
        for x, cos in both_orders(plain):
            for rotated, sin in both_orders(turned):
                interleaved = rotation(rotated, x)
                if interleaved is not None and _replace(op, rewriter, x, cos, sin, interleaved):
                    return "whole"
    return None


def rotation(value: Value, x: Value) -> bool | None:
    """False if the value is concat(-high half, low half) of x's last axis, True if the same by pairs, else None."""
    rank = len(shape_of(x))
    if not rank or shape_of(x)[-1] % 2 or shape_of(value) != shape_of(x):
        return None
    width = shape_of(x)[-1]
    joined = producer(value, "tensor.concat")
    if joined is not None and len(joined.operands) == 2 and joined.attrs["axis"] % rank == rank - 1:
        low, high = range(width // 2), range(width // 2, width)
        if _negated(joined.operands[0], x, high) and _part(joined.operands[1], x, low):
            return False
    base = view_of(value).base  # pairs: joined on a new last axis [..., size / 2, 2], then flattened
    joined = producer(base, "tensor.concat")
    if joined is None or len(joined.operands) != 2 or shape_of(base) != (*shape_of(x)[:-1], width // 2, 2):
        return None
    if joined.attrs["axis"] % (rank + 1) != rank:
        return None
    odd, even = range(1, width, 2), range(0, width, 2)
    return True if _negated(joined.operands[0], x, odd) and _part(joined.operands[1], x, even) else None


def _negated(value: Value | None, x: Value, columns: range) -> bool:
    """True if the value is -x[..., columns], up to unit axes and on either side of the negation."""
    if value is None:
        return False
    source = view_of(value).base
    number, found = factors(source, 1)
    return number == -1.0 and len(found) == 1 and found[0][1] == 1 and _part(found[0][0], x, columns)


def _part(value: Value | None, x: Value, columns: range) -> bool:
    """True if the value is x[..., columns], up to unit axes."""
    if value is None:
        return False
    cut = producer(view_of(value).base, "tensor.slice")
    if cut is None or cut.operands[0] is not x:
        return False
    kept = ranges(cut)
    if any(len(r) != d for r, d in zip(kept[:-1], shape_of(x)[:-1], strict=True)) or list(kept[-1]) != list(columns):
        return False
    return [d for d in shape_of(value) if d != 1] == [d for d in shape_of(cut.result) if d != 1]


def halves(op: Op, rewriter: Rewriter) -> str | None:
    """concat(low * cos - high * sin, high * cos + low * sin)."""
    rank = len(shape_of(op.result)) if op.name == "tensor.concat" else 0
    if not rank or len(op.operands) != 2 or op.attrs["axis"] % rank != rank - 1:
        return None
    real, imaginary = producer(op.operands[0], "tensor.sub"), producer(op.operands[1], "tensor.add")
    if real is None or imaginary is None:
        return None
    minuend, subtrahend = (producer(v, "tensor.mul") for v in real.operands)
    if minuend is None or subtrahend is None:
        return None
    for low, cos in both_orders(minuend):
        cut = producer(low, "tensor.slice")
        x = cut.operands[0] if cut is not None else None
        if x is None or shape_of(x) != shape_of(op.result):
            continue
        half = shape_of(x)[-1] // 2
        for high, sin in both_orders(subtrahend):
            if not _part(low, x, range(half)) or not _part(high, x, range(half, 2 * half)):
                continue
            if _is_sum_of_products(imaginary, (high, cos), (low, sin), x, half):
                b = rewriter.builder_before(op)
                tables = [b.emit("tensor.concat", t, t, axis=len(shape_of(t)) - 1) for t in (cos, sin)]
                return "halves" if _replace(op, rewriter, x, tables[0], tables[1], False) else None
    return None


def _is_sum_of_products(total: Op, first: tuple[Value, Value], second: tuple[Value, Value], x: Value,
                        half: int) -> bool:
    """True if `total` is first[0] * first[1] + second[0] * second[1], in any order; slices of x compare by content."""

    def same(a: Value, b: Value) -> bool:
        return a is b or any(_part(a, x, r) and _part(b, x, r) for r in (range(half), range(half, 2 * half)))

    def is_product(value: Value, pair: tuple[Value, Value]) -> bool:
        made = producer(value, "tensor.mul")
        return made is not None and any(same(a, pair[0]) and b is pair[1] for a, b in both_orders(made))

    return any(is_product(a, first) and is_product(b, second) for a, b in both_orders(total))


def _replace(op: Op, rewriter: Rewriter, x: Value, cos: Value, sin: Value, interleaved: bool) -> bool:
    """Put `nn.rope` over token-major rows in the place of `op`; False if cos and sin vary over other axes."""
    shape = shape_of(x)
    rank = len(shape)
    if rank not in (2, 3, 4) or op.result.type != x.type:
        return False
    tokens = _token_axis(shape, cos, sin)
    if tokens is None:
        return False
    b = rewriter.builder_before(op)
    tables = [_table(b, t, shape[tokens], shape[-1]) for t in (cos, sin)]
    heads = 1
    rows, back = x, (0, 2, 1, 3)
    if rank == 4:
        heads = shape[3 - tokens]  # the axis of 1 and 2 that is not the token axis
        rows = b.emit("tensor.transpose", x, perm=back) if tokens == 2 else x
        rows = b.emit("tensor.reshape", rows, shape=(shape[0], shape[tokens], heads * shape[3]))
    elif tokens != rank - 2:  # [T, heads, size]
        heads = shape[1]
        rows = b.emit("tensor.reshape", x, shape=(1, shape[0], heads * shape[2]))
    y = b.emit("nn.rope", rows, *tables, heads=heads, interleaved=interleaved)
    if rank == 4:
        y = b.emit("tensor.reshape", y, shape=(shape[0], shape[tokens], heads, shape[3]))
        y = b.emit("tensor.transpose", y, perm=back) if tokens == 2 else y
    rewriter.replace(op, b.emit("tensor.reshape", y, shape=shape) if shape_of(y) != shape else y)
    return True


def _token_axis(shape: tuple[int, ...], *tables: Value) -> int | None:
    """The one axis before the last over which the tables vary; None if there are several, or the widths differ."""
    rank = len(shape)
    axes: set[int] = set()
    for table in tables:
        padded = (1,) * (rank - len(shape_of(table))) + shape_of(table)
        if len(padded) != rank or padded[-1] != shape[-1]:
            return None
        axes |= {a for a in range(rank - 1) if padded[a] != 1}
    if not axes:  # a single token, or one angle for all
        axes = {rank - 2}
    token = axes.pop()
    if axes or (rank == 4 and token == 0):
        return None
    return token


def _table(b: Builder, table: Value, tokens: int, width: int) -> Value:
    """cos or sin as [T, size]."""
    if math.prod(shape_of(table)) != tokens * width:
        return b.emit("tensor.expand", b.emit("tensor.reshape", table, shape=(1, width)), shape=(tokens, width))
    return b.emit("tensor.reshape", table, shape=(tokens, width))
