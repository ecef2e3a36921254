"""Backends: targets, mapping, code generation and cost models; the only place where IR meets ISA."""

from __future__ import annotations

from typing import Any

__all__ = ["compile_module", "load_hardware"]


def __getattr__(name: str) -> Any:
    """Load on demand: listing tools need no IR, no numpy."""
    import importlib

    homes = {"compile_module": "focusc.backends.compiler", "load_hardware": "focusc.backends.hardware"}
    if name in homes:
        return getattr(importlib.import_module(homes[name]), name)
    raise AttributeError(f"module focusc.backends has no attribute {name}")
