"""Random chains of reshape and transpose: the canonical form computes the same and is never longer."""

from __future__ import annotations

import math

import numpy as np
import pytest

from focusc.ir import Builder, Module, PassManager, TensorType, Value, interpret


def factorisation(rng: np.random.Generator, size: int) -> tuple[int, ...]:
    """A random shape of that many elements, with unit axes."""
    dims: list[int] = []
    while size > 1:
        step = int(rng.choice([d for d in range(2, size + 1) if size % d == 0]))
        dims.append(step)
        size //= step
    for _ in range(int(rng.integers(0, 3))):
        dims.insert(int(rng.integers(0, len(dims) + 1)), 1)
    return tuple(dims) or (1,)


def chain(seed: int) -> Module:
    """Up to eight reshapes and transposes of one input."""
    rng = np.random.default_rng(seed)
    size = int(rng.choice([1, 6, 24, 36, 64]))
    builder = Builder()
    value: Value = builder.argument("x", TensorType(factorisation(rng, size), "f32"))
    for _ in range(int(rng.integers(1, 9))):
        assert isinstance(value.type, TensorType)
        if rng.random() < 0.5:
            value = builder.emit("tensor.reshape", value, shape=factorisation(rng, size))
        else:
            value = builder.emit("tensor.transpose", value, perm=tuple(rng.permutation(value.type.rank).tolist()))
    return builder.module("chain", {"y": value})


@pytest.mark.parametrize("block", range(10))
def test_canonical_chain_is_the_same_function_and_not_longer(block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        module = chain(seed)
        short = PassManager("canonicalise").run(module)
        assert isinstance(module.args[0].type, TensorType)
        shape = module.args[0].type.shape
        x = np.arange(math.prod(shape), dtype=np.float32).reshape(shape)
        assert np.array_equal(interpret(short, {"x": x})["y"], interpret(module, {"x": x})["y"]), seed
        assert len(short.body.ops) <= len(module.body.ops), seed
        assert PassManager("canonicalise").run(short) is short, seed
