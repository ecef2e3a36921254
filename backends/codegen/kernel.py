"""Code for the ops of one kernel: loops, streams, tile windows and the commands of every engine."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction

from focusc.backends.codegen.scalars import Lasting, Lin, Scalars, Units
from focusc.backends.obuf import Class, Placement, pitch, tied_operand, trips
from focusc.backends.passes.plan_memory import conc_geometry
from focusc.ir import Loc, Op, StreamType, TileType, Value
from focusc.ir.diagnostics import fail
from focusc.isa import Addr, Insn, R, conc_block
from focusc.isa import insns as isa
from focusc.isa.insns.sequencer import Divi
from focusc.isa.program import ITEM_BYTES

STREAM = 31
DESCRIPTORS = 31
UNARY = {
    "exp": isa.VExp,
    "recip": isa.VRecip,
    "rsqrt": isa.VRsqrt,
    "sqrt": isa.VSqrt,
    "log": isa.VLog,
    "erf": isa.VErf,
    "silu": isa.VSilu,
    "gelu": isa.VGelu,
    "gelue": isa.VGelue,
    "gelu_quick": isa.VGeluQuick,
    "tanh": isa.VTanh,
    "sigmoid": isa.VSigmoid,
    "neg": isa.VNeg,
    "copy": isa.VCopy,
}
BINARY = {
    "add": isa.VAdd,
    "sub": isa.VSub,
    "mul": isa.VMul,
    "div": isa.VDiv,
    "max": isa.VMax,
    "min": isa.VMin,
    "exps": isa.VExps,
    "sel": isa.VSel,
}
SCALAR = {"add": isa.VAddi, "mul": isa.VMuli, "max": isa.VMaxi, "min": isa.VMini}
REDUCE = {"rsum": isa.VRsum, "rmax": isa.VRmax, "rsumsq": isa.VRsumsq}


@dataclass(frozen=True)
class Buffer:
    """A DRAM buffer or a view of one: the op that made it, and where its elements start."""

    op: Op
    address: int
    cols: int
    dtype: str

    @property
    def item(self) -> int:
        """Bytes of an element."""
        return ITEM_BYTES[self.dtype]

    @property
    def stride(self) -> int:
        """Bytes from one row to the next."""
        return self.cols * self.item

    def element(self, number: Lin) -> Lin:
        """Byte address of an element by its number."""
        return number * self.item + self.address

    def at(self, row: Lin, col: Lin) -> Lin:
        """Byte address of an element."""
        return row * self.stride + col * self.item + self.address


@dataclass
class Window:
    """A tile value in flight: its descriptor and run-time extents."""

    descriptor: int
    place: Class
    rows: Lin
    cols: Lin
    offset: tuple[int, int]  # register (0: none), bytes


@dataclass
class Stream:
    """A stream value in flight."""

    rows: Lin
    cols: Lin


class KernelCode:
    """Emits one kernel. `emit(insn, loc)` appends to the program; `buffers` resolves buffer values; `units` are those
    of the loops, as emitting the same kernel before has found them."""

    def __init__(
        self,
        emit: Callable[[Insn, Loc], None],
        buffers: Callable[[Value], Buffer],
        sites: Callable[[Op], int],
        lasting: Lasting,
        units: dict[Op, Units] | None = None,
    ) -> None:
        self.units: dict[Op, Units] = {}  # as the uses ask, if the registers of all loops count ones
        self._given = units or {}
        self._append = emit
        self._buffer = buffers
        self._site = sites
        self.loc = Loc()
        self.scalars = Scalars(self.emit, lasting)
        self.index: dict[Value, Lin] = {}
        self.tiles: dict[Value, Window] = {}
        self.streams: dict[Value, Stream] = {}
        self.pending: dict[str, deque[Value]] = {"act": deque(), "wgt": deque()}
        self.unused = list(range(DESCRIPTORS - 1, -1, -1))
        self.toggle: dict[Op, int] = {}
        self.place = Placement()

    def emit(self, insn: Insn) -> None:
        """Append one instruction at the current source location."""
        self._append(insn, self.loc)

    def run(self, ops: list[Op], place: Placement) -> None:
        """Emit a whole kernel."""
        self.place = place
        for op in ops:
            self.op(op)
        left = sum(map(len, self.pending.values()))
        if left:
            raise fail(
                "codegen.stream", f"{left} loaded streams are never consumed", ops[0].loc, hint="report this model"
            )

    def op(self, op: Op) -> None:
        """Emit one op."""
        self.loc = op.loc
        kind = op.name.removeprefix("tile.")
        handler = getattr(self, f"_{kind}", None)
        if handler is None:
            raise fail("codegen.op", f"{op.name} has no code", op.loc)
        handler(op)

    # -- values --------------------------------------------------------------------------------------------------
    def ix(self, value: Value | None) -> Lin:
        """Affine form of an index value; constants are defined outside of all kernels."""
        assert value is not None
        op = value.op
        if op is not None and op.name == "tile.affine" and not op.operands:
            return Lin(op.attrs["const"])
        return self.index[value]

    def _at_least(self, op: Op) -> None:
        self._bounded(op, isa.Max, op.attrs["least"])

    def _at_most(self, op: Op) -> None:
        self._bounded(op, isa.Min, op.attrs["most"])

    def _bounded(self, op: Op, choose: type[isa.Max | isa.Min], bound: int) -> None:
        found = self.scalars.load(self.ix(op.operands[0]))
        self.emit(choose(rd=found, rs=found, rt=self.scalars.load(Lin(bound)) if bound else 0))
        self.index[op.results[0]] = Lin(0, ((found, 1),))

    def ext(self, lin: Lin) -> int | R:
        """Extent operand."""
        return self.scalars.ext(lin)

    def _affine(self, op: Op) -> None:
        total = Lin(op.attrs["const"])
        for value, coef in zip(op.operands, op.attrs["coef"], strict=True):
            total = total + self.ix(value) * coef
        self.index[op.results[0]] = total

    def _whole(self, op: Op) -> None:
        step, s = op.attrs["step"], self.scalars
        register = s.load(self.ix(op.operands[0]))
        self.emit(Divi(rd=register, rs=register, imm=step))
        self.emit(isa.Muli(rd=register, rs=register, imm=step))
        self.index[op.results[0]] = Lin(0, ((register, 1),))

    def define(self, value: Value, rows: Lin, cols: Lin) -> Window:
        """Name the window of a new tile value, unless the same window already has a name."""
        cls = self.place[value]
        assert isinstance(value.type, TileType)
        toggle = self.toggle.get(cls.home, 0) if cls.home is not None and cls.doubled else 0
        offset = (toggle, cls.offset)
        for other in self.tiles.values():
            if other.place is cls and (other.rows, other.cols, other.offset) == (rows, cols, offset):
                self.tiles[value] = other
                return other
        window = Window(self.descriptor(), cls, rows, cols, offset)
        self.tiles[value] = window
        where = R(toggle, cls.offset) if toggle else cls.offset
        self.emit(
            isa.Tile(t=window.descriptor, off=where, rows=self.ext(rows), cols=self.ext(cols), pitch=pitch(value.type))
        )
        return window

    def descriptor(self) -> int:
        """A tile descriptor that is not in use."""
        if not self.unused:
            raise fail(
                "codegen.tiles",
                f"a kernel names more than {DESCRIPTORS} tiles at once",
                self.loc,
                hint="report this model",
            )
        return self.unused.pop()

    def heads(self, value: Value, group: int) -> Iterator[tuple[int, int]]:
        """(g, descriptor of rows g, g + group, ...) of a tile, one head after the other in the same descriptor."""
        window, step = self.tiles[value], pitch(value.type)  # type: ignore[arg-type]
        toggle, start = window.offset
        rows = Lin(window.rows.const // group, tuple((reg, coef // group) for reg, coef in window.rows.terms))
        if rows * group != window.rows or step % 16:
            raise fail(
                "codegen.heads", f"a tile of {group} heads' rows is cut unevenly", self.loc, hint="report this model"
            )
        part = self.descriptor()
        for g in range(group):
            at = start + 4 * g * step
            where = R(toggle, at) if toggle else at
            self.emit(isa.Tile(t=part, off=where, rows=self.ext(rows), cols=self.ext(window.cols), pitch=step * group))
            yield g, part
        self.unused.append(part)

    def same_place(self, a: Value, b: Value) -> bool:
        """Whether two tile values hold the same bytes."""
        return self.place[a] is self.place[b]

    def push(self, channel: str, value: Value, rows: Lin, cols: Lin) -> None:
        """A load went out: its consumer must come in turn."""
        self.streams[value] = Stream(rows, cols)
        self.pending[channel].append(value)

    def take(self, channel: str, value: Value) -> Stream:
        """A consumer takes the stream head."""
        if not self.pending[channel] or self.pending[channel].popleft() is not value:
            raise fail(
                "codegen.stream",
                "streams are consumed in another order than they are loaded",
                self.loc,
                hint="report this model",
            )
        return self.streams[value]

    # -- loops ---------------------------------------------------------------------------------------------------
    def _for(self, op: Op) -> None:
        body = op.regions[0]
        it, off, length, *carried = body.args
        bound = self.ix(op.operands[0]) if op.operands[0] is not None else None
        total, step, first = op.attrs["total"], op.attrs["step"], op.attrs["first"]
        inits = [v for v in op.operands[1:] if v is not None]
        saved = list(self.unused)
        for arg, init in zip(carried, inits, strict=True):
            self._carry_in(arg, init)
        self._rounds(op, bound, total, step, first, (it, off, length), carried)
        for arg in carried:
            if arg in self.tiles and self.tiles[arg].descriptor in saved:
                saved.remove(self.tiles[arg].descriptor)
        for result, arg in zip(op.results, carried, strict=True):
            if arg in self.tiles:
                self.tiles[result] = self.tiles[arg]
        inner = {v for b in op.regions for o in b.ops for v in o.results}
        self.tiles = {v: w for v, w in self.tiles.items() if v not in inner}
        self.unused = saved

    def _carry_in(self, arg: Value, init: Value) -> None:
        if not isinstance(arg.type, TileType):
            return
        source = self.tiles[init]
        if self.same_place(arg, init):
            self.tiles[arg] = source
            return
        target = self.define(arg, source.rows, source.cols)
        self.emit(isa.VCopy(d=target.descriptor, a=source.descriptor))

    def _rounds(
        self,
        op: Op,
        bound: Lin | None,
        total: int,
        step: int,
        first: int,
        args: tuple[Value, Value, Value],
        carried: list[Value],
    ) -> None:
        it, off, length = args
        s, unit = self.scalars, self._given.get(op, Units())
        s.push()
        if bound is not None and first != step:
            raise fail("codegen.loop", "a loop with a run-time bound must start with a whole piece", op.loc)
        pieces = bool(length.users) or first != step
        offset = s.load(Lin(0))
        number = s.load(Lin(0)) if it.users and not unit.joined else 0
        end = s.number(total) if bound is None and pieces else s.held(bound) if bound is not None else 0
        limit = s.number(step) if pieces else 0
        piece = 0
        if pieces:
            piece = s.load(Lin(first)) if first != step else s.register()
        toggle, half = 0, 0
        if op in self.place.toggles:
            toggle, half = s.load(Lin(0)), s.number(self.place.toggles[op])
            self.toggle[op] = toggle
        if bound is not None:
            count = s.load(bound + (step - 1))
            self.emit(Divi(rd=count, rs=count, imm=step))
            self.emit(isa.Loop(count=R(count)))
        else:
            self.emit(isa.Loop(count=trips(op)))
        for register in (offset, number):
            s.factors.pop(register, None)  # of what they held before
        self.index[off] = Lin(0, ((offset, Fraction(1, unit.offset)),))
        if unit.joined:
            self.index[it] = Lin(0, ((offset, Fraction(1, unit.offset * step)),))
        else:
            self.index[it] = Lin(0, ((number, Fraction(1, unit.number)),)) if number else Lin(0)
        self.index[length] = Lin(0, ((piece, 1),)) if piece else Lin(step)
        if piece and first == step:
            self.emit(isa.Sub(rd=piece, rs=end, rt=offset))
            self.emit(isa.Min(rd=piece, rs=piece, rt=limit))
        s.push()
        self._body(op, carried)
        s.pop()
        self.loc = op.loc
        if first == step:
            self.emit(isa.Addi(rd=offset, rs=offset, imm=step * unit.offset))
        else:
            self.emit(isa.Add(rd=offset, rs=offset, rt=piece))
            self.emit(isa.Sub(rd=piece, rs=end, rt=offset))
            self.emit(isa.Min(rd=piece, rs=piece, rt=limit))
        if number:
            self.emit(isa.Addi(rd=number, rs=number, imm=unit.number))
        if toggle:  # 0 -> half -> 0 ...
            self.emit(isa.Sub(rd=toggle, rs=half, rt=toggle))
            del self.toggle[op]
        self.emit(isa.Endl())
        self.units[op] = Units.of(s.factors.pop(offset, set()), s.factors.pop(number, set()), step, first, pieces)
        s.pop()

    def _body(self, op: Op, carried: list[Value]) -> None:
        block = op.regions[0]
        for inner in block.ops[:-1]:
            self.op(inner)
        for arg, new in zip(carried, block.ops[-1].operands, strict=True):
            if new is not None and isinstance(arg.type, TileType) and not self.same_place(arg, new):
                self.emit(isa.VCopy(d=self.tiles[arg].descriptor, a=self.tiles[new].descriptor))

    # -- streams -------------------------------------------------------------------------------------------------
    def _load(self, op: Op) -> None:
        buf, row, col, rows, cols = op.operands
        b = self._buffer(self._some(buf))
        n, c = self.ix(rows), self.ix(cols)
        where = self.scalars.addr(b.at(self.ix(row), self.ix(col)))
        self.emit(isa.LdAct(addr=where, rows=self.ext(n), cols=self.ext(c), stride=b.stride, dtype=b.dtype))
        self.push("act", op.results[0], n, c)

    def _load_conc(self, op: Op) -> None:
        buf, tile, row, rows, slot = op.operands
        n, slots = self.ix(rows), op.attrs["slots"]
        address, cap = self._block(self._some(buf), self.ix(tile), self.ix(slot))
        self.emit(isa.LdConc(addr=address, rows=self.ext(n), slots=slots, cap=cap, row0=self.ext(self.ix(row))))
        self.push("act", op.results[0], n, Lin(op.attrs["cols"]))

    def _block(self, buf: Value, tile: Lin, slot: Lin) -> tuple[Addr, int]:
        """Address of a slot's block, and the rows that a block has room for."""
        b = self._buffer(buf)
        _, slots, cap = conc_geometry(b.op)
        size = conc_block(cap)
        return self.scalars.addr(tile * (slots * size) + slot * size + b.address), cap

    def _load_index(self, op: Op) -> None:
        buf, index, start, rows, at, cols = op.operands
        b, i = self._buffer(self._some(buf)), self._buffer(self._some(index))
        n, c = self.ix(rows), self.ix(cols)
        self.emit(
            isa.LdIdx(
                addr=self.scalars.addr(b.element(self.ix(at))),
                list=self.scalars.addr(i.element(self.ix(start))),
                rows=self.ext(n),
                cols=self.ext(c),
                stride=self.ext(Lin(op.attrs["pitch"] * b.item)),
                limit=self.ext(Lin(op.attrs["limit"])),
                dtype=b.dtype,
            )
        )
        self.push("act", op.results[0], n, c)

    def _load_strided(self, op: Op) -> None:
        buf, at, rows, cols = op.operands
        b = self._buffer(self._some(buf))
        n, c = self.ix(rows), self.ix(cols)
        where, stride = self.scalars.addr(b.element(self.ix(at))), self.ext(Lin(op.attrs["pitch"] * b.item))
        self.emit(isa.LdAct(addr=where, rows=self.ext(n), cols=self.ext(c), stride=stride, dtype=b.dtype))
        self.push("act", op.results[0], n, c)

    def _load_patch(self, op: Op) -> None:
        buf, row, rows = op.operands
        b, n = self._buffer(self._some(buf)), self.ix(rows)
        assert isinstance(op.results[0].type, StreamType)
        k = op.results[0].type.cols
        self.emit(isa.LdPatch(addr=Addr(0, b.address), row0=self.ext(self.ix(row)), rows=self.ext(n), k=k))
        self.push("act", op.results[0], n, Lin(k))

    def _load_weight(self, op: Op) -> None:
        buf, row, col, k, n = op.operands
        b = self._buffer(self._some(buf))
        kk, nn = self.ix(k), self.ix(n)
        where = self.scalars.addr(b.at(self.ix(row), self.ix(col)))
        self.emit(
            isa.LdWgt(
                addr=where, k=self.ext(kk), n=self.ext(nn), stride=b.stride, trans=int(op.attrs["trans"]), dtype=b.dtype
            )
        )
        self.push("wgt", op.results[0], kk, nn)

    def _load_weight_strided(self, op: Op) -> None:
        buf, at, k, n = op.operands
        b = self._buffer(self._some(buf))
        kk, nn = self.ix(k), self.ix(n)
        where, stride = self.scalars.addr(b.element(self.ix(at))), self.ext(Lin(op.attrs["pitch"] * b.item))
        trans = int(op.attrs["trans"])
        self.emit(isa.LdWgt(addr=where, k=self.ext(kk), n=self.ext(nn), stride=stride, trans=trans, dtype=b.dtype))
        self.push("wgt", op.results[0], kk, nn)

    def _mma(self, op: Op) -> None:
        act, weight, acc = op.operands
        a, w = self.take("act", self._some(act)), self.take("wgt", self._some(weight))
        d = self._accumulate_into(op, a.rows, w.cols)
        self.emit(isa.Mma(t=d.descriptor, k=self.ext(a.cols), acc=int(acc is not None)))

    def _accumulate_into(self, op: Op, rows: Lin, cols: Lin) -> Window:
        """The destination window, holding the accumulator's values if the op has one."""
        acc = op.operands[tied_operand(op)]
        d = self.define(op.results[0], rows, cols)
        if acc is not None and not self.same_place(op.results[0], acc):
            self.emit(isa.VCopy(d=d.descriptor, a=self.tiles[acc].descriptor))
        return d

    def _from_stream(self, op: Op) -> None:
        s = self.take("act", self._some(op.operands[0]))
        self.emit(isa.VLd(d=self.define(op.results[0], s.rows, s.cols).descriptor))

    def _forward(self, op: Op) -> None:
        a = self.tiles[self._some(op.operands[0])]
        self.emit(isa.Fwd(a=a.descriptor))
        self.push("act", op.results[0], a.rows, a.cols)

    # -- vector unit ---------------------------------------------------------------------------------------------
    def _source(self, value: Value | None) -> int:
        """Descriptor of a source tile, or the stream head."""
        found = self._some(value)
        if isinstance(found.type, StreamType):
            self.take("act", found)
            return STREAM
        return self.tiles[found].descriptor

    def _like(self, op: Op) -> int:
        a = self.tiles[self._some(op.operands[0])]
        return self.define(op.results[0], a.rows, a.cols).descriptor

    def _unary(self, op: Op) -> None:
        self.emit(UNARY[op.attrs["fn"]](d=self._like(op), a=self._source(op.operands[0])))

    def _binary(self, op: Op) -> None:
        d = self._like(op)
        self.emit(BINARY[op.attrs["fn"]](d=d, a=self._source(op.operands[0]), b=self._source(op.operands[1])))

    def _select(self, op: Op) -> None:
        value, mask, other = op.operands
        d = self._like(op)
        if not self.same_place(op.results[0], self._some(value)):
            self.emit(isa.VCopy(d=d, a=self.tiles[self._some(value)].descriptor))
        self.emit(isa.VBlend(d=d, a=self._source(mask), b=self._source(other)))

    def _scalar(self, op: Op) -> None:
        self.emit(SCALAR[op.attrs["fn"]](d=self._like(op), a=self._source(op.operands[0]), imm=op.attrs["value"]))

    def _fill(self, op: Op) -> None:
        d = self.define(op.results[0], self.ix(op.operands[0]), self.ix(op.operands[1]))
        self.emit(isa.VFill(d=d.descriptor, imm=op.attrs["value"]))

    def _reduce(self, op: Op) -> None:
        a = self.tiles[self._some(op.operands[0])]
        d = self._accumulate_into(op, a.rows, Lin(1))
        self.emit(REDUCE[op.attrs["fn"]](d=d.descriptor, a=a.descriptor, acc=int(op.operands[1] is not None)))

    def _mask(self, op: Op) -> None:
        self._hide([self._masked(op)], op)

    def _mask_heads(self, op: Op) -> None:
        self._masked(op)
        self._hide((part for _, part in self.heads(op.results[0], op.attrs["group"])), op)

    def _masked(self, op: Op) -> int:
        """The descriptor of the result, holding the scores."""
        d, value = self._like(op), self._some(op.operands[0])
        if not self.same_place(op.results[0], value):
            self.emit(isa.VCopy(d=d, a=self.tiles[value].descriptor))
        return d

    def _hide(self, parts: Iterable[int], op: Op) -> None:
        row, col = (self.ext(self.ix(v)) for v in op.operands[1:])
        for part in parts:
            self.emit(isa.VMask(d=part, row0=row, col0=col, window=op.attrs["window"], inf=int(op.attrs["inf"])))

    def _rotate(self, op: Op) -> None:
        self.emit(
            isa.VRot(
                d=self._like(op),
                a=self._source(op.operands[0]),
                width=op.attrs["width"],
                interleaved=int(op.attrs["interleaved"]),
            )
        )

    # -- stores and concentrators --------------------------------------------------------------------------------
    def _store(self, op: Op) -> None:
        value, buf, row, col = op.operands
        b = self._buffer(self._some(buf))
        where = self.scalars.addr(b.at(self.ix(row), self.ix(col)))
        self.emit(isa.St(a=self.tiles[self._some(value)].descriptor, addr=where, stride=b.stride, dtype=b.dtype))

    def _store_strided(self, op: Op) -> None:
        value, buf, at = op.operands
        b = self._buffer(self._some(buf))
        where, stride = self.scalars.addr(b.element(self.ix(at))), self.ext(Lin(op.attrs["pitch"] * b.item))
        self.emit(isa.St(a=self.tiles[self._some(value)].descriptor, addr=where, stride=stride, dtype=b.dtype))

    def _store_index(self, op: Op) -> None:
        value, buf, index, start, at = op.operands
        b, i = self._buffer(self._some(buf)), self._buffer(self._some(index))
        self.emit(
            isa.StIdx(
                a=self.tiles[self._some(value)].descriptor,
                addr=self.scalars.addr(b.element(self.ix(at))),
                list=self.scalars.addr(i.element(self.ix(start))),
                stride=self.ext(Lin(op.attrs["pitch"] * b.item)),
                limit=self.ext(Lin(op.attrs["limit"])),
                dtype=b.dtype,
            )
        )

    def _store_heads(self, op: Op) -> None:
        value, buf, row, col = op.operands
        b = self._buffer(self._some(buf))
        for g, part in self.heads(self._some(value), op.attrs["group"]):
            where = self.scalars.addr(b.at(self.ix(row), self.ix(col) + g * op.attrs["apart"]))
            self.emit(isa.St(a=part, addr=where, stride=b.stride, dtype=b.dtype))

    def _sic(self, op: Op) -> None:
        value, buf, tile, slot, row0, _ = op.operands
        address, cap = self._block(self._some(buf), self.ix(tile), self.ix(slot))
        self.emit(
            isa.Sic(
                a=self.tiles[self._some(value)].descriptor,
                addr=address,
                cap=cap,
                row0=self.ext(self.ix(row0)),
                site=self._site(op),
            )
        )

    def _sec_init(self, op: Op) -> None:
        self.emit(isa.SecInit(n=op.attrs["count"]))

    def _sec_fold(self, op: Op) -> None:
        _, value, col = op.operands
        self.emit(isa.SecFold(a=self.tiles[self._some(value)].descriptor, col0=self.ext(self.ix(col))))

    def _sec_topk(self, op: Op) -> None:
        rows, positions = (self._buffer(self._some(v)) for v in op.operands[2:4])
        self.emit(
            isa.SecTopk(
                k=op.attrs["k"], rows=Addr(0, rows.address), pos=Addr(0, positions.address), total=op.attrs["rows"]
            )
        )

    @staticmethod
    def _some(value: Value | None) -> Value:
        assert value is not None
        return value
