"""Fusion depends on structure only: renamed values, another node order and swapped operands give the same ops."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import pytest

from focusc.frontend import import_onnx
from focusc.ir import Module, PassManager, interpret

PIPELINE = "canonicalise,fold-constants,fuse-nn,dead-code,common-subexpressions"
COMMUTATIVE = {"Add", "Mul", "Equal", "And", "Or"}


def shuffled(model: onnx.ModelProto, seed: int) -> onnx.ModelProto:
    """The same function: nodes in another topological order, every inner name and node name replaced, operands of
    commutative nodes swapped at random."""
    rng = random.Random(seed)
    out = onnx.ModelProto.FromString(model.SerializeToString())
    graph = out.graph
    fixed = {v.name for v in (*graph.input, *graph.output)} | {""}
    names = {name for node in graph.node for name in (*node.input, *node.output)} | {t.name for t in graph.initializer}
    numbers = list(range(len(names)))
    rng.shuffle(numbers)
    pairs = zip(sorted(names), numbers, strict=True)
    renamed = {name: name if name in fixed else f"z{number}" for name, number in pairs}
    for tensor in graph.initializer:
        tensor.name = renamed[tensor.name]
    for index, node in enumerate(graph.node):
        node.name = f"n{index * 7919 % 10007}"
        node.input[:] = [renamed[n] for n in node.input]
        node.output[:] = [renamed[n] for n in node.output]
        if node.op_type in COMMUTATIVE and rng.random() < 0.5:
            node.input[:] = [node.input[1], node.input[0]]
    del graph.value_info[:]
    ready = {t.name for t in graph.initializer} | {v.name for v in graph.input} | {""}
    left, order = list(graph.node), []
    while left:
        free = [n for n in left if set(n.input) <= ready]
        node = rng.choice(free)
        left.remove(node)
        ready.update(node.output)
        order.append(node)
    copies = [onnx.NodeProto.FromString(n.SerializeToString()) for n in order]
    del graph.node[:]
    graph.node.extend(copies)
    return out


def signature(module: Module) -> Counter[tuple[str, str]]:
    """Ops with their attributes and result types; constants by type only."""
    return Counter((op.name, "" if op.name == "tensor.constant" else str(sorted(op.attrs.items())) +
                    str([v.type for v in op.results])) for op in module.walk())


@pytest.mark.parametrize("seed", [0, 1])
def test_shuffled_and_swapped_graph_fuses_to_the_same_ops(
        demo_onnx: Path, demo_inputs: dict[str, np.ndarray], tmp_path: Path, seed: int) -> None:
    path = tmp_path / "shuffled.onnx"
    onnx.save(shuffled(onnx.load(demo_onnx), seed), str(path))
    plain = PassManager(PIPELINE).run(import_onnx(demo_onnx))
    other = PassManager(PIPELINE).run(import_onnx(path))
    assert signature(other) == signature(plain)
    a, b = (interpret(m, demo_inputs)["logits"] for m in (plain, other))
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()
