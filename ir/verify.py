"""The verifier: definitions before uses, use lists, declared attributes, and result types by `infer`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import cast

from focusc.ir.core import Block, Module, Op, Value
from focusc.ir.diagnostics import LIMIT, CompileError, Diagnostic


def _dict(value: object) -> dict[str, object] | None:
    return cast("dict[str, object]", value) if isinstance(value, dict) else None


def _is_dict(value: object) -> bool:
    return isinstance(value, dict)


def _is_list_of(kind: type) -> Callable[[object], bool]:
    def check(value: object) -> bool:
        return isinstance(value, list | tuple) and all(isinstance(x, kind) for x in cast("Iterable[object]", value))

    return check


def _is_concentrate(value: object) -> bool:
    return isinstance((_dict(value) or {}).get("method"), str)


def _is_workload(value: object) -> bool:
    found = _dict(value)
    return found is not None and isinstance(found.get("concentrate", {}), dict)


def _is_plan(value: object) -> bool:
    sizes = [(_dict(value) or {}).get(name) for name in ("constant_bytes", "peak_bytes")]
    return all(isinstance(size, int) and size >= 0 for size in sizes)


MODULE_ATTRIBUTES: dict[str, tuple[Callable[[object], bool], str]] = {
    "concentrate": (_is_concentrate, "what the pass concentrate recorded: a dict with the method, a string"),
    "layout": (_is_dict, "a dict with the token layout"),
    "level": (lambda value: value == "tile", "\"tile\", or no such attribute"),
    "nodes": (_is_list_of(dict), "a list of dicts"),
    "notes": (_is_list_of(str), "a list of strings"),
    "plan": (_is_plan, "a dict with constant_bytes and peak_bytes, counts of bytes"),
    "unused_inputs": (_is_list_of(str), "a list of strings"),
    "workload": (_is_workload, "a dict, with a dict of options if it has concentrate"),
}
"""Module attributes that passes and code generation read: what each must be, and how to say so."""


def _module_attributes(module: Module, found: list[Diagnostic]) -> None:
    for name, (holds, expected) in MODULE_ATTRIBUTES.items():
        if name in module.attrs and not holds(module.attrs[name]):
            text = f"module attribute {name} is {str(module.attrs[name])[:80]}, expected {expected}"
            found.append(Diagnostic("attr.type", text))


def verify(module: Module) -> None:
    """Raise a CompileError with up to 20 findings if the module is not well formed."""
    found: list[Diagnostic] = []
    _module_attributes(module, found)
    names = [a.name for a in module.args]
    for name in dict.fromkeys(names):
        if not name:
            found.append(Diagnostic("module.args", "a module input has no name"))
        elif names.count(name) > 1:
            found.append(Diagnostic("module.args", f"input name {name!r} is used twice"))
    for name in dict.fromkeys(module.outputs):
        if module.outputs.count(name) > 1:
            found.append(Diagnostic("module.outputs", f"output name {name!r} is used twice"))
    end = module.body.terminator
    if end is None or end.name != "return":
        found.append(Diagnostic("module.return", "the module body does not end in `return`"))
    elif len(end.operands) != len(module.outputs):
        found.append(
            Diagnostic(
                "module.return",
                f"return has {len(end.operands)} operands, the module names {len(module.outputs)} outputs",
                end.loc,
            )
        )
    _block(module.body, set(), found)
    if found:
        raise CompileError(found)


def _block(block: Block, visible: set[Value], found: list[Diagnostic]) -> None:
    visible = set(visible)
    visible.update(block.args)
    for i, op in enumerate(block.ops):
        if len(found) >= LIMIT:
            return
        if op.spec.terminator and i + 1 < len(block.ops):
            found.append(Diagnostic("block.terminator", f"{op.name} is not the last op of its block", op.loc))
        _op(op, block, visible, found)
        visible.update(op.results)


def _op(op: Op, block: Block, visible: set[Value], found: list[Diagnostic]) -> None:
    if op.parent is not block:
        found.append(Diagnostic("op.parent", f"{op.name} does not know the block that holds it", op.loc))
    for slot, value in enumerate(op.operands):
        if value is None:
            continue
        if value not in visible:
            found.append(
                Diagnostic(
                    "value.undefined",
                    f"{op.name}: operand {slot} (%{value.name or '?'}) is not defined before its use",
                    op.loc,
                )
            )
        if op not in value._uses:  # pyright: ignore[reportPrivateUsage]
            found.append(Diagnostic("value.uses", f"{op.name}: operand {slot} does not list this op as a user", op.loc))
    for declared, region in zip(op.spec.regions, op.regions, strict=False):
        if region.parent is not op:
            found.append(Diagnostic("block.parent", f"a region of {op.name} does not know its op", op.loc))
        if region.terminator is None:
            found.append(Diagnostic("block.terminator", f"a region of {op.name} does not end in `yield`", op.loc))
        _block(region, set() if declared.isolated else visible, found)
    try:
        op.arrange(op.operands)
        if op.complete(op.attrs) != op.attrs:
            found.append(Diagnostic("attr.canonical", f"{op.name}: attributes are not in canonical form", op.loc))
        types = op.inferred()
    except CompileError as e:
        found.extend(e.at(op.loc, f"{op.name}: ").diagnostics)
        return
    have = tuple(v.type for v in op.results)
    if types != have:
        found.append(
            Diagnostic(
                "type.result", f"{op.name}: result type is {_types(have)}, but the op gives {_types(types)}", op.loc
            )
        )


def _types(types: tuple[object, ...]) -> str:
    return str(types[0]) if len(types) == 1 else f"({', '.join(map(str, types))})"
