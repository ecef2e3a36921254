"""Recognising a function of one value by what it computes, not by how it is written.

Every algebraic form of GELU or SiLU is a small cone of elementwise ops over one value and some numbers. The cone is
run by the ops' own `evaluate` on sample points and compared with the function.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from focusc.ir.core import Op, Value
from focusc.ir.matching import evaluate_op, factors, scalar_of

ELEMENTWISE = frozenset(f"tensor.{name}" for name in (
    "add", "sub", "mul", "div", "pow", "neg", "reciprocal", "sqrt", "exp", "log", "sigmoid", "tanh", "erf", "abs",
    "max", "min"))

CONE = 24
"""Most ops that a cone may have; the longest spelling of a GELU has about a dozen."""

POINTS = np.linspace(-6, 6, 241, dtype=np.float32)
"""Where functions are compared. They differ most around +-2; far outside all are 0 or x."""

TOLERANCE = 1e-5
"""Largest difference at a point. Rounding gives about 1e-6; the nearest two functions (GELU by erf and by tanh) are
5e-4 apart."""


def argument_of(root: Op, function: Callable[[np.ndarray], np.ndarray]) -> Value | None:
    """x, if the result of `root` (a mul or div) is function(x) for a factor x of it; else None."""
    tried: set[Value] = set()
    for depth in (1, 2, 3):
        for x, sign in factors(root.result, depth)[1]:
            if sign != 1 or x in tried or x is root.result:
                continue
            tried.add(x)
            if x.type != root.result.type:
                continue
            got = evaluate_cone(root.result, x, POINTS)
            if got is not None and np.max(np.abs(got - function(POINTS))) < TOLERANCE:
                return x
    return None


def evaluate_cone(value: Value, x: Value, points: np.ndarray) -> np.ndarray | None:
    """The value as a function of x on sample points; None if it depends on anything else than x and numbers."""
    known: dict[Value, np.ndarray | None] = {x: points}
    stack = [value]
    while stack:
        current = stack[-1]
        number = scalar_of(current)
        op = current.op
        if current in known:
            stack.pop()
        elif number is not None:
            known[current] = np.float32(number)  # type: ignore[assignment]
            stack.pop()
        elif op is None or op.name not in ELEMENTWISE or len(known) > CONE:
            return None
        elif missing := [v for v in op.operands if v is not None and v not in known]:
            stack += missing
        else:
            known[current] = evaluate_op(op, [known[v] for v in op.operands if v is not None])
            if known[current] is None:
                return None
            stack.pop()
    got = known[value]
    return got if got is not None and got.shape == points.shape else None
