"""Lowering nn-level IR to the tile level: the pass `tile`."""

from __future__ import annotations

from focusc.backends.constants import constant_of, stored
from focusc.backends.legality import illegal
from focusc.backends.lower import (
    attention,
    concentrate,
    data,
    elementwise,
    gather,
    gemm,
    host,
    matmul,
    norm,
    reductions,
    transpose,
    windows,
)
from focusc.backends.lower.context import HANDLERS, Lowering
from focusc.backends.lower.masks import exact_values
from focusc.backends.lower.moves import copy
from focusc.backends.lower.views import View
from focusc.backends.options import Tiling
from focusc.ir import CompileError, Diagnostic, Module, Op, TensorType, Value
from focusc.ir.diagnostics import fail

__all__ = [
    "attention",
    "concentrate",
    "data",
    "elementwise",
    "gather",
    "gemm",
    "host",
    "lower_module",
    "matmul",
    "norm",
    "reductions",
    "refusals",
    "refused",
    "transpose",
    "windows",
]


def lower_module(module: Module, tiling: Tiling) -> Module:
    """The module at tile level: same inputs and outputs, one kernel after another, each a loop nest over tiles.

    Raises CompileError with everything that the target refuses, at least one diagnostic an op.
    """
    low = Lowering(module.clone(), tiling)
    if found := _run(low):
        raise CompileError([diagnostic for _, diagnostic in found])
    module = low.module
    outputs = {}
    for name, value in zip(module.outputs, module.results, strict=True):
        view = low.view(value)
        assert isinstance(view, View) and isinstance(value.type, TensorType)
        low.emit.at(value.op.loc if value.op is not None else low.emit.b.loc)
        stored = value.op is not None and root(view.buffer).name == "tile.buffer"
        whole = low.reshaped(view, view.rows, view.cols) if view.contiguous and stored else None
        if whole is None:
            whole = low.allocate(view.rows, view.cols, name, view.dtype)
            copy(low, module.body.ops[-1], view, whole)
        else:
            whole = low.alone(whole)
            assert whole is not None
        outputs[name] = low.emit.op("tile.read", whole.buffer, shape=value.type.shape, dtype=value.type.dtype)
    nodes = [
        {
            "op": n.op,
            "node": n.node,
            "path": n.path,
            "region": n.region,
            "macs_dense": n.macs_dense,
            "useful": n.useful,
        }
        for n in low.nodes.values()
    ]
    return low.emit.b.module(module.name, outputs, {**module.attrs, "nodes": nodes, "level": "tile"})


def root(buffer: Value) -> Op:
    """The op that made a buffer, behind all views of it."""
    op = buffer.op
    assert op is not None
    return op if op.name != "tile.view" or op.operands[0] is None else root(op.operands[0])


def refusals(module: Module, tiling: Tiling) -> list[Diagnostic]:
    """Everything of a module that the target refuses, in order: what `lower_module` would raise, without a limit."""
    return [diagnostic for _, diagnostic in refused(module, tiling)]


def refused(module: Module, tiling: Tiling) -> list[tuple[list[Op], Diagnostic]]:
    """`refusals` with the ops of the module that each is about: one, or the readers of a constant, or none."""
    low = Lowering(module.clone(), tiling)
    original = dict(zip(low.module.body.ops, module.body.ops, strict=True))
    readers: dict[int, list[Op]] = {}  # by identity: clones share the values, and comparing would read them
    for op in module.body.ops:
        if op.name == "tensor.constant":
            readers.setdefault(id(op.attrs["value"]), []).extend(op.results[0].users)
    found = [([original[op]] if op is not None else [], diagnostic) for op, diagnostic in _run(low)]
    for constant, diagnostic in _unstorable(low):
        found.append((readers.get(id(constant.attrs["value"]), []), diagnostic))
    return found


def _unstorable(low: Lowering) -> list[tuple[Op, Diagnostic]]:
    """Constants that code generation refuses; one without values is no reason, as it can be left out."""
    found: list[tuple[Op, Diagnostic]] = []
    for op in low.emit.b.block.ops:
        source = constant_of(op)
        if source is not None and not source.attrs["value"].absent:
            try:
                stored(op)
            except CompileError as error:
                found += [(source, diagnostic) for diagnostic in error.diagnostics]
    return found


def _run(low: Lowering) -> list[tuple[Op | None, Diagnostic]]:
    """Write the kernels of every op. An op that is refused counts as one whose result is stored, so that one run finds
    the refusals behind it too; the module is of use only if there are none."""
    module, found = low.module, list[tuple[Op | None, Diagnostic]]()
    low.name_nodes()
    low.exact = exact_values(module)
    for arg in module.args:
        low.emit.b.argument(arg.name, arg.type)
    for arg, own in zip(module.args, low.emit.b.block.args, strict=True):
        try:
            low.at[arg] = low.bind(own, low.exact.get(arg))
        except CompileError as error:
            found += [(None, diagnostic) for diagnostic in error.diagnostics]
            low.stand_in(arg)
    data.plan_destinations(low)
    for op in module.body.ops:
        refused = [*illegal(op, low.tiling.machine)]
        try:
            if not refused:
                _step(low, op)
        except CompileError as error:
            refused += error.at(op.loc).diagnostics
        found += [(op, diagnostic) for diagnostic in refused]
        if found:
            for result in op.results:
                low.stand_in(result)
    return found


def _step(low: Lowering, op: Op) -> None:
    """The kernel of one op, unless it was or will be written with another."""
    if op in low.pending:
        low.pending.pop(op)()
    elif op not in low.absorbed and op.name in HANDLERS:
        HANDLERS[op.name](low, op)
        if op in low.pending:  # nothing was fused behind it
            low.pending.pop(op)()
    elif op.name not in HANDLERS and op.name not in ("return", "tensor.constant"):
        raise fail(
            "lower.op",
            f"{op.name} has no lowering to the accelerator",
            op.loc,
            hint="express it with other operators; docs/passes.md lists the ops that are lowered",
        )
