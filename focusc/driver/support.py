"""What of a model can be compiled, and where it would concentrate, before anything is compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from focusc.driver.compiler import FRONT, agreed, choose_method, concentration
from focusc.driver.files import existing
from focusc.driver.options import CompileOptions

if TYPE_CHECKING:
    from focusc.frontend import OpReport
    from focusc.ir import Diagnostic, Module
    from focusc.isa.machine import Machine

PARTIAL = "other nodes could not be imported, so this was found on part of the model; it may go when they can"


def ops(
    model: str | os.PathLike[str],
    *,
    target: str | None = None,
    concentrate: str | None = None,
    config: str | os.PathLike[str] | None = None,
    layout: Mapping[str, Any] | None = None,
) -> OpReport:
    """Every node of an ONNX model: supported or not, and why; all of them at once, with the arguments of `compile`.

    A node is supported if it can be imported, and if the target takes what it becomes, dense and concentrated. Without
    a token layout only the dense program is checked, unless `concentrate` was asked for. A layout given is used
    instead of the model's own and checked against its sequence. Raises InputError or CompileError where nothing can be
    said about nodes.
    """
    from focusc.backends import load_hardware
    from focusc.frontend import op_report

    options = CompileOptions.load(config, target=target, concentrate=concentrate, layout=layout)
    machine = load_hardware(options.target)
    method = choose_method(options, machine)
    report = op_report(existing(model, "ONNX model"), options.layout)
    known = report.module is not None and bool(report.module.attrs.get("layout"))
    if options.pipeline is not None or (options.method is None and not known):
        method = "none"
    report = replace(report, target=machine.name, concentrate=method)
    return report if report.module is None else _lowered(report, report.module, options, machine)


def _lowered(report: OpReport, module: Module, options: CompileOptions, machine: Machine) -> OpReport:
    """The report with the nodes marked whose ops the target refuses; what concerns no node is a problem of all."""
    whole = report.supported
    found = _refusals(module, options, machine, report.concentrate if whole else "none")
    refused: dict[str, Diagnostic] = {}
    problems = list(report.problems)
    nodes = {node.name for node in report.nodes if node.status == "supported"}
    for problem in dict.fromkeys(found):
        node = problem.loc.node.removesuffix(" (importance)")
        shown = problem if whole else replace(problem, notes=(*problem.notes, (type(problem.loc)(), PARTIAL)))
        if node in nodes and refused.setdefault(node, shown) is shown:
            continue
        if node not in nodes or not _same(refused[node], shown):
            problems.append(shown)
    marked = tuple(
        replace(node, status="unsupported", problem=refused[node.name]) if node.name in refused else node
        for node in report.nodes
    )
    return replace(report, nodes=marked, problems=tuple(problems))


def _same(a: Diagnostic, b: Diagnostic) -> bool:
    return (a.code, a.message) == (b.code, b.message)


def _refusals(module: Module, options: CompileOptions, machine: Machine, method: str) -> list[Diagnostic]:
    """Everything between the imported module and the target's kernels that is refused: dense, then concentrated."""
    from focusc.backends.lower import refusals
    from focusc.backends.options import tiling
    from focusc.driver.passes import register_backend_passes
    from focusc.ir import CompileError, PassManager

    register_backend_passes()
    limits = {name: int(value) for name, value in options.tiling.items() if isinstance(value, (int, float, str))}
    tiles = tiling(machine, **limits)
    found: list[Diagnostic] = []
    try:
        dense = PassManager(options.pipeline if options.pipeline is not None else FRONT).run(module)
        found += refusals(dense, tiles)
        if method != "none":
            passed = PassManager(concentration(options, method, module)).run(dense)
            found += refusals(passed, tiles)
    except CompileError as error:  # a pass refuses
        found += error.diagnostics
    return found


def concentration_sites(
    model: str | os.PathLike[str],
    *,
    target: str | None = None,
    concentrate: str | None = None,
    config: str | os.PathLike[str] | None = None,
    layout: Mapping[str, Any] | None = None,
) -> list[dict[str, Any]]:
    """The ops that concentration inserts: layer, kind (sic, sec, or none for what is left out), site, source node,
    rows, columns, and for what is left out why.

    The arguments are those of `compile`. Raises InputError or CompileError as it does.
    """
    from focusc.backends import load_hardware
    from focusc.driver.load import load_model
    from focusc.ir import PassManager

    options = CompileOptions.load(config, target=target, concentrate=concentrate, layout=layout)
    machine = load_hardware(options.target)
    method = choose_method(options, machine)
    module = load_model(model, options.layout)
    method = agreed(options, method, module, machine)
    if method == "none":
        return []
    module = PassManager(f"{FRONT},{concentration(options, method, module)}").run(module)
    found: list[dict[str, Any]] = []
    for op in module.walk():
        if op.name not in ("sic.gather", "sec.select"):
            continue
        shape = getattr(op.operands[0].type, "shape", ()) if op.operands[0] is not None else ()
        kind = op.name.split(".")[0]
        found.append(
            {
                "layer": op.attrs["layer"],
                "kind": kind,
                "site": op.attrs["site"] if kind == "sic" else f"keep {op.attrs['k']}",
                "node": op.loc.origin(),
                "rows": shape[-2] if len(shape) > 1 else op.attrs.get("visual_len", ""),
                "columns": shape[-1] if len(shape) > 1 else "",
                "why": "",
            }
        )
    for layer, site, why in module.attrs["concentrate"].get("left_out", ()):
        found.append({"layer": layer, "kind": "none", "site": site, "node": "", "rows": "", "columns": "", "why": why})
    return sorted(found, key=lambda site: site["layer"])
