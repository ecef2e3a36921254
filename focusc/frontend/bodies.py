"""Operators that onnx defines by a function body: where there is no import rule, the body takes the node's place."""

from __future__ import annotations

from collections.abc import Container, Iterator
from functools import cache
from typing import Any

import onnx

DEPTH = 4
"""Bodies within bodies that are expanded; onnx nests two."""

DEFAULT_DOMAINS = ("", "ai.onnx")

OLDEST = 18
"""The first opset that the import rules know. Later versions of an operator added types, or have rules of their own."""


def expand_bodies(graph: onnx.GraphProto, opset: int, known: Container[str]) -> None:
    """Replace, in place, every node of the default domain whose operator is not in `known` but has a function body.

    The new nodes carry the old one's name, in front of their operator, and its metadata.
    """
    if any(_replaced(node, opset, known) for node in graph.node):
        found = [made for node in graph.node for made in _expanded(node, opset, known, DEPTH)]
        del graph.node[:]
        graph.node.extend(found)


def _replaced(node: onnx.NodeProto, opset: int, known: Container[str]) -> onnx.FunctionProto | None:
    """The body that takes the node's place, or None if it stays."""
    return None if node.domain not in DEFAULT_DOMAINS or node.op_type in known else function_body(node.op_type, opset)


def _expanded(node: onnx.NodeProto, opset: int, known: Container[str], depth: int) -> Iterator[onnx.NodeProto]:
    body = _replaced(node, opset, known)
    if body is None or not depth:
        yield onnx.NodeProto.FromString(node.SerializeToString())
        return
    prefix = next(name for name in node.output if name)
    names = {"": ""}
    for inner, outer in ((body.input, node.input), (body.output, node.output)):
        names.update(zip(inner, [*outer, *[""] * (len(inner) - len(outer))], strict=False))
    for name in body.output:  # an output that the node does not want may still be read inside
        names[name] = names[name] or f"{prefix}/{name}"
    for step in body.node:
        made = onnx.NodeProto(op_type=step.op_type, domain=step.domain)
        made.name = f"{node.name or node.op_type}/{step.op_type}"
        made.input.extend(names.setdefault(name, f"{prefix}/{name}") for name in step.input)
        made.output.extend(names.setdefault(name, f"{prefix}/{name}") for name in step.output)
        made.attribute.extend(_attributes(step, node))
        made.metadata_props.extend(node.metadata_props)
        yield from _expanded(made, opset, known, depth - 1)


def _attributes(step: onnx.NodeProto, node: onnx.NodeProto) -> Iterator[onnx.AttributeProto]:
    """The attributes of a node of a body, with references replaced by the caller's values or their defaults."""
    given = {a.name: a for a in node.attribute}
    for attribute in step.attribute:
        if not attribute.ref_attr_name:
            yield attribute
            continue
        value = given.get(attribute.ref_attr_name)
        if value is None:
            value = onnx.defs.get_schema(node.op_type, node.domain).attributes[attribute.ref_attr_name].default_value
        if value.type != onnx.AttributeProto.UNDEFINED:
            copy = onnx.AttributeProto.FromString(value.SerializeToString())
            copy.name = attribute.name
            yield copy


@cache
def function_body(op_type: str, opset: int) -> onnx.FunctionProto | None:
    """The newest body of the operator up to `opset`, if its operators are those that the import rules know."""
    try:
        schema: Any = onnx.defs.get_schema(op_type, opset)  # onnx's stubs lack its functions
    except onnx.defs.SchemaError:
        return None
    for version in sorted(schema.function_opset_versions, reverse=True):
        body = onnx.FunctionProto.FromString(schema.get_function_with_opset_version(version))
        if version <= opset and all(_since(n, version) == _since(n, max(version, OLDEST)) for n in body.node):
            return body
    return None


def _since(node: onnx.NodeProto, opset: int) -> int:
    """The version of a body's operator; 0 if it has none at that opset."""
    try:
        return int(onnx.defs.get_schema(node.op_type, opset, node.domain).since_version)
    except onnx.defs.SchemaError:
        return 0
