"""focusc: from a vision-language model in ONNX to a program for a concentrating accelerator and its emulator.

    import focusc

    program = focusc.compile("model.onnx", target="focus", concentrate="focus")
    program.save("model.fbin")
    result = focusc.run(program, {"pixels": pixels, "ids": ids})
    result.outputs["logits"], result.stats["cycles"]

Everything is loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from focusc.driver import (
        CompileOptions,
        InputError,
        Result,
        compare,
        compile,
        load_model,
        load_program,
        run,
        simulate,
    )
    from focusc.isa import Program

__version__ = "0.1.0"

__all__ = [
    "CompileOptions",
    "InputError",
    "Program",
    "Result",
    "compare",
    "compile",
    "load_model",
    "load_program",
    "run",
    "simulate",
]


def __getattr__(name: str) -> object:
    """Load a public name from the module that defines it, on first use."""
    if name not in __all__:
        raise AttributeError(f"module 'focusc' has no attribute {name!r}")
    value = getattr(importlib.import_module("focusc.isa" if name == "Program" else "focusc.driver"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
