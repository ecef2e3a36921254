"""Reading and writing by index."""

from __future__ import annotations

import numpy as np

from focusc.frontend.node import Node, rank, shape
from focusc.frontend.registry import rule
from focusc.ir import Value


@rule("Gather", "GatherElements")
def gather(n: Node) -> Value:
    """Slices, or single elements, of an axis by index; negative indices count from the end."""
    axis = n.axis(int(n.attr("axis", 0)), rank(n.x(0)))
    op = "tensor.gather" if n.op_type == "Gather" else "tensor.gather_elements"
    known = n.known(1)
    if known is not None and known.size:
        extent = shape(n.x(0))[axis]
        n.check(bool((known >= -extent).all() and (known < extent).all()), f"indices into an extent of {extent}",
                f"{known.min()} to {known.max()}")
    return n.emit(op, n.x(0), n.x(1), axis=axis)


@rule("GatherND")
def gather_nd(n: Node) -> Value:
    """Slices by index tuples."""
    return n.emit("tensor.gather_nd", n.x(0), n.x(1), batch_dims=int(n.attr("batch_dims", 0)))


@rule("ScatterND")
def scatter_nd(n: Node) -> Value:
    """data with slices replaced, or reduced with updates, by index tuples."""
    return n.emit("tensor.scatter_nd", n.x(0), n.x(1), n.x(2), reduction=n.attr("reduction", "none"))


@rule("ScatterElements")
def scatter_elements(n: Node) -> Value:
    """data with single elements replaced along an axis: as index tuples of which one part is given."""
    data, indices = n.x(0), n.cast(n.x(1), "i64")
    axis, dims = n.axis(int(n.attr("axis", 0)), rank(data)), shape(indices)
    grid = np.indices(dims, dtype=np.int64)
    parts = [n.reshape(indices, (*dims, 1)) if i == axis else n.constant(grid[i][..., None]) for i in range(len(dims))]
    return n.emit("tensor.scatter_nd", data, n.concat(parts, len(dims)), n.x(2), reduction=n.attr("reduction", "none"))


@rule("OneHot")
def one_hot(n: Node) -> Value:
    """on where the index equals the class, else off."""
    depth = n.ints(1, "the depth")[0]
    values = n.const(2, "the values")
    indices = n.cast(n.x(0), "i64")
    axis = n.axis(int(n.attr("axis", -1)), rank(indices) + 1)
    wrapped = n.emit("tensor.where", n.emit("tensor.less", indices, n.scalar(0, indices)),
                     n.add(indices, n.scalar(depth, indices)), indices)
    column = n.reshape(wrapped, (*shape(indices)[:axis], 1, *shape(indices)[axis:]))
    classes = n.constant(np.arange(depth, dtype=np.int64).reshape(depth, *(1,) * (rank(indices) - axis)))
    return n.emit("tensor.where", n.emit("tensor.equal", column, classes), n.constant(values[1]), n.constant(values[0]))
