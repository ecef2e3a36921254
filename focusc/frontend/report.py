"""`op_report`: what of a model can be imported, node by node, before any compile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focusc.frontend.importer import Importer, Outcome, sequence_lengths
from focusc.frontend.layout import check_against_sequences, find_layout, layout_attribute
from focusc.frontend.model_file import open_model
from focusc.ir import Module
from focusc.ir.concentration.layout import Layout
from focusc.ir.diagnostics import CompileError, Diagnostic


@dataclass(frozen=True, slots=True)
class NodeReport:
    """One node. `status` is "supported", "host" (the host runs it; `problem` is why), "unsupported" (see `problem`) or
    "unchecked": an input's type is unknown, because a graph input is dynamic or a node before it is unsupported."""

    index: int
    name: str
    op_type: str
    domain: str
    module_path: str
    status: str
    problem: Diagnostic | None

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        problem = _problem(self.problem) if self.problem else None
        return {"index": self.index, "name": self.name, "op_type": self.op_type, "domain": self.domain,
                "module_path": self.module_path, "status": self.status, "problem": problem}


@dataclass(frozen=True, slots=True)
class OpReport:
    """The whole model: a report per node, problems that concern no node (inputs, layout), and notes.

    `target` and `concentrate` say what the nodes were checked for besides import, "" if for nothing. `host` is what the
    host would run: segments, nodes, macs, share of all MACs; None if that was not looked into. `module` is what
    could be imported, with an input in place of each result that is missing; None if not even that makes a module.
    """

    model: str
    opset: int
    nodes: tuple[NodeReport, ...]
    problems: tuple[Diagnostic, ...]
    notes: tuple[str, ...]
    layout: dict[str, Any] | None
    target: str = ""
    concentrate: str = ""
    host: dict[str, Any] | None = None
    module: Module | None = field(default=None, repr=False, compare=False)

    @property
    def supported(self) -> bool:
        """True if nothing was found against the model."""
        return not self.problems and all(n.status in ("supported", "host") for n in self.nodes)

    def counts(self) -> dict[str, dict[str, int]]:
        """For each operator, how many nodes have each status; sorted by operator."""
        table: dict[str, Counter[str]] = {}
        for node in self.nodes:
            table.setdefault(node.op_type, Counter())[node.status] += 1
        return {op: dict(table[op]) for op in sorted(table)}

    def to_dict(self) -> dict[str, Any]:
        """Plain values, for JSON."""
        return {"model": self.model, "opset": self.opset, "supported": self.supported, "target": self.target,
                "concentrate": self.concentrate, "host": self.host, "layout": self.layout,
                "counts": self.counts(), "problems": [_problem(p) for p in self.problems],
                "nodes": [n.to_dict() for n in self.nodes], "notes": list(self.notes)}


def op_report(path: str | Path, layout: Layout | Mapping[str, Any] | None = None) -> OpReport:
    """Try every node of the model. `layout` takes precedence over the file's metadata, as for `import_onnx`.

    Raises CompileError only where nothing can be said about nodes at all: the file cannot be read, onnx.checker refuses
    it, its opset or external data is out of reach.
    """
    model = open_model(path)
    importer = Importer(model)
    importer.run()
    of_nodes = {id(o.problem) for o in importer.outcomes}
    problems = [p for p in importer.problems if id(p) not in of_nodes]
    module, used = importer.imported(), None
    try:
        found = find_layout(layout, model.metadata, model.name)
        used = layout_attribute(found, model.metadata)
        if used is not None and module is not None and not importer.problems:
            if found is not None:
                check_against_sequences(found, sequence_lengths(module), model.name)
            module.attrs["layout"] = used
    except CompileError as error:
        problems += error.diagnostics
    nodes = tuple(_report(i, o) for i, o in enumerate(importer.outcomes))
    return OpReport(model.name, model.opset, nodes, tuple(problems), importer.notes.texts(), used, module=module)


def _report(index: int, outcome: Outcome) -> NodeReport:
    node = outcome.node
    status = "unsupported" if outcome.problem else "supported" if outcome.checked else "unchecked"
    return NodeReport(index, outcome.loc.node, node.op_type, node.domain or "ai.onnx", outcome.loc.module_path, status,
                      outcome.problem)


def _problem(found: Diagnostic) -> dict[str, str]:
    return {"code": found.code, "message": found.message, "node": found.loc.node,
            "module_path": found.loc.module_path, "hint": found.hint}
