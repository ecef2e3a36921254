"""The table of import rules: one small function per ONNX operator, registered by `@rule`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from focusc.ir import Value

if TYPE_CHECKING:
    from focusc.frontend.node import Node

Produced = Value | Sequence[Value | None] | None
RuleFunction = Callable[["Node"], Produced]


@dataclass(frozen=True, slots=True)
class Rule:
    """How one ONNX operator is imported. `since` is the first opset (of those accepted) that has it."""

    op_type: str
    since: int
    function: RuleFunction


RULES: dict[str, Rule] = {}
"""Every rule by operator name (default operator set)."""


def rule(*op_types: str, since: int = 18) -> Callable[[RuleFunction], RuleFunction]:
    """Register a function as the import rule of one or more operators; a second rule for an operator is refused."""

    def register(function: RuleFunction) -> RuleFunction:
        for op_type in op_types:
            if op_type in RULES:
                raise TypeError(f"the import rule of {op_type} is declared twice")
            RULES[op_type] = Rule(op_type, since, function)
        return function

    return register
