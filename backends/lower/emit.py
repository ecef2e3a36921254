"""A small writer of tile-level IR: one method per tile op, index arithmetic folded as it is written.

Extents and coordinates are `Ix` values: a constant plus a sum of coefficient * index value. They become a
`tile.affine` op only where one is needed, so that lowering code can write `off * 2 + 1` and dumps stay short.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

from focusc.ir import Block, BufferType, Builder, IndexType, Loc, Value


@dataclass(frozen=True)
class Ix:
    """An affine index: `const + sum(coef * value)`; `most` is a static upper bound of it."""

    const: int = 0
    terms: tuple[tuple[Value, int], ...] = ()
    most: int = 0

    @staticmethod
    def of(value: Ix | int) -> Ix:
        """`value` itself, or the constant."""
        return value if isinstance(value, Ix) else Ix(value, (), value)

    def __add__(self, other: Ix | int) -> Ix:
        rhs = Ix.of(other)
        coefs: dict[int, tuple[Value, int]] = {id(v): (v, c) for v, c in self.terms}
        for v, c in rhs.terms:
            coefs[id(v)] = (v, c + coefs.get(id(v), (v, 0))[1])
        terms = tuple((v, c) for v, c in coefs.values() if c)
        return Ix(self.const + rhs.const, terms, self.most + rhs.most)

    __radd__ = __add__

    def __mul__(self, factor: int) -> Ix:
        return Ix(self.const * factor, tuple((v, c * factor) for v, c in self.terms), self.most * factor)

    __rmul__ = __mul__

    @property
    def is_const(self) -> bool:
        """Whether the value is known now."""
        return not self.terms


@dataclass
class Loop:
    """An open loop: iteration number, offset and length of the current piece, and the loop-carried tiles."""

    it: Ix
    off: Ix
    len: Ix
    carried: list[Value]
    yields: list[Value] = field(default_factory=list)
    results: list[Value] = field(default_factory=list)


class Emit:
    """Writes tile ops at the end of the current block."""

    def __init__(self, builder: Builder) -> None:
        self.b = builder
        self.top = builder.block
        self._known: dict[tuple[Block, int, frozenset[tuple[Value, int]]], Value] = {}

    @contextmanager
    def outside(self) -> Iterator[None]:
        """Write into the module's body, before the loops that are open."""
        inner, self.b.block = self.b.block, self.top
        try:
            yield
        finally:
            self.b.block = inner

    def op(self, name: str, *operands: Value | None, **attrs: Any) -> Value:
        """Append one op with a single result."""
        return self.b.emit(name, *operands, **attrs)

    def effect(self, name: str, *operands: Value | None, **attrs: Any) -> None:
        """Append one op without results."""
        self.b.create(name, *operands, **attrs)

    def at(self, loc: Loc) -> None:
        """Later ops carry this location."""
        self.b.loc = loc

    def ix(self, value: Ix | int) -> Value:
        """Materialise an index as an SSA value, once in a block; constants stand in the module's body."""
        index = Ix.of(value)
        if index.const == 0 and len(index.terms) == 1 and index.terms[0][1] == 1:
            return index.terms[0][0]
        block = self.top if index.is_const else self.b.block
        key = (block, index.const, frozenset(index.terms))
        if key not in self._known:
            with self.outside() if index.is_const else nullcontext():
                coefs = [c for _, c in index.terms]
                made = self.op("tile.affine", *[v for v, _ in index.terms], coef=coefs, const=index.const)
            made.name = f"c{index.const}" if index.is_const else ""
            self._known[key] = made
        return self._known[key]

    def at_least(self, value: Ix, least: int, most: int) -> Ix:
        """max(value, least); `most` bounds it from above."""
        if value.is_const:
            return Ix.of(max(value.const, least))
        return Ix(0, ((self.op("tile.at_least", self.ix(value), least=least), 1),), most)

    def at_most(self, value: Ix, most: int) -> Ix:
        """min(value, most)."""
        if value.is_const:
            return Ix.of(min(value.const, most))
        return Ix(0, ((self.op("tile.at_most", self.ix(value), most=most), 1),), min(value.most, most))

    def whole(self, value: Ix, step: int) -> Ix:
        """The largest multiple of `step` up to `value`."""
        if value.is_const:
            return Ix.of(value.const // step * step)
        return Ix(0, ((self.op("tile.whole", self.ix(value), step=step), 1),), value.most // step * step)

    @contextmanager
    def loop(
        self,
        total: int,
        step: int,
        *,
        first: int | None = None,
        bound: Ix | None = None,
        inits: Sequence[Value] = (),
        repeat: bool = False,
    ) -> Iterator[Loop]:
        """Cut [0, total) into pieces of `step` (the first may be shorter) and write the body once, in a loop if there
        are several, or with `repeat`: so that the text of a loop over tokens is the same for one round and for many.

        `bound`, if given, ends the loop early at run time. The body must append to `loop.yields` one value per init.
        """
        first = min(step, total) if first is None else first
        if bound is not None and bound.is_const:
            total, bound = bound.const, None
        first = min(first, total)
        count = 1 + -(-(total - first) // step)
        if count == 1 and bound is None and not (repeat and total > 1):  # one piece: no loop
            loop = Loop(Ix.of(0), Ix.of(0), Ix.of(total), list(inits))
            yield loop
            loop.results = loop.yields
            return
        bound_value = self.ix(bound) if bound is not None else None
        block = Block([IndexType()] * 3 + [v.type for v in inits], ["it", "off", "len"])
        it, off, length, *carried = block.args
        even = bound is None and first == step and total % step == 0 and not repeat
        piece = Ix.of(step) if even else Ix(0, ((length, 1),), min(step, total))
        loop = Loop(Ix(0, ((it, 1),), count - 1), Ix(0, ((off, 1),), total - 1), piece, carried)
        outer, self.b.block = self.b.block, block
        try:
            yield loop
            self.effect("yield", *loop.yields)
        finally:
            self.b.block = outer
        attrs: dict[str, Any] = {"total": total, "step": step, "first": first}
        loop.results = self.b.create("tile.for", bound_value, *inits, regions=[block], **attrs).results

    # -- streams -------------------------------------------------------------------------------------------------
    def load(self, buf: Value, row: Ix | int, col: Ix | int, rows: Ix | int, cols: Ix | int) -> Value:
        """Dense rows x cols at (row, col) of a row-major buffer."""
        r, c = Ix.of(rows), Ix.of(cols)
        return self.op(
            "tile.load", buf, self.ix(row), self.ix(col), self.ix(r), self.ix(c), max_rows=r.most, max_cols=c.most
        )

    def load_conc(
        self, buf: Value, tile: Ix | int, row: Ix | int, rows: Ix | int, slot: Ix | int, slots: int, cols: int
    ) -> Value:
        """Rows [row, row + rows) of concentrated m-tile `tile`, slots [slot, slot + slots), `cols` columns."""
        r = Ix.of(rows)
        return self.op(
            "tile.load_conc",
            buf,
            self.ix(tile),
            self.ix(row),
            self.ix(r),
            self.ix(slot),
            slots=slots,
            cols=cols,
            max_rows=r.most,
        )

    def load_strided(self, buf: Value, at: Ix | int, rows: Ix | int, cols: Ix | int, pitch: int) -> Value:
        """`rows` runs of `cols` elements, the first at element `at`, one every `pitch` elements."""
        r, c = Ix.of(rows), Ix.of(cols)
        most = {"max_rows": r.most, "max_cols": c.most}
        return self.op("tile.load_strided", buf, self.ix(at), self.ix(r), self.ix(c), pitch=pitch, **most)

    def load_index(
        self,
        buf: Value,
        index: Value,
        start: Ix | int,
        rows: Ix | int,
        *,
        at: Ix | int = 0,
        cols: Ix | int | None = None,
        pitch: int = 0,
        limit: int = 0,
    ) -> Value:
        """Rows of `buf` named by index[start : start + rows]; `cols` elements from element `at` + index * pitch on. As
        they stand, the buffer's rows."""
        assert isinstance(buf.type, BufferType)
        r, c = Ix.of(rows), Ix.of(buf.type.shape[1] if cols is None else cols)
        return self.op(
            "tile.load_index",
            buf,
            index,
            self.ix(start),
            self.ix(r),
            self.ix(at),
            self.ix(c),
            pitch=pitch or buf.type.shape[1],
            limit=limit or buf.type.shape[0],
            max_rows=r.most,
            max_cols=c.most,
        )

    def load_patch(self, buf: Value, row: Ix | int, rows: Ix | int, **window: Any) -> Value:
        """im2col rows [row, row + rows) by address generation."""
        r = Ix.of(rows)
        return self.op("tile.load_patch", buf, self.ix(row), self.ix(r), max_rows=r.most, **window)

    def load_weight(
        self, buf: Value, row: Ix | int, col: Ix | int, k: Ix | int, n: Ix | int, *, trans: bool = False
    ) -> Value:
        """Weight panel [k x n] at (row, col); with `trans` the buffer holds it as [n x k]."""
        kk, nn = Ix.of(k), Ix.of(n)
        return self.op(
            "tile.load_weight",
            buf,
            self.ix(row),
            self.ix(col),
            self.ix(kk),
            self.ix(nn),
            trans=trans,
            max_k=kk.most,
            max_n=nn.most,
        )

    def load_weight_strided(
        self, buf: Value, at: Ix | int, k: Ix | int, n: Ix | int, pitch: int, *, trans: bool = False
    ) -> Value:
        """Weight panel [k x n], its rows `pitch` elements apart; with `trans` the buffer holds it as [n x k]."""
        kk, nn = Ix.of(k), Ix.of(n)
        most = {"max_k": kk.most, "max_n": nn.most}
        return self.op(
            "tile.load_weight_strided", buf, self.ix(at), self.ix(kk), self.ix(nn), pitch=pitch, trans=trans, **most
        )

    # -- tiles ---------------------------------------------------------------------------------------------------
    def mma(self, act: Value, weight: Value, acc: Value | None = None) -> Value:
        """act @ weight (+ acc)."""
        return self.op("tile.mma", act, weight, acc)

    def to_tile(self, stream: Value) -> Value:
        """The stream's rows in an accumulator tile."""
        return self.op("tile.from_stream", stream)

    def forward(self, tile: Value) -> Value:
        """The tile, rounded to f16, as an activation stream."""
        return self.op("tile.forward", tile)

    def fill(self, rows: Ix | int, cols: Ix | int, value: float) -> Value:
        """A tile of one value."""
        r, c = Ix.of(rows), Ix.of(cols)
        most = {"max_rows": r.most, "max_cols": c.most}
        return self.op("tile.fill", self.ix(r), self.ix(c), value=float(value), **most)

    def unary(self, fn: str, a: Value) -> Value:
        """fn(a), element-wise."""
        return self.op("tile.unary", a, fn=fn)

    def binary(self, fn: str, a: Value, b: Value) -> Value:
        """fn(a, b); b broadcasts as the vector unit does."""
        return self.op("tile.binary", a, b, fn=fn)

    def select(self, a: Value, mask: Value, b: Value) -> Value:
        """a where the mask is not 0, else b; mask and b broadcast as the vector unit does."""
        return self.op("tile.select", a, mask, b)

    def scalar(self, fn: str, a: Value, value: float) -> Value:
        """fn(a, constant)."""
        return self.op("tile.scalar", a, fn=fn, value=float(value))

    def reduce(self, fn: str, a: Value, acc: Value | None = None) -> Value:
        """Row reduction, optionally folded into `acc`."""
        return self.op("tile.reduce", a, acc, fn=fn)

    def mask(
        self, a: Value, row: Ix | int, col: Ix | int, *, group: int = 1, window: int = 0, inf: bool = False
    ) -> Value:
        """Hide keys behind each row, and before its window; row i of a tile of `group` heads' rows is row + i // group.
        They become the most negative f32, or -infinity with `inf`."""
        if group == 1:
            return self.op("tile.mask", a, self.ix(row), self.ix(col), window=window, inf=inf)
        return self.op("tile.mask_heads", a, self.ix(row), self.ix(col), group=group, window=window, inf=inf)

    def rotate(self, a: Value, width: int, interleaved: bool = False) -> Value:
        """Rotate pairs within each group of `width` columns (RoPE)."""
        return self.op("tile.rotate", a, width=width, interleaved=interleaved)

    def store(self, tile: Value, buf: Value, row: Ix | int, col: Ix | int) -> None:
        """Write the tile at (row, col)."""
        self.effect("tile.store", tile, buf, self.ix(row), self.ix(col))

    def store_strided(self, tile: Value, buf: Value, at: Ix | int, pitch: int) -> None:
        """Write row i of the tile from element at + i * pitch on."""
        self.effect("tile.store_strided", tile, buf, self.ix(at), pitch=pitch)

    def store_index(
        self, tile: Value, buf: Value, index: Value, start: Ix | int, at: Ix | int, pitch: int, limit: int
    ) -> None:
        """Write row i of the tile from element at + index[start + i] * pitch on."""
        self.effect("tile.store_index", tile, buf, index, self.ix(start), self.ix(at), pitch=pitch, limit=limit)

    def store_heads(self, tile: Value, buf: Value, row: Ix | int, col: Ix | int, group: int, apart: int) -> None:
        """Write row i of the tile at row + i // group, column col + (i % group) * apart."""
        self.effect("tile.store_heads", tile, buf, self.ix(row), self.ix(col), group=group, apart=apart)
