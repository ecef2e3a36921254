"""What of a model can be compiled, and where it would concentrate, before anything is compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from focusc.driver.compiler import FRONT, agreed, choose_method, concentration
from focusc.driver.files import existing
from focusc.driver.options import CompileOptions

if TYPE_CHECKING:
    from focusc.backends.options import Tiling
    from focusc.frontend import OpReport
    from focusc.frontend.report import NodeReport
    from focusc.ir import Diagnostic, Module
    from focusc.isa.machine import Machine

PARTIAL = "other nodes could not be imported, so this was found on part of the model; it may go when they can"


def ops(
    model: str | os.PathLike[str],
    *,
    target: str | None = None,
    concentrate: str | None = None,
    host: str | None = None,
    config: str | os.PathLike[str] | None = None,
    layout: Mapping[str, Any] | None = None,
) -> OpReport:
    """Every node of an ONNX model: supported or not, and why; all of them at once, with the arguments of `compile`.

    A node is supported if it can be imported, and if the target takes what it becomes, dense and concentrated; the
    host's to run if the target refuses that, dense or concentrated, and `host` is not "none". Without
    a token layout only the dense program is checked, unless `concentrate` was asked for. A layout given is used
    instead of the model's own and checked against its sequence. Raises InputError or CompileError where nothing can be
    said about nodes.
    """
    from focusc.backends import load_hardware
    from focusc.frontend import op_report

    options = CompileOptions.load(config, target=target, concentrate=concentrate, host=host, layout=layout)
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
    asked = _ask(module, options, machine, report.concentrate if whole else "none")
    problems = list(report.problems)
    found: dict[str, dict[str, Diagnostic]] = {"unsupported": {}, "host": {}}
    nodes = {node.name for node in report.nodes if node.status == "supported"}
    for status, listed in (("unsupported", asked.refused), ("host", asked.moved)):
        for problem in dict.fromkeys(listed):
            node = problem.loc.node.removesuffix(" (importance)")
            shown = problem if whole else replace(problem, notes=(*problem.notes, (type(problem.loc)(), PARTIAL)))
            if node in nodes:
                first = found[status].setdefault(node, shown)
                # that an op lies between others says less than why another op of the node is refused
                if first.code == "host.between" != shown.code:
                    found[status][node] = first = shown
                if first is shown or _same(first, shown) or status == "host":
                    continue
            if status == "unsupported":
                problems.append(shown)

    def marked(node: NodeReport) -> NodeReport:
        for status, listed in found.items():
            if node.name in listed:
                return replace(node, status=status, problem=listed[node.name])
        return node

    return replace(report, nodes=tuple(map(marked, report.nodes)), problems=tuple(problems), host=asked.host)


def _same(a: Diagnostic, b: Diagnostic) -> bool:
    return (a.code, a.message) == (b.code, b.message)


@dataclass
class _Asked:
    """What the target says of a module: everything refused, what moves to the host instead, and the totals of that."""

    refused: list[Diagnostic] = field(default_factory=list["Diagnostic"])
    moved: list[Diagnostic] = field(default_factory=list["Diagnostic"])
    host: dict[str, Any] | None = None


def _ask(module: Module, options: CompileOptions, machine: Machine, method: str) -> _Asked:
    """Everything between the imported module and the target's kernels that is refused: dense, then concentrated."""
    from focusc.backends.options import tiling
    from focusc.driver.passes import register_backend_passes
    from focusc.ir import CompileError, PassManager

    register_backend_passes()
    limits = {name: int(value) for name, value in options.tiling.items() if isinstance(value, (int, float, str))}
    tiles = tiling(machine, **limits)
    asked = _Asked()
    try:
        dense = PassManager(options.pipeline if options.pipeline is not None else FRONT).run(module)
        rest = _ask_target(asked, dense, tiles, options, None)
        if method != "none":
            passed = PassManager(concentration(options, method, module)).run(dense)
            _ask_target(asked, passed, tiles, options, rest)
    except CompileError as error:  # a pass refuses
        asked.refused += error.diagnostics
    return asked


def _ask_target(asked: _Asked, module: Module, tiles: Tiling, options: CompileOptions, rest: int | None) -> int:
    """Add what the target says of one module. `rest` are the dense MACs of the accelerator, where they are known;
    returns them."""
    from focusc.backends.lower import refusals
    from focusc.backends.passes.outline_host import outlined
    from focusc.ir import Diagnostic, Loc
    from focusc.ir.macs import macs

    moved = outlined(module, tiles) if options.host == "auto" else None
    asked.refused += refusals(moved.module if moved is not None else module, tiles)
    calls = moved.calls if moved is not None else []
    nodes = [node for call in calls for node in call.attrs["nodes"]]
    for node in nodes:
        loc = Loc(node=node["node"], module_path=node["path"])
        asked.moved.append(Diagnostic(node["code"], node["message"], loc, hint=node["hint"]))
    on_host = sum(node["macs"] for node in nodes)
    if rest is None:
        rest = sum(macs(op) for op in module.walk()) - on_host
    total = on_host + rest
    asked.host = {
        "segments": len(calls), "nodes": len(nodes), "macs": on_host, "share": on_host / total if total else 0.0,
    }  # fmt: skip
    return rest


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
