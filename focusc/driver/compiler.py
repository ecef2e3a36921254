"""One compilation: model -> IR -> concentrated IR -> tiles -> program. Every stage goes through the pass manager."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from focusc.driver.errors import InputError
from focusc.driver.load import load_model
from focusc.driver.options import CompileOptions, pipeline_options
from focusc.driver.passes import check_folder, register_backend_passes, run_pipeline
from focusc.driver.progress import Progress, silent

if TYPE_CHECKING:
    from focusc.ir import Module, Op
    from focusc.isa import Program
    from focusc.isa.machine import Machine

FRONT = "canonicalise,fold-constants,fuse-nn,canonicalise,common-subexpressions,dead-code"
"""Passes from the imported model to the level that concentration and every target start from."""


@dataclass(frozen=True)
class Compilation:
    """What a compilation made: the program, the IR it was generated from, the IR before tiling, what passes did."""

    program: Program
    module: Module
    concentrated: Module
    machine: Machine
    method: str
    seconds: float
    passes: list[dict[str, Any]] = field(default_factory=list)

    def summary(self, path: str | os.PathLike[str]) -> dict[str, Any]:
        """Figures of the compilation, for the table and --json; `path` is the written program."""
        program = self.program
        return {
            "path": os.fspath(path),
            "bytes": os.path.getsize(path),
            "target": program.target,
            "hardware_digest": program.hardware_digest,
            "concentrate": self.method,
            "instructions": len(program.text),
            "const_bytes": program.const_bytes,
            "constants": program.has_constants,
            "arena_bytes": program.arena_bytes,
            "plan": program.plan,
            "host": host_summary(program),
            "seconds": self.seconds,
            "passes": self.passes,
        }


def compile(
    model: str | os.PathLike[str] | Module,
    *,
    target: str | None = None,
    concentrate: str | None = None,
    host: str | None = None,
    config: str | os.PathLike[str] | None = None,
    layout: Mapping[str, Any] | None = None,
) -> Program:
    """Compile an ONNX file, an IR file or a module for `target` ("focus", "systolic" or the path of a description).

    `concentrate` is "none", "sec", "sic" or "focus"; left out, "focus" where the target can, else "none". `host` is
    "auto" (the default: what the target refuses becomes segments that the host runs) or "none" (it is an error).
    `config` is a TOML file with more options. Raises CompileError, IsaError or InputError with a message (`render()`).
    """
    options = CompileOptions.load(config, target=target, concentrate=concentrate, host=host, layout=layout)
    return compile_model(model, options).program


def compile_model(
    model: str | os.PathLike[str] | Module,
    options: CompileOptions,
    *,
    dump_ir: str | os.PathLike[str] | None = None,
    verify_each: bool = False,
    weights: bool = True,
    progress: Progress = silent,
) -> Compilation:
    """Compile with every option.

    `dump_ir` receives a snapshot after each pass; `verify_each` executes the module before and after each pass; without
    `weights` the program gets the size of its constants and no values, so that it can be timed but not executed.
    """
    from focusc.backends import compile_module, load_hardware
    from focusc.backends.compiler import pipeline as backend_pipeline

    started = time.perf_counter()
    machine = load_hardware(options.target)
    method = choose_method(options, machine)
    if dump_ir is not None:
        check_folder(dump_ir)
    progress("read the model", 0, 1)
    source = load_model(model, options.layout) if isinstance(model, (str, os.PathLike)) else model
    method = agreed(options, method, source, machine)
    passes = options.pipeline if options.pipeline is not None else pipeline(options, method, source)
    whole = f"{passes},{backend_pipeline(options.target, options.tiling, host=options.host == 'auto')}"
    done = run_pipeline(source, whole, dump_ir=dump_ir, verify_each=verify_each, progress=progress)
    # what the IR says counts: a snapshot or a pipeline of the user's may have concentrated by itself
    method = str(done.module.attrs.get("concentrate", {}).get("method", "none"))
    # the backend's passes have run with the others, so that snapshots are numbered through and checks see all of them
    meta = {"concentrate": method}
    program = compile_module(
        done.module, machine, run_passes=lambda module, _: module, meta=meta, weights=weights, host=_host_model
    )
    seconds = time.perf_counter() - started
    return Compilation(program, done.module, done.before_tiling, machine, method, seconds, done.steps)


def host_summary(program: Program) -> dict[str, Any]:
    """What of a program the host runs: the totals of `stats.json`, and `reasons`, one for each different refusal.

    A reason has code, message, hint, and the `nodes` that it is about.
    """
    from focusc.isa.stats import host_totals

    reasons: dict[tuple[str, str, str], list[str]] = {}
    for segment in program.host:
        for node in segment.nodes:
            name = node.node or node.op
            found = reasons.setdefault((node.code, node.message, node.hint), [])
            if name not in found:
                found.append(name)
    listed = [
        {"code": code, "message": message, "hint": hint, "nodes": nodes}
        for (code, message, hint), nodes in reasons.items()
    ]
    return {**host_totals(program), "reasons": listed}


def _host_model(call: Op) -> bytes:
    from focusc.host import segment_model  # imports onnx, which a model without host calls does not need

    return segment_model(call)


def pipeline(options: CompileOptions, method: str, module: Module) -> str:
    """The usual target-independent passes, as pipeline text; what is concentrated already is not concentrated again."""
    if method == "none" or "concentrate" in module.attrs:
        return FRONT
    return f"{FRONT},{concentration(options, method, module)}"


def concentration(options: CompileOptions, method: str, module: Module) -> str:
    """The pass `concentrate` with its options, as pipeline text. InputError if the module has no token layout."""
    if not module.attrs.get("layout"):
        raise InputError(
            "layout.missing",
            f"to concentrate ({method}), the token layout must be known, and the model has none",
            hint="a model without visual tokens is compiled with --concentrate none"
            if "layout" in module.attrs
            else "give --visual START,LENGTH --grid F,H,W --query N, or compile with --concentrate none",
        )
    # a workload brings its own schedule and threshold; what the user gives wins
    given = {**module.attrs.get("workload", {}).get("concentrate", {}), **options.concentrate, "method": method}
    given.setdefault("m", options.tiling.get("m", 1024))
    return f"concentrate{pipeline_options(given)}"


def choose_method(options: CompileOptions, machine: Machine) -> str:
    """The method asked for (InputError if the target cannot), else the most that the target can."""
    if options.method is None:
        return "focus" if _able(machine, "focus") and options.pipeline is None else "none"
    return _check_able(machine, options.method)


def agreed(options: CompileOptions, method: str, module: Module, machine: Machine) -> str:
    """The method that an IR file or a pipeline of the user's brings, else `method`.

    A model without visual tokens is not concentrated unless that is asked for.

    InputError if it is not the one that was asked for besides, or if the target cannot.
    """
    from focusc.ir import parse_pipeline

    found: dict[str, str] = {}
    if "concentrate" in module.attrs:
        found["the model is concentrated already"] = str(module.attrs["concentrate"]["method"])
    elif options.pipeline is not None:
        register_backend_passes()
        steps = [given for p, given in parse_pipeline(options.pipeline) if p.name == "concentrate"]
        found["the pipeline concentrates"] = str(steps[0].get("method", "focus")) if steps else "none"
    elif options.method is None and module.attrs.get("layout") == {}:
        return "none"  # a model without visual tokens has nothing to concentrate
    for what, has in found.items():
        if options.method not in (None, has):
            raise InputError(
                "config.value",
                f"{what} with method {has}, but concentrate={options.method} was asked for",
                hint="leave --concentrate (or method) out, or start from the model before",
            )
        method = _check_able(machine, has)
    return method


def _able(machine: Machine, method: str) -> bool:
    sec, sic = machine.sec.present, machine.sic.present
    return {"sec": sec, "sic": sic, "focus": sec and sic}.get(method, True)


def _check_able(machine: Machine, method: str) -> str:
    if not _able(machine, method):
        raise InputError(
            "target.concentrate",
            f"the target {machine.name} has no unit for concentrate={method}",
            hint="choose --target focus, or --concentrate none",
        )
    return method
