"""On-chip planning: where each tile of a kernel lives in the output buffer.

A kernel is small, so its tiles are placed by exact live ranges over its ops in program order. Tiles that must share
their bytes (a loop-carried value and its successor, an accumulator and the product added to it) form one class.
Tiles that live only inside one round of an innermost loop get a second copy, used by every other round, if there is
room: then the next product can start while the last one is still being read. If there is no room for all, those get one
that leave the array and the vector unit: what is read slowest, by a store or a concentrator.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from focusc.backends.dram import align, first_fit
from focusc.ir import Block, Op, TileType, Value
from focusc.ir.diagnostics import fail

LEAVING = ("tile.store", "tile.store_heads", "tile.store_strided", "tile.store_index", "tile.sic", "tile.sec_fold")
"""Ops of other engines than the array and the vector unit that read a tile."""
IN_PLACE = ("tile.unary", "tile.binary", "tile.scalar", "tile.select", "tile.mask", "tile.mask_heads")
"""Element-wise ops: the result may take its first operand's place."""


@dataclass
class Class:
    """Tiles that share one place: their bytes, and the ops (by number) between which they are live."""

    size: int = 0
    start: int = 1 << 30
    stop: int = -1
    home: Op | None = None  # innermost loop that the class never leaves
    leaf: bool = False
    leaves: bool = False  # read by a store or a concentrator
    doubled: bool = False
    offset: int = 0


@dataclass
class Placement:
    """Byte offset of every tile value; `toggles` gives each doubled loop the distance between its two copies."""

    classes: dict[Value, Class] = field(default_factory=dict[Value, Class])
    toggles: dict[Op, int] = field(default_factory=dict[Op, int])
    peak: int = 0
    lower_bound: int = 0
    """Most bytes that are live at one point, without any second copies."""

    def __getitem__(self, value: Value) -> Class:
        return self.classes[value]

    def move(self, base: int) -> None:
        """Shift everything by `base` bytes."""
        for cls in {id(c): c for c in self.classes.values()}.values():
            cls.offset += base


def pitch(type_: TileType) -> int:
    """Elements from one row of a tile to the next."""
    return type_.cols


def tile_bytes(type_: TileType) -> int:
    """Bytes of a tile in the output buffer, f32."""
    return align(4 * type_.rows * pitch(type_))


class Planner:
    """Places the tiles of one kernel: `ops` in order, loops nested."""

    def __init__(self, ops: list[Op], capacity: int) -> None:
        self.capacity = capacity
        self.number: dict[Op, int] = {}
        self.end: dict[Op, int] = {}
        self.parent: dict[Op, Op | None] = {}
        self.order: list[Op] = []
        self.out = Placement()
        for op in ops:
            self._visit(op, None)

    def _visit(self, op: Op, loop: Op | None) -> None:
        self.number[op] = len(self.order)
        self.order.append(op)
        self.parent[op] = loop
        for block in op.regions:
            for inner in block.ops:
                self._visit(inner, op)
        self.end[op] = len(self.order)
        self.order.append(op)  # a loop's end is a point of its own

    def plan(self) -> Placement:
        """Offsets for all tiles; CompileError if they do not fit."""
        for op in self.number:
            self._tie(op)
        for op in sorted(self.number, key=lambda o: self.end[o]):  # inner loops first: their ties are settled
            self._carry(op)
        self._ranges()
        self._place()
        return self.out

    # -- classes -------------------------------------------------------------------------------------------------
    def _of(self, value: Value) -> Class:
        found = self.out.classes.get(value)
        if found is None:
            found = self.out.classes[value] = Class()
        return found

    def _join(self, a: Value, b: Value) -> None:
        keep, gone = self._of(a), self._of(b)
        if keep is not gone:
            for value, cls in self.out.classes.items():
                if cls is gone:
                    self.out.classes[value] = keep

    def last_use(self, value: Value, op: Op) -> bool:
        """Whether `op` is the last reader of a tile defined in its own block: the bytes are free afterwards."""
        owner = value.owner
        block = owner.parent if isinstance(owner, Op) else owner
        if block is None or block is not op.parent or op.operands.count(value) != 1:
            return False
        return all(self.number[_in_block(user, block)] <= self.number[op] for user in value.users)

    def _tie(self, op: Op) -> None:
        for value in op.results:
            if isinstance(value.type, TileType):
                self._of(value)
        if op.name in IN_PLACE or (op.name in ("tile.mma", "tile.reduce") and op.operands[-1] is not None):
            tied = op.operands[tied_operand(op)]
            if tied is not None and isinstance(tied.type, TileType) and self.last_use(tied, op):
                self._join(op.results[0], tied)

    def _carry(self, op: Op) -> None:
        if op.name == "tile.for":
            body: Block = op.regions[0]
            yields = body.ops[-1].operands
            for arg, init, out, new in zip(body.args[3:], op.operands[1:], op.results, yields, strict=True):
                if isinstance(arg.type, TileType) and init is not None and new is not None:
                    self._of(arg)
                    self._join(arg, out)
                    if self.last_use(init, op):
                        self._join(arg, init)
                    if self.last_use(new, body.ops[-1]) and self._free_for(arg, new, body):
                        self._join(arg, new)

    def _free_for(self, arg: Value, new: Value, body: Block) -> bool:
        """Whether `new` can be computed into the place of `arg`: no reader of `arg` comes after it is written."""
        writer = new.op
        if writer is None or writer.parent is not body:
            return False
        own = self._of(new)
        first = min(
            (body.ops.index(op) for op in body.ops for r in op.results if self.out.classes.get(r) is own),
            default=body.ops.index(writer),
        )
        return all(body.ops.index(_in_block(user, body)) <= first for user in arg.users)

    # -- ranges --------------------------------------------------------------------------------------------------
    def _ranges(self) -> None:
        for value, cls in self.out.classes.items():
            assert isinstance(value.type, TileType)
            cls.size = max(cls.size, tile_bytes(value.type))
            owner = value.owner
            if isinstance(owner, Op):
                points = [self.end[owner] if owner.regions else self.number[owner]]
                if owner.name == "tile.for":
                    points.append(self.number[owner])
                block = owner.parent
            else:
                assert isinstance(owner, Block) and owner.parent is not None
                points = [self.number[owner.parent], self.end[owner.parent]]
                block = owner
            cls.leaves = cls.leaves or any(user.name in LEAVING for user in value.users)
            for user in value.users:
                anchor = _in_block(user, block) if block is not None else user
                points += [self.number[anchor], self.end[anchor]] if anchor is not user else [self.number[user]]
            cls.start, cls.stop = min(cls.start, *points), max(cls.stop, *points)
        for cls in {id(c): c for c in self.out.classes.values()}.values():
            inside = self._innermost(cls)
            cls.home = inside
            cls.leaf = inside is not None and not any(op.regions for op in inside.regions[0].ops)

    def _innermost(self, cls: Class) -> Op | None:
        around = [
            op
            for op, start in self.number.items()
            if op.name == "tile.for" and start < cls.start and cls.stop < self.end[op]
        ]
        return max(around, key=self.number.__getitem__, default=None)

    # -- places --------------------------------------------------------------------------------------------------
    def _place(self) -> None:
        unique = list({id(c): c for c in self.out.classes.values()}.values())
        unique.sort(key=lambda c: (c.start, -c.size))
        live = (sum(c.size for c in unique if c.start <= point <= c.stop) for point in {c.start for c in unique})
        self.out.lower_bound = max(live, default=0)
        peak = self._pack(unique, {})
        if peak > self.capacity:
            where = self.order[0].loc
            raise fail(
                "tile.obuf",
                f"the tiles of this kernel need {peak} bytes of the output buffer, it has {self.capacity}",
                where,
                hint="lower tile{m=...} or tile{n=...}",
            )
        for loop in {id(c.home): c.home for c in unique if c.leaf}.values():
            assert loop is not None
            mine = [c for c in unique if c.home is loop]
            for some in (mine, [c for c in mine if c.leaves]):
                for c in mine:
                    c.doubled = any(c is one for one in some)
                if some and trips(loop) > 1 and self._pack(unique, {**self.out.toggles, loop: 0}) <= self.capacity:
                    self.out.toggles[loop] = 0
                    break
            else:
                for c in mine:
                    c.doubled = False
            peak = self._pack(unique, self.out.toggles)
        self.out.peak = peak

    def _pack(self, classes: list[Class], toggles: dict[Op, int]) -> int:
        """First fit by live range. The doubled classes of a loop are packed as one block, held twice."""
        placed: list[tuple[int, int, int, int]] = []  # offset, size, start, stop
        groups: dict[Op, list[Class]] = {loop: [c for c in classes if c.home is loop and c.doubled] for loop in toggles}
        done: set[int] = set()

        def put(size: int, start: int, stop: int) -> int:
            taken = [(at, n) for at, n, a, b in placed if a <= stop and start <= b]
            offset = first_fit(size, taken)
            placed.append((offset, size, start, stop))
            return offset

        for loop, members in groups.items():
            inner: list[tuple[int, int, int, int]] = []
            for c in members:
                at = first_fit(c.size, [(o, n) for o, n, a, b in inner if a <= c.stop and c.start <= b])
                c.offset = at
                inner.append((at, c.size, c.start, c.stop))
                done.add(id(c))
            half = max(o + n for o, n, _, _ in inner)
            base = put(2 * half, self.number[loop], self.end[loop])
            for c in members:
                c.offset += base
            toggles[loop] = half
        for c in classes:
            if id(c) not in done:
                c.offset = put(c.size, c.start, c.stop)
        return max((o + n for o, n, _, _ in placed), default=0)


def _in_block(op: Op, block: Block) -> Op:
    """The op of `block` that is `op` or contains it."""
    while op.parent is not block:
        assert op.parent is not None and op.parent.parent is not None
        op = op.parent.parent
    return op


def tied_operand(op: Op) -> int:
    """Index of the operand whose place the result may or must take."""
    return len(op.operands) - 1 if op.name in ("tile.mma", "tile.reduce") else 0


def trips(loop: Op) -> int:
    """Most rounds of a `tile.for`."""
    a = loop.attrs
    return 1 + max(0, -(-(a["total"] - a["first"]) // a["step"]))
