"""Structural matching for import rules and passes: what a value is made of, never what it is called."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.core import Op, Value
from focusc.ir.diagnostics import CompileError
from focusc.ir.types import TensorType

LIMIT = 1 << 28
"""Largest result in bytes that constant evaluation computes; views of a weight are free and have no limit."""

VIEWS = frozenset({"tensor.constant", "tensor.transpose", "tensor.reshape", "tensor.slice", "tensor.expand"})
"""Ops whose result numpy gives as a view, so that a weight of any size can pass through them (a reshape of a
transposed weight is the exception, and is limited)."""


def shape_of(value: Value) -> tuple[int, ...]:
    """Shape of a tensor value (a concentrated value has one too)."""
    return value.type.shape  # type: ignore[attr-defined]


def dtype_of(value: Value) -> str:
    """Element type of a tensor value."""
    return value.type.dtype  # type: ignore[attr-defined]


def depends_on_constants(value: Value, limit: int = LIMIT, memo: dict[Value, bool] | None = None) -> bool:
    """True if the value is computed from constants only, by pure ops, with no step above `limit` bytes.

    `memo` may be shared between calls as long as the graph only grows.
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


def known_array(value: Value, limit: int = LIMIT, memo: dict[Value, bool] | None = None) -> np.ndarray | None:
    """The value's contents if it depends on constants only (see `depends_on_constants`), else None."""
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
    """The op's only result on given operand arrays, None if it cannot be computed (an index out of range, no memory)."""
    fn = type(op).evaluate
    assert fn is not None
    try:
        with np.errstate(all="ignore"):
            got = fn(*arrays, **op.keywords())
    except (CompileError, ArithmeticError, ValueError, IndexError, MemoryError):
        return None
    return np.asarray(got[0] if isinstance(got, tuple) else got)
