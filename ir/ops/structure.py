"""Ends of blocks."""

from __future__ import annotations

from typing import Any

from focusc.ir.core import Op
from focusc.ir.declare import defop, operands
from focusc.ir.types import Type


@defop("return", pure=False, terminator=True)
class Return(Op):
    """End of the module body; the operands are the outputs, in the order of the module's output names."""

    __slots__ = ()

    values = operands(doc="outputs")

    @staticmethod
    def infer(*values: Type) -> tuple[Type, ...]:
        return ()

    @staticmethod
    def evaluate(*values: Any) -> tuple[Any, ...]:
        return ()


@defop("yield", pure=False, terminator=True)
class Yield(Op):
    """End of a region; the operands go back to the op that holds the region."""

    __slots__ = ()

    values = operands(doc="values for the enclosing op")

    @staticmethod
    def infer(*values: Type) -> tuple[Type, ...]:
        return ()

    @staticmethod
    def evaluate(*values: Any) -> tuple[Any, ...]:
        return ()
