"""Walking a module's use-def graph from op to op: nearest linears, residual adds, what a value is computed from."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from focusc.ir.core import Op, Value
from focusc.ir.types import ConcentratedType, TensorType

LINEAR, ATTENTION, ADD = "nn.linear", "nn.attention", "tensor.add"


def shape(value: Value) -> tuple[int, ...]:
    """Shape of a tensor or concentrated value."""
    assert isinstance(value.type, (TensorType, ConcentratedType))
    return value.type.shape


def operand(op: Op, index: int) -> Value:
    """A required operand."""
    value = op.operands[index]
    assert value is not None
    return value


def constant(value: Value) -> bool:
    """True for a weight or another constant."""
    return value.op is not None and value.op.name == "tensor.constant"


def sources(op: Op) -> list[Value]:
    """Operands that the rows of the result are made of; the token lists of sec.* and sic.* only say which rows."""
    data = op.operands[:1] if op.name.startswith(("sec.", "sic.")) else op.operands
    return [v for v in data if v is not None]


def joins(op: Op) -> bool:
    """True for an add of two activations; one with a constant is a bias."""
    return op.name == ADD and not any(constant(v) for v in op.operands if v is not None)


def ancestors(value: Value) -> set[Op]:
    """The op of `value` and what it is computed from, back to the nearest attention or two-sided add."""
    found: set[Op] = set()
    stack = [value]
    while stack:
        op = stack.pop().op
        if op is None or op in found:
            continue
        found.add(op)
        if op.name != ATTENTION and not joins(op):
            stack += sources(op)
    return found


def linears_behind(value: Value) -> list[Op]:
    """The nearest linears that `value` is computed from; a way ends at a product of two activations."""
    return _nearest(value.op, lambda op: [v.op for v in sources(op)])


def linears_after(start: Iterable[Op], stop: Callable[[Op], bool]) -> list[Op]:
    """The nearest linears computed from the results of `start`; ops for which `stop` holds are not crossed."""
    found: list[Op] = []
    for op in start:
        for linear in _nearest(op, lambda o: [u for v in o.results for u in v.users if not stop(u)], skip=op):
            if linear not in found:
                found.append(linear)
    return found


def _nearest(start: Op | None, follow: Callable[[Op], list[Op | None]], skip: Op | None = None) -> list[Op]:
    found: list[Op] = []
    seen: set[Op] = set()
    stack = [start]
    while stack:
        op = stack.pop()
        if op is None or op in seen:
            continue
        seen.add(op)
        if op is skip or op.name not in (LINEAR, "tensor.matmul"):
            stack += reversed(follow(op))
        elif op.name == LINEAR:
            found.append(op)
    return found


def residual_add(value: Value) -> Op | None:
    """The first add of two activations that `value` runs into, through ops that keep one row for each token."""
    for _ in range(32):
        users = [u for u in value.users if u.name != "return"]
        adds = [u for u in users if joins(u)]
        if adds:
            return adds[0]
        if len(users) != 1 or len(users[0].results) != 1 or users[0].name in (LINEAR, ATTENTION):
            return None
        value = users[0].result
    return None


def stream_of(add: Op, order: dict[Op, int]) -> Value | None:
    """Of the operands of an add, the one from which the other is computed; None if neither is. `order`: places of the
    ops in their block."""
    a, b = operand(add, 0), operand(add, 1)
    return a if computed_from(b, a, order) else b if computed_from(a, b, order) else None


def computed_from(value: Value, origin: Value, order: dict[Op, int]) -> bool:
    """True if `value` depends on `origin`."""
    first = -1 if origin.op is None else order[origin.op]
    seen: set[Op] = set()
    stack = [value.op]
    while stack:
        op = stack.pop()
        if op is None or op in seen or order[op] <= first:
            continue
        seen.add(op)
        if any(v is origin for v in op.operands):
            return True
        stack += [v.op for v in sources(op)]
    return False
