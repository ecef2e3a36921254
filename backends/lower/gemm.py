"""GEMM kernels: linear layers with their fused epilogues, the gated pair of SwiGLU, and patch embedding.

One kernel is a loop over m-tiles around a loop over n-tiles; what follows the product element by element (bias,
activation, rotary embedding, residual addition) is done on the accumulator tile before it leaves the chip.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field

from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.emit import Ix
from focusc.backends.lower.moves import copy
from focusc.backends.lower.views import ConcView, View, matrix_shape
from focusc.backends.mapping import Choice, Gemm, Rows, search
from focusc.ir import Op, TensorType, Value
from focusc.ir.diagnostics import fail

ACTIVATIONS = {"tanh": "gelu", "none": "gelue", "quick": "gelu_quick"}


@dataclass
class Chain:
    """A root op, the element-wise ops fused behind it, and the value that leaves the chip."""

    root: Op
    steps: list[Op] = field(default_factory=list[Op])

    @property
    def last(self) -> Op:
        """The op whose result is stored."""
        return self.steps[-1] if self.steps else self.root

    @property
    def result(self) -> Value:
        """The value that is stored."""
        return self.last.results[0]


def grow(low: Lowering, root: Op) -> Chain:
    """Extend a root by its single readers as long as they are element-wise on the same rows and columns."""
    chain = Chain(root)
    while True:
        value = chain.result
        user = low.single_user(value)
        if user is None or not _fusable(low, chain, user):
            return chain
        chain.steps.append(user)


def _fusable(low: Lowering, chain: Chain, user: Op) -> bool:
    value = chain.result
    if user in low.absorbed:  # it joins two products, and is the last step of the other
        return False
    if user.name in ("nn.gelu", "nn.silu"):
        return True
    if user.name == "nn.rope":
        head = matrix_shape(user.operands[1].type)[1] if user.operands[1] is not None else 0
        batched = isinstance(value.type, TensorType) and matrix_shape(value.type)[0] != value.type.shape[-2]
        if user.operands[0] is not value or batched or not 0 < head <= low.tiling.n:
            return False
        return choose(low, Chain(chain.root, [*chain.steps, user])) is not None
    if user.name in ("tensor.add", "tensor.mul"):
        other = user.operands[1] if user.operands[0] is value else user.operands[0]
        if other is None or other is value or user.results[0].type != value.type:
            return False
        rows, cols = matrix_shape(value.type)
        other_rows, other_cols = matrix_shape(other.type)
        return other_cols == cols and other_rows in (1, rows) and not isinstance(low.at.get(other), ConcView)
    return False


def finish(
    low: Lowering, chain: Chain, tile: Value, second: Value | None, row: Ix, rows: Ix, col: Ix, cols: Ix
) -> Value:
    """Apply the fused steps to one accumulator tile at (row, col); `second` is the up-product of a SwiGLU."""
    e = low.emit
    value = chain.root.results[0]
    for step in chain.steps:
        e.at(step.loc)
        if step.name == "nn.gelu":
            tile = e.unary(ACTIVATIONS[step.attrs["approximate"]], tile)
        elif step.name == "nn.silu":
            tile = e.unary("silu", tile)
        elif step.name == "nn.rope":
            tile = rotary(low, step, tile, row, rows)
        elif step.name == "nn.swiglu":
            assert second is not None
            tile = e.binary("mul", e.unary("silu", tile), second)
        else:
            other = step.operands[1] if step.operands[0] is value else step.operands[0]
            assert other is not None
            v = low.view(other)
            if v.rows == 1:
                stream = e.load(v.buffer, v.row, col + v.col, 1, cols)
            else:
                stream = e.load(v.buffer, row + v.row, col + v.col, rows, cols)
            tile = e.binary(step.name.removeprefix("tensor."), tile, stream)
        value = step.results[0]
    e.at(chain.root.loc)
    return tile


def rotary(low: Lowering, op: Op, tile: Value, row: Ix, rows: Ix) -> Value:
    """x * cos + rotate(x) * sin; cos and sin hold one head and repeat over the tile's heads."""
    e = low.emit
    assert op.operands[1] is not None and op.operands[2] is not None
    cos, sin = low.view(op.operands[1]), low.view(op.operands[2])
    turned = e.rotate(tile, cos.cols, op.attrs["interleaved"])
    turned = e.binary("mul", turned, e.load(sin.buffer, row + sin.row, sin.col, rows, sin.cols))
    tile = e.binary("mul", tile, e.load(cos.buffer, row + cos.row, cos.col, rows, cos.cols))
    return e.binary("add", tile, turned)


def head_multiple(chain: Chain) -> int:
    """Columns of an n-tile must be a multiple of this: whole heads where a rotary embedding is fused."""
    heads = [
        matrix_shape(s.operands[1].type)[1] for s in chain.steps if s.name == "nn.rope" and s.operands[1] is not None
    ]
    multiple = 32
    for head in heads:
        while multiple % head:
            multiple += 32
    return multiple


Operand = Callable[[Ix, Ix, Ix], Value]
"""Loads the activation of one m-tile: (m-tile number, first row, rows) -> stream."""


def activation(low: Lowering, x: View | ConcView) -> Operand:
    """The loader of a dense or concentrated activation."""
    e = low.emit
    if isinstance(x, ConcView):
        return lambda it, row, rows: e.load_conc(x.buffer, it, 0, rows, 0, x.slots, x.cols)
    return lambda it, row, rows: e.load(x.buffer, row + x.row, x.col, rows, x.cols)


def choose(low: Lowering, chain: Chain, weights: int = 1) -> tuple[Choice, bool] | None:
    """(mapping, whether the result goes straight through SIC); None if no tile fits the output buffer."""
    x, w = chain.root.operands[0], chain.root.operands[1]
    assert x is not None and w is not None and isinstance(w.type, TensorType)
    total, (k, columns) = matrix_shape(chain.root.results[0].type)[0], w.type.shape
    source = low.at.get(x)
    fixed = Rows(total, source.first, source.m) if isinstance(source, ConcView) else None
    live = weights + any(s.name == "nn.rope" for s in chain.steps)
    gather = low.gather_of(chain.result)
    tiles = low.gather_rows(gather) if gather is not None else None
    for direct in (True, False) if tiles is not None and fixed in (None, tiles) else (False,):
        window = math.prod(gather.attrs["block"]) if direct and gather is not None else 0
        gemm = Gemm(total, k, columns, weights, live, head_multiple(chain), window, tiles if direct else fixed)
        if found := search(gemm, low.tiling):
            return found, direct
    return None


def gemm(
    low: Lowering,
    chain: Chain,
    load: Operand,
    weights: list[View],
    biases: list[View | None],
    second: Op | None = None,
) -> None:
    """The loop nest: for each m-tile and n-tile one product per weight, finished and put to the sink.

    `second` is the op of the second product of a SwiGLU; each product streams the activation for itself.
    """
    e = low.emit
    k, total = weights[0].rows, weights[0].cols
    found = choose(low, chain, len(weights))
    if found is None:
        raise fail(
            "tile.obuf",
            f"no GEMM tile of this layer fits the output buffer of {low.tiling.obuf} bytes",
            chain.root.loc,
            hint="lower concentrate{m=...} or tile{m=...}",
        )
    (rows, n), direct = (found[0].rows, found[0].n), found[1]
    roots = [chain.root, second] if second else [chain.root]
    sink = low.sink(chain.result, direct=direct)
    with e.loop(rows.total, rows.step, first=rows.first, repeat=True) as m, e.loop(total, n) as c:
        tiles: list[Value] = []
        for root, weight, bias in zip(roots, weights, biases, strict=True):
            e.at(root.loc)
            act = load(m.it, m.off, m.len)
            panel = e.load_weight(weight.buffer, weight.row, c.off + weight.col, k, c.len)
            tile = e.mma(act, panel)
            if bias is not None:
                tile = e.binary("add", tile, e.load(bias.buffer, bias.row, c.off + bias.col, 1, c.len))
            if chain.root.attrs.get("epilogue", "none") == "gelu_tanh":
                tile = e.unary("gelu", tile)
            tiles.append(tile)
        tile = finish(low, chain, tiles[0], tiles[1] if second else None, m.off, m.len, c.off, c.len)
        low.put(sink, tile, m.it, m.off, c.off, c.it * (n // 32))


@handles("nn.linear")
def linear(low: Lowering, op: Op) -> None:
    """y = x @ w + bias with its epilogue; a SwiGLU behind two linears of the same input takes both."""
    user = low.single_user(op.results[0])
    if user is not None and user.name == "nn.swiglu" and _gated_pair(low, user):
        return  # emitted at the swiglu
    chain = grow(low, op)
    low.absorbed.update(chain.steps)
    low.deferred(chain.last, lambda: _emit_linear(low, chain))


def _emit_linear(low: Lowering, chain: Chain) -> None:
    op = chain.root
    x, w, bias = _linear_operands(low, op)
    _account(low, op)
    low.kernel(op)
    gemm(low, chain, activation(low, x), [w], [bias])


def _linear_operands(low: Lowering, op: Op) -> tuple[View | ConcView, View, View | None]:
    x, w, bias = op.operands
    assert x is not None and w is not None
    found = low.at.get(x)
    return found if isinstance(found, ConcView) else low.view(x), low.view(w), low.view(bias) if bias else None


def _account(low: Lowering, op: Op) -> None:
    w = op.operands[1]
    assert w is not None and isinstance(w.type, TensorType)
    rows, decoder = low.dense_rows(op)
    k, n = w.type.shape
    low.account(op, rows * k * n, decoder=decoder)


def _gated_pair(low: Lowering, swiglu: Op) -> bool:
    """Whether both operands are linears that only this op reads, of the same input."""
    gate, up = (v.op if v is not None else None for v in swiglu.operands[:2])
    return (
        gate is not None
        and up is not None
        and gate is not up
        and gate.name == up.name == "nn.linear"
        and gate.operands[0] is up.operands[0]
        and all(low.single_user(v) is swiglu for v in (gate.results[0], up.results[0]))
    )


@handles("nn.swiglu")
def swiglu(low: Lowering, op: Op) -> None:
    """silu(gate) * up: fused into the two products, or on stored values if they have other readers."""
    if not _gated_pair(low, op):
        from focusc.backends.lower.elementwise import pointwise

        e = low.emit
        pointwise(low, op, lambda tiles: e.binary("mul", e.unary("silu", tiles[0]), tiles[1]))
        return
    assert op.operands[0] is not None and op.operands[1] is not None
    gate, up = op.operands[0].op, op.operands[1].op
    assert gate is not None and up is not None
    (x, w1, b1), (_, w2, b2) = _linear_operands(low, gate), _linear_operands(low, up)
    _account(low, gate)
    _account(low, up)
    low.kernel(gate)
    gemm(low, Chain(gate, [op]), activation(low, x), [w1, w2], [b1, b2], up)


@handles("nn.patch_embed")
def patch_embed(low: Lowering, op: Op) -> None:
    """Convolution as a GEMM whose activation rows are generated by address: no im2col matrix exists in memory."""
    pixels, w, bias = op.operands
    assert pixels is not None and w is not None and isinstance(pixels.type, TensorType)
    chain = grow(low, op)
    low.absorbed.update(chain.steps)
    shape = pixels.type.shape
    spatial = len(shape) - 2
    pads = tuple(op.attrs["pads"]) or (0,) * (2 * spatial)
    begins, ends = pads[:spatial], pads[spatial:]
    flat = 3 - spatial  # an image is a video of one frame
    window = {
        "image": (*shape[:2], *(1,) * flat, *shape[2:]),
        "kernel": (*(1,) * flat, *op.attrs["kernel"]),
        "stride": (*(1,) * flat, *(tuple(op.attrs["stride"]) or tuple(op.attrs["kernel"]))),
        "pads": (*(0,) * flat, *begins, *(() if begins == ends else (*(0,) * flat, *ends))),
    }

    def emit() -> None:
        image, weight = low.view(pixels), low.view(w)
        whole = low.alone(image)
        if whole is None:
            whole = low.allocate(image.rows, image.cols, pixels.name)
            copy(low, op, image, whole)
        total, width = matrix_shape(op.results[0].type)
        low.account(op, total * weight.rows * width, decoder=False)
        low.kernel(op)
        e = low.emit
        load: Operand = lambda it, row, rows: e.load_patch(whole.buffer, row, rows, **window)  # noqa: E731
        gemm(low, chain, load, [weight], [low.view(bias) if bias else None])

    low.deferred(chain.last, emit)
