"""Modules as networkx graphs: use-def graph, critical path, and DOT text for graphviz.

Nodes are the ops of one block and, for its arguments, the Values themselves; an edge runs from a definition to a user
and carries the `value`. What an op's regions read from outside counts as read by the op.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from focusc.ir.core import Block, Module, Op, Value
from focusc.ir.text.printer import quote

if TYPE_CHECKING:
    import networkx as nx


def reads(op: Op) -> Iterator[Value]:
    """Values that the op or the ops in its regions read from outside of it; repeated if read repeatedly."""
    inside: set[Value] = set()
    for inner in op.walk():
        for block in inner.regions:
            inside.update(block.args)
        for value in inner.operands:
            if value is not None and value not in inside:
                yield value
        if inner is not op:
            inside.update(inner.results)


def use_def(module: Module | Block) -> nx.MultiDiGraph[Any]:
    """The use-def graph of a module body or block, nodes in program order."""
    import networkx as nx

    block = module.body if isinstance(module, Module) else module
    graph: nx.MultiDiGraph[Any] = nx.MultiDiGraph()
    graph.add_nodes_from(block.args)
    graph.add_nodes_from(block.ops)
    for op in block.ops:
        for value in reads(op):
            source = value.owner if isinstance(value.owner, Op) else value
            if source in graph:
                graph.add_edge(source, op, value=value)
    return graph


def critical_path(module: Module | Block, cost: Callable[[Op], float] = lambda op: 1.0) -> tuple[float, list[Op]]:
    """The chain of dependent ops with the greatest total cost, and that total. Ties go to the earlier op."""
    graph = use_def(module)
    best: dict[Any, tuple[float, Any]] = {}
    last: Any = None
    for node in graph.nodes:  # program order is a topological order
        before = max(graph.predecessors(node), key=lambda n: best[n][0], default=None)
        total = (best[before][0] if before is not None else 0.0) + (cost(node) if isinstance(node, Op) else 0.0)
        best[node] = (total, before)
        if last is None or total > best[last][0]:
            last = node
    if last is None:
        return 0.0, []
    path: list[Op] = []
    node = last
    while node is not None:
        if isinstance(node, Op):
            path.append(node)
        node = best[node][1]
    return best[last][0], path[::-1]


def to_dot(module: Module, *, constants: bool = False, highlight: Callable[[Op], bool] | None = None) -> str:
    """The module as DOT text; constants are left out unless asked for, ops that `highlight` picks are filled."""
    graph = use_def(module)
    shown = [n for n in graph.nodes if constants or not (isinstance(n, Op) and n.name == "tensor.constant")]
    names = {node: f"n{i}" for i, node in enumerate(shown)}
    lines = [f"digraph {quote(module.name)} {{", "  node [shape=box, fontname=monospace];"]
    for node, name in names.items():
        if isinstance(node, Op):
            parts = [node.name, *(str(v.type) for v in node.results), node.loc.module_path]
            fill = ", style=filled, fillcolor=gold" if highlight is not None and highlight(node) else ""
            lines.append(f"  {name} [label={_label(parts)}{fill}];")
        else:
            lines.append(f"  {name} [label={_label([f'%{node.name}', str(node.type)])}, shape=ellipse];")
    for source, target in graph.edges():
        if source in names and target in names:
            lines.append(f"  {names[source]} -> {names[target]};")
    return "\n".join([*lines, "}"]) + "\n"


def _label(parts: list[str]) -> str:
    return '"' + "\\n".join(p.replace("\\", "\\\\").replace('"', '\\"') for p in parts if p) + '"'
