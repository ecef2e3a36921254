"""Structural matching for import rules and passes: what a value is made of, never what it is called."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, cast

import numpy as np

from focusc.ir.core import Module, Op, Value
from focusc.ir.diagnostics import CompileError
from focusc.ir.passes.manager import Stats
from focusc.ir.resource import Resource
from focusc.ir.rewrite import Rewriter
from focusc.ir.types import TensorType

LIMIT = 1 << 28
"""Largest result in bytes that constant evaluation computes; views of a weight are free and have no limit."""

VIEWS = frozenset({"tensor.constant", "tensor.transpose", "tensor.reshape", "tensor.slice"})
"""Ops whose result numpy gives as a view, so that a weight of any size can pass through them."""


def shape_of(value: Value) -> tuple[int, ...]:
    """Shape of a tensor value (a concentrated value has one too)."""
    return value.type.shape  # type: ignore[attr-defined]


def dtype_of(value: Value) -> str:
    """Element type of a tensor value."""
    return value.type.dtype  # type: ignore[attr-defined]


def depends_on_constants(value: Value, limit: int = LIMIT, memo: dict[Value, bool] | None = None) -> bool:
    """True if the value is computed from constants only, by pure ops, with no step above `limit` bytes.

    A constant without values is one too: a model without weights takes the same form as with them. `memo` may be shared
    between calls as long as the graph only grows.
    """
    known: dict[Value, bool] = {} if memo is None else memo
    stack = [value]
    while stack:
        current = stack[-1]
        if current in known:
            stack.pop()
            continue
        op = current.op
        if op is None or not foldable(op, limit):
            known[current] = False
            stack.pop()
            continue
        operands = [v for v in op.operands if v is not None]
        if any(known.get(v) is False for v in operands):
            known[current] = False
            stack.pop()
        elif missing := [v for v in operands if v not in known]:
            stack += missing
        else:
            known[current] = True
            stack.pop()
    return known[value]


def foldable(op: Op, limit: int = LIMIT) -> bool:
    """True if `op` can be evaluated when compiling, once its operands are known."""
    if not op.spec.pure or op.spec.terminator or op.regions or len(op.results) != 1:
        return False
    type_ = op.result.type
    return isinstance(type_, TensorType) and (op.name in VIEWS or type_.nbytes <= limit)


def absent(op: Op) -> bool:
    """True for a constant without values."""
    return op.name == "tensor.constant" and op.attrs["value"].absent


def known_array(value: Value, limit: int = LIMIT, memo: dict[Value, bool] | None = None) -> np.ndarray | None:
    """The value's contents if it depends on constants only (see `depends_on_constants`), and they have values."""
    if not depends_on_constants(value, limit, memo):
        return None
    found: dict[Value, np.ndarray | None] = {}
    stack = [value]
    while stack:
        op = stack[-1].op
        assert op is not None
        if missing := [v for v in op.operands if v is not None and v not in found]:
            stack += missing
            continue
        arrays = [None if v is None else found[v] for v in op.operands]
        failed = any(a is None and v is not None for a, v in zip(arrays, op.operands, strict=True))
        found[stack.pop()] = None if failed else evaluate_op(op, arrays)
    return found[value]


def evaluate_op(op: Op, arrays: list[Any]) -> np.ndarray | None:
    """The op's only result on given operand arrays, None if it cannot be computed (index out of range, no memory)."""
    fn = type(op).evaluate
    assert fn is not None
    try:
        with np.errstate(all="ignore"):
            got = fn(*arrays, **op.keywords())
    except (CompileError, ArithmeticError, ValueError, IndexError, MemoryError):
        return None
    return np.asarray(cast("tuple[Any, ...]", got)[0] if isinstance(got, tuple) else got)


# ---- what a value is made of


def producer(value: Value | None, *names: str) -> Op | None:
    """The op that defines the value, if it is one of these."""
    op = value.op if value is not None else None
    return op if op is not None and op.name in names else None


def constant_of(value: Value | None) -> np.ndarray | None:
    """The values of a `tensor.constant`, else None."""
    op = producer(value, "tensor.constant")
    return None if op is None or absent(op) else op.attrs["value"].array


def scalar_of(value: Value | None) -> float | None:
    """The number of a constant of one element, else None."""
    op = producer(value, "tensor.constant")
    if op is None or op.attrs["value"].size != 1 or absent(op):
        return None
    return float(op.attrs["value"].array.reshape(-1)[0])


def both_orders(op: Op) -> tuple[tuple[Value, Value], tuple[Value, Value]]:
    """The two operands of a commutative op, in both orders."""
    x, y = op.operands
    assert x is not None and y is not None
    return (x, y), (y, x)


def row_constant(value: Value, width: int) -> bool:
    """True for a value computed from constants that broadcasts as one row [width] over the last axis."""
    shape = shape_of(value)
    return shape[-1:] == (width,) and all(d == 1 for d in shape[:-1]) and depends_on_constants(value)


def factors(value: Value, depth: int) -> tuple[float, list[tuple[Value, int]]]:
    """The value as number * product of (value, +1 or -1), through `depth` levels of mul, div, neg and reciprocal."""
    number = scalar_of(value)
    if number is not None:
        return number, []
    op = value.op
    if depth == 0 or op is None or op.name not in ("tensor.mul", "tensor.div", "tensor.neg", "tensor.reciprocal"):
        return 1.0, [(value, 1)]
    parts = [factors(v, depth - 1) for v in op.operands if v is not None]
    total, found = parts[0]
    if op.name == "tensor.neg":
        return -total, found
    if op.name == "tensor.mul":
        return total * parts[1][0], found + parts[1][1]
    if op.name == "tensor.div":
        if parts[1][0] == 0:
            return 1.0, [(value, 1)]
        return total / parts[1][0], found + [(v, -sign) for v, sign in parts[1][1]]
    return (1 / total, [(v, -sign) for v, sign in found]) if total else (1.0, [(value, 1)])


# ---- rewriting


Rule = Callable[[Op, Rewriter], str | None]
"""Rewrites at one op and returns the counter to raise, or None if it does not apply and did nothing."""

ROUNDS = 100
"""Rounds over the module after which `rewrite` stops; every rule shrinks or moves one way, so few are needed."""


def rewrite(module: Module, stats: Stats, rules: Sequence[Rule]) -> Module:
    """Apply rules to every op until none applies; drop unused ops. Returns the original if nothing changed."""
    out = module.clone()
    rewriter = Rewriter(out)
    applied = 0
    for _ in range(ROUNDS):
        before = applied
        for op in list(out.walk()):
            for rule in rules:
                if op.parent is None:
                    break
                counter = rule(op, rewriter)
                if counter is not None:
                    stats[counter] += 1
                    applied += 1
        drop_unused(out, rewriter)
        if applied == before:
            break
    return out if applied else module


def drop_unused(module: Module, rewriter: Rewriter) -> None:
    """Erase pure ops of the body whose results nobody reads."""
    for op in reversed(list(module.body.ops)):
        if op.spec.pure and not op.spec.terminator and not any(v.use_count for v in op.results):
            rewriter.erase(op)


def resource_names(module: Module) -> Iterator[str]:
    """Names of all constants."""
    for op in module.walk():
        if op.name == "tensor.constant" and isinstance(op.attrs["value"], Resource):
            yield op.attrs["value"].name
