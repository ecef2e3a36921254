"""The graph: Module, Block, Op, Value. Mutable, with use lists; passes change it through `Rewriter` only."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, ClassVar, cast

from focusc.ir.declare import MISSING, OPS, OpSpec
from focusc.ir.diagnostics import UNKNOWN, CompileError, Loc, fail, suggest
from focusc.ir.types import Type


class Value:
    """An SSA value: result of an op or argument of a block. `name` is a hint, "" for a number."""

    __slots__ = ("_uses", "index", "name", "owner", "type")

    def __init__(self, type: Type, name: str = "", owner: Op | Block | None = None, index: int = 0) -> None:
        self.type = type
        self.name = name
        self.owner: Any = owner
        self.index = index
        self._uses: dict[Op, int] = {}

    @property
    def users(self) -> list[Op]:
        """Distinct ops that read this value, in the order in which they became users."""
        return list(self._uses)

    @property
    def use_count(self) -> int:
        """Number of operand slots that read this value."""
        return sum(self._uses.values())

    @property
    def op(self) -> Op | None:
        """The defining op, None for a block argument."""
        return self.owner if isinstance(self.owner, Op) else None

    def add_use(self, op: Op) -> None:
        """Count one more operand slot of `op`."""
        self._uses[op] = self._uses.get(op, 0) + 1

    def drop_use(self, op: Op) -> None:
        """Count one operand slot of `op` less."""
        left = self._uses[op] - 1
        if left:
            self._uses[op] = left
        else:
            del self._uses[op]

    def __repr__(self) -> str:
        return f"%{self.name or '?'}: {self.type}"


class Op:
    """Base of all ops; subclasses are declared with `@defop`.

    `infer(*operand types, **attrs)` gives the result type(s) or raises InferError; `evaluate(*operands, **attrs)` is
    the reference meaning in numpy. Ops with regions get both with an extra keyword `regions`. An op may offer
    `examples()`: a list of (operand arrays or None, attributes) that the test-suite runs.
    """

    __slots__ = ("attrs", "loc", "operands", "parent", "regions", "results")

    name: ClassVar[str] = ""
    spec: ClassVar[OpSpec]
    infer: Any = None  # static methods of the subclasses, with the signatures that their fields ask for
    evaluate: Any = None
    examples: Any = None

    operands: list[Value | None]
    results: list[Value]
    attrs: dict[str, Any]
    regions: list[Block]
    loc: Loc
    parent: Block | None

    @classmethod
    def create(
        cls,
        operands: Sequence[Value | None] = (),
        attrs: dict[str, Any] | None = None,
        *,
        regions: Sequence[Block] = (),
        loc: Loc = UNKNOWN,
        result_types: Sequence[Type] | None = None,
    ) -> Op:
        """A detached op: operands counted, attributes checked and completed, result types inferred unless given."""
        try:
            op = cls.raw(cls.arrange(operands), cls.complete(attrs or {}), list(regions), loc)
            if len(op.regions) != len(cls.spec.regions):
                raise fail("op.regions", f"has {len(op.regions)} regions, expected {len(cls.spec.regions)}")
            types = op.inferred() if result_types is None else result_types
        except CompileError as e:
            raise e.at(loc, f"{cls.name}: ") from None
        op.results = [Value(t, "", op, i) for i, t in enumerate(types)]
        for value in op.operands:
            if value is not None:
                value.add_use(op)
        return op

    @classmethod
    def raw(cls, operands: list[Value | None], attrs: dict[str, Any], regions: list[Block], loc: Loc) -> Op:
        """An op without checks, uses and results. For clone and parser."""
        op = cls.__new__(cls)
        op.operands, op.attrs, op.regions, op.loc = operands, attrs, regions, loc
        op.results, op.parent = [], None
        for block in regions:
            block.parent = op
        return op

    @classmethod
    def arrange(cls, operands: Sequence[Value | None]) -> list[Value | None]:
        """Operands padded with None for absent trailing optional ones; CompileError if the count does not fit."""
        slots = cls.spec.operands
        fixed = len(slots) - cls.spec.variadic
        given = list(operands)
        if len(given) > fixed and not cls.spec.variadic or len(given) < cls.spec.required:
            expected = str(cls.spec.required) if cls.spec.required == fixed else f"{cls.spec.required} to {fixed}"
            expected = f"at least {cls.spec.required}" if cls.spec.variadic else expected
            raise fail("op.operands", f"has {len(given)} operands, expected {expected}")
        given += [None] * (fixed - len(given))
        for slot, value in zip(slots, given, strict=False):
            if value is None and not slot.optional and not slot.variadic:
                raise fail("op.operands", f"operand {slot.name} is absent, but not optional")
        if any(v is None for v in given[fixed:]):
            raise fail("op.operands", "a variadic operand is absent")
        return given

    @classmethod
    def complete(cls, attrs: dict[str, Any]) -> dict[str, Any]:
        """All attributes in declaration order, defaults filled in; absent optional ones are left out."""
        spec = cls.spec.attrs
        for key in attrs:
            if key not in spec:
                known = ", ".join(spec) or "none"
                raise fail("attr.unknown", f"attribute {key} is unknown; known: {known}")
        full: dict[str, Any] = {}
        for key, decl in spec.items():
            value = attrs.get(key, decl.default)
            if value is MISSING:
                raise fail("attr.missing", f"attribute {key} is missing")
            value = decl.check(value)
            if value is not None:
                full[key] = value
        return full

    def keywords(self) -> dict[str, Any]:
        """Every declared attribute with its value (None if absent), as `infer` and `evaluate` take them."""
        return {key: self.attrs.get(key) for key in self.spec.attrs}

    def inferred(self) -> tuple[Type, ...]:
        """Result types by `infer`."""
        extra: dict[str, Any] = {"regions": tuple(self.regions)} if self.spec.regions else {}
        operands = [v.type if v is not None else None for v in self.operands]
        types: Any = type(self).infer(*operands, **self.keywords(), **extra)
        return cast("tuple[Type, ...]", types if isinstance(types, tuple) else (types,))

    @property
    def result(self) -> Value:
        """The only result."""
        if len(self.results) != 1:
            raise ValueError(f"{self.name} has {len(self.results)} results")
        return self.results[0]

    def set_operand(self, index: int, value: Value | None) -> None:
        """Replace one operand and keep the use lists right."""
        old = self.operands[index]
        if old is not None:
            old.drop_use(self)
        self.operands[index] = value
        if value is not None:
            value.add_use(self)

    def walk(self) -> Iterator[Op]:
        """This op, then all ops in its regions, in order."""
        yield self
        for block in self.regions:
            yield from block.walk()

    def __repr__(self) -> str:
        return f"<{self.name} at {self.loc.origin() or self.loc.position() or 'unknown'}>"


class Block:
    """A list of ops with arguments; the body of a module or a region of an op."""

    __slots__ = ("args", "ops", "parent")

    def __init__(self, arg_types: Iterable[Type] = (), names: Iterable[str] = ()) -> None:
        hints = list(names)
        self.args = [Value(t, hints[i] if i < len(hints) else "", self, i) for i, t in enumerate(arg_types)]
        self.ops: list[Op] = []
        self.parent: Op | None = None

    def add_argument(self, type: Type, name: str = "") -> Value:
        """Append a block argument."""
        value = Value(type, name, self, len(self.args))
        self.args.append(value)
        return value

    def drop_arguments(self, unused: Collection[Value]) -> None:
        """Remove arguments that nothing reads."""
        self.args = [arg for arg in self.args if arg not in unused]
        for index, arg in enumerate(self.args):
            arg.index = index

    def append(self, op: Op) -> Op:
        """Put a detached op at the end."""
        op.parent = self
        self.ops.append(op)
        return op

    @property
    def terminator(self) -> Op | None:
        """The last op, if it ends the block."""
        return self.ops[-1] if self.ops and self.ops[-1].spec.terminator else None

    def walk(self) -> Iterator[Op]:
        """All ops here and in nested regions, each before its regions' ops."""
        for op in list(self.ops):
            yield from op.walk()


class Module:
    """A function over named inputs and outputs; `body` ends in `return`, whose operands are the outputs in order."""

    __slots__ = ("__weakref__", "attrs", "body", "name", "outputs")

    def __init__(
        self, name: str, body: Block, attrs: dict[str, Any] | None = None, outputs: Sequence[str] = ()
    ) -> None:
        self.name = name
        self.body = body
        self.attrs: dict[str, Any] = dict(attrs or {})
        self.outputs: list[str] = list(outputs)

    @property
    def args(self) -> list[Value]:
        """Inputs; each has a name."""
        return self.body.args

    @property
    def results(self) -> list[Value]:
        """Output values, parallel to `outputs`."""
        end = self.body.terminator
        return [v for v in end.operands if v is not None] if end is not None else []

    def walk(self) -> Iterator[Op]:
        """All ops, also nested ones, in order."""
        return self.body.walk()

    def clone(self) -> Module:
        """A deep copy of the graph that shares all attribute values (weights are never copied)."""
        return self.clone_with_map()[0]

    def clone_with_map(self) -> tuple[Module, dict[Value, Value]]:
        """`clone` plus the map from old to new values."""
        values: dict[Value, Value] = {}
        body = clone_block(self.body, values)
        return Module(self.name, body, self.attrs, self.outputs), values

    def __str__(self) -> str:
        from focusc.ir.text.printer import print_module

        return print_module(self)


def clone_block(block: Block, values: dict[Value, Value]) -> Block:
    """Copy a block; operands found in `values` are mapped, others are kept; `values` gains the new definitions."""
    copy = Block()
    for arg in block.args:
        values[arg] = copy.add_argument(arg.type, arg.name)
    for op in block.ops:
        copy.append(clone_op(op, values))
    return copy


def clone_op(op: Op, values: dict[Value, Value]) -> Op:
    """Copy an op (detached), mapping operands and recording results in `values`."""
    regions = [clone_block(r, values) for r in op.regions]
    new = type(op).raw(
        [values.get(v, v) if v is not None else None for v in op.operands], dict(op.attrs), regions, op.loc
    )
    for value in new.operands:
        if value is not None:
            value.add_use(new)
    for i, old in enumerate(op.results):
        value = Value(old.type, old.name, new, i)
        new.results.append(value)
        values[old] = value
    return new


def op_class(name: str, loc: Loc = UNKNOWN) -> type[Op]:
    """The class of an op name, or a CompileError with near misses."""
    cls = OPS.get(name)
    if cls is None:
        raise fail("op.unknown", f"op {name!r} is unknown", loc, hint=suggest(name, OPS))
    return cls
