"""Element-wise work, reductions, softmax, windows and products of activations: machine against reference."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

import focusc
from focusc.backends import compile_module
from focusc.ir import Builder, CompileError, Loc, Module, TensorType, interpret
from focusc.ir.matching import shape_of
from focusc.ir.passes.manager import PassManager
from focusc.isa.emulator import Emulator
from tests.backends.machine import FOCUS, UNHURRIED, run

Shape = tuple[int, ...]
PHASES = [Phase.explicit, Phase.reuse, Phase.generate]  # a failing shape is small as it is
FEW = settings(max_examples=12, phases=PHASES, suppress_health_check=UNHURRIED, deadline=None)
EXTENTS = st.sampled_from([1, 2, 3, 5, 33])


def reals(shape: Shape, seed: int = 0, low: float = -2, high: float = 2) -> np.ndarray:
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float16).astype(np.float32)


def close(module: Module, inputs: dict[str, np.ndarray], **options: int) -> None:
    """The machine agrees with the reference interpreter to the rounding of f16."""
    wanted, found = interpret(module, inputs), run(module, inputs, **options)
    assert found.keys() == wanted.keys()
    for name, value in found.items():
        scale = max(1.0, float(np.abs(wanted[name]).max()))
        np.testing.assert_allclose(value, wanted[name], atol=2e-3 * scale)


def shapes(data: st.DataObject, most: int = 5000, least: int = 1) -> Shape:
    shape = tuple(data.draw(st.lists(EXTENTS, min_size=least, max_size=4)))
    while math.prod(shape) > most and len(shape) > least:
        shape = shape[1:]
    return shape


@FEW
@given(st.data())
def test_operands_that_broadcast_over_any_axes(data: st.DataObject) -> None:
    shape = shapes(data)

    def some(seed: int) -> np.ndarray:
        own = tuple(data.draw(st.sampled_from([extent, extent, 1])) for extent in shape)
        return reals(own[data.draw(st.integers(0, len(own) - 1)) :] if data.draw(st.booleans()) else own, seed)

    kind = data.draw(st.sampled_from(["add", "sub", "mul", "max", "min", "div"]))
    x, y = some(1), some(2)
    if kind == "div":
        y = np.abs(y) + 1
    b = Builder()
    a, c = b.argument("x", TensorType(x.shape, "f32")), b.argument("y", TensorType(y.shape, "f32"))
    module = b.module("m", {"z": b.emit(f"tensor.{kind}", a, c)})
    close(module, {"x": x, "y": y}, m=data.draw(st.sampled_from([0, 8])))


@FEW
@given(st.data())
def test_selections_by_constant_conditions(data: st.DataObject) -> None:
    shape = shapes(data)
    own = tuple(data.draw(st.sampled_from([extent, 1])) for extent in shape)
    b = Builder()
    x = b.argument("x", TensorType(shape, "f32"))
    number = b.constant(np.float32(data.draw(st.sampled_from([0.0, -3e38]))))
    operands = data.draw(st.permutations([x, number]))
    chosen = b.constant(np.random.default_rng(0).random(own) < 0.5)
    found = run(b.module("m", {"y": b.emit("tensor.max", b.emit("tensor.where", chosen, *operands), b.constant(
        np.float32(-9)))}), {"x": reals(shape)})
    module = b.module("m", {"y": b.emit("tensor.max", b.emit("tensor.where", chosen, *operands), b.constant(
        np.float32(-9)))})
    np.testing.assert_allclose(found["y"], interpret(module, {"x": reals(shape)})["y"], atol=2e-3)


@pytest.mark.parametrize("kind", ["exp", "neg", "abs", "tanh", "sigmoid", "erf", "sqrt", "log", "reciprocal"])
def test_functions_of_one_value(kind: str) -> None:
    low = 0.1 if kind in ("sqrt", "log", "reciprocal") else -2
    b = Builder()
    x = b.argument("x", TensorType((3, 20, 40), "f32"))
    close(b.module("m", {"y": b.emit(f"tensor.{kind}", x)}), {"x": reals((3, 20, 40), low=low)})


@pytest.mark.parametrize("exponent", [2, 3, 7, 0.5, -0.5, 1.5, -1, 0, 1, 0.3])
def test_powers(exponent: float) -> None:
    b = Builder()
    x = b.argument("x", TensorType((30, 40), "f32"))
    y = b.emit("tensor.pow", x, b.constant(np.float32(exponent)))
    close(b.module("m", {"y": y}), {"x": reals((30, 40), low=0.5)})


@pytest.mark.parametrize("exponent", [17, 20, 31, -19, 2.5, 17.5])
def test_powers_of_either_sign(exponent: float) -> None:
    """A whole exponent, of any size, has a power of a negative number."""
    b = Builder()
    x = b.argument("x", TensorType((3, 40), "f32"))
    values = reals((3, 40), low=0.75, high=1.25) * (np.where(np.arange(40) % 2, -1, 1) if exponent % 1 == 0 else 1)
    y = b.emit("tensor.pow", x, b.constant(np.float32(exponent)))
    found = run(b.module("m", {"y": y}), {"x": values.astype(np.float32)})["y"]
    np.testing.assert_allclose(found, values.astype(np.float64) ** exponent, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("number", [0.0, -0.0, 1e-39, -1e-41])
def test_divisors_without_a_reciprocal_in_f32(number: float) -> None:
    b = Builder()
    x = b.argument("x", TensorType((3, 40), "f32"))
    module = b.module("m", {"y": b.emit("tensor.tanh", b.emit("tensor.div", x, b.constant(np.float32(number))))})
    values = reals((3, 40), low=0.5) * np.where(np.arange(40) % 2, -1, 1)
    values[:, 3] = 0.0 if number else 1.0
    found = Emulator(compile_module(module, FOCUS)).run({"x": values.astype(np.float32)}).outputs["y"]
    np.testing.assert_array_equal(found, np.sign(values) * math.copysign(1, number))


def test_a_softmax_of_a_row_that_is_filled_throughout() -> None:
    """With the least f32, as masks are: every weight is the same, and no infinity is stored."""
    b = Builder()
    x, kept = b.argument("x", TensorType((3, 40), "f32")), np.random.default_rng(0).random((3, 40)) < 0.5
    kept[1] = False
    w = b.emit("tensor.where", b.constant(kept), x, b.constant(np.finfo(np.float32).min))
    close(b.module("m", {"y": b.emit("tensor.softmax", w, axis=-1)}), {"x": reals((3, 40))})


@pytest.mark.parametrize("pads", [(0, 0, 0, 0), (1, 1, 0, 0)])
def test_a_maximum_of_infinities_is_one(pads: Shape) -> None:
    b = Builder()
    x, c = b.argument("x", TensorType((1, 6, 8, 5), "f32")), np.zeros((1, 6, 8, 5), bool)
    c[0, :2, :2] = True
    w = b.emit("tensor.where", b.constant(c), x, b.constant(np.float32(-np.inf)))
    pooled = b.emit("nn.pool", w, reduction="max", kernel=(2, 2), strides=(2, 2), pads=pads, dilations=(1, 1))
    module = b.module("m", {"y": pooled, "z": b.emit("tensor.reduce_max", w, axes=(3,))})
    values = reals((1, 6, 8, 5))
    found, wanted = run(module, {"x": values}), interpret(module, {"x": values})
    for name in "yz":
        assert np.isneginf(wanted[name]).any()
        np.testing.assert_array_equal(found[name], wanted[name])


@pytest.mark.parametrize("kind", ["add", "sub", "mul", "div", "max", "min"])
@pytest.mark.parametrize("number", [0.25, -70_000.0])
def test_numbers_are_immediates_on_either_side(kind: str, number: float) -> None:
    b = Builder()
    x, c = b.argument("x", TensorType((5, 40), "f32")), b.constant(np.float32(number))
    left, right = b.emit(f"tensor.{kind}", c, x), b.emit(f"tensor.{kind}", x, c)
    scaled = [b.emit("tensor.tanh", value) for value in (left, right)]
    module = b.module("m", dict(zip("yz", scaled, strict=True)))
    assert not any(s.kind == "const" for s in compile_module(module, FOCUS).symbols)
    close(module, {"x": reals((5, 40), low=0.5)})


def test_a_softplus_whose_exponential_exceeds_f16() -> None:
    b = Builder()
    x = b.argument("x", TensorType((4, 40), "f32"))
    y = b.emit("tensor.log", b.emit("tensor.add", b.emit("tensor.exp", x), b.constant(np.float32(1))))
    close(b.module("m", {"y": y}), {"x": reals((4, 40), low=-20, high=40)})


@FEW
@given(st.data())
def test_reductions_over_any_axes(data: st.DataObject) -> None:
    shape = shapes(data)
    axes = tuple(data.draw(st.lists(st.integers(0, len(shape) - 1), unique=True, max_size=len(shape))))
    kind, keep = data.draw(st.sampled_from(["sum", "mean", "max", "min"])), data.draw(st.booleans())
    b = Builder()
    x = b.argument("x", TensorType(shape, "f32"))
    module = b.module("m", {"y": b.emit(f"tensor.reduce_{kind}", x, axes=axes, keepdims=keep)})
    close(module, {"x": reals(shape)}, m=data.draw(st.sampled_from([0, 8])))


@pytest.mark.parametrize("axes", [(0,), (1,), ()])
def test_functions_around_a_reduction_exceed_f16(axes: Shape) -> None:
    b = Builder()
    x = b.argument("x", TensorType((40, 50), "f32"))
    log_sum = b.emit("tensor.log", b.emit("tensor.reduce_sum", b.emit("tensor.exp", x), axes=axes))
    square = b.emit("tensor.pow", x, b.constant(np.float32(2)))
    norm = b.emit("tensor.sqrt", b.emit("tensor.reduce_sum", square, axes=axes, keepdims=False))
    close(b.module("m", {"y": log_sum, "z": norm}), {"x": reals((40, 50), low=-500, high=60)})


@FEW
@given(st.data())
def test_softmax_along_any_axis(data: st.DataObject) -> None:
    shape = shapes(data)
    b = Builder()
    x = b.argument("x", TensorType(shape, "f32"))
    module = b.module("m", {"y": b.emit("tensor.softmax", x, axis=data.draw(st.integers(0, len(shape) - 1)))})
    close(module, {"x": reals(shape, low=-8, high=8)})


@pytest.mark.parametrize(("shape", "axis"), [((3, 60_000), 1), ((2, 60_000), 0), ((1, 4, 30_000), 2)])
def test_rows_that_no_tile_holds(shape: Shape, axis: int) -> None:
    b = Builder()
    x = b.argument("x", TensorType(shape, "f32"))
    total = b.emit("tensor.reduce_mean", x, axes=(axis,))
    module = b.module("m", {"y": b.emit("tensor.softmax", x, axis=axis), "z": total})
    close(module, {"x": reals(shape)})


def windows(data: st.DataObject) -> tuple[Shape, Shape, dict[str, Any]]:
    """(space, kernel, attributes) of a window over one to three axes."""
    axes = data.draw(st.integers(1, 3))
    space = tuple(data.draw(st.integers(4, 9)) for _ in range(axes))
    kernel = tuple(data.draw(st.integers(1, 3)) for _ in range(axes))
    pads = tuple(data.draw(st.integers(0, k - 1)) for k in kernel) * 2
    strides = tuple(data.draw(st.integers(1, 3)) for _ in range(axes))
    return space, kernel, {"strides": strides, "pads": pads}


def passed(module: Module) -> Module:
    return PassManager("canonicalise,fold-constants,fuse-nn,canonicalise,dead-code").run(module)


@FEW
@given(st.data())
def test_pools(data: st.DataObject) -> None:
    space, kernel, attrs = windows(data)
    shape = (data.draw(st.integers(1, 2)), data.draw(st.sampled_from([1, 3, 40])), *space)
    b = Builder()
    x = b.argument("x", TensorType(shape, "f32"))
    mean = b.emit("tensor.average_pool", x, kernel=kernel, count_include_pad=data.draw(st.booleans()), **attrs)
    most = b.emit("tensor.max_pool", x, kernel=kernel, **attrs)
    module = passed(b.module("m", {"mean": mean, "most": most}))
    assert sum(op.name == "nn.pool" for op in module.walk()) == 2
    close(module, {"x": reals(shape)})


@FEW
@given(st.data())
def test_convolutions(data: st.DataObject) -> None:
    space, kernel, attrs = windows(data)
    group, per = data.draw(st.sampled_from([(1, 3), (2, 4), (40, 1), (3, 1)]))
    out = group * data.draw(st.sampled_from([1, 1, 2]))
    begins = attrs["pads"][: len(space)]
    attrs["pads"] = (*begins, *(data.draw(st.integers(0, 2)) for _ in space))
    shape = (data.draw(st.integers(1, 2)), group * per, *space)
    dilations = (1,) * len(space)
    if per == 1 and out == group:
        dilations = tuple(data.draw(st.integers(1, 2)) if k < 3 else 1 for k in kernel)
    b = Builder()
    x = b.argument("x", TensorType(shape, "f32"))
    w, bias = b.constant(reals((out, per, *kernel), 1)), b.constant(reals((out,), 2))
    y = b.emit("tensor.conv", x, w, bias, group=group, dilations=dilations, **attrs)
    module = passed(b.module("m", {"y": y}))
    assert not any(op.name == "tensor.conv" for op in module.walk())
    close(module, {"x": reals(shape)})


@FEW
@given(st.data())
def test_products_of_activations(data: st.DataObject) -> None:
    batch = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3]), max_size=3)))
    rows, k, cols = (data.draw(st.sampled_from([1, 3, 40, 130])) for _ in range(3))

    def own(seed: int, *matrix: int) -> np.ndarray:
        some = tuple(data.draw(st.sampled_from([extent, 1])) for extent in batch)
        return reals((*some[data.draw(st.integers(0, len(some))) :], *matrix), seed, -1, 1)

    x, y = own(0, rows, k), own(1, k, cols)
    if data.draw(st.booleans()) and x.ndim == 2:
        x = x[0]
    if data.draw(st.booleans()) and y.ndim == 2:
        y = y[:, 0]
    b = Builder()
    a, c = b.argument("x", TensorType(x.shape, "f32")), b.argument("y", TensorType(y.shape, "f32"))
    z = b.emit("tensor.matmul", a, c)
    module = b.module("m", {"z": z})
    close(module, {"x": x, "y": y}, m=data.draw(st.sampled_from([0, 32])))
    (node,) = compile_module(module, FOCUS).meta["nodes"]
    assert node["macs_dense"] == math.prod(shape_of(z)) * k


def test_exponents_and_conditions_that_are_computed_are_refused() -> None:
    b = Builder()
    x = b.argument("x", TensorType((3, 4), "f32"))
    with pytest.raises(CompileError, match="expected an exponent that is one constant number"):
        compile_module(b.module("m", {"y": b.emit("tensor.pow", x, x)}), FOCUS)


def test_moving_elements_is_no_work_of_the_model() -> None:
    b = Builder()
    x = b.argument("x", TensorType((1, 3, 9, 9), "f32"))
    with b.at(Loc(node="conv")):  # its channels-first result is a transposition of the product
        y = b.emit("tensor.conv", x, b.constant(reals((40, 3, 3, 3))), None, pads=(1, 1, 1, 1))
    program = compile_module(passed(b.module("m", {"y": y})), FOCUS)
    stats = focusc.run(program, {"x": reals((1, 3, 9, 9))}).stats
    node = next(n for n in stats["nodes"] if n["node"] == "conv")
    assert node["macs"] == node["macs_dense"] == 81 * 27 * 40 < node["macs_array"]


def test_a_convolution_of_a_part_of_its_input() -> None:
    b = Builder()
    x = b.argument("x", TensorType((3, 2, 8, 8), "f32"))
    last = b.emit("tensor.slice", x, starts=(2,), ends=(3,), axes=(0,))
    y = b.emit("tensor.conv", last, b.constant(reals((5, 2, 3, 3))), None)
    close(passed(b.module("m", {"y": y})), {"x": reals((3, 2, 8, 8))})
