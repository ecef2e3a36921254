"""Seeded inputs for a module, and comparison of two runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from focusc.ir.core import Module, Value
from focusc.ir.types import DTYPES, TensorType, TokensType

_PASSED_ON = ("tensor.cast", "tensor.reshape", "tensor.transpose", "tensor.slice", "tensor.concat", "tensor.expand")


SMALLEST = 1e-6
"""Outputs below are compared as if they were this large: f32 sums that cancel leave about that much of ones."""


def seeded_inputs(module: Module, seed: int = 0) -> dict[str, Any]:
    """Inputs by name: normal floats, random bools, integers small enough for every table that they index."""
    inputs: dict[str, Any] = {}
    for i, arg in enumerate(module.args):
        r = np.random.default_rng([seed, i])
        if isinstance(arg.type, TokensType):
            inputs[arg.name] = np.sort(r.choice(arg.type.of, arg.type.count, replace=False)).astype(np.int32)
        elif not isinstance(arg.type, TensorType):
            inputs[arg.name] = 0
        elif arg.type.dtype == "bool":
            inputs[arg.name] = r.integers(0, 2, arg.type.shape).astype(bool)
        elif arg.type.dtype[0] == "f":
            inputs[arg.name] = r.standard_normal(arg.type.shape).astype(DTYPES[arg.type.dtype])
        else:
            inputs[arg.name] = r.integers(0, index_bound(arg), arg.type.shape).astype(DTYPES[arg.type.dtype])
    return inputs


def index_bound(value: Value, default: int = 4) -> int:
    """Smallest extent that `value` indexes, directly or through ops that move data."""
    bound, seen, work = 1 << 31, {value}, [value]
    while work:
        current = work.pop()
        for user in current.users:
            table: Value | None = None
            axis = 0
            if user.name == "nn.embed" and user.operands[0] is current:
                table = user.operands[1]
            elif user.name.startswith("tensor.gather") and user.operands[1] is current:
                table, axis = user.operands[0], user.attrs.get("axis", 0)
            elif user.name in _PASSED_ON and user.result not in seen:
                seen.add(user.result)
                work.append(user.result)
            if table is not None and isinstance(table.type, TensorType) and table.type.rank:
                bound = min(bound, table.type.shape[axis])
    return max(bound, 1) if bound < 1 << 31 else default


def compare(a: Mapping[str, Any], b: Mapping[str, Any], tolerance: float) -> list[str]:
    """What differs between two sets of outputs, in words: floats by more than `tolerance` times the output's
    largest magnitude (at least `SMALLEST`), everything else at all. NaN equals NaN."""
    if set(a) != set(b):
        return [f"outputs are {sorted(b)}, they were {sorted(a)}"]
    found: list[str] = []
    for name in a:
        x, y = np.asarray(a[name]), np.asarray(b[name])
        if x.shape != y.shape or x.dtype != y.dtype:
            found.append(f"output {name!r} is {y.dtype}{list(y.shape)}, it was {x.dtype}{list(x.shape)}")
        elif np.issubdtype(x.dtype, np.floating):
            wide, new = x.astype(np.float64), y.astype(np.float64)
            same = (wide == new) | (np.isnan(wide) & np.isnan(new))
            with np.errstate(invalid="ignore"):
                gap = np.where(same, 0.0, np.abs(wide - new))
            gap[np.isnan(gap)] = np.inf
            worst = float(gap.max(initial=0.0))
            finite = np.abs(wide[np.isfinite(wide)])
            if worst > tolerance * max(SMALLEST, float(finite.max(initial=0.0))):
                place = np.unravel_index(int(gap.argmax()), x.shape)
                found.append(
                    f"output {name!r} differs by {worst:.3g} at {[int(i) for i in place]}: {y[place]} against "
                    f"{x[place]} before"
                )
        elif not np.array_equal(x, y):
            found.append(f"output {name!r} differs in {int((x != y).sum())} of {x.size} elements")
    return found
