"""The verifier: definitions before uses, use lists, declared attributes, and result types by `infer`."""

from __future__ import annotations

from focusc.ir.core import Block, Module, Op, Value
from focusc.ir.diagnostics import LIMIT, CompileError, Diagnostic


def verify(module: Module) -> None:
    """Raise a CompileError with up to 20 findings if the module is not well formed."""
    found: list[Diagnostic] = []
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
    for region in op.regions:
        if region.parent is not op:
            found.append(Diagnostic("block.parent", f"a region of {op.name} does not know its op", op.loc))
        if region.terminator is None:
            found.append(Diagnostic("block.terminator", f"a region of {op.name} does not end in `yield`", op.loc))
        _block(region, visible, found)
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
