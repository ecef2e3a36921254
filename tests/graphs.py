"""Walking a graph in tests."""

from __future__ import annotations

from focusc.ir import Op, Type, Value, matching


def made_by(value: Value | None) -> Op:
    """The op that computes a value; the test fails for an absent operand and an argument of the module."""
    assert value is not None and value.op is not None
    return value.op


def type_of(value: Value | None) -> Type:
    """The type of an operand that is there."""
    assert value is not None
    return value.type


def shape_of(value: Value | None) -> tuple[int, ...]:
    """The shape of an operand that is there."""
    assert value is not None
    return matching.shape_of(value)
