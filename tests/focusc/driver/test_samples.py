"""What samples may hold: an added mask says by -infinity that a key is not seen."""

from __future__ import annotations

import numpy as np
import pytest

from focusc.driver.comparison import Sample, check_samples
from focusc.driver.errors import InputError
from focusc.ir import Builder, Module, TensorType


def module() -> Module:
    b = Builder()
    mask = b.argument("mask", TensorType((1, 2), "f32"))
    return b.module("m", {"y": mask})


def test_minus_infinity_is_a_value_of_masks() -> None:
    check_samples([Sample({"mask": np.array([[0, -np.inf]], np.float32)})], module(), "in.npz")


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_nan_and_infinity_are_not(value: float) -> None:
    with pytest.raises(InputError, match="input 'mask' holds NaN or infinity"):
        check_samples([Sample({"mask": np.array([[-np.inf, value]], np.float32)})], module(), "in.npz")
