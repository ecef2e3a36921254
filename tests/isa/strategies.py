"""Hypothesis strategies derived from the instruction declarations."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

from hypothesis import strategies as st

from focusc.isa import INSNS, Addr, Insn, R
from focusc.isa.fields import AnyField

T = TypeVar("T")


class Draw(Protocol):
    """What draws a value: the argument of a composite strategy, or the `draw` of `st.data()`."""

    def __call__(self, strategy: st.SearchStrategy[T], /) -> T: ...


CLASSES = [INSNS[opcode] for opcode in sorted(INSNS)]


def values(item: AnyField) -> st.SearchStrategy[Any]:
    """Every value that a field can hold."""
    if item.kind in ("ext", "sext"):
        low, high = (0, (1 << 24) - 1) if item.kind == "ext" else (-(1 << 23), (1 << 23) - 1)
        number = st.integers(low, high) | st.sampled_from([0, 1, low, high])
        return number | st.builds(R, st.integers(1, 63), number)
    if item.kind == "addr":
        offset = st.integers(-(1 << 39), (1 << 39) - 1) | st.integers(0, 4096)
        return st.builds(Addr, st.integers(0, 63), offset)
    if item.kind == "reg":
        return st.integers(0, 63)
    if item.kind == "tile":
        return st.integers(0, 31 if "s" in item.access else 30)
    if item.kind == "f32":
        return st.floats(width=32, allow_nan=False)
    if item.kind == "enum":
        return st.sampled_from(item.choices)
    if item.kind == "flag":
        return st.integers(0, 1)
    if item.kind == "uimm":
        return st.integers(0, item.mask)
    return st.integers(-(1 << (item.bits - 1)), (1 << (item.bits - 1)) - 1)


def insns(classes: list[type[Insn]] | None = None) -> st.SearchStrategy[Insn]:
    """Any instruction."""
    def build(cls: type[Insn]) -> st.SearchStrategy[Insn]:
        return st.builds(cls, **{name: values(item) for name, item in cls.fields.items()})

    return st.sampled_from(classes or CLASSES).flatmap(build)
