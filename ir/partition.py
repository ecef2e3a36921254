"""Cutting an acyclic graph into what one machine runs and few segments that another runs.

A segment is a set of nodes that runs in one go: contracting every segment must leave the graph acyclic, so no path may
leave a segment and come back. Two chosen nodes with a node that is not chosen on a path between them can never share
one. So along any path, every run of chosen nodes needs a segment of its own, and the path with the most runs bounds the
number of segments from below. Putting each chosen node into the segment numbered by the most runs before it on any path
attains the bound: edges never lead to a lower number.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    import networkx as nx

Node = TypeVar("Node", bound=Hashable)


def levels(graph: nx.DiGraph[Node], chosen: Collection[Node]) -> dict[Node, int]:
    """For every node the number of segments that must run before it; for a chosen node, the number of its own."""
    import networkx as nx

    found: dict[Node, int] = {}
    for node in nx.topological_sort(graph):
        inside = node in chosen
        steps = (found[p] + (p in chosen and not inside) for p in graph.predecessors(node))
        found[node] = max(steps, default=0)
    return found


def segments(graph: nx.DiGraph[Node], chosen: Collection[Node]) -> list[list[Node]]:
    """The chosen nodes in the fewest segments that leave the graph acyclic; nodes in the order of the graph."""
    level = levels(graph, chosen)
    groups: dict[int, list[Node]] = {}
    for node in graph:
        if node in chosen:
            groups.setdefault(level[node], []).append(node)
    return [groups[number] for number in sorted(groups)]


def joined(graph: nx.DiGraph[Node], chosen: Collection[Node], movable: Callable[[Node], bool]) -> set[Node]:
    """The chosen nodes and those between two neighbouring segments, wherever all of them are `movable`.

    Each such move makes one segment of two. What is on no path from one segment to the next never moves.
    """
    whole = set(chosen)
    parts = segments(graph, whole)
    at = 0
    while at + 1 < len(parts):
        between = (_reached(parts[at], graph.successors) & _reached(parts[at + 1], graph.predecessors)) - whole
        if all(map(movable, between)):
            whole |= between
            parts = segments(graph, whole)
        else:
            at += 1
    return whole


def _reached(start: Collection[Node], step: Callable[[Node], Iterable[Node]]) -> set[Node]:
    """Everything that some steps lead to."""
    found: set[Node] = set()
    todo = list(start)
    while todo:
        for node in step(todo.pop()):
            if node not in found:
                found.add(node)
                todo.append(node)
    return found


def order(graph: nx.DiGraph[Node], parts: Sequence[Sequence[Node]]) -> list[Node | int]:
    """An order to run in: nodes by themselves, and the numbers of the parts; as close to the graph's order as can be.

    A part stands where its last node stood, unless something in front needs it sooner.
    """
    import networkx as nx

    owner = {node: number for number, part in enumerate(parts) for node in part}
    place = {node: i for i, node in enumerate(graph)}
    small: nx.DiGraph[Any] = nx.DiGraph()
    key: dict[Any, int] = {}
    for node in graph:
        small.add_node(owner.get(node, node))
        key[owner.get(node, node)] = place[node]
    small.add_edges_from(
        (owner.get(a, a), owner.get(b, b)) for a, b in graph.edges() if owner.get(a, a) != owner.get(b, b)
    )
    return list(nx.lexicographical_topological_sort(small, key=key.__getitem__))
