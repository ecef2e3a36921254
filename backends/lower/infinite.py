"""Which values may hold an infinity that the model means, as masks do: the fill of a selection, of a margin, of a sum,
the logarithm of zero, a division by zero.

A constant beyond f16's range counts as one, since f16 stores it so. What only overflows is no such value.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

from focusc.backends.legality import MOVES
from focusc.backends.lower.signs import positive
from focusc.ir import Op, TensorType, Value

LARGEST = 65504.0
"""Largest finite number of f16."""
FOLLOWED = MOVES | {"nn.pool", "tensor.trilu"} | {
    f"tensor.{name}"
    for name in ("where", "add", "sub", "mul", "div", "max", "min", "neg", "abs", "sqrt", "cumsum",
                 "reduce_sum", "reduce_mean", "reduce_max", "reduce_min")
}  # fmt: skip
"""Ops whose result may be infinite where an operand is. Products and norms give NaN of one, softmax and the bounded
functions give a finite number."""

_OF_ZERO = {"tensor.log": 0, "tensor.reciprocal": 0, "tensor.div": 1}
"""Ops that make an infinity of zero, and which operand that is."""


def may_be_infinite(value: Value, known: dict[Value, bool]) -> bool:
    """Whether an infinity of a constant, or that a zero makes, may reach `value`; `known` keeps the answers."""
    if value not in known:
        seen, stack = {value}, [value]
        found = False
        while stack and not found:
            at = stack.pop()
            if at in known:
                found = known[at]
                continue
            found = _source(at)
            for v in _reached(at.op):
                if v not in seen:
                    seen.add(v)
                    stack.append(v)
        known |= {value: True} if found else dict.fromkeys(seen, False)
    return known[value]


def _source(value: Value) -> bool:
    """A constant of floats with an infinity or a number that f16 makes one, a margin of it, what the host computes
    with one, or what zero becomes."""
    op = value.op
    if op is not None and op.name in _OF_ZERO:
        zero = op.operands[_OF_ZERO[op.name]]
        return zero is not None and not positive(zero) and not _nonzero(zero)
    if op is not None and op.name == "tensor.pad":
        return not math.isfinite(op.attrs["value"])
    if op is not None and op.name == "host.call":
        inside = [inner for block in op.regions for inner in block.ops]
        return any(_source(result) for inner in inside for result in inner.results)
    if op is None or op.name != "tensor.constant" or op.attrs["value"].absent:
        return False
    array = op.attrs["value"].array
    return bool(array.dtype.kind == "f" and array.size and max(-array.min(), array.max()) > LARGEST)


def _nonzero(value: Value) -> bool:
    """A constant without a zero: what a division by it does is no infinity's making."""
    op = value.op
    if op is None or op.name != "tensor.constant" or op.attrs["value"].absent:
        return False
    return bool((op.attrs["value"].array != 0).all())


def _reached(op: Op | None) -> Iterator[Value]:
    """The operands whose infinities the results of an op may have."""
    if op is None or op.name not in FOLLOWED | {"host.call"}:
        return
    for v in op.operands:
        if v is None or not isinstance(v.type, TensorType) or not v.type.dtype.startswith("f"):
            continue
        if op.name in ("tensor.max", "tensor.min") and _bound(v, upper=op.name == "tensor.min"):
            continue
        yield v


def _bound(value: Value, *, upper: bool) -> bool:
    """A constant that as a bound takes infinities away, or leaves them: clip(x, -3.4e38, 3.4e38) is as finite as x."""
    op = value.op
    if op is None or op.name != "tensor.constant" or op.attrs["value"].absent or not op.attrs["value"].size:
        return False
    array = op.attrs["value"].array
    return bool(array.min() >= -LARGEST if upper else array.max() <= LARGEST)
