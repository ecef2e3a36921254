"""The backend's part of a compilation: tile, plan memory, place fences, generate code."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from focusc.backends.codegen import HostModel, generate
from focusc.ir import Module, PassManager
from focusc.ir.passes import manager
from focusc.isa.machine import Machine
from focusc.isa.program import Program

PACKAGE = "focusc.backends.passes"
if PACKAGE not in manager.PACKAGES:
    manager.PACKAGES.append(PACKAGE)

RunPasses = Callable[[Module, str], Module]


def pipeline(target: str, options: Mapping[str, Any], *, host: bool = False) -> str:
    """Pipeline text of the target's passes; with `host`, what the target refuses goes to the host."""
    given = f"{{target={target}" + "".join(f",{key}={value}" for key, value in options.items() if value) + "}"
    return (f"outline-host{given}," if host else "") + f"tile{given},plan-memory,place-fences"


def compile_module(
    module: Module,
    machine: Machine,
    *,
    target: str = "",
    options: Mapping[str, Any] | None = None,
    run_passes: RunPasses | None = None,
    meta: dict[str, Any] | None = None,
    weights: bool = True,
    host: HostModel | None = None,
) -> Program:
    """Compile an nn-level (or already tiled) module for `machine`.

    `target` is the name or path that `machine` was loaded from (default: its name); `options` are those of the pass
    `tile` (m, n). `run_passes(module, pipeline text)` runs the passes, so that a driver can record or check them.
    `weights=False` leaves the constants' values out of the program, which can then be timed but not executed. `host`
    writes the ONNX models of host calls, if the module has any.
    Raises CompileError.
    """
    run = run_passes or (lambda m, text: PassManager(text).run(m))
    lowered = run(module, pipeline(target or machine.name, options or {}))
    return generate(lowered, machine, meta, weights=weights, host=host)
