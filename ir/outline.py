"""Moving ops into `host.call`: which ops go together, and the module with a call for each segment."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from focusc.ir.core import Block, Module, Op, Value, clone_op
from focusc.ir.diagnostics import Diagnostic
from focusc.ir.graphs import reads, use_def
from focusc.ir.macs import macs
from focusc.ir.partition import joined, order, segments
from focusc.ir.rewrite import Builder
from focusc.ir.types import ConcentratedType, TensorType

if TYPE_CHECKING:
    import networkx as nx


def _reason(code: str, message: str) -> Diagnostic:
    """Why an op moves that nobody refused: no error."""
    return Diagnostic(code, message)


BETWEEN = _reason(
    "host.between",
    "it lies between ops that the host runs, and has no matrix product: moving it saves a way there and back",
)
BORDER = _reason("host.border", "it shares a value that has no place in DRAM with an op that the host runs")
DIALECTS = ("tensor", "nn")
"""Ops that mean something outside the accelerator."""


@dataclass(frozen=True)
class Outlined:
    """A module with host calls; `source` names for every other op of its body the op of the module before."""

    module: Module
    source: dict[Op, Op]
    calls: list[Op]


def can_move(op: Op) -> bool:
    """Whether the host can run an op: it works on tensors and belongs to no unit of the accelerator."""
    types = [v.type for v in (*op.operands, *op.results) if v is not None]
    return op.name.split(".")[0] in DIALECTS and all(isinstance(t, TensorType | ConcentratedType) for t in types)


def choose(module: Module, refused: Mapping[Op, Diagnostic], storable: Collection[str]) -> list[dict[Op, Diagnostic]]:
    """The segments for the ops in `refused`: each op with the reason why it is there.

    Besides them go ops that share a value with them whose element type is not `storable`, as it cannot cross the
    border, and ops without products between two segments, which then are one.
    """
    import networkx as nx

    ops = [op for op in module.body.ops if op.name not in ("tensor.constant", "return")]
    graph: nx.DiGraph[Op] = nx.DiGraph()
    graph.add_nodes_from(ops)
    for a, b in use_def(module).edges():
        if a in graph and b in graph:
            types = [v.type for v in a.results if b in v.users]
            kept = all(not isinstance(t, TensorType) or t.dtype in storable for t in types)
            graph.add_edge(a, b, kept=kept)
    why = dict(refused)
    todo = list(why)
    while todo:
        op = todo.pop()
        for near in (*graph.predecessors(op), *graph.successors(op)):
            edge = (near, op) if graph.has_edge(near, op) else (op, near)
            if near not in why and not graph.edges[edge]["kept"] and can_move(near):
                why[near] = BORDER
                todo.append(near)
    whole = joined(graph, why, lambda op: can_move(op) and not macs(op) and not _concentrated(op))
    for op in whole - set(why):
        why[op] = BETWEEN
    return [{op: why[op] for op in part} for part in segments(graph, whole)]


def _concentrated(op: Op) -> bool:
    return any(v is not None and isinstance(v.type, ConcentratedType) for v in (*op.operands, *op.results))


def outline(module: Module, parts: Sequence[Mapping[Op, Diagnostic]]) -> Outlined:
    """The module with one `host.call` for each part. Constants that a part reads are copied into it."""
    import networkx as nx

    graph: nx.DiGraph[Op] = nx.DiGraph()
    graph.add_nodes_from(op for op in module.body.ops if op.name != "return")
    graph.add_edges_from((a, b) for a, b in use_def(module).edges() if a in graph and b in graph)
    body = Block()
    values: dict[Value, Value] = {}
    for arg in module.args:
        values[arg] = body.add_argument(arg.type, arg.name)
    builder = Builder(body)
    found = Outlined(Module(module.name, body, module.attrs, module.outputs), {}, [])
    for item in order(graph, [list(part) for part in parts]):
        if isinstance(item, int):
            found.calls.append(_call(builder, parts[item], values))
        else:
            found.source[body.append(clone_op(item, values))] = item
    found.source[body.append(clone_op(module.body.ops[-1], values))] = module.body.ops[-1]
    body.ops = [op for op in body.ops if op.name != "tensor.constant" or op.results[0].users]
    return found


def _call(builder: Builder, part: Mapping[Op, Diagnostic], values: dict[Value, Value]) -> Op:
    """Append the call of a part. What it reads of others becomes operands, in order; what others read, results."""
    inner: dict[Value, Value] = {}
    block = Block()
    inputs: list[Value] = []
    for op in part:
        for value in reads(op):
            if value in inner or (value.op is not None and value.op in part):
                continue
            if value.op is not None and value.op.name == "tensor.constant":
                block.append(clone_op(value.op, inner))
                continue
            outer = values[value]
            if isinstance(outer.type, ConcentratedType):
                outer = builder.emit("sic.scatter", outer, loc=op.loc)
            inputs.append(outer)
            inner[value] = block.add_argument(outer.type, value.name)
        block.append(clone_op(op, inner))
    outputs = [v for op in part for v in op.results if any(user not in part for user in v.users)]
    Builder(block).create("yield", *[inner[v] for v in outputs])
    first = next(iter(part))
    nodes = tuple(_described(op, reason) for op, reason in part.items())
    call = builder.create("host.call", *inputs, nodes=nodes, regions=[block], loc=first.loc)
    for new, old in zip(call.results, outputs, strict=True):
        new.name = old.name
        values[old] = new
    return call


def _described(op: Op, reason: Diagnostic) -> dict[str, Any]:
    return {
        "op": op.name,
        "node": op.loc.node,
        "path": op.loc.module_path,
        "code": reason.code,
        "message": reason.message,
        "hint": reason.hint,
        "macs": macs(op),
    }
