"""Graph views: edges, critical path, DOT."""

from __future__ import annotations

import networkx as nx
import numpy as np

from focusc.ir import Block, Builder, IndexType, Module, TensorType
from focusc.ir.graphs import critical_path, reads, to_dot, use_def

F = TensorType((2,), "f32")


def diamond() -> Module:
    """x -> exp -> exp -> add <- neg <- x."""
    b = Builder()
    x = b.argument("x", F)
    left = b.emit("tensor.exp", b.emit("tensor.exp", x))
    right = b.emit("tensor.neg", x)
    total = b.emit("tensor.add", left, b.emit("tensor.mul", right, b.constant(np.ones(2, np.float32))))
    return b.module("diamond", {"y": total})


def test_edges_are_uses() -> None:
    module = diamond()
    graph = use_def(module)
    assert nx.is_directed_acyclic_graph(graph)
    assert graph.number_of_nodes() == len(module.body.ops) + 1
    assert graph.number_of_edges() == sum(len(op.operands) for op in module.body.ops)
    assert all(data["value"] in target.operands for _, target, data in graph.edges(data=True))


def test_critical_path_follows_the_cost() -> None:
    module = diamond()
    cost, path = critical_path(module)
    assert (cost, [o.name for o in path]) == (4, ["tensor.exp", "tensor.exp", "tensor.add", "return"])
    cost, path = critical_path(module, lambda op: 10.0 if op.name == "tensor.neg" else 1.0)
    assert (cost, [o.name for o in path]) == (13, ["tensor.neg", "tensor.mul", "tensor.add", "return"])


def test_critical_path_agrees_with_networkx() -> None:
    module = diamond()
    weights = {"tensor.exp": 2.5, "tensor.neg": 7.0, "tensor.mul": 1.0, "tensor.add": 3.0}
    graph = nx.DiGraph(use_def(module))
    for _, target, data in graph.edges(data=True):
        data["weight"] = weights.get(target.name, 0.0)
    cost, _ = critical_path(module, lambda op: weights.get(op.name, 0.0))
    assert cost == nx.dag_longest_path_length(graph)


def test_regions_count_as_reads_of_their_op() -> None:
    b = Builder()
    x, y = b.argument("x", F), b.argument("y", F)
    body = Block([IndexType()])
    inner = Builder(body)
    inner.create("yield", inner.emit("tensor.add", x, x))
    op = b.create("tensor.exp", y)
    op.regions.append(body)
    assert list(reads(op)) == [y, x, x]
    assert use_def(b.block).number_of_edges(x, op) == 2


def test_empty_block_has_no_path() -> None:
    assert critical_path(Block()) == (0.0, [])


def test_dot_shows_ops_types_and_marks() -> None:
    text = to_dot(diamond(), highlight=lambda op: op.name == "tensor.add")
    assert text.startswith('digraph "diamond" {\n')
    assert '[label="tensor.add\\ntensor<2xf32>", style=filled, fillcolor=gold];' in text
    assert "tensor.constant" not in text
    assert "tensor.constant" in to_dot(diamond(), constants=True)
    assert text.count(" -> ") == 7
