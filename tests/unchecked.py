"""For tests of what happens to a value of the wrong type."""

from __future__ import annotations

from typing import Any


def unchecked(value: object) -> Any:
    """`value` without its type, where a type checker refuses what the program has to refuse as well."""
    return value
