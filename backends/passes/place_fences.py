"""The pass `place-fences`: between kernels, keep only the ordering that shared bytes demand.

Lowering starts every kernel with a fence on every channel it may use. With addresses known, a channel needs it only if
the kernel touches bytes that a command issued after the channel's last fence may still be writing (or, for stores, also
reading). Without it the query, key and value projections overlap, and so do the concentrators with the next product.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from focusc.backends.passes.plan_memory import buffer_bytes, require_tiles
from focusc.ir import BufferType, Module, Op, Rewriter, Stats, Value, defpass
from focusc.isa.program import ITEM_BYTES

Range = tuple[int, int]

WRITTEN = {
    "tile.store": (1,),
    "tile.store_heads": (1,),
    "tile.store_strided": (1,),
    "tile.store_index": (1,),
    "tile.sic": (1,),
    "tile.sec_topk": (2, 3),
}
"""Operands that an op writes; its other buffer operands are read."""
CHANNEL = {
    "tile.load_weight": "wgt",
    "tile.load_weight_strided": "wgt",
    "tile.store_index": "store",
    "tile.sic": "store",
    "tile.sec_topk": "store",
}
"""Engine that reads an op's buffers, if not the activation load engine. The concentrators read positions themselves."""


@dataclass
class Touched:
    """Byte ranges of one kernel by what is done to them."""

    reads: dict[str, set[Range]] = field(default_factory=lambda: {"act": set(), "wgt": set(), "store": set()})
    writes: set[Range] = field(default_factory=set[Range])


def byte_range(value: Value) -> Range:
    """[low, high) of a buffer or a view of one."""
    op = value.op
    assert op is not None
    if op.name == "tile.view":
        assert op.operands[0] is not None and isinstance(value.type, BufferType)
        low, _ = byte_range(op.operands[0])
        rows, cols = op.attrs["shape"]
        item = ITEM_BYTES[value.type.dtype]
        low += op.attrs["offset"] * item
        return low, low + rows * cols * item
    return op.attrs["address"], op.attrs["address"] + buffer_bytes(op)


def touched(ops: list[Op]) -> Touched:
    """What the commands of a kernel read and write."""
    found = Touched()
    for op in (inner for outer in ops for inner in outer.walk()):
        for slot, value in enumerate(op.operands):
            if value is not None and isinstance(value.type, BufferType) and op.name.startswith("tile."):
                if slot in WRITTEN.get(op.name, ()):
                    found.writes.add(byte_range(value))
                elif op.name not in ("tile.view", "tile.read"):
                    found.reads[CHANNEL.get(op.name, "act")].add(byte_range(value))
    return found


def _meet(a: set[Range], b: set[Range]) -> bool:
    return any(low < high2 and low2 < high for low, high in a for low2, high2 in b)


@defpass("place-fences", kept="channels ordered at a kernel's start", dropped="channels that need no order")
def place_fences(module: Module, stats: Stats) -> Module:
    """Drop the fence channels that no shared byte demands. Runs after `plan-memory`."""
    require_tiles(module, "place-fences")
    module = module.clone()
    rewriter = Rewriter(module)
    kernels: list[tuple[Op, list[Op]]] = []
    for op in module.body.ops:
        if op.name == "tile.fence":
            kernels.append((op, []))
        elif kernels:
            kernels[-1][1].append(op)
    written: dict[str, set[Range]] = {"act": set(), "wgt": set(), "store": set()}  # since the channel's last fence
    read: set[Range] = set()  # since the last store fence
    for fence, ops in kernels:
        if any(op.name == "host.call" for op in ops):  # it waits for all that was issued, and all that comes for it
            stats["dropped"] += len(fence.attrs["channels"])
            rewriter.set_attr(fence, channels=())
            for ranges in (*written.values(), read):
                ranges.clear()
            continue
        use = touched(ops)
        stores = use.writes | use.reads["store"]
        needed = [c for c in ("act", "wgt") if _meet(use.reads[c], written[c])]
        if _meet(stores, written["store"]) or _meet(use.writes, read):
            needed.append("store")
        stats["kept"] += len(needed)
        stats["dropped"] += len(fence.attrs["channels"]) - len(needed)
        if tuple(needed) != fence.attrs["channels"]:
            rewriter.set_attr(fence, channels=tuple(needed))
        for channel in needed:
            written[channel].clear()
        if "store" in needed:
            read.clear()
        for channel in written:
            written[channel] |= use.writes
        read |= use.reads["act"] | use.reads["wgt"] | use.reads["store"]
    return module
