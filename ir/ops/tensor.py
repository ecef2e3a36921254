"""The tensor dialect, near one-to-one with ONNX: constants."""

from __future__ import annotations

from typing import Any

import numpy as np

from focusc.ir.core import Op
from focusc.ir.declare import attr, defop
from focusc.ir.resource import Resource
from focusc.ir.types import Type


@defop("tensor.constant")
class Constant(Op):
    """A constant tensor; weights are constants whose value is shared by all clones of a module."""

    __slots__ = ()

    value: Resource = attr(Resource)

    @staticmethod
    def infer(*, value: Resource) -> Type:
        return value.type

    @staticmethod
    def evaluate(*, value: Resource) -> Any:
        return value.array

    @staticmethod
    def examples() -> list[tuple[list[Any], dict[str, Any]]]:
        return [
            ([], {"value": Resource("", np.arange(6, dtype=np.float32).reshape(2, 3) / 7)}),
            ([], {"value": Resource("", np.array(3, dtype=np.int64))}),
        ]
