"""Einsum as transposes, matrix products, products and sums."""

from __future__ import annotations

import math
import string
from dataclasses import dataclass

import numpy as np

from focusc.frontend.node import Node, rank, shape
from focusc.frontend.registry import rule
from focusc.ir import Value


@dataclass(frozen=True, slots=True)
class Term:
    """A value with a letter for each axis."""

    value: Value
    axes: str


@rule("Einsum")
def einsum(n: Node) -> Value:
    """The equation, from left to right two operands at a time; an ellipsis broadcasts."""
    terms, output = _parse(n)
    total = terms[0]
    for index, term in enumerate(terms[1:], 2):
        later = set(output).union(*(t.axes for t in terms[index:]))
        total = _product(n, _summed(n, total, later | set(term.axes)), _summed(n, term, later | set(total.axes)), later)
    total = _summed(n, total, set(output))
    return n.transpose(total.value, [total.axes.index(a) for a in output])


def _parse(n: Node) -> tuple[list[Term], str]:
    """Operands with their letters, and those of the output; the axes of an ellipsis get letters of their own."""
    equation = str(n.attr("equation")).replace(" ", "")
    left, arrow, output = equation.partition("->")
    inputs = left.split(",")
    n.check(len(inputs) == len(n.inputs), f"{len(n.inputs)} terms", f"equation {equation!r}")
    free = [c for c in string.ascii_letters if c not in equation]
    wide = max((rank(n.x(i)) - len(t.replace("...", "")) for i, t in enumerate(inputs) if "..." in t), default=0)
    n.check(0 <= wide <= len(free), "an ellipsis that fits the operands", f"equation {equation!r}")
    terms = []
    for i, text in enumerate(inputs):
        x = n.x(i)
        own = rank(x) - len(text.replace("...", ""))
        axes = text.replace("...", "".join(free[wide - own : wide])) if "..." in text else text
        n.check(len(axes) == rank(x), f"{rank(x)} letters for operand {i}", repr(text))
        terms.append(_diagonal(n, Term(x, axes)))
    if not arrow:
        named = [c for c in sorted(left) if c.isalpha() and left.count(c) == 1]
        output = ("..." if wide else "") + "".join(named)
    output = output.replace("...", "".join(free[:wide]))
    known = set("".join(t.axes for t in terms))
    n.check(set(output) <= known and len(set(output)) == len(output), "output axes of the operands, each once",
            f"equation {equation!r}")
    return terms, output


def _diagonal(n: Node, term: Term) -> Term:
    """An axis that is named twice is a diagonal: zeros elsewhere, summed."""
    value, axes = term.value, term.axes
    while repeated := next((a for a in axes if axes.count(a) > 1), ""):
        first, last = axes.index(repeated), axes.rindex(repeated)
        dims = shape(value)
        n.check(dims[first] == dims[last], f"one extent for axis {repeated!r}", f"{dims[first]} and {dims[last]}")
        eye = np.eye(dims[first], dtype=bool).reshape([d if i in (first, last) else 1 for i, d in enumerate(dims)])
        only = n.emit("tensor.where", n.constant(eye), value, n.scalar(0, value))
        value, axes = n.emit("tensor.reduce_sum", only, axes=(last,), keepdims=False), axes[:last] + axes[last + 1 :]
    return Term(value, axes)


def _summed(n: Node, term: Term, keep: set[str]) -> Term:
    """Summed over the axes that nobody else has."""
    gone = tuple(i for i, a in enumerate(term.axes) if a not in keep)
    if not gone:
        return term
    return Term(n.emit("tensor.reduce_sum", term.value, axes=gone, keepdims=False),
                "".join(a for a in term.axes if a in keep))


def _product(n: Node, a: Term, b: Term, keep: set[str]) -> Term:
    """The product of two operands, summed over the axes that both have and nobody keeps."""
    extent = {axis: d for t in (b, a) for axis, d in zip(t.axes, shape(t.value), strict=True)}
    extent |= {axis: d for axis, d in zip(b.axes, shape(b.value), strict=True) if extent[axis] == 1}
    both = [c for c in a.axes if c in b.axes]
    batch, inner = "".join(c for c in both if c in keep), "".join(c for c in both if c not in keep)
    rows, columns = ("".join(c for c in t.axes if c not in both) for t in (a, b))
    left, right = _ordered(n, a, batch + rows + inner, extent), _ordered(n, b, batch + inner + columns, extent)
    result = batch + rows + columns
    dims = [extent[c] for c in result]
    if not inner:
        left = n.reshape(left, [*shape(left), *[1] * len(columns)])
        right = n.reshape(right, [extent[c] for c in batch] + [1] * len(rows) + [extent[c] for c in columns])
        return Term(n.mul(left, right), result)
    outer = [extent[c] for c in batch]
    m, k, c = (math.prod(extent[x] for x in part) for part in (rows, inner, columns))
    split = [extent[x] for x in rows] if not batch and rows else [m]
    y = n.emit("tensor.matmul", n.reshape(left, [*outer, *split, k]), n.reshape(right, [*outer, k, c]))
    return Term(n.reshape(y, dims), result)


def _ordered(n: Node, term: Term, order: str, extent: dict[str, int]) -> Value:
    """The operand with its axes in this order, and those of an ellipsis that are 1 here broadcast."""
    moved = n.transpose(term.value, [term.axes.index(a) for a in order])
    return n.expand(moved, [extent[a] for a in order])
