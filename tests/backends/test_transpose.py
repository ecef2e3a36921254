"""tensor.transpose from DRAM to DRAM: strict emulator and tile interpreter against numpy, to the bit in f16."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.backends import compile_module
from focusc.backends.lower import lower_module
from focusc.backends.options import tiling
from focusc.ir import Builder, Module, TensorType, Value, interpret
from focusc.ir.matching import shape_of
from focusc.isa.emulator import Emulator
from tests.backends.machine import FOCUS, UNHURRIED

Shape = tuple[int, ...]


def turned(shape: Shape, perm: Shape) -> Module:
    """One transposition."""
    b = Builder()
    return b.module("m", {"y": b.emit("tensor.transpose", b.argument("x", TensorType(shape, "f32")), perm=perm)})


def numbers(shape: Shape) -> np.ndarray:
    """Distinct f16 numbers as far as there are that many, in f32, of both signs and all magnitudes."""
    bits = np.random.default_rng(math.prod(shape)).permutation(0xF800)[: math.prod(shape)] if math.prod(shape) else []
    bits = np.resize(np.asarray(bits, np.uint16), math.prod(shape))
    values = np.where(bits < 0x7C00, bits, bits + 0x0400).astype(np.uint16).view(np.float16)
    return values.astype(np.float32).reshape(shape)


def run(module: Module, x: np.ndarray, **options: int) -> np.ndarray:
    """Output of the strict emulator; the tile interpreter must agree."""
    found = Emulator(compile_module(module, FOCUS, options=options), strict=True).run({"x": x}).outputs["y"]
    lowered = lower_module(module, tiling(FOCUS, options.get("m", 0), options.get("n", 0)))
    np.testing.assert_array_equal(interpret(lowered, {"x": x})["y"].astype(found.dtype), found)
    return found


CASES: dict[str, tuple[Shape, Shape]] = {
    "tokens to heads": ((2, 11, 3, 32), (0, 2, 1, 3)),
    "heads to tokens": ((2, 3, 11, 32), (0, 2, 1, 3)),
    "odd heads": ((1, 9, 5, 72), (0, 2, 1, 3)),
    "channels last": ((2, 3, 10, 14), (0, 2, 3, 1)),
    "channels first": ((2, 10, 14, 3), (0, 3, 1, 2)),
    "wide channels last": ((1, 100, 6, 7), (0, 2, 3, 1)),
    "keys to columns": ((2, 3, 40, 32), (0, 1, 3, 2)),
    "a matrix": ((130, 70), (1, 0)),
    "a vector": ((1, 50), (1, 0)),
    "rotation": ((5, 6, 7), (2, 0, 1)),
    "other rotation": ((5, 6, 7), (1, 2, 0)),
    "reversal": ((3, 4, 5, 6), (3, 2, 1, 0)),
    "axes of one": ((1, 6, 1, 40), (2, 3, 0, 1)),
    "six axes": ((2, 3, 2, 3, 2, 8), (0, 3, 1, 4, 2, 5)),
    "identity": ((4, 5, 6), (0, 1, 2)),
}


@pytest.mark.parametrize("name", CASES)
def test_layouts_of_vision_language_models(name: str) -> None:
    shape, perm = CASES[name]
    x = numbers(shape)
    np.testing.assert_array_equal(run(turned(shape, perm), x), x.transpose(perm))


@settings(max_examples=12, suppress_health_check=UNHURRIED, deadline=None)
@given(st.data())
def test_any_permutation(data: st.DataObject) -> None:
    shape = tuple(data.draw(st.lists(st.sampled_from([1, 2, 3, 7, 33, 40]), min_size=1, max_size=5)))
    while math.prod(shape) > 60_000:
        shape = shape[1:]
    perm = tuple(data.draw(st.permutations(range(len(shape)))))
    m = data.draw(st.sampled_from([0, 8]))
    x = numbers(shape)
    np.testing.assert_array_equal(run(turned(shape, perm), x, m=m, n=32), x.transpose(perm))


def unshuffled(b: Builder, x: Value, factor: int) -> Value:
    """Pixel-unshuffle of SmolVLM's connector: [B, H * W, C] -> [B, H * W / factor^2, C * factor^2]."""
    batch, count, width = shape_of(x)
    side = math.isqrt(count)
    y = b.emit("tensor.reshape", x, shape=(batch, side, side // factor, width * factor))
    y = b.emit("tensor.transpose", y, perm=(0, 2, 1, 3))
    y = b.emit("tensor.reshape", y, shape=(batch, side // factor, side // factor, width * factor**2))
    y = b.emit("tensor.transpose", y, perm=(0, 2, 1, 3))
    return b.emit("tensor.reshape", y, shape=(batch, count // factor**2, width * factor**2))


def test_pixel_unshuffle() -> None:
    b = Builder()
    y = unshuffled(b, b.argument("x", TensorType((2, 64, 24), "f32")), 2)
    x = numbers((2, 64, 24))
    wanted = x.reshape(2, 8, 4, 48).transpose(0, 2, 1, 3).reshape(2, 4, 4, 96).transpose(0, 2, 1, 3).reshape(2, 16, 96)
    np.testing.assert_array_equal(run(b.module("m", {"y": y}), x), wanted)


def test_a_window_is_transposed_and_a_part_of_a_concatenation_written_in_place() -> None:
    b = Builder()
    x = b.argument("x", TensorType((1, 40, 96), "f32"))
    part = b.emit("tensor.slice", x, starts=(32,), ends=(64,), axes=(2,), steps=(1,))
    across = b.emit("tensor.transpose", part, perm=(0, 2, 1))
    rows = b.emit("tensor.slice", x, starts=(0,), ends=(40,), axes=(2,), steps=(1,))
    y = b.emit("tensor.concat", rows, across, axis=1)
    values = numbers((1, 40, 96))
    wanted = np.concatenate([values[:, :, :40], values[:, :, 32:64].transpose(0, 2, 1)], axis=1)
    np.testing.assert_array_equal(run(b.module("m", {"y": y}), values), wanted)


def test_the_program_does_not_grow_and_holds_one_identity() -> None:
    sizes = []
    for rows in (100, 400):
        b = Builder()
        x = b.argument("x", TensorType((rows, 40), "f32"))
        once = b.emit("tensor.transpose", x, perm=(1, 0))
        twice = b.emit("tensor.transpose", b.emit("nn.gelu", once, approximate="tanh"), perm=(1, 0))
        program = compile_module(b.module("m", {"y": twice}), FOCUS)
        sizes.append(len(program.text))
        assert [s.shape for s in program.symbols if s.kind == "const"] == [(32, 32)]
    assert sizes[0] == sizes[1]


def test_whole_numbers_move_as_bytes() -> None:
    b = Builder()
    ids = b.argument("x", TensorType((3, 5, 2), "i64"))
    module = b.module("m", {"y": b.emit("tensor.transpose", ids, perm=(2, 1, 0))})
    x = np.random.default_rng(0).integers(-(2**31), 2**31, (3, 5, 2))
    np.testing.assert_array_equal(run(module, x), x.transpose(2, 1, 0))


@pytest.mark.parametrize("number", [-np.inf, np.finfo(np.float32).min])
@pytest.mark.parametrize("behind", ["where", "add", "pad"])
def test_an_infinity_moves_alone(number: float, behind: str) -> None:
    """A mask that is permuted: its other elements are none of its infinities' business."""
    b, rng = Builder(), np.random.default_rng(0)
    x, fill = b.argument("x", TensorType((3, 40), "f32")), b.constant(np.float32(number))
    if behind == "pad":
        y = b.emit("tensor.pad", x, pads=(0, 2, 1, 0), mode="constant", value=float(number))
    else:
        y = b.emit("tensor.where", b.constant(rng.random((3, 40)) < 0.5), x, fill)
        y = b.emit("tensor.add", y, x) if behind == "add" else y
    module = b.module("m", {"y": b.emit("tensor.transpose", y, perm=(1, 0))})
    values = np.abs(numbers((3, 40))) % 100
    wanted = interpret(module, {"x": values})["y"]
    wanted = np.where(np.isfinite(wanted), np.clip(wanted, -65504, 65504), wanted)
    np.testing.assert_allclose(run(module, values), wanted, rtol=2e-3)


@pytest.mark.parametrize("name", ["log", "reciprocal", "div"])
def test_what_zero_becomes_moves_alone(name: str) -> None:
    """One input is zero: its logarithm, and what is divided by it, are infinite, and no other element is spoiled."""
    b = Builder()
    x = b.argument("x", TensorType((40, 64), "f32"))
    y = b.emit("tensor.div", b.constant(np.float32(3)), x) if name == "div" else b.emit(f"tensor.{name}", x)
    values = np.abs(numbers((40, 64))) % 100 + 1
    values[3, 5] = 0
    program = compile_module(b.module("m", {"y": b.emit("tensor.transpose", y, perm=(1, 0))}), FOCUS)
    found = Emulator(program).run({"x": values}).outputs["y"]  # the strict one takes an infinity for a mistake
    assert np.isinf(found).sum() == 1 and np.isinf(found[5, 3]) and not np.isnan(found).any()


def shifted(b: Builder, x: Value) -> Value:
    return b.emit("tensor.add", b.emit("tensor.exp", x), b.constant(np.float32(1)))


def norm(b: Builder, x: Value) -> Value:
    square = b.emit("tensor.pow", x, b.constant(np.float32(2)))
    total = b.emit("tensor.reduce_sum", square, axes=(1,), keepdims=True)
    return b.emit("tensor.max", b.emit("tensor.sqrt", total), b.constant(np.float32(1e-6)))


@pytest.mark.parametrize(
    ("name", "make"),
    [
        ("tensor.log", shifted),                                                      # softplus
        ("tensor.reciprocal", shifted),                                               # sigmoid
        ("tensor.div", norm),                                                         # a row of length 1
        ("tensor.div", lambda b, x: b.constant(np.float32(-3))),
    ],
)
def test_what_cannot_be_zero_is_finite(name: str, make: Callable[[Builder, Value], Value]) -> None:
    """Softplus, sigmoid and norms written out keep the array."""
    b = Builder()
    x = b.argument("x", TensorType((64, 40), "f32"))
    y = b.emit(name, *([x] if name == "tensor.div" else []), make(b, x))
    lowered = lower_module(b.module("m", {"y": b.emit("tensor.transpose", y, perm=(1, 0))}), tiling(FOCUS))
    assert any(op.name == "tile.mma" for op in lowered.walk())


@pytest.mark.parametrize("clip", [False, True])
def test_activations_change_places_on_the_array(clip: bool) -> None:
    """Only what may be infinite goes element by element; a bound that takes no value away makes nothing infinite."""
    b = Builder()
    x = b.argument("x", TensorType((64, 40), "f32"))
    if clip:
        x = b.emit("tensor.max", x, b.constant(np.float32(np.finfo(np.float32).min)))
    lowered = lower_module(b.module("m", {"y": b.emit("tensor.transpose", x, perm=(1, 0))}), tiling(FOCUS))
    assert any(op.name == "tile.mma" for op in lowered.walk())
