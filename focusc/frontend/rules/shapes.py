"""Shape and order: reshape, transpose, slice, split, concatenate, pad, expand, tile."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from focusc.frontend.node import Node, rank, shape
from focusc.frontend.registry import rule
from focusc.ir import Value


@rule("Reshape")
def reshape(n: Node) -> Value:
    """New shape, with ONNX's 0 (copy) and -1 (rest)."""
    x, wanted = n.x(), n.ints(1, "the new shape")
    old = shape(x)
    if not n.attr("allowzero", 0):
        n.check(all(d != 0 or i < len(old) for i, d in enumerate(wanted)), "0 only where the input has an axis", wanted)
        wanted = [old[i] if d == 0 else d for i, d in enumerate(wanted)]
    n.check(wanted.count(-1) <= 1 and min(wanted, default=0) >= -1, "at most one -1", wanted)
    if -1 in wanted:
        rest = -math.prod(wanted)
        n.check(rest != 0 and math.prod(old) % rest == 0, f"a shape that divides {list(old)}", wanted)
        wanted = [math.prod(old) // rest if d == -1 else d for d in wanted]
    return n.reshape(x, wanted)


@rule("Flatten")
def flatten(n: Node) -> Value:
    """Two axes: everything before `axis`, and the rest."""
    dims, axis = shape(n.x()), int(n.attr("axis", 1))
    axis = axis + len(dims) if axis < 0 else axis
    return n.reshape(n.x(), (math.prod(dims[:axis]), math.prod(dims[axis:])))


@rule("Squeeze")
def squeeze(n: Node) -> Value:
    """Drop unit axes."""
    dims = shape(n.x())
    axes = [n.axis(a, len(dims)) for a in n.ints(1, "the axes")] if n.has(1) else [
        i for i, d in enumerate(dims) if d == 1]
    n.check(all(dims[a] == 1 for a in axes), "axes of extent 1", f"axes {axes} of shape {list(dims)}")
    return n.reshape(n.x(), [d for i, d in enumerate(dims) if i not in axes])


@rule("Unsqueeze")
def unsqueeze(n: Node) -> Value:
    """Insert unit axes."""
    axes, dims = n.ints(1, "the axes"), list(shape(n.x()))
    total = len(dims) + len(axes)
    places = {n.axis(a, total) for a in axes}
    n.check(len(places) == len(axes), "distinct axes", axes)
    rest = iter(dims)
    return n.reshape(n.x(), [1 if i in places else next(rest) for i in range(total)])


@rule("Transpose")
def transpose(n: Node) -> Value:
    """Permute the axes; reversed by default."""
    return n.transpose(n.x(), n.attr("perm") or tuple(reversed(range(rank(n.x())))))


@rule("Concat")
def concat(n: Node) -> Value:
    """Join along an axis; empty parts fall away."""
    parts = [n.x(i) for i in range(len(n.inputs))]
    axis = n.axis(int(n.attr("axis")), rank(parts[0]))
    full = [p for p in parts if shape(p)[axis]] or parts[:1]
    return n.concat(full, axis)


@rule("Slice")
def slice_(n: Node) -> Value:
    """Ranges along axes, with ONNX's negative and clamped ends; a negative step is a gather."""
    x = n.x()
    starts, ends = n.ints(1, "starts"), n.ints(2, "ends")
    axes = n.ints(3, "axes") if n.has(3) else list(range(len(starts)))
    steps = n.ints(4, "steps") if n.has(4) else [1] * len(starts)
    axes = [n.axis(a, rank(x)) for a in axes]
    n.check(len(starts) == len(ends) == len(axes) == len(steps), "as many ends, axes and steps as starts",
            f"{len(starts)}, {len(ends)}, {len(axes)}, {len(steps)}")
    n.check(0 not in steps, "steps other than 0", steps)
    ranges = {a: range(shape(x)[a])[_bounded(s, e, t)] for a, s, e, t in zip(axes, starts, ends, steps, strict=True)}
    forward = {a: r for a, r in ranges.items() if r.step > 0 and (r.step > 1 or len(r) < shape(x)[a])}
    if forward:
        x = n.emit("tensor.slice", x, starts=tuple(r.start for r in forward.values()),
                   ends=tuple(max(r.start, r.stop) for r in forward.values()), axes=tuple(forward),
                   steps=tuple(r.step for r in forward.values()))
    for axis, r in ranges.items():
        if r.step < 0:
            x = n.emit("tensor.gather", x, n.constant(np.asarray(r, np.int64)), axis=axis)
    return x


def _bounded(start: int, end: int, step: int) -> slice:
    """ONNX bounds as a Python slice: INT64_MIN as the end of a backward slice means before the first element."""
    return slice(start, None if step < 0 and end < -(1 << 31) else end, step)


@rule("Split")
def split(n: Node) -> Sequence[Value]:
    """Consecutive slices."""
    x = n.x()
    axis = n.axis(int(n.attr("axis", 0)), rank(x))
    whole = shape(x)[axis]
    if n.has(1):
        sizes = n.ints(1, "the sizes")
    else:
        parts = int(n.attr("num_outputs", len(n.wanted)))
        each = -(-whole // parts)
        sizes = [each] * (parts - 1) + [whole - each * (parts - 1)]
    n.check(sum(sizes) == whole and min(sizes) >= 0, f"sizes that add up to {whole}", sizes)
    ends = np.cumsum(sizes).tolist()
    return [n.slice(x, axis, end - size, end) for size, end in zip(sizes, ends, strict=True)]


@rule("Expand")
def expand(n: Node) -> Value:
    """Broadcast to a constant shape."""
    dims = shape(n.x())
    wanted = n.ints(1, "the shape")
    try:
        full = np.broadcast_shapes(dims, tuple(wanted))
    except ValueError:
        n.check(False, f"a shape that {list(dims)} broadcasts to", wanted)
        raise
    return n.expand(n.reshape(n.x(), (1,) * (len(full) - len(dims)) + dims), full)


@rule("Tile")
def tile(n: Node) -> Value:
    """Repeats along each axis."""
    x, repeats = n.x(), n.ints(1, "the repeats")
    n.check(len(repeats) == rank(x), f"{rank(x)} repeats", repeats)
    return x if all(r == 1 for r in repeats) else n.emit("tensor.tile", x, repeats=tuple(repeats))


@rule("Pad")
def pad(n: Node) -> Value:
    """Constant, edge, reflect and wrap padding; negative pads crop."""
    x, pads = n.x(), n.ints(1, "the pads")
    mode, dims = n.attr("mode", "constant"), list(shape(x))
    axes = [n.axis(a, len(dims)) for a in n.ints(3, "the axes")] if n.has(3) else list(range(len(dims)))
    n.check(len(pads) == 2 * len(axes), f"{2 * len(axes)} pads", pads)
    n.check(mode in ("constant", "edge", "reflect", "wrap"), "mode constant, edge, reflect or wrap", mode)
    margins = [0] * (2 * len(dims))
    for i, axis in enumerate(axes):
        margins[axis], margins[axis + len(dims)] = pads[i], pads[i + len(axes)]
    if not any(margins):
        return x
    fill = n.const(2, "the fill value").reshape(-1)[0].item() if n.has(2) and mode == "constant" else 0
    return n.emit("tensor.pad", x, pads=tuple(margins), mode=mode, value=fill)


@rule("Shape")
def shape_of(n: Node) -> Value:
    """The static shape as a constant."""
    return n.constant(np.asarray(shape(n.x())[_span(n)], np.int64))


def _span(n: Node) -> slice:
    return slice(n.attr("start", 0), n.attr("end"))


@rule("Size")
def size(n: Node) -> Value:
    """The static element count as a constant."""
    return n.constant(np.asarray(math.prod(shape(n.x())), np.int64))


@rule("DepthToSpace", "SpaceToDepth")
def pixel_shuffle(n: Node) -> Value:
    """Blocks of pixels to channels and back, by reshape and transpose."""
    block, (batch, c, h, w) = int(n.attr("blocksize")), shape(n.x())
    if n.op_type == "SpaceToDepth":
        x = n.reshape(n.x(), (batch, c, h // block, block, w // block, block))
        order = (0, 3, 5, 1, 2, 4) if n.attr("mode", "DCR") == "DCR" else (0, 1, 3, 5, 2, 4)
        return n.reshape(n.transpose(x, order), (batch, c * block * block, h // block, w // block))
    if n.attr("mode", "DCR") == "DCR":
        x, perm = n.reshape(n.x(), (batch, block, block, c // block**2, h, w)), (0, 3, 4, 1, 5, 2)
    else:
        x, perm = n.reshape(n.x(), (batch, c // block**2, block, block, h, w)), (0, 1, 4, 2, 5, 3)
    return n.reshape(n.transpose(x, perm), (batch, c // block**2, h * block, w * block))
