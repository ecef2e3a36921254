"""Elementwise functions that several dialects share, in the element type of their input."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Array = np.ndarray[Any, Any]

# Rational approximation of erf on [-4, 4] in f32, error at most a few units in the last place: the coefficients of
# Eigen's generic_fast_erf_float. Odd numerator and even denominator, highest power first.
_ERF_P = (
    -2.72614225801306e-10,
    2.77068142495902e-08,
    -2.10102402082508e-06,
    -5.69250639462346e-05,
    -7.34990630326855e-04,
    -2.95459980854025e-03,
    -1.60960333262415e-02,
)
_ERF_Q = (
    -1.45660718464996e-05,
    -2.13374055278905e-04,
    -1.68282697438203e-03,
    -7.37332916720468e-03,
    -1.42647390514189e-02,
)

_erf_exact = np.frompyfunc(math.erf, 1, 1)


def erf(x: Array) -> Array:
    """The error function; f64 by the C library, f32 and f16 in f32."""
    if x.dtype == np.float64:
        return np.asarray(_erf_exact(x), dtype=np.float64)
    x32 = np.clip(x.astype(np.float32, copy=False), np.float32(-4), np.float32(4))
    square = x32 * x32
    p = _horner(_ERF_P, square)
    p *= x32
    p /= _horner(_ERF_Q, square)
    return p.astype(x.dtype, copy=False)


def _horner(coefficients: tuple[float, ...], x: Array) -> Array:
    total = np.full_like(x, coefficients[0])
    for c in coefficients[1:]:
        total *= x
        total += np.float32(c)
    return total


def sigmoid(x: Array) -> Array:
    """1 / (1 + exp(-x)) without overflow: by tanh, which saturates."""
    half = x.dtype.type(0.5)
    y = np.tanh(x * half)
    y *= half
    y += half
    return y


def gelu(x: Array, approximate: str) -> Array:
    """x * Phi(x); `approximate` is none (erf), tanh or quick."""
    kind = x.dtype.type
    if approximate == "quick":
        return x * sigmoid(x * kind(1.702))
    if approximate == "tanh":
        inner = x * x
        inner *= kind(0.044715)
        inner += kind(1)
        inner *= x
        inner *= kind(math.sqrt(2 / math.pi))
        y = np.tanh(inner)
    else:
        y = erf(x * kind(math.sqrt(0.5)))
    y += kind(1)
    y *= x
    y *= kind(0.5)
    return y
