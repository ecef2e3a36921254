"""Parser of the text format: nodes to a checked module."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from focusc.ir.attributes import is_mapping, is_sequence
from focusc.ir.core import Block, Module, Op, Value, op_class
from focusc.ir.diagnostics import LIMIT, UNKNOWN, CompileError, Diagnostic, Loc
from focusc.ir.resource import Resource
from focusc.ir.text.literals import parse_string, parse_type
from focusc.ir.types import TensorType, Type

if TYPE_CHECKING:
    from lark import Token

    from focusc.ir.text.tree import OpNode, ParamNode


def parse(text: str, *, file: str = "", resources: Mapping[str, Resource] | None = None) -> Module:
    """The module that `text` holds; `resources` delivers what the text names `resource<"name">`.

    CompileError with line, column, caret and what was expected if it is not a well-formed module.
    """
    from focusc.ir.text.tree import located, syntax  # lark is imported on first use
    from focusc.ir.verify import verify

    node = syntax(text, file)
    module = _Reader(text, file, resources or {}).module(node)
    try:
        verify(module)
    except CompileError as e:
        raise located(e, node.name, text, file) from None
    return module


class _Reader:
    """Resolves names, checks each op and collects findings."""

    def __init__(self, text: str, file: str, resources: Mapping[str, Resource]) -> None:
        self.text, self.file, self.resources = text, file, resources
        self.found: list[Diagnostic] = []
        self.scopes: list[dict[str, Value]] = []

    def module(self, node: Any) -> Module:
        """The module, or CompileError with all findings."""
        attrs = self._attrs(node.attrs, None)
        body = self._block(node.params, node.ops)
        for arg, param in zip(body.args, node.params, strict=True):
            arg.name = self._name(param.name)
        if self.found:
            raise CompileError(self.found)
        return Module(parse_string(str(node.name)), body, attrs, node.outputs)

    def _error(self, error: CompileError, token: Token, origin: tuple[str, str] = ("", "")) -> None:
        from focusc.ir.text.tree import line_of

        loc = Loc(self.file or "<text>", token.line or 0, token.column or 0, *origin)
        self.found.extend(error.at(loc, excerpt=line_of(self.text, token.start_pos or 0)).diagnostics)
        if len(self.found) >= LIMIT:
            raise CompileError(self.found)

    def _report(self, code: str, message: str, token: Token, hint: str = "") -> None:
        self._error(CompileError(Diagnostic(code, message, hint=hint)), token)

    def _name(self, token: Token) -> str:
        """The name after the percent sign, without quotes."""
        text = str(token)[1:]
        try:
            return parse_string(text) if text.startswith('"') else text
        except CompileError as e:
            self._error(e, token)
            return ""

    def _hint(self, token: Token) -> str:
        """The name as a hint for printing; numbers are given anew."""
        return "" if str(token)[1:].isdigit() else self._name(token)

    def _type(self, token: Token) -> Type:
        try:
            return parse_type(str(token))
        except CompileError as e:
            self._error(e, token)
            raise CompileError(self.found) from None

    def _define(self, token: Token, value: Value) -> None:
        key = str(token)
        if any(key in scope for scope in self.scopes):
            self._report("value.redefined", f"{key} is defined twice", token)
        self.scopes[-1][key] = value

    def _lookup(self, token: Token | None) -> Value | None:
        if token is None:
            return None
        for scope in reversed(self.scopes):
            found = scope.get(token)
            if found is not None:
                return found
        self._report("value.undefined", f"{token} is not defined before its use", token)
        raise CompileError(self.found)

    def _block(self, params: list[ParamNode], ops: list[OpNode]) -> Block:
        block = Block()
        self.scopes.append({})
        try:
            for param in params:
                self._define(param.name, block.add_argument(self._type(param.type), self._hint(param.name)))
            for node in ops:
                self._op(node, block)
        finally:
            self.scopes.pop()
        return block

    def _op(self, node: OpNode, block: Block) -> None:
        declared = None if node.types is None else [self._type(t) for t in node.types]
        before = len(self.found)
        try:
            cls = op_class(str(node.name))
            given = [self._lookup(a) for a in node.args]
            values = _named(cls, lambda: cls.arrange(given))
            loc = Loc(self.file or "<text>", node.name.line or 0, node.name.column or 0, *node.loc)
            written = self._attrs(node.attrs, declared)
            attrs = _named(cls, lambda: cls.complete(written))
            regions = [self._block(r.params, r.ops) for r in node.regions]
            op = cls.raw(values, attrs, regions, loc)
            types = self._infer(op, len(node.regions), node)
            if declared is not None and tuple(declared) != types:
                self._report(
                    "type.result",
                    f"{cls.name}: result type is {_show(declared)}, but the op gives {_show(types)}",
                    node.types[0] if node.types else node.name,
                )
        except CompileError as e:
            if len(self.found) == before:
                self._error(e, node.name, node.loc)
            self._placeholders(node, declared)
            return
        for value in values:
            if value is not None:
                value.add_use(op)
        op.results = [Value(t, "", op, i) for i, t in enumerate(types)]
        if len(node.results) != len(types):
            self._report(
                "op.results",
                f"{cls.name} has {len(types)} results, the text names {len(node.results)}",
                node.results[0] if node.results else node.name,
            )
        for token, value in zip(node.results, op.results, strict=False):
            value.name = self._hint(token)
            self._define(token, value)
        block.append(op)

    def _infer(self, op: Op, regions: int, node: OpNode) -> tuple[Type, ...]:
        expected = len(op.spec.regions)
        if regions != expected:
            raise CompileError(Diagnostic("op.regions", f"{op.name} has {regions} regions, expected {expected}"))
        try:
            return op.inferred()
        except CompileError as e:
            raise e.at(UNKNOWN, f"{op.name}: ") from None
        except (ValueError, TypeError, IndexError, KeyError, AttributeError, ArithmeticError, RecursionError) as e:
            # the text may hold any nonsense; an `infer` that trips over it must not end in a traceback
            raise CompileError(
                Diagnostic("op.infer", f"{op.name}: operands and attributes do not fit: {type(e).__name__}: {e}")
            ) from None

    def _placeholders(self, node: OpNode, declared: list[Type] | None) -> None:
        """After an error: define the results all the same, so that later ops are checked too."""
        if node.results and (declared is None or len(declared) != len(node.results)):
            raise CompileError(self.found)
        for token, type_ in zip(node.results, declared or [], strict=False):
            self.scopes[-1].setdefault(str(token), Value(type_))

    def _attrs(self, attrs: dict[str, Any], declared: list[Type] | None) -> dict[str, Any]:
        return {k: self._resolve(v, declared) for k, v in attrs.items()}

    def _resolve(self, value: Any, declared: list[Type] | None) -> Any:
        """Names of resources looked up; everything else is as it was read."""
        from focusc.ir.text.tree import Named

        if isinstance(value, Named):
            found = self.resources.get(value.name)
            if found is None:
                self._report(
                    "resource.missing",
                    f"resource {value.name!r} is not available",
                    value.token,
                    "keep the resources.safetensors beside the text",
                )
                raise CompileError(self.found)
            if declared and isinstance(declared[0], TensorType) and declared[0] != found.type:
                self._report(
                    "resource.type",
                    f"resource {value.name!r} is {found.type}, the text says {declared[0]}",
                    value.token,
                )
                raise CompileError(self.found)
            return found
        if is_mapping(value):
            return self._attrs(value, None)
        if is_sequence(value):
            return tuple(self._resolve(v, None) for v in value)
        return value


T = TypeVar("T")


def _named(cls: type[Op], step: Callable[[], T]) -> T:
    """The step's result; an error in it is prefixed with the op's name."""
    try:
        return step()
    except CompileError as e:
        raise e.at(UNKNOWN, f"{cls.name}: ") from None


def _show(types: Any) -> str:
    return str(types[0]) if len(types) == 1 else f"({', '.join(map(str, types))})"
