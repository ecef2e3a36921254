"""Which values are surely above zero, by the ops that make them: what a division or a logarithm needs to be finite.

What only underflows counts as above zero, as what only overflows counts as finite (`infinite.py`).
"""

from __future__ import annotations

from focusc.backends.legality import MOVES
from focusc.ir import Op, Value

_DEPTH = 10
"""Ops that are looked through: a norm written out has six; beyond it nothing is known."""
_KEEP = (MOVES - {"tensor.pad"}) | {
    f"tensor.{name}" for name in ("sqrt", "cumsum", "reduce_sum", "reduce_mean", "reduce_max", "reduce_min")
}  # fmt: skip
"""Ops whose result is above zero, or at least zero, if their floating operands are."""


def positive(value: Value) -> bool:
    """True if every element is above zero, whatever the inputs are; False where that is not known."""
    return _least(value, True, _DEPTH)


def _least(value: Value, above: bool, depth: int) -> bool:
    """Every element is above zero or, without `above`, at least zero."""
    op = value.op
    if op is None or depth == 0:
        return False
    if op.name == "tensor.constant":
        return _constant(op, above)
    if op.name in ("tensor.exp", "tensor.sigmoid", "tensor.softmax"):
        return True
    first, *rest = (_Operand(v, depth - 1) for v in op.operands if v is not None)
    if op.name == "tensor.max":
        return first.least(above) or rest[0].least(above)
    if op.name == "tensor.add":
        other = rest[0]
        return first.least(False) and other.least(False) and (not above or first.least(True) or other.least(True))
    if op.name in ("tensor.mul", "tensor.div"):
        return (not above and op.operands[0] is op.operands[1]) or (first.least(above) and rest[0].least(above))
    if op.name == "tensor.abs":
        return not above
    if op.name == "tensor.pow":
        return not above and _even(op.operands[1])
    return op.name in _KEEP and first.least(above) and all(other.least(above) for other in rest if other.floating)


class _Operand:
    """An operand, `depth` ops of which may be looked through."""

    def __init__(self, value: Value, depth: int) -> None:
        self.value, self.depth = value, depth

    @property
    def floating(self) -> bool:
        """False for positions and the like."""
        return str(getattr(self.value.type, "dtype", "")).startswith("f")

    def least(self, above: bool) -> bool:
        return _least(self.value, above, self.depth)


def _constant(op: Op, above: bool) -> bool:
    data = op.attrs["value"]
    if data.absent or not data.size:
        return False
    least = data.array.min()
    return bool(least > 0 if above else least >= 0)


def _even(exponent: Value | None) -> bool:
    """A constant exponent that is an even number."""
    op = exponent.op if exponent is not None else None
    if op is None or op.name != "tensor.constant" or op.attrs["value"].absent:
        return False
    return bool((op.attrs["value"].array % 2 == 0).all())
