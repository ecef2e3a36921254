"""Matrix products, convolution, pooling."""

from __future__ import annotations

import numpy as np

from focusc.frontend.node import Node, rank, shape
from focusc.frontend.registry import rule
from focusc.ir import Value


@rule("MatMul")
def matmul(n: Node) -> Value:
    """numpy.matmul."""
    return n.emit("tensor.matmul", n.x(0), n.x(1))


@rule("Gemm")
def gemm(n: Node) -> Value:
    """alpha * op(A) @ op(B) + beta * C."""
    a = n.transpose(n.x(0), (1, 0)) if n.attr("transA", 0) else n.x(0)
    b = n.transpose(n.x(1), (1, 0)) if n.attr("transB", 0) else n.x(1)
    y = _scaled(n, n.emit("tensor.matmul", a, b), float(n.attr("alpha", 1.0)))
    beta, c = float(n.attr("beta", 1.0)), n.get(2)
    return y if c is None or beta == 0 else n.add(y, _scaled(n, c, beta))


def _scaled(n: Node, x: Value, factor: float) -> Value:
    return x if factor == 1.0 else n.mul(x, n.scalar(factor, x))


@rule("Conv")
def conv(n: Node) -> Value:
    """Convolution over any number of spatial axes, grouped and dilated."""
    x, w = n.x(0), n.x(1)
    kernel, spatial = shape(w)[2:], rank(x) - 2
    n.check(tuple(n.attr("kernel_shape", kernel)) == kernel, f"kernel_shape {list(kernel)} as the weight has",
            n.attr("kernel_shape"))
    strides = [int(v) for v in n.attr("strides", [1] * spatial)]
    dilations = [int(v) for v in n.attr("dilations", [1] * spatial)]
    pads = _pads(n, shape(x)[2:], kernel, strides, dilations)
    return n.emit("tensor.conv", x, w, n.get(2), strides=tuple(strides), pads=tuple(pads), dilations=tuple(dilations),
                  group=int(n.attr("group", 1)))


@rule("MaxPool")
def max_pool(n: Node) -> Value:
    """Largest element of each window. Partial windows (ceil_mode) are windows over more padding, which never wins."""
    x, kernel = n.x(), tuple(int(v) for v in n.attr("kernel_shape"))
    spatial = len(kernel)
    strides = [int(v) for v in n.attr("strides", [1] * spatial)]
    dilations = [int(v) for v in n.attr("dilations", [1] * spatial)]
    pads = _pads(n, shape(x)[2:], kernel, strides, dilations)
    if n.attr("ceil_mode", 0):
        for axis, (extent, k, s, d) in enumerate(zip(shape(x)[2:], kernel, strides, dilations, strict=True)):
            reach = d * (k - 1) + 1
            count = _windows(extent, (pads[axis], pads[axis + spatial]), reach, s, True)
            pads[axis + spatial] = max((count - 1) * s + reach - extent - pads[axis], 0)
    return n.emit("tensor.max_pool", x, kernel=kernel, strides=tuple(strides), pads=tuple(pads),
                  dilations=tuple(dilations))


@rule("AveragePool")
def average_pool(n: Node) -> Value:
    """Mean over windows; with dilation or partial windows as products with averaging matrices, axis by axis."""
    x, kernel = n.x(), tuple(int(v) for v in n.attr("kernel_shape"))
    spatial = rank(x) - 2
    strides = [int(v) for v in n.attr("strides", [1] * spatial)]
    dilations = [int(v) for v in n.attr("dilations", [1] * spatial)]
    pads = _pads(n, shape(x)[2:], kernel, strides, dilations)
    counted, ceil = bool(n.attr("count_include_pad", 0)), bool(n.attr("ceil_mode", 0))
    if not ceil and set(dilations) == {1}:
        return n.emit("tensor.average_pool", x, kernel=kernel, strides=tuple(strides), pads=tuple(pads),
                      count_include_pad=counted)
    for axis in range(spatial):
        x = _pool_axis(n, x, axis + 2, kernel[axis], strides[axis], dilations[axis],
                       (pads[axis], pads[axis + spatial]), ceil, counted)
    return x


def _pool_axis(n: Node, x: Value, axis: int, kernel: int, stride: int, dilation: int, pads: tuple[int, int],
               ceil: bool, counted: bool) -> Value:
    """Windows along one axis as a product with a constant averaging matrix: pooling is separable and linear."""
    extent = shape(x)[axis]
    outputs = _windows(extent, pads, dilation * (kernel - 1) + 1, stride, ceil)
    weight = np.zeros((extent, outputs), np.float32)
    for o in range(outputs):
        cells = np.arange(kernel) * dilation + o * stride - pads[0]
        inside = cells[(cells >= 0) & (cells < extent)]
        padded = cells[(cells >= -pads[0]) & (cells < extent + pads[1])]
        np.add.at(weight[:, o], inside, 1 / max(len(padded) if counted else len(inside), 1))
    return along_axis(n, x, axis, weight)


def _windows(extent: int, pads: tuple[int, int], reach: int, stride: int, ceil: bool) -> int:
    """How many windows an axis has; with `ceil` also those that end outside."""
    room = extent + sum(pads) - reach
    count = (-(-room // stride) if ceil else room // stride) + 1
    # a window must start inside the input or its left padding
    return count - 1 if ceil and (count - 1) * stride >= extent + pads[0] else count


def along_axis(n: Node, x: Value, axis: int, weight: np.ndarray) -> Value:
    """Apply a matrix [extent, outputs] along one axis of x."""
    order = [a for a in range(rank(x)) if a != axis] + [axis]
    y = n.emit("tensor.matmul", n.transpose(x, order), n.constant(weight))
    return n.transpose(y, np.argsort(order).tolist())


def _pads(n: Node, extents: tuple[int, ...], kernel: tuple[int, ...], strides: list[int],
          dilations: list[int]) -> list[int]:
    """Explicit pads [begins, ends], from `pads` or `auto_pad`."""
    mode = n.attr("auto_pad", "NOTSET")
    if mode == "NOTSET":
        return [int(v) for v in n.attr("pads", [0] * (2 * len(kernel)))]
    if mode == "VALID":
        return [0] * (2 * len(kernel))
    n.check(mode in ("SAME_UPPER", "SAME_LOWER"), "auto_pad NOTSET, VALID, SAME_UPPER or SAME_LOWER", mode)
    begins, ends = [], []
    for extent, k, s, d in zip(extents, kernel, strides, dilations, strict=True):
        total = max((-(-extent // s) - 1) * s + d * (k - 1) + 1 - extent, 0)
        small, large = total // 2, total - total // 2
        begins.append(small if mode == "SAME_UPPER" else large)
        ends.append(large if mode == "SAME_UPPER" else small)
    return begins + ends
