"""What the host runs in the accelerator's place."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop, operands, region
from focusc.ir.diagnostics import fail
from focusc.ir.types import TensorType, Type


@defop("host.call")
class Call(Op):
    """A segment of the model that the host runs. The body reads its arguments, which are the operands, and yields the
    results; all of them are tensors. `nodes` says of each op of the body where it came from and why it is here."""

    inputs = operands()
    nodes = attr(tuple, (), of=dict, doc="a dict per op: op, node, path, code, message, hint, macs")
    body = region(isolated=True)

    @staticmethod
    def infer(*inputs: Type, nodes: tuple[dict[str, Any], ...], regions: Any) -> tuple[Type, ...]:
        block = regions[0]
        found = tuple(a.type for a in block.args)
        if found != inputs:
            raise fail(
                "host.call",
                f"the body takes ({', '.join(map(str, found))}), the operands are ({', '.join(map(str, inputs))})",
            )
        end = block.terminator
        results = tuple(v.type for v in end.operands if v is not None) if end is not None else ()
        for type_ in (*inputs, *results):
            if not isinstance(type_, TensorType):
                raise fail("host.call", f"a value of type {type_} goes in or out; expected tensors")
        return results

    @staticmethod
    def evaluate(
        *inputs: Any, nodes: tuple[dict[str, Any], ...], regions: tuple[Callable[..., Any], ...]
    ) -> tuple[Any, ...]:
        return tuple(regions[0](*inputs))
