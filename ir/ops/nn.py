"""The nn dialect: linear layers, normalisation, activations, rotary embedding, patch and token embedding.

Token-major tensors, leading batch axes kept. Every op computes in f32 and returns the element type of its input.
Attention is in `attention.py`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from focusc.ir.concentrated import Concentrated, dense
from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operand
from focusc.ir.diagnostics import InferError
from focusc.ir.ops.activations import erf as erf
from focusc.ir.ops.activations import gelu, sigmoid
from focusc.ir.ops.checks import floating, inside, of_shape, rows_of, same_dtype, tensor
from focusc.ir.types import TensorType, Type

Array = np.ndarray[Any, Any]
Examples = list[tuple[list[Any], dict[str, Any]]]


def f32(x: Array | Concentrated) -> Array:
    """The value as a dense f32 array, without a copy if it is one."""
    return np.asarray(dense(x), dtype=np.float32)


def sample(*shape: int, seed: int = 0, dtype: str = "f4") -> Array:
    """Seeded normal values for examples."""
    return np.random.default_rng([seed, *shape]).standard_normal(shape).astype(dtype)


@defop("nn.linear")
class Linear(Op):
    """y = x @ w (+ bias), with an optional activation as epilogue. `x` may be concentrated."""

    __slots__ = ()

    x = operand(doc="[..., K]")
    w = operand(doc="[K, N]")
    bias = operand(optional=True, doc="[N]")
    epilogue: str = attr(str, "none", one_of=("none", "gelu_tanh"), doc="applied to the sum")

    @staticmethod
    def infer(x: Type, w: Type, bias: Type | None, *, epilogue: str) -> Type:
        rows, weight = floating(rows_of(x, "x"), "x"), tensor(w, "w")
        same_dtype(rows, weight, "x, w")
        if weight.rank != 2:
            raise InferError(f"w is {weight}, expected a matrix [K, N]", code="type.shape")
        if rows.rank < 1 or rows.shape[-1] != weight.shape[0]:
            raise InferError(
                f"K is {rows.shape[-1] if rows.rank else 'absent'} in x but {weight.shape[0]} in w",
                code="type.shape",
                hint="w is stored [K, N]; transpose it",
            )
        if bias is not None:
            of_shape(bias, (weight.shape[1],), "bias", rows.dtype)
        return TensorType((*rows.shape[:-1], weight.shape[1]), rows.dtype)

    @staticmethod
    def evaluate(x: Array | Concentrated, w: Array, bias: Array | None, *, epilogue: str) -> Array:
        rows = f32(x)
        y = (rows.reshape(-1, rows.shape[-1]) @ f32(w)).reshape(*rows.shape[:-1], w.shape[1])
        if bias is not None:
            y += f32(bias)
        if epilogue == "gelu_tanh":
            y = gelu(y, "tanh")
        return y.astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        x, w, bias = sample(2, 3, 8), sample(8, 5), sample(5)
        return [([x, w, bias], {}), ([x, w, None], {"epilogue": "gelu_tanh"})]


@defop("nn.layer_norm")
class LayerNorm(Op):
    """(x - mean) / sqrt(variance + eps) * gamma (+ beta) over the last axis; the variance is the biased one."""

    __slots__ = ()

    x = operand(doc="[..., D]")
    gamma = operand(doc="[D]")
    beta = operand(optional=True, doc="[D]")
    eps: float = attr(float, 1e-5, minimum=0.0)

    @staticmethod
    def infer(x: Type, gamma: Type, beta: Type | None, *, eps: float) -> Type:
        rows = _normalised(x, gamma)
        if beta is not None:
            of_shape(beta, rows.shape[-1:], "beta", rows.dtype)
        return rows

    @staticmethod
    def evaluate(x: Array, gamma: Array, beta: Array | None, *, eps: float) -> Array:
        y = f32(x)
        y = y - y.mean(-1, keepdims=True)
        scale = np.einsum("...d,...d->...", y, y)[..., None] / np.float32(max(y.shape[-1], 1))
        y *= 1 / np.sqrt(scale + np.float32(eps))
        y *= f32(gamma)
        if beta is not None:
            y += f32(beta)
        return y.astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [([sample(2, 3, 8), sample(8), sample(8, seed=1)], {}), ([sample(3, 8), sample(8), None], {"eps": 1e-6})]


@defop("nn.rms_norm")
class RmsNorm(Op):
    """x / sqrt(mean(x^2) + eps) * gamma over the last axis."""

    __slots__ = ()

    x = operand(doc="[..., D]")
    gamma = operand(doc="[D]")
    eps: float = attr(float, 1e-6, minimum=0.0)

    @staticmethod
    def infer(x: Type, gamma: Type, *, eps: float) -> Type:
        return _normalised(x, gamma)

    @staticmethod
    def evaluate(x: Array, gamma: Array, *, eps: float) -> Array:
        rows = f32(x)
        mean = np.einsum("...d,...d->...", rows, rows)[..., None] / np.float32(max(rows.shape[-1], 1))
        y = rows * (1 / np.sqrt(mean + np.float32(eps)))
        y *= f32(gamma)
        return y.astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [
            ([sample(2, 3, 8), sample(8)], {}),
            ([sample(3, 8).astype("f2"), sample(8).astype("f2")], {"eps": 1e-5}),
        ]


def _normalised(x: Type, gamma: Type) -> TensorType:
    rows = floating(tensor(x, "x"), "x")
    if rows.rank < 1:
        raise InferError(f"x is {rows}, expected at least one axis", code="type.shape")
    of_shape(gamma, rows.shape[-1:], "gamma", rows.dtype)
    return rows


@defop("nn.gelu")
class Gelu(Op):
    """x * Phi(x): exact by erf (`none`), by tanh (Hendrycks and Gimpel 2016), or x * sigmoid(1.702 x) (`quick`)."""

    __slots__ = ()

    x = operand()
    approximate: str = attr(str, "none", one_of=("none", "tanh", "quick"))

    @staticmethod
    def infer(x: Type, *, approximate: str) -> Type:
        return floating(tensor(x, "x"), "x")

    @staticmethod
    def evaluate(x: Array, *, approximate: str) -> Array:
        return gelu(f32(x), approximate).astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [([sample(3, 4) * 3], {"approximate": a}) for a in ("none", "tanh", "quick")]


@defop("nn.silu")
class Silu(Op):
    """x * sigmoid(x)."""

    __slots__ = ()

    x = operand()

    @staticmethod
    def infer(x: Type) -> Type:
        return floating(tensor(x, "x"), "x")

    @staticmethod
    def evaluate(x: Array) -> Array:
        y = f32(x)
        return (y * sigmoid(y)).astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [([sample(3, 4) * 3], {})]


@defop("nn.swiglu")
class SwiGlu(Op):
    """silu(gate) * up."""

    __slots__ = ()

    gate = operand()
    up = operand()

    @staticmethod
    def infer(gate: Type, up: Type) -> Type:
        found = floating(tensor(gate, "gate"), "gate")
        return of_shape(up, found.shape, "up", found.dtype)

    @staticmethod
    def evaluate(gate: Array, up: Array) -> Array:
        g = f32(gate)
        y = sigmoid(g)
        y *= g
        y *= f32(up)
        return y.astype(gate.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [([sample(2, 3, 4), sample(2, 3, 4, seed=1)], {})]


@defop("nn.rope")
class Rope(Op):
    """Rotary embedding per head: x * cos + rotate(x) * sin.

    rotate((x1, x2)) = (-x2, x1) on halves of a head, or on neighbouring pairs if `interleaved`.
    """

    __slots__ = ()

    x = operand(doc="[B, T, heads * hd]")
    cos = operand(doc="[T, hd]")
    sin = operand(doc="[T, hd]")
    heads: int = attr(int, minimum=1)
    interleaved: bool = attr(bool, False)

    @staticmethod
    def infer(x: Type, cos: Type, sin: Type, *, heads: int, interleaved: bool) -> Type:
        rows = floating(tensor(x, "x"), "x")
        if rows.rank < 2 or rows.shape[-1] % (2 * heads):
            raise InferError(
                f"x is {rows}, expected [B, T, heads * hd] with {heads} heads of even size", code="type.shape"
            )
        table = (rows.shape[-2], rows.shape[-1] // heads)
        of_shape(cos, table, "cos", rows.dtype)
        of_shape(sin, table, "sin", rows.dtype)
        return rows

    @staticmethod
    def evaluate(x: Array, cos: Array, sin: Array, *, heads: int, interleaved: bool) -> Array:
        width = x.shape[-1] // heads
        rows = f32(x).reshape(*x.shape[:-1], heads, width)
        turned = np.empty_like(rows)
        if interleaved:
            np.negative(rows[..., 1::2], out=turned[..., 0::2])
            turned[..., 1::2] = rows[..., 0::2]
        else:
            half = width // 2
            np.negative(rows[..., half:], out=turned[..., :half])
            turned[..., half:] = rows[..., :half]
        turned *= f32(sin)[:, None, :]
        turned += rows * f32(cos)[:, None, :]
        return turned.reshape(x.shape).astype(x.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        x, angle = sample(1, 3, 8), sample(3, 4)
        return [([x, np.cos(angle), np.sin(angle)], {"heads": 2, "interleaved": i}) for i in (False, True)]


@defop("nn.embed")
class Embed(Op):
    """Rows of `table` by number. A number outside the table is an error."""

    __slots__ = ()

    ids = operand(doc="[...], i32 or i64")
    table = operand(doc="[V, D]")

    @staticmethod
    def infer(ids: Type, table: Type) -> Type:
        numbers, rows = tensor(ids, "ids"), tensor(table, "table")
        if numbers.dtype not in ("i32", "i64"):
            raise InferError(f"ids has element type {numbers.dtype}, expected i32 or i64", code="type.dtype")
        if rows.rank != 2:
            raise InferError(f"table is {rows}, expected [V, D]", code="type.shape")
        return TensorType((*numbers.shape, rows.shape[1]), rows.dtype)

    @staticmethod
    def evaluate(ids: Array, table: Array) -> Array:
        return table[inside(ids, 0, len(table) - 1, "the table's rows")]

    @staticmethod
    def examples() -> Examples:
        return [([np.array([[0, 2, 1]], dtype=np.int64), sample(3, 4)], {})]


@defop("nn.patch_embed")
class PatchEmbed(Op):
    """Convolution as a GEMM over patches, output token-major.

    Row = output position, row-major over [D,] H, W; column of the patch = (channel, [kd,] kh, kw), as `w` is stored.
    `pads` holds the begins, then the ends, of the spatial axes, as in ONNX.
    """

    __slots__ = ()

    pixels = operand(doc="[N, C, H, W] or [N, C, D, H, W]")
    w = operand(doc="[C * kd * kh * kw, Nout]")
    bias = operand(optional=True, doc="[Nout]")
    kernel: tuple[int, ...] = attr(tuple, of=int)
    stride: tuple[int, ...] = attr(tuple, of=int)
    pads: tuple[int, ...] = attr(tuple, (), of=int, doc="empty: none")

    @staticmethod
    def infer(
        pixels: Type,
        w: Type,
        bias: Type | None,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pads: tuple[int, ...],
    ) -> Type:
        image, weight = floating(tensor(pixels, "pixels"), "pixels"), tensor(w, "w")
        same_dtype(image, weight, "pixels, w")
        axes = len(kernel)
        if image.rank not in (4, 5) or axes != image.rank - 2 or len(stride) != axes or len(pads) not in (0, 2 * axes):
            raise InferError(
                f"pixels is {image}, kernel {list(kernel)}, stride {list(stride)}, pads {list(pads)}: expected "
                "[N, C, spatial axes], one kernel and stride per spatial axis, two pads per axis or none",
                code="type.shape",
            )
        if min(*kernel, *stride) < 1 or min(pads, default=0) < 0:
            raise InferError("kernel and stride are at least 1, pads at least 0", code="attr.value")
        columns = image.shape[1] * math.prod(kernel)
        if weight.rank != 2 or weight.shape[0] != columns:
            raise InferError(f"w is {weight}, expected [{columns}, Nout]", code="type.shape")
        if bias is not None:
            of_shape(bias, (weight.shape[1],), "bias", image.dtype)
        ends = pads or (0,) * (2 * axes)
        out = [(image.shape[2 + i] + ends[i] + ends[axes + i] - kernel[i]) // stride[i] + 1 for i in range(axes)]
        if min(out) < 1:
            raise InferError(
                f"the kernel {list(kernel)} is larger than the padded image {list(image.shape[2:])}", code="type.shape"
            )
        return TensorType((image.shape[0], math.prod(out), weight.shape[1]), image.dtype)

    @staticmethod
    def evaluate(
        pixels: Array,
        w: Array,
        bias: Array | None,
        *,
        kernel: tuple[int, ...],
        stride: tuple[int, ...],
        pads: tuple[int, ...],
    ) -> Array:
        columns = patches(f32(pixels), kernel, stride, pads)
        y = (columns.reshape(-1, columns.shape[-1]) @ f32(w)).reshape(*columns.shape[:2], w.shape[1])
        if bias is not None:
            y += f32(bias)
        return y.astype(pixels.dtype, copy=False)

    @staticmethod
    def examples() -> Examples:
        return [
            ([sample(2, 3, 8, 6), sample(3 * 4 * 2, 5), sample(5)], {"kernel": (4, 2), "stride": (4, 2)}),
            (
                [sample(1, 3, 4, 6, 6), sample(3 * 2 * 3 * 3, 5), None],
                {"kernel": (2, 3, 3), "stride": (2, 2, 2), "pads": (0, 1, 1, 0, 1, 1)},
            ),
        ]


def patches(image: Array, kernel: tuple[int, ...], stride: tuple[int, ...], pads: tuple[int, ...] = ()) -> Array:
    """im2col: [N, positions, C * prod(kernel)] from [N, C, spatial...]."""
    axes = len(kernel)
    if any(pads):
        image = np.pad(image, [(0, 0), (0, 0), *((pads[i], pads[axes + i]) for i in range(axes))])
    spatial = tuple(range(2, 2 + axes))
    windows = np.lib.stride_tricks.sliding_window_view(image, kernel, axis=spatial)
    windows = windows[(slice(None), slice(None), *(slice(None, None, s) for s in stride))]
    order = (0, *spatial, 1, *range(2 + axes, 2 + 2 * axes))
    moved = windows.transpose(order)
    return moved.reshape(image.shape[0], math.prod(moved.shape[1 : 1 + axes]), -1)
