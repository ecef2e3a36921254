"""The interpreter: named inputs, regions, observers, freeing, errors that name the op."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import numpy as np
import pytest

from focusc.ir import (
    OPS,
    Block,
    Builder,
    CompileError,
    Executor,
    IndexType,
    Loc,
    Module,
    Op,
    TensorType,
    Type,
    attr,
    defop,
    interpret,
    operand,
    parse,
    print_module,
    region,
    same_module,
    verify,
)

F = TensorType((2,), "f32")

if "test.repeat" not in OPS:

    @defop("test.repeat")
    class Repeat(Op):
        """Run the region `times` times over a carried value."""

        __slots__ = ()

        start = operand()
        times: int = attr(int)
        body = region()

        @staticmethod
        def infer(start: Type, *, times: int, regions: tuple[Block, ...]) -> Type:
            return start

        @staticmethod
        def evaluate(start: Any, *, times: int, regions: tuple[Any, ...]) -> Any:
            for i in range(times):
                (start,) = regions[0](i, start)
            return start


def looped() -> Module:
    """y = x doubled three times, plus the outer value each time."""
    b = Builder()
    x = b.argument("x", F)
    outer = b.emit("tensor.neg", x)
    body = Block([IndexType(), F])
    inner = Builder(body)
    doubled = inner.emit("tensor.add", body.args[1], body.args[1])
    inner.create("yield", inner.emit("tensor.add", doubled, outer))
    op = b.create("test.repeat", x, times=3, regions=[body], loc=Loc(node="/loop"))
    return b.module("looped", {"y": op.result, "outer": outer})


def test_region_runs_with_carried_and_outer_values() -> None:
    module = looped()
    verify(module)
    found = interpret(module, {"x": np.array([1.0, 2.0], np.float32)})
    np.testing.assert_array_equal(found["y"], [1.0, 2.0])  # 2x - 1 at its fixed point 1, scaled
    np.testing.assert_array_equal(found["outer"], [-1.0, -2.0])


def test_region_text_round_trips_and_clones() -> None:
    module = looped()
    assert same_module(parse(print_module(module)), module)
    clone = module.clone()
    verify(clone)
    assert same_module(clone, module)


def test_executor_can_run_again() -> None:
    run = Executor(looped())
    first = run({"x": np.array([1.0, 2.0], np.float32)})
    second = run({"x": np.array([3.0, 5.0], np.float32)})
    np.testing.assert_array_equal(first["y"], [1.0, 2.0])
    np.testing.assert_array_equal(second["y"], [3.0, 5.0])


def test_observer_sees_every_op_in_order_and_changes_nothing() -> None:
    module = looped()
    seen: list[str] = []
    inputs = {"x": np.array([1.0, 2.0], np.float32)}
    with_observer = interpret(module, inputs, observer=lambda op, values: seen.append(f"{op.name}/{len(values)}"))
    assert seen == ["tensor.neg/1", *["tensor.add/1"] * 6, "test.repeat/1"]
    np.testing.assert_array_equal(with_observer["y"], interpret(module, inputs)["y"])


def test_values_are_dropped_after_their_last_use() -> None:
    b = Builder()
    value = b.argument("x", TensorType((1000,), "f32"))
    for _ in range(5):
        value = b.emit("tensor.exp", value)
    module = b.module("m", {"y": value})
    alive: list[weakref.ref[Any]] = []
    counts: list[int] = []

    def watch(op: Op, values: tuple[Any, ...]) -> None:
        counts.append(sum(r() is not None for r in alive))
        alive.append(weakref.ref(values[0]))

    interpret(module, {"x": np.zeros(1000, np.float32)}, watch)
    gc.collect()
    assert max(counts) <= 2


def test_unused_results_and_repeated_outputs() -> None:
    b = Builder()
    x = b.argument("x", F)
    b.emit("tensor.exp", x)
    module = b.module("m", {"a": x, "b": x})
    found = interpret(module, {"x": np.ones(2, np.float32)})
    np.testing.assert_array_equal(found["a"], found["b"])


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ({}, r"error\[run.inputs\]: inputs are \[\], the module takes \['x'\]"),
        ({"x": np.zeros(2), "z": 1}, r"inputs are \['x', 'z'\]"),
        ({"x": np.zeros(3, np.float32)}, r"input 'x' is float32\[3\], expected float32\[2\]"),
        ({"x": np.zeros(2)}, r"input 'x' is float64\[2\], expected float32\[2\]"),
    ],
)
def test_wrong_inputs_are_named(inputs: dict[str, Any], message: str) -> None:
    with pytest.raises(CompileError, match=message):
        interpret(looped(), inputs)


def test_inputs_in_another_byte_order_are_converted() -> None:
    x = np.array([1.5, -2.0], np.float32)
    assert interpret(looped(), {"x": x.astype(">f4")})["y"].tobytes() == interpret(looped(), {"x": x})["y"].tobytes()


def test_failure_names_the_op_and_its_place() -> None:
    b = Builder(loc=Loc(node="/Div", module_path="model.head"))
    x = b.argument("x", TensorType((2,), "i64"))
    module = b.module("m", {"y": b.emit("tensor.div", x, x)})
    with pytest.raises(CompileError) as error:
        interpret(module, {"x": np.array([1, 0])})
    assert error.value.render().splitlines() == [
        "error[run.value]: while executing tensor.div: integer division by zero",
        "  from: model.head (/Div)",
    ]


def test_numpy_failure_becomes_a_diagnostic() -> None:
    b = Builder()
    x = b.argument("x", TensorType((2,), "i64"))
    table = b.argument("t", TensorType((4, 2), "f32"))
    module = b.module("m", {"y": b.emit("nn.embed", x, table)})
    module.body.ops[0].attrs.clear()
    with pytest.raises(CompileError, match=r"input 'x': index \[1\] is -1, expected 0..3"):
        interpret(module, {"x": np.array([1, -1]), "t": np.zeros((4, 2), np.float32)})
