"""ONNX graph to IR: binds inputs and weights, applies the import rule of each node, and collects every refusal."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx

from focusc.frontend import rules  # noqa: F401  (registers the rules)
from focusc.frontend.errors import Unsupported
from focusc.frontend.layout import check_against_sequences, find_layout, layout_attribute
from focusc.frontend.model_file import DEFAULT_DOMAINS, ModelFile, location, open_model
from focusc.frontend.node import Node, shape
from focusc.frontend.notes import Notes
from focusc.frontend.registry import RULES, Produced
from focusc.frontend.weights import IMPORTED, WIDENED, resource, type_name
from focusc.ir import Builder, Loc, Module, Rewriter, TensorType, Value
from focusc.ir.concentration.layout import Layout
from focusc.ir.diagnostics import CompileError, Diagnostic
from focusc.ir.matching import drop_unused

STATIC_HINT = "export with static shapes, or fix the dimension with onnxruntime.tools.make_dynamic_shape_fixed"
STAND_IN = "unsupported."
"""Prefix of the inputs that stand for the results of refused nodes."""
CONTROL_FLOW = frozenset({"If", "Loop", "Scan"})


def import_onnx(path: str | Path, layout: Layout | Mapping[str, Any] | None = None) -> Module:
    """Read an ONNX file into a module of the tensor dialect (and of the nn dialect where a node says it already).

    `layout` (a Layout, or a mapping with visual, grid, strides, query) takes precedence over the file's metadata.
    Module attributes: `layout` if known (empty for a model without visual tokens), `notes` (conversions and dropped
    inputs). Raises CompileError with every problem found, up to its limit: `onnx.*`, `layout.*`.
    """
    model = open_model(path)
    importer = Importer(model)
    importer.run()
    if importer.problems:
        raise CompileError(importer.problems)
    found = find_layout(layout, model.metadata, model.name)
    module = importer.module()
    if found is not None:
        check_against_sequences(found, sequence_lengths(module), model.name)
    attribute = layout_attribute(found, model.metadata)
    if attribute is not None:
        module.attrs["layout"] = attribute
    return module


@dataclass(slots=True)
class Outcome:
    """What became of one node: `problem` is None if it was imported; `checked` is False if its inputs are unknown."""

    node: onnx.NodeProto
    loc: Loc
    problem: Diagnostic | None = None
    checked: bool = True


@dataclass(slots=True)
class Importer:
    """One import. After `run`, `outcomes` has an entry per node and `problems` everything that forbids a module."""

    model: ModelFile
    builder: Builder = field(default_factory=Builder)
    values: dict[str, Value] = field(default_factory=dict)
    outcomes: list[Outcome] = field(default_factory=list)
    problems: list[Diagnostic] = field(default_factory=list)
    notes: Notes = field(default_factory=Notes)
    known: dict[Value, bool] = field(default_factory=dict)

    def run(self) -> None:
        """Import everything that can be imported."""
        graph = self.model.proto.graph
        self._bind_weights(graph)
        self._bind_inputs(graph)
        inferred = {info.name: info.type for info in (*graph.value_info, *graph.output)}
        for index, node in enumerate(graph.node):
            self._node(node, location(node, index, self.model.name), inferred)
        self._check_names(graph)

    def _check_names(self, graph: onnx.GraphProto) -> None:
        """Inputs and outputs are symbols of the program: names of their own, that can be printed."""
        inputs = {info.name for info in graph.input}
        for kind, infos in (("input", graph.input), ("output", graph.output)):
            for info in infos:
                if not 0 < len(info.name) <= 512 or not info.name.isprintable():
                    message = f"the {kind} name {info.name[:60]!r} is not 1 to 512 printable characters"
                    self._refuse("onnx.name", message, hint=f"rename the {kind} in the model")
                elif kind == "output" and info.name in inputs:
                    message = f"the output {info.name!r} is an input of the graph; expected an output of a node"
                    self._refuse("onnx.name", message, hint="leave it out, or put an Identity node with a name between")

    def module(self) -> Module:
        """The finished module; only if there are no problems."""
        module = self.imported()
        assert module is not None
        return module

    def imported(self) -> Module | None:
        """What could be imported, also if there are problems: outputs without a value are left out, and what stands in
        for a refused node is an input. None if no output has a value. Inputs without influence are dropped."""
        graph = self.model.proto.graph
        outputs = {info.name: self.values[info.name] for info in graph.output if info.name in self.values}
        if not outputs:
            return None
        module = self.builder.module(graph.name, outputs)
        reached = _reached(module)
        unused = [arg for arg in module.args if arg not in reached]
        if unused:
            drop_unused(module, Rewriter(module))
            module.body.drop_arguments(unused)
            if not self.problems:  # of a part nobody can say what has influence
                for arg in unused:
                    self.notes.add(f"input {arg.name} has no influence on any output and was dropped")
        # an initialiser among the inputs is none of these: an array for it would be another value
        known = {tensor.name for tensor in graph.initializer} | {arg.name for arg in module.args}
        if without := tuple(info.name for info in graph.input if info.name not in known):
            module.attrs["unused_inputs"] = without
        if notes := self.notes.texts():
            module.attrs["notes"] = notes
        return module

    # ---- inputs and weights

    def _bind_weights(self, graph: onnx.GraphProto) -> None:
        if graph.sparse_initializer:
            self._refuse("onnx.sparse", f"{len(graph.sparse_initializer)} initialisers are sparse; expected dense ones")
        for tensor in graph.initializer:
            try:
                value = resource(tensor, self.model.files, self.notes)
            except CompileError as error:
                self.problems += error.diagnostics
                continue
            with self.builder.at(Loc(file=self.model.name, node=tensor.name)):
                self.values[tensor.name] = self.builder.constant(value, name=tensor.name)

    def _bind_inputs(self, graph: onnx.GraphProto) -> None:
        used = {name for node in graph.node for name in node.input} | {info.name for info in graph.output}
        for info in graph.input:
            if info.name in self.values:
                continue  # an initialiser listed as input has a default value
            if info.name not in used:
                self.notes.add(f"input {info.name} is not used and was dropped")
                continue
            found = self._static_type(info)
            if found is not None:
                self.values[info.name] = self.builder.argument(info.name, found)

    def _static_type(self, info: onnx.ValueInfoProto) -> TensorType | None:
        """The type of a graph input, or None with a problem recorded."""
        kind = info.type.WhichOneof("value")
        if kind != "tensor_type":
            found = (kind or "unknown").removesuffix("_type").replace("_", " ")
            self._refuse("onnx.input-kind", f"input {info.name!r} is of kind {found}; expected tensor", node=info.name,
                         hint="sequences, maps and optionals cannot be compiled")
            return None
        tensor = info.type.tensor_type
        if tensor.elem_type not in IMPORTED:
            self._refuse("onnx.dtype", f"input {info.name!r} has element type {type_name(tensor.elem_type)}; expected "
                         f"one of {', '.join(type_name(k) for k in IMPORTED)}", node=info.name)
            return None
        if not tensor.HasField("shape"):
            self._refuse("onnx.dynamic-shape", f"input {info.name!r} has no shape; expected a static one",
                         node=info.name, hint=STATIC_HINT)
            return None
        for axis, dim in enumerate(tensor.shape.dim):
            if dim.WhichOneof("value") != "dim_value" or dim.dim_value < 0:
                label = f"symbolic, {dim.dim_param!r}" if dim.dim_param else "unknown"
                self._refuse("onnx.dynamic-shape", f"dimension {axis} of input {info.name!r} is {label}; expected a "
                             "number", node=info.name, hint=STATIC_HINT)
        if any(p.loc.node == info.name for p in self.problems):
            return None
        if tensor.elem_type in WIDENED:
            self.notes.add(f"input {info.name}: {type_name(tensor.elem_type).lower()} is taken as f32")
        return TensorType(tuple(d.dim_value for d in tensor.shape.dim), IMPORTED[tensor.elem_type])

    # ---- nodes

    def _node(self, node: onnx.NodeProto, loc: Loc, inferred: Mapping[str, onnx.TypeProto]) -> None:
        outcome = Outcome(node, loc)
        self.outcomes.append(outcome)
        try:
            applied = _rule_of(node, self.model.opset)
            missing = [name for name in node.input if name and name not in self.values]
            if missing:
                outcome.checked = False
                self._stand_in(node, inferred)
                return
            inputs = [self.values[name] if name else None for name in node.input]
            with self.builder.at(loc):
                view = Node(node, inputs, self.model.opset, self.builder, self.model.files, self.notes, self.known)
                self._bind_outputs(node, applied(view))
            self._check_types(node, inferred)
        except Unsupported as refusal:
            outcome.problem = refusal.diagnostic(f"{node.op_type} node", loc)
        except CompileError as error:  # an op's own type check
            found = error.diagnostics[0]
            outcome.problem = Diagnostic("onnx.unsupported", f"{node.op_type} node: {found.message}", loc,
                                         hint=found.hint)
        if outcome.problem is not None:
            self.problems.append(outcome.problem)
            self._stand_in(node, inferred)

    def _bind_outputs(self, node: onnx.NodeProto, produced: Produced) -> None:
        got = (produced,) if isinstance(produced, Value) or produced is None else tuple(produced)
        for index, name in enumerate(node.output):
            if not name:
                continue
            value = got[index] if index < len(got) else None
            if value is None:
                raise Unsupported("only the first outputs to be used", f"a use of output {index} ({name!r})")
            self.values[name] = value
            if not value.name:
                value.name = name

    def _check_types(self, node: onnx.NodeProto, inferred: Mapping[str, onnx.TypeProto]) -> None:
        """Refuse a node whose imported shape is not the one that onnx infers: then its rule misreads the node."""
        for name in node.output:
            expected = _onnx_shape(inferred.get(name))
            if name and expected is not None and shape(self.values[name]) != expected:
                found = list(shape(self.values[name]))
                raise Unsupported(f"shape {list(expected)}, as onnx infers it for {name!r}", f"shape {found}",
                                  hint="this is a fault of the import rule; please report it with the node")

    def _stand_in(self, node: onnx.NodeProto, inferred: Mapping[str, onnx.TypeProto]) -> None:
        """Give the outputs of a refused node their inferred types, so that the nodes after it can be checked."""
        for name in node.output:
            info = inferred.get(name)
            dims = _onnx_shape(info)
            if not name or name in self.values or info is None or dims is None:
                continue
            if info.tensor_type.elem_type in IMPORTED:
                self.values[name] = self.builder.argument(STAND_IN + name,
                                                          TensorType(dims, IMPORTED[info.tensor_type.elem_type]))

    def _refuse(self, code: str, message: str, *, node: str = "", hint: str = "") -> None:
        self.problems.append(Diagnostic(code, message, Loc(file=self.model.name, node=node), hint=hint))


def _rule_of(node: onnx.NodeProto, opset: int) -> Any:
    """The import rule's function, or Unsupported if there is none for this node."""
    if node.domain not in DEFAULT_DOMAINS:
        raise Unsupported("operators of the default ONNX domain", f"domain {node.domain!r}", code="onnx.domain",
                          hint="export without runtime-specific fusions; standard opset 23 has Attention and "
                          "RMSNormalization")
    if node.op_type in CONTROL_FLOW:
        raise Unsupported("a graph without control flow", f"{node.op_type} with a sub-graph", code="onnx.control-flow",
                          hint="trace the model with fixed inputs, so that branches and loops are resolved")
    found = RULES.get(node.op_type)
    if found is None:
        raise Unsupported("an operator with an import rule", f"operator {node.op_type}", code="onnx.operator",
                          hint="docs/onnx_operators.md lists them; a decomposition at export may avoid this one")
    if opset < found.since:
        raise Unsupported(f"opset {found.since} or later for {node.op_type}", f"opset {opset}")
    return found.function


def _reached(module: Module) -> set[Value]:
    """Every value that an output is computed from."""
    found: set[Value] = set()
    stack = list(module.results)
    while stack:
        value = stack.pop()
        if value not in found:
            found.add(value)
            stack += [v for v in (value.op.operands if value.op is not None else ()) if v is not None]
    return found


def sequence_lengths(module: Module) -> set[int]:
    """Row counts of the decoder's attentions, which are causal; of all attentions where none is causal as imported:
    the query axis of attention ops and of softmax inputs, whose masks are not known before fusion."""
    rows: dict[bool, set[int]] = {True: set(), False: set()}
    for op in module.walk():
        if op.name in ("nn.attention", "tensor.softmax"):
            dims = shape(op.operands[0])  # type: ignore[arg-type]
            rows[bool(op.attrs.get("causal", False))].update(dims[-2:-1])
    return rows[True] or rows[False]


def _onnx_shape(info: onnx.TypeProto | None) -> tuple[int, ...] | None:
    """The static shape that onnx inferred, None if it is not fully known."""
    if info is None or not info.HasField("tensor_type") or not info.tensor_type.HasField("shape"):
        return None
    dims = info.tensor_type.shape.dim
    return tuple(d.dim_value for d in dims) if all(d.WhichOneof("value") == "dim_value" for d in dims) else None
