"""Making and changing graphs: `Builder` appends ops, `Rewriter` edits a module in place."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from focusc.ir.core import Block, Module, Op, Value, op_class
from focusc.ir.diagnostics import UNKNOWN, Loc, fail
from focusc.ir.resource import Resource
from focusc.ir.types import Type


class Builder:
    """Creates ops at an insertion point: the end of `block`, or before an op (`before`)."""

    def __init__(self, block: Block | None = None, *, before: Op | None = None, loc: Loc = UNKNOWN) -> None:
        if before is not None and block is None:
            block = before.parent
        self.block = block if block is not None else Block()
        self.before = before
        self.loc = loc

    def argument(self, name: str, type: Type) -> Value:
        """Add an argument to the block."""
        return self.block.add_argument(type, name)

    def create(
        self,
        kind: str | type[Op],
        *operands: Value | None,
        loc: Loc | None = None,
        regions: Sequence[Block] = (),
        names: Sequence[str] = (),
        **attrs: Any,
    ) -> Op:
        """Create and insert an op; `names` are hints for its results. CompileError if the op does not type-check."""
        cls = op_class(kind) if isinstance(kind, str) else kind
        op = cls.create(operands, attrs, regions=regions, loc=self.loc if loc is None else loc)
        for value, name in zip(op.results, names, strict=False):
            value.name = name
        return self.insert(op)

    def emit(
        self, kind: str | type[Op], *operands: Value | None, loc: Loc | None = None, name: str = "", **attrs: Any
    ) -> Value:
        """`create` for an op with one result; returns that value."""
        return self.create(kind, *operands, loc=loc, names=(name,) if name else (), **attrs).result

    def insert(self, op: Op) -> Op:
        """Insert a detached op at the insertion point."""
        if self.before is None:
            return self.block.append(op)
        op.parent = self.block
        self.block.ops.insert(self.block.ops.index(self.before), op)
        return op

    def constant(self, value: Resource | np.ndarray | np.generic | float, dtype: Any = None, name: str = "") -> Value:
        """A `tensor.constant` with the given values."""
        if not isinstance(value, Resource):
            value = Resource(name, np.asarray(value, dtype=dtype))
        return self.emit("tensor.constant", value=value, name=name)

    def ret(self, *values: Value) -> Op:
        """End the module body."""
        return self.create("return", *values)

    def module(self, name: str, outputs: dict[str, Value], attrs: dict[str, Any] | None = None) -> Module:
        """End the block with `return` and wrap it in a module."""
        self.ret(*outputs.values())
        return Module(name, self.block, attrs, list(outputs))

    @contextmanager
    def at(self, loc: Loc) -> Generator[Builder]:
        """Use `loc` for ops created inside."""
        old, self.loc = self.loc, loc
        try:
            yield self
        finally:
            self.loc = old

    def from_op(self, op: Op) -> Any:
        """`at` with the location of `op`."""
        return self.at(op.loc)


class Rewriter:
    """Edits one module (normally a clone) in place. `changed` tells whether anything was done."""

    def __init__(self, module: Module) -> None:
        self.module = module
        self.changed = False

    def insert_before(
        self,
        op: Op,
        kind: str | type[Op],
        *operands: Value | None,
        loc: Loc | None = None,
        regions: Sequence[Block] = (),
        names: Sequence[str] = (),
        **attrs: Any,
    ) -> Op:
        """Create an op before `op`, with its location unless `loc` is given."""
        self.changed = True
        b = Builder(before=op, loc=op.loc if loc is None else loc)
        return b.create(kind, *operands, regions=regions, names=names, **attrs)

    def insert_after(
        self,
        op: Op,
        kind: str | type[Op],
        *operands: Value | None,
        loc: Loc | None = None,
        regions: Sequence[Block] = (),
        names: Sequence[str] = (),
        **attrs: Any,
    ) -> Op:
        """Create an op after `op`, with its location unless `loc` is given."""
        block = _block_of(op)
        after = block.ops.index(op) + 1
        self.changed = True
        b = Builder(
            block, before=block.ops[after] if after < len(block.ops) else None, loc=op.loc if loc is None else loc
        )
        return b.create(kind, *operands, regions=regions, names=names, **attrs)

    def builder_before(self, op: Op) -> Builder:
        """A Builder that inserts before `op` and inherits its location."""
        self.changed = True
        return Builder(before=op, loc=op.loc)

    def replace(self, op: Op, values: Value | Sequence[Value]) -> None:
        """Let all users of the results of `op` read `values` instead, and erase `op`."""
        new = [values] if isinstance(values, Value) else list(values)
        if len(new) != len(op.results):
            raise fail(
                "rewrite.results", f"{op.name} has {len(op.results)} results, the replacement {len(new)}", op.loc
            )
        for old, value in zip(op.results, new, strict=True):
            self.replace_uses(old, value)
        self.erase(op)

    def replace_with(self, op: Op, kind: str | type[Op], *operands: Value | None, **attrs: Any) -> Op:
        """Create an op in the place of `op` and replace all its results."""
        new = self.insert_before(op, kind, *operands, **attrs)
        self.replace(op, new.results)
        return new

    def replace_uses(self, value: Value, new: Value, *, only: Sequence[Op] | None = None) -> None:
        """Let the users of `value` (all, or those in `only`) read `new`. `new` takes over the name if it has none."""
        if value is new:
            return
        for user in value.users if only is None else only:
            for i, v in enumerate(user.operands):
                if v is value:
                    self.changed = True
                    user.set_operand(i, new)
        if only is None and value.name and not new.name and isinstance(value.owner, Op):
            new.name = value.name

    def set_operand(self, op: Op, index: int, value: Value | None) -> None:
        """Replace one operand."""
        self.changed = True
        op.set_operand(index, value)

    def set_attr(self, op: Op, **attrs: Any) -> None:
        """Change attributes of an op; they are checked. Result types are not inferred again: see `refresh`."""
        self.changed = True
        op.attrs = type(op).complete({**op.attrs, **attrs})

    def refresh(self, op: Op) -> None:
        """Infer the result types of `op` again, after its operands or attributes changed."""
        self.changed = True
        for value, type_ in zip(op.results, op.inferred(), strict=True):
            value.type = type_

    def erase(self, op: Op) -> None:
        """Remove an op whose results are unused, with everything in its regions."""
        for value in op.results:
            if value.users:
                raise fail(
                    "rewrite.erase",
                    f"{op.name} is erased while {value.users[0].name} still reads %{value.name}",
                    op.loc,
                )
        self.changed = True
        for inner in op.walk():
            for value in inner.operands:
                if value is not None:
                    value.drop_use(inner)
            inner.operands = []
        _block_of(op).ops.remove(op)
        op.parent = None

    def move_before(self, op: Op, anchor: Op) -> None:
        """Move `op` in front of `anchor`, possibly into another block."""
        self.changed = True
        _block_of(op).ops.remove(op)
        block = _block_of(anchor)
        block.ops.insert(block.ops.index(anchor), op)
        op.parent = block


def _block_of(op: Op) -> Block:
    if op.parent is None:
        raise fail("rewrite.detached", f"{op.name} is not in a block", op.loc)
    return op.parent
