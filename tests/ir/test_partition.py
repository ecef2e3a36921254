"""Segments of a graph: everything chosen is covered, nothing runs before what it needs, and no fewer would do."""

from __future__ import annotations

from collections.abc import Iterator

import networkx as nx
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.ir.partition import joined, order, segments


@st.composite
def graphs(draw: st.DrawFn, most: int = 12) -> tuple[nx.DiGraph[int], set[int]]:
    """An acyclic graph in topological order, and some of its nodes."""
    count = draw(st.integers(1, most))
    graph: nx.DiGraph[int] = nx.DiGraph()
    graph.add_nodes_from(range(count))
    pairs = [(a, b) for b in range(count) for a in range(b)]
    graph.add_edges_from(draw(st.lists(st.sampled_from(pairs), unique=True, max_size=3 * count)) if pairs else [])
    return graph, draw(st.sets(st.integers(0, count - 1)))


def quotient(graph: nx.DiGraph[int], parts: list[list[int]]) -> nx.DiGraph[int]:
    """The graph with every part contracted to its first node."""
    owner = {node: part[0] for part in parts for node in part}
    small: nx.DiGraph[int] = nx.DiGraph()
    small.add_nodes_from(owner.get(node, node) for node in graph)
    small.add_edges_from(
        (owner.get(a, a), owner.get(b, b)) for a, b in graph.edges() if owner.get(a, a) != owner.get(b, b)
    )
    return small


def partitions(items: list[int]) -> Iterator[list[list[int]]]:
    """Every way to put the items into groups."""
    if not items:
        yield []
        return
    head, *rest = items
    for groups in partitions(rest):
        yield [[head], *groups]
        for i, group in enumerate(groups):
            yield [*groups[:i], [head, *group], *groups[i + 1 :]]


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_segments_cover_the_chosen_and_leave_the_graph_acyclic(case: tuple[nx.DiGraph[int], set[int]]) -> None:
    graph, chosen = case
    parts = segments(graph, chosen)
    assert sorted(node for part in parts for node in part) == sorted(chosen)
    assert nx.is_directed_acyclic_graph(quotient(graph, parts))


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_segments_are_convex(case: tuple[nx.DiGraph[int], set[int]]) -> None:
    graph, chosen = case
    for part in segments(graph, chosen):
        behind = set[int]().union(*(nx.descendants(graph, node) for node in part))
        before = set[int]().union(*(nx.ancestors(graph, node) for node in part))
        assert not (behind & before) - chosen, "a path leaves the segment and comes back"


@settings(max_examples=150, deadline=None)
@given(graphs(most=7))
def test_no_partition_has_fewer_segments(case: tuple[nx.DiGraph[int], set[int]]) -> None:
    graph, chosen = case
    least = min(
        len(parts) for parts in partitions(sorted(chosen)) if nx.is_directed_acyclic_graph(quotient(graph, parts))
    )
    assert len(segments(graph, chosen)) == least


@settings(max_examples=200, deadline=None)
@given(graphs(), st.data())
def test_joining_moves_only_what_may_move_and_lies_between(
    case: tuple[nx.DiGraph[int], set[int]], data: st.DataObject
) -> None:
    graph, chosen = case
    movable = data.draw(st.sets(st.sampled_from(sorted(graph))))
    whole = joined(graph, chosen, movable.__contains__)
    assert chosen <= whole and whole - chosen <= movable
    assert len(segments(graph, whole)) <= len(segments(graph, chosen))
    for node in whole - chosen:
        assert nx.descendants(graph, node) & chosen and nx.ancestors(graph, node) & chosen
    everything = joined(graph, chosen, lambda node: True)
    assert len(segments(graph, everything)) <= 1


@settings(max_examples=200, deadline=None)
@given(graphs())
def test_the_order_respects_every_edge(case: tuple[nx.DiGraph[int], set[int]]) -> None:
    graph, chosen = case
    parts = segments(graph, chosen)
    texts = {node: str(node) for node in graph}  # so that a node is not taken for the number of a part
    names: nx.DiGraph[str] = nx.relabel_nodes(graph, texts)
    named = [[str(node) for node in part] for part in parts]
    flat = [node for item in order(names, named) for node in (named[item] if isinstance(item, int) else [item])]
    assert sorted(flat) == sorted(names)
    place = {node: i for i, node in enumerate(flat)}
    assert all(place[a] < place[b] for a, b in names.edges())


def test_the_order_stays_that_of_the_graph_where_it_can() -> None:
    graph: nx.DiGraph[str] = nx.DiGraph()
    nx.add_path(graph, "abcdef")
    assert order(graph, [["c", "d"]]) == ["a", "b", 0, "e", "f"]
