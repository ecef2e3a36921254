"""Attribute values: their canonical form and their comparison."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeGuard, cast

import numpy as np

from focusc.ir.diagnostics import fail
from focusc.ir.resource import Resource


def is_sequence(value: Any) -> TypeGuard[Sequence[Any]]:
    """True for a list or tuple."""
    return isinstance(value, (list, tuple))


def is_mapping(value: Any) -> TypeGuard[dict[Any, Any]]:
    """True for a dict."""
    return isinstance(value, dict)


def canonical(value: Any, depth: int = 0) -> Any:
    """Attribute value in canonical form: Python scalars, tuples, str-keyed dicts, Resources."""
    kind = cast("type[Any]", type(value))
    if kind in (int, float, bool, str) or isinstance(value, Resource):
        return value
    if depth > 8:
        raise fail("attr.type", "an attribute is nested more than 8 deep")
    if is_sequence(value):
        return tuple(canonical(v, depth + 1) for v in value)
    if is_mapping(value):
        if any(not isinstance(k, str) for k in value):
            raise fail("attr.type", "a dict attribute has keys that are not strings")
        return {k: canonical(v, depth + 1) for k, v in value.items()}
    if isinstance(value, (np.bool_, np.integer, np.floating)):
        return cast("np.generic[Any]", value).item()
    if isinstance(value, np.ndarray):
        return Resource("", cast("np.ndarray[Any, Any]", value))
    for plain in (int, float, str):  # subclasses: enum members, str subclasses
        if isinstance(value, plain):
            return plain(value)
    raise fail(
        "attr.type",
        f"an attribute value has type {kind.__name__}; expected int, float, bool, str, list, dict or Resource",
    )


def freeze(value: Any) -> Any:
    """A hashable stand-in for an attribute value; equal exactly for equal values."""
    if is_mapping(value):
        return ("dict", *((k, freeze(v)) for k, v in sorted(value.items())))
    if is_sequence(value):
        return ("list", *map(freeze, value))
    if isinstance(value, Resource):
        return value
    return (type(value).__name__, repr(value))
