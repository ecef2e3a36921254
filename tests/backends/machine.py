"""Modules on both executions below nn level: the strict emulator, and the interpreter of the tile level."""

from __future__ import annotations

import numpy as np
from hypothesis import HealthCheck

from focusc.backends import compile_module, load_hardware
from focusc.backends.lower import lower_module
from focusc.backends.options import tiling
from focusc.ir import Module, interpret
from focusc.isa.emulator import Emulator

FOCUS = load_hardware("focus")
UNHURRIED = [HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much,
             HealthCheck.large_base_example]
"""Health checks to suppress where an example compiles a module: it takes its time, and few shapes are small."""


def run(module: Module, inputs: dict[str, np.ndarray], **options: int) -> dict[str, np.ndarray]:
    """Outputs of the strict emulator; the tile interpreter must agree, to the rounding of sums."""
    found = Emulator(compile_module(module, FOCUS, options=options), strict=True).run(inputs).outputs
    tiled = interpret(lower_module(module, tiling(FOCUS, options.get("m", 0), options.get("n", 0))), inputs)
    for name, value in found.items():
        np.testing.assert_allclose(tiled[name].astype(np.float64), value.astype(np.float64), rtol=2e-3, atol=2e-3)
    return found


def numbers(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Distinct small numbers that f16 holds exactly, as far as there are that many, in f32."""
    size = int(np.prod(shape))
    steps = np.random.default_rng(seed).permutation(max(size, 1))[:size]
    return ((steps % 4001 - 2000) / 8).astype(np.float32).reshape(shape)


def whole(shape: tuple[int, ...], seed: int = 0) -> np.ndarray:
    """Whole numbers of all 32 bits."""
    return np.random.default_rng(seed).integers(-(2**31), 2**31, shape)
