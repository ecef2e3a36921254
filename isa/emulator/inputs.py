"""Check what a user passes as inputs: names, shapes, types and values, one clear message each."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import IsaError
from focusc.isa.program import Program, Symbol

__all__ = ["check_inputs"]

_RANGE = {"i8": (-128, 127), "u8": (0, 255), "u16": (0, 65535), "i32": (-(1 << 31), (1 << 31) - 1)}
_LARGEST = {"f16": 65520.0, "bf16": 3.39e38}
"""Magnitudes from which rounding gives infinity."""


def check_inputs(program: Program, inputs: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """Arrays by name, float or integer as declared; IsaError says what is missing, unknown or wrong.

    Arrays for inputs of the model that the program does without are left out, whatever they are.
    """
    symbols = {s.name: s for s in program.symbols if s.kind == "input"}
    names = ", ".join(f"{s.name}: {_shown(s)}" for s in symbols.values()) or "none"
    for name in inputs:
        if name not in symbols and name not in program.meta.get("unused_inputs", ()):
            close = get_close_matches(str(name), list(symbols), 1)
            raise IsaError("input.unknown", f"the program has no input {name!r}",
                           hint=(f"did you mean {close[0]!r}? " if close else "") + f"inputs: {names}")
    for name in symbols:
        if name not in inputs:
            raise IsaError("input.missing", f"input {name!r} ({_shown(symbols[name])}) is missing",
                           hint=f"inputs: {names}")
    return {name: _check(symbol, inputs[name]) for name, symbol in symbols.items()}


def _shown(symbol: Symbol) -> str:
    return f"{symbol.dtype}[{', '.join(map(str, symbol.shape))}]"


def _check(symbol: Symbol, value: Any) -> NDArray[Any]:
    name = symbol.name
    try:
        data = np.asarray(value)
    except (ValueError, TypeError) as error:
        raise IsaError("input.type", f"input {name!r} is not an array: {error}") from None
    if tuple(data.shape) != symbol.shape:
        raise IsaError("input.shape", f"input {name!r} has shape {list(data.shape)}, expected {list(symbol.shape)}")
    if symbol.dtype in ("f16", "bf16", "f32"):
        if data.dtype.name not in ("float16", "float32"):
            hint = f"pass {name}.astype(np.float32)" if data.dtype.kind in "fiub" else ""
            raise IsaError("input.type", f"input {name!r} is {data.dtype}, expected float32 or float16", hint=hint)
        data = data.astype(np.float32, copy=False)
        masks = symbol.dtype == "f32"  # what is added to scores: -infinity says that a key is not seen
        wrong = ~np.isfinite(data) & ~(masks & np.isneginf(data))
        if wrong.any():
            at = np.argwhere(wrong)[0]
            raise IsaError("input.value", f"input {name!r} is {data[tuple(at)]} at {[int(i) for i in at]}; "
                           f"NaN and infinity are not allowed{', -infinity is' if masks else ''}")
        largest = _LARGEST.get(symbol.dtype, np.inf)
        if data.size and not masks and float(np.abs(data).max()) >= largest:
            raise IsaError("input.value", f"input {name!r} reaches {float(np.abs(data).max()):g}, which {symbol.dtype} "
                           "cannot hold", hint="scale the input")
        return data
    if data.dtype.kind not in ("iub" if symbol.dtype == "i8" else "iu"):
        raise IsaError("input.type", f"input {name!r} is {data.dtype}, expected integers ({symbol.dtype})")
    low, high = _RANGE[symbol.dtype]
    if data.size and (int(data.min()) < low or int(data.max()) > high):
        raise IsaError("input.value", f"input {name!r} has values {int(data.min())}..{int(data.max())}, expected "
                       f"{low}..{high} ({symbol.dtype})")
    return data
