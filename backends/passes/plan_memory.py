"""The pass `plan-memory`: a DRAM address for every buffer, from live ranges over the kernels.

Constants come first, packed and shared by content; then the arena, where buffers that are never live together share
bytes.
"""

from __future__ import annotations

import math

from focusc.backends.dram import LiveRange, align, plan
from focusc.ir import Module, Op, Rewriter, Stats, Value, defpass
from focusc.ir.diagnostics import fail
from focusc.isa.program import ITEM_BYTES, conc_block


def require_tiles(module: Module, name: str) -> None:
    """CompileError `pass.level` unless the module went through `tile`."""
    if module.attrs.get("level") != "tile":
        raise fail("pass.level", f"{name} works on the tile level, and the module is not at it",
                   hint="run the pass tile first, as in -p 'tile{target=focus},plan-memory,place-fences'")


def buffer_bytes(op: Op) -> int:
    """DRAM bytes of a `tile.bind` or `tile.buffer`."""
    a = op.attrs
    if a.get("layout") == "conc":
        tiles, slots, cap = conc_geometry(op)
        return tiles * slots * conc_block(cap)
    return math.prod(a["shape"]) * ITEM_BYTES[a["dtype"]]


def conc_geometry(op: Op) -> tuple[int, int, int]:
    """(m-tiles, slots of 32 columns, rows that a block has room for) of a concentrated buffer."""
    rows, cols = op.attrs["shape"]
    first, m = op.attrs["first"], op.attrs["m"]
    tiles = 1 + max(0, -(-(rows - first) // m))
    return tiles, -(-cols // 32), first if tiles == 1 else max(first, min(m, rows - first))


def _constant(op: Op) -> Op | None:
    source = op.operands[0].op if op.name == "tile.bind" and op.operands[0] is not None else None
    return source if source is not None and source.name == "tensor.constant" else None


def _readers(value: Value) -> list[Op]:
    """Ops that touch a buffer, through its views too."""
    found: list[Op] = []
    for user in value.users:
        found += _readers(user.results[0]) if user.name == "tile.view" else [user]
    return found


def from_host(op: Op) -> bool:
    """Whether a `tile.bind` stores what the host gives."""
    source = op.operands[0].op if op.operands[0] is not None else None
    return source is not None and source.name == "host.call"


def _leaves(reader: Op) -> bool:
    """Whether a reader of a buffer is a result of the program."""
    return reader.name == "tile.read" and any(user.name == "return" for user in reader.results[0].users)


def _top(op: Op, module: Module) -> Op:
    while op.parent is not module.body:
        assert op.parent is not None and op.parent.parent is not None
        op = op.parent.parent
    return op


@defpass(
    "plan-memory",
    constant_bytes="bytes of constants",
    peak_bytes="bytes of the arena",
    lower_bound_bytes="largest sum of live buffers",
    buffers="buffers in the arena",
)
def plan_memory(module: Module, stats: Stats) -> Module:
    """Assign `address` to every buffer, and report the arena's peak next to its lower bound."""
    require_tiles(module, "plan-memory")
    module = module.clone()
    rewriter = Rewriter(module)
    index = {op: i for i, op in enumerate(module.body.ops)}
    constants: dict[tuple[str, str], int] = {}
    end = 0
    ranges: list[LiveRange] = []
    owners: dict[str, Op] = {}
    step = 0
    step_of: dict[int, int] = {}
    for op, i in index.items():
        step += op.name == "tile.fence"
        step_of[i] = step
    for op, i in index.items():
        if op.name not in ("tile.bind", "tile.buffer"):
            continue
        source = _constant(op)
        if source is not None:
            key = (source.attrs["value"].digest, op.attrs["dtype"])
            if key not in constants:
                constants[key] = end
                end = align(end + buffer_bytes(op))
            rewriter.set_attr(op, address=constants[key])
            continue
        used = [step_of[index[_top(r, module)]] for r in _readers(op.results[0])]
        last = step + 1 if any(map(_leaves, _readers(op.results[0]))) else max(used, default=step_of[i])
        given = op.name == "tile.bind"
        start = step_of[i] if given and from_host(op) else 0 if given else min(used, default=step_of[i])
        name = f"{op.results[0].name or op.attrs.get('label') or 'buffer'}@{i}"
        ranges.append(LiveRange(name, max(1, buffer_bytes(op)), start, last))
        owners[name] = op
    placed = plan(ranges)
    base = align(end)
    for name, op in owners.items():
        rewriter.set_attr(op, address=base + placed.offsets[name])
    module.attrs = {**module.attrs, "plan": {"constant_bytes": base, **placed.to_dict(ranges)}}
    stats["constant_bytes"], stats["buffers"] = base, len(ranges)
    stats["peak_bytes"], stats["lower_bound_bytes"] = placed.peak, placed.lower_bound
    return module
