"""Declaring ops: `@defop` on a class whose fields are `operand()`, `operands()`, `attr()`, `result()`, `region()`.

One declaration feeds builder, verifier, printer, parser, interpreter and reference manual. A class without a docstring,
without `infer` or `evaluate`, or with a name that is taken is refused at import.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar, cast

from focusc.ir.attributes import canonical, is_sequence
from focusc.ir.diagnostics import fail

MISSING: Any = object()
"""Default of an attribute that must be given."""


class Operand:
    """An operand slot; on an instance the field is the Value, or None if optional and absent."""

    def __init__(self, *, optional: bool = False, variadic: bool = False, doc: str = "") -> None:
        self.optional, self.variadic, self.doc = optional, variadic, doc
        self.name, self.index = "", 0

    def __get__(self, op: Any, owner: type | None = None) -> Any:
        if op is None:
            return self
        if self.variadic:
            return tuple(op.operands[self.index :])
        return op.operands[self.index]


class Attr:
    """A compile-time attribute: `kind` is int, float, bool, str, tuple, dict or Resource."""

    def __init__(
        self,
        kind: type | tuple[type, ...],
        default: Any,
        one_of: tuple[Any, ...],
        of: type | None,
        minimum: float | None,
        doc: str,
    ) -> None:
        self.kind, self.default, self.one_of, self.of, self.minimum, self.doc = kind, default, one_of, of, minimum, doc
        self.name = ""

    def __get__(self, op: Any, owner: type | None = None) -> Any:
        return self if op is None else op.attrs.get(self.name, self.default)

    @property
    def kind_name(self) -> str:
        """The declared kind in words."""
        kinds = self.kind if isinstance(self.kind, tuple) else (self.kind,)
        return " or ".join(k.__name__ for k in kinds)

    def check(self, value: Any) -> Any:
        """The value in canonical form (lists become tuples, ints become floats where declared), or a CompileError."""
        if value is None and self.default is None:
            return None
        value = canonical(value)
        if self.kind is float and type(value) is int:
            value = float(value)
        if not isinstance(value, self.kind) or (isinstance(value, bool) and self.kind is not bool):
            raise fail("attr.type", f"attribute {self.name} is {value!r}, expected {self.kind_name}")
        if self.of is not None and is_sequence(value):
            if self.of is float:
                value = tuple(float(v) if type(v) is int else v for v in value)
            bad = [v for v in value if type(v) is not self.of]
            if bad:
                raise fail("attr.type", f"attribute {self.name} holds {bad[0]!r}, expected {self.of.__name__} elements")
        if self.one_of and value not in self.one_of:
            raise fail(
                "attr.value", f"attribute {self.name} is {value!r}, expected one of {', '.join(map(repr, self.one_of))}"
            )
        if self.minimum is not None and cast(float, value) < self.minimum:
            raise fail("attr.value", f"attribute {self.name} is {value}, expected at least {self.minimum}")
        return value


class ResultField:
    """A named result; on an instance the field is the Value."""

    def __init__(self, doc: str = "") -> None:
        self.doc = doc
        self.name, self.index = "", 0

    def __get__(self, op: Any, owner: type | None = None) -> Any:
        return self if op is None else op.results[self.index]


class RegionField:
    """A nested block; on an instance the field is the Block. An `isolated` one reads nothing from outside."""

    def __init__(self, doc: str = "", isolated: bool = False) -> None:
        self.doc, self.isolated = doc, isolated
        self.name, self.index = "", 0

    def __get__(self, op: Any, owner: type | None = None) -> Any:
        return self if op is None else op.regions[self.index]


def operand(*, optional: bool = False, doc: str = "") -> Any:
    """Declare one operand. An absent optional operand is None and prints as `_`."""
    return Operand(optional=optional, doc=doc)


def operands(*, doc: str = "") -> Any:
    """Declare the rest of the operands, any number; must be the last operand field."""
    return Operand(variadic=True, doc=doc)


def attr(
    kind: type | tuple[type, ...],
    default: Any = MISSING,
    *,
    one_of: tuple[Any, ...] = (),
    of: type | None = None,
    minimum: float | None = None,
    doc: str = "",
) -> Any:
    """Declare an attribute. `of` types the elements of a tuple; a default of None allows absence."""
    return Attr(kind, default, one_of, of, minimum, doc)


def result(*, doc: str = "") -> Any:
    """Name a result. Without any, results are reached as `op.result` and `op.results`."""
    return ResultField(doc)


def region(*, isolated: bool = False, doc: str = "") -> Any:
    """Declare a nested block; `infer` gets the blocks and `evaluate` callables, both as keyword `regions`.

    An `isolated` block reads its arguments and what it defines, nothing else.
    """
    return RegionField(doc, isolated)


@dataclass(frozen=True, slots=True)
class OpSpec:
    """What `@defop` derived from a class."""

    name: str
    doc: str
    operands: tuple[Operand, ...]
    attrs: dict[str, Attr]
    results: tuple[ResultField, ...]
    regions: tuple[RegionField, ...]
    pure: bool
    terminator: bool
    required: int = field(default=0)
    variadic: bool = field(default=False)


OPS: dict[str, type[Any]] = {}
"""Every op class by name."""

C = TypeVar("C", bound=type)


def defop(name: str, *, pure: bool = True, terminator: bool = False) -> Callable[[C], C]:
    """Register the op class. `pure=False` keeps the op even if no result is used (stores, traps)."""

    def register(cls: C) -> C:
        taken = OPS.get(name)
        if taken is not None and (taken.__module__, taken.__qualname__) != (cls.__module__, cls.__qualname__):
            raise TypeError(f"op {name!r} is declared twice: {taken.__module__} and {cls.__module__}")
        if not (cls.__dict__.get("__doc__") or "").strip():
            raise TypeError(f"op {name!r} has no docstring")
        for needed in ("infer", "evaluate"):
            if getattr(cls, needed, None) is None:
                raise TypeError(f"op {name!r} has no {needed}()")
        spec = _spec(name, cls, pure, terminator)
        cls.name = name
        cls.spec = spec
        OPS[name] = cls
        return cls

    return register


def _spec(name: str, cls: type, pure: bool, terminator: bool) -> OpSpec:
    base = next(b for b in cls.__mro__ if b.__name__ == "Op")
    found: dict[type, list[Any]] = {Operand: [], Attr: [], ResultField: [], RegionField: []}
    fields: dict[str, Any] = {}
    for klass in reversed(cls.__mro__):
        fields.update({k: v for k, v in vars(klass).items() if type(v) in found})
    for key, decl in fields.items():
        if hasattr(base, key):
            raise TypeError(f"op {name!r}: field {key!r} collides with Op.{key}")
        kind = found[type(decl)]
        decl.name = key
        if not isinstance(decl, Attr):
            decl.index = len(kind)
        kind.append(decl)
    slots: list[Operand] = found[Operand]
    if any(o.variadic for o in slots[:-1]):
        raise TypeError(f"op {name!r}: only the last operand can be variadic")
    variadic = bool(slots) and slots[-1].variadic
    fixed = slots[:-1] if variadic else slots
    required = max((i + 1 for i, o in enumerate(fixed) if not o.optional), default=0)
    return OpSpec(
        name,
        (cls.__doc__ or "").strip(),
        tuple(slots),
        {a.name: a for a in found[Attr]},
        tuple(found[ResultField]),
        tuple(found[RegionField]),
        pure,
        terminator,
        required,
        variadic,
    )
