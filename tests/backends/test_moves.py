"""Slices, concatenations, repetitions, margins, gathers and scatters on the machine, to the bit against numpy."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from focusc.backends import compile_module
from focusc.ir import Builder, CompileError, Module, TensorType, Value, interpret
from focusc.ir.matching import shape_of
from focusc.isa.insns.base import decode
from tests.backends.machine import FOCUS, UNHURRIED, numbers, run, whole

Shape = tuple[int, ...]
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # a failing shape is small as it is
FEW = settings(max_examples=12, phases=PHASES, suppress_health_check=UNHURRIED, deadline=None)
EXTENTS = st.sampled_from([1, 2, 3, 5, 8, 33])
DTYPES = st.sampled_from(["f32", "i64"])


def shapes(data: st.DataObject, most: int = 6000) -> Shape:
    shape = tuple(data.draw(st.lists(EXTENTS, min_size=1, max_size=4)))
    while math.prod(shape) > most:
        shape = shape[1:]
    return shape


def values(shape: Shape, dtype: str, seed: int = 0) -> np.ndarray:
    return numbers(shape, seed) if dtype == "f32" else whole(shape, seed)


def exact(module: Module, inputs: dict[str, np.ndarray], **options: int) -> None:
    """The machine gives what the reference interpreter gives."""
    wanted, found = interpret(module, inputs), run(module, inputs, **options)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        np.testing.assert_array_equal(value, wanted[name])


def one(op: str, x_shape: Shape, dtype: str, constants: tuple[np.ndarray, ...] = (), **attrs: Any) -> Module:
    """One op of an input, and constants as its further operands."""
    b = Builder()
    x = b.argument("x", TensorType(x_shape, dtype))
    return b.module("m", {"y": b.emit(op, x, *(b.constant(c) for c in constants), **attrs)})


@FEW
@given(st.data())
def test_slices_of_any_axes_and_steps(data: st.DataObject) -> None:
    shape, dtype = shapes(data), data.draw(DTYPES)
    starts, ends, steps = [], [], []
    for extent in shape:
        start, end = sorted(data.draw(st.tuples(st.integers(0, extent - 1), st.integers(1, extent))))
        end = max(end, start + 1)
        step = data.draw(st.sampled_from([1, 1, 2, 3, -1, -2]))
        if step < 0:
            start, end = end - 1, start - 1 - extent  # counted from the end, so that 0 can be the last
        starts.append(start)
        ends.append(end)
        steps.append(step)
    module = one("tensor.slice", shape, dtype, starts=tuple(starts), ends=tuple(ends), steps=tuple(steps))
    exact(module, {"x": values(shape, dtype)}, m=data.draw(st.sampled_from([0, 8])))


@FEW
@given(st.data())
def test_concatenations_along_any_axis(data: st.DataObject) -> None:
    shape, dtype = shapes(data, 2000), data.draw(DTYPES)
    axis = data.draw(st.integers(0, len(shape) - 1))
    b, inputs, parts = Builder(), {}, []
    for i in range(data.draw(st.integers(2, 4))):
        own = (*shape[:axis], data.draw(EXTENTS), *shape[axis + 1 :])
        part = b.argument(f"x{i}", TensorType(own, dtype))
        inputs[f"x{i}"] = values(own, dtype, i)
        if dtype == "f32" and data.draw(st.booleans()):
            part = b.emit("tensor.neg", part)  # written in place, where that is a window
        parts.append(part)
    exact(b.module("m", {"y": b.emit("tensor.concat", *parts, axis=axis)}), inputs)


@FEW
@given(st.data())
def test_repetitions(data: st.DataObject) -> None:
    shape, dtype = shapes(data, 300), data.draw(DTYPES)
    x = {"x": values(shape, dtype)}
    exact(one("tensor.tile", shape, dtype, repeats=tuple(data.draw(st.integers(1, 4)) for _ in shape)), x)
    wide = tuple(data.draw(st.integers(2, 40)) if extent == 1 else extent for extent in shape)
    exact(one("tensor.expand", shape, dtype, shape=(data.draw(st.integers(1, 3)), *wide)), x)


@FEW
@given(st.data())
def test_margins(data: st.DataObject) -> None:
    shape, dtype = shapes(data, 2000), data.draw(DTYPES)
    begins = tuple(data.draw(st.integers(-extent // 2 + 1 if extent > 1 else 0, 4)) for extent in shape)
    ends = tuple(data.draw(st.integers(0, 3)) for _ in shape)
    module = one("tensor.pad", shape, dtype, pads=begins + ends, value=data.draw(st.sampled_from([0, 3, -1])))
    exact(module, {"x": values(shape, dtype)})


@FEW
@given(st.data())
def test_gathers_by_constant_and_computed_numbers(data: st.DataObject) -> None:
    shape, dtype = shapes(data, 2000), data.draw(DTYPES)
    axis = data.draw(st.integers(0, len(shape) - 1))
    picked = data.draw(st.sampled_from([(), (1,), (7,), (2, 3), (40,)]))
    index = np.random.default_rng(data.draw(st.integers(0, 99))).integers(0, shape[axis], picked)
    x = {"x": values(shape, dtype)}
    exact(one("tensor.gather", shape, dtype, (index - shape[axis],), axis=axis), x)
    b = Builder()
    x["i"] = index
    args = b.argument("x", TensorType(shape, dtype)), b.argument("i", TensorType(picked, "i64"))
    exact(b.module("m", {"y": b.emit("tensor.gather", *args, axis=axis)}), x)


@FEW
@given(st.data())
def test_slices_and_elements_by_constant_numbers(data: st.DataObject) -> None:
    shape, dtype = shapes(data, 2000), data.draw(DTYPES)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    depth = data.draw(st.integers(1, len(shape)))
    places = np.stack([rng.integers(0, d, 11) for d in shape[:depth]], axis=-1)
    x = {"x": values(shape, dtype)}
    exact(one("tensor.gather_nd", shape, dtype, (places,)), x)
    axis = data.draw(st.integers(0, len(shape) - 1))
    wanted = (*shape[:axis], 4, *shape[axis + 1 :])
    exact(one("tensor.gather_elements", shape, dtype, (rng.integers(0, shape[axis], wanted),), axis=axis), x)


@FEW
@given(st.data())
def test_scatters_by_constant_numbers(data: st.DataObject) -> None:
    shape, dtype = shapes(data, 2000), data.draw(DTYPES)
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    depth = data.draw(st.integers(1, len(shape)))
    places = rng.integers(0, math.prod(shape[:depth]), data.draw(st.sampled_from([1, 5, 30])))  # with duplicates
    places = np.stack(np.unravel_index(places, shape[:depth]), axis=-1)
    b = Builder()
    new = (len(places), *shape[depth:])
    args = b.argument("x", TensorType(shape, dtype)), b.constant(places), b.argument("u", TensorType(new, dtype))
    inputs = {"x": values(shape, dtype), "u": values(new, dtype, 1)}
    exact(b.module("m", {"y": b.emit("tensor.scatter_nd", *args)}), inputs)


def test_rows_by_several_computed_numbers_are_refused() -> None:
    b = Builder()
    args = b.argument("x", TensorType((4, 5, 6), "f32")), b.argument("i", TensorType((3, 2), "i64"))
    with pytest.raises(CompileError, match="by computed indices of 2 numbers"):
        compile_module(b.module("m", {"y": b.emit("tensor.gather_nd", *args)}), FOCUS)


WIDE: dict[str, Module] = {
    "slice": one("tensor.slice", (3, 4, 70_000), "f32", starts=(1,), ends=(3,), axes=(1,)),
    "every second": one("tensor.slice", (2, 5000), "f32", starts=(1,), ends=(4999,), axes=(1,), steps=(2,)),
    "rows by number": one("tensor.gather", (5, 100_000), "f32", (np.arange(40) * 3 % 5,)),
    "a class token": one("tensor.pad", (2, 3000, 32), "f32", pads=(0, 1, 0, 0, 0, 0)),
    "tokens": one("tensor.expand", (1, 1, 64), "f32", shape=(2, 3000, 64)),
}


@pytest.mark.parametrize("name", WIDE)
def test_values_wider_and_longer_than_any_tile(name: str) -> None:
    module = WIDE[name]
    exact(module, {"x": numbers(shape_of(module.args[0]))})


def moving(b: Builder, x: Value, tokens: int) -> Value:
    y = b.emit("tensor.slice", x, starts=(1,), ends=(tokens,), axes=(1,), steps=(2,))
    y = b.emit("tensor.concat", y, y, axis=0)
    y = b.emit("tensor.tile", y, repeats=(1, 3, 1))
    y = b.emit("tensor.pad", y, pads=(0, 2, 0, 0, 0, 0))
    return b.emit("tensor.gather", y, b.constant(np.arange(50) * 7 % 11), axis=1)


def test_the_program_does_not_grow_with_tokens() -> None:
    sizes = []
    for tokens in (4097, 32_769):
        b = Builder()
        y = moving(b, b.argument("x", TensorType((1, tokens, 64), "f32")), tokens)
        sizes.append(len(compile_module(b.module("m", {"y": y}), FOCUS).text))
    assert sizes[1] < 1.25 * sizes[0]  # the last round of a loop may be a shorter one


def test_parts_of_a_concatenation_of_columns_are_written_in_place() -> None:
    b = Builder()
    x = b.argument("x", TensorType((3, 20, 64), "f32"))
    parts = [b.emit("tensor.neg", x), b.emit("tensor.exp", x)]
    module = b.module("m", {"y": b.emit("tensor.concat", *parts, axis=2)})
    text = [insn.mnemonic for insn in decode(compile_module(module, FOCUS).text)]
    assert (text.count("st"), text.count("fence")) == (2, 2)
