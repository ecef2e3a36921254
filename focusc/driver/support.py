"""What of a model can be compiled, and where it would concentrate, before anything is compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from focusc.driver.files import existing

if TYPE_CHECKING:
    from focusc.frontend import OpReport
    from focusc.ir import Diagnostic


def ops(model: str | os.PathLike[str], *, layout: Mapping[str, Any] | None = None) -> OpReport:
    """Every node of an ONNX model: supported or not, and why.

    A node is supported if it can be imported and what it becomes can be lowered to the accelerator. A layout given is
    used instead of the model's own and checked against its sequence.
    """
    from focusc.frontend import op_report

    report = op_report(existing(model, "ONNX model"), layout)
    return _without_lowering(report, model) if report.supported else report


def _without_lowering(report: OpReport, model: str | os.PathLike[str]) -> OpReport:
    """The report with the nodes marked that are imported, but that the passes leave as an op without a lowering."""
    from focusc.backends import load_hardware
    from focusc.backends.lower import lower_module
    from focusc.backends.lower.context import HANDLERS
    from focusc.backends.options import tiling
    from focusc.driver.compiler import FRONT
    from focusc.driver.load import load_model
    from focusc.ir import CompileError, PassManager

    module = PassManager(FRONT).run(load_model(model, report.layout))
    if all(op.name in HANDLERS or op.name in ("return", "tensor.constant") for op in module.body.ops):
        return report
    try:
        lower_module(module, tiling(load_hardware("focus")))
    except CompileError as error:
        found = {problem.loc.node: problem for problem in reversed(error.diagnostics) if problem.loc.node}
        other = tuple(problem for problem in error.diagnostics if not problem.loc.node)
    else:
        return report
    named = {node.name for node in report.nodes}
    return replace(
        report,
        nodes=tuple(
            replace(node, status="unsupported", problem=_shortened(found[node.name])) if node.name in found else node
            for node in report.nodes
        ),
        problems=(*report.problems, *other, *(p for name, p in found.items() if name not in named)),
    )


def _shortened(problem: Diagnostic) -> Diagnostic:
    """Without the hint to run the command that is running."""
    return replace(problem, hint="express it with other operators; docs/ lists what has a lowering")


def concentration_sites(
    model: str | os.PathLike[str], *, layout: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The ops that `concentrate=focus` inserts: layer, kind (sic or sec), site, source node, rows, columns."""
    from focusc.driver.compiler import FRONT
    from focusc.driver.load import load_model
    from focusc.ir import PassManager

    module = PassManager(f"{FRONT},concentrate{{method=focus}}").run(load_model(model, layout))
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
            }
        )
    return found
