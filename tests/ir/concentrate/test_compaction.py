"""Rows followed through reshapes, transposes, slices and gathers, and operands that join the stream from elsewhere."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from focusc.ir import Builder, CompileError, Module, Rewriter, TensorType, Value, interpret, verify
from focusc.ir.concentration.compaction import Compaction

T, D, KEPT = 8, 6, (0, 2, 5, 6, 7)


def stream(build: Callable[[Builder, Value], Value]) -> tuple[Module, np.ndarray]:
    b = Builder()
    x = b.argument("x", TensorType((1, T, D), "f32"))
    h = b.emit("tensor.neg", x)
    module = b.module("m", {"y": build(b, b.emit("tensor.exp", h))})
    return module, np.random.default_rng(0).standard_normal((1, T, D)).astype(np.float32)


def compact(module: Module) -> Module:
    """Keep rows KEPT of the negated input: visual rows 1 to 5, text from 6 on."""
    rewriter = Rewriter(module)
    neg = module.body.ops[0]
    subset = rewriter.insert_after(neg, "sec.subset", positions=(1, 4), visual_start=1, visual_len=5, rows=T)
    Compaction(rewriter, subset.results[0], 6).apply(neg.result)
    verify(module)
    return module


def constant(b: Builder, *shape: int) -> Value:
    return b.constant(np.random.default_rng(1).standard_normal(shape).astype(np.float32))


CASES: dict[str, tuple[Callable[[Builder, Value], Value], Callable[[np.ndarray], np.ndarray]]] = {
    "drop batch": (lambda b, x: b.emit("tensor.reshape", x, shape=(T, D)), lambda y: y[list(KEPT)]),
    "split heads": (
        lambda b, x: b.emit("tensor.transpose", b.emit("tensor.reshape", x, shape=(1, T, 2, 3)), perm=(0, 2, 1, 3)),
        lambda y: y[:, :, list(KEPT)],
    ),
    "added table": (lambda b, x: b.emit("tensor.mul", x, constant(b, T, D)), lambda y: y[:, list(KEPT)]),
    "added row": (lambda b, x: b.emit("tensor.add", x, constant(b, 1, D)), lambda y: y[:, list(KEPT)]),
    "columns": (
        lambda b, x: b.emit("tensor.slice", x, starts=(1,), ends=(4,), axes=(-1,), steps=(1,)),
        lambda y: y[:, list(KEPT)],
    ),
    "all rows": (
        lambda b, x: b.emit("tensor.slice", x, starts=(0,), ends=(2**40,), axes=(1,), steps=(1,)),
        lambda y: y[:, list(KEPT)],
    ),
    "last row": (
        lambda b, x: b.emit("tensor.slice", x, starts=(-1,), ends=(2**40,), axes=(1,), steps=(1,)),
        lambda y: y,
    ),
    "text rows": (lambda b, x: b.emit("tensor.slice", x, starts=(6,), ends=(8,), axes=(1,), steps=(1,)), lambda y: y),
    "gathered row": (lambda b, x: b.emit("tensor.gather", x, b.constant(np.array([-1, 6])), axis=1), lambda y: y),
    "softmax of columns": (lambda b, x: b.emit("tensor.softmax", x, axis=-1), lambda y: y[:, list(KEPT)]),
    "mean of columns": (
        lambda b, x: b.emit("tensor.reduce_mean", x, axes=(2,), keepdims=False),
        lambda y: y[:, list(KEPT)],
    ),
    "joined columns": (
        lambda b, x: b.emit("tensor.concat", x, constant(b, 1, T, 2), axis=2),
        lambda y: y[:, list(KEPT)],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_rows_are_followed(name: str) -> None:
    build, expected = CASES[name]
    module, x = stream(build)
    whole = interpret(module, {"x": x})["y"]
    np.testing.assert_allclose(interpret(compact(module), {"x": x})["y"], expected(whole), rtol=1e-6)


@pytest.mark.parametrize(
    ("build", "words"),
    [
        (lambda b, x: b.emit("tensor.reshape", x, shape=(1, T * D)), "splits or joins the rows"),
        (lambda b, x: b.emit("tensor.softmax", x, axis=1), "mixes or reorders"),
        (lambda b, x: b.emit("tensor.reduce_sum", x, axes=(1,)), "mixes or reorders"),
        (lambda b, x: b.emit("tensor.slice", x, starts=(2,), ends=(7,), axes=(1,), steps=(1,)), "reads visual tokens"),
        (lambda b, x: b.emit("tensor.gather", x, b.constant(np.array([3])), axis=1), "of visual rows"),
        (lambda b, x: b.emit("tensor.cumsum", x, axis=1), "tensor.cumsum"),
    ],
)
def test_what_mixes_rows_is_refused(build: Callable[[Builder, Value], Value], words: str) -> None:
    module, _ = stream(build)
    with pytest.raises(CompileError, match=words) as error:
        compact(module)
    assert error.value.diagnostics[0].code == "concentrate.unsupported"
