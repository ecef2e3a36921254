"""Attention with online softmax: scores live and die in the output buffer, no score matrix goes to DRAM.

For each head and query tile the keys are visited block by block with a running row maximum m and row sum l:
    m' = max(m, rowmax S);  P = exp(S - m');  l' = l exp(m - m') + rowsum P;  O' = O exp(m - m') + P V
(Milakov and Gimelshein, arXiv 1805.02867; Dao et al., arXiv 2205.14135). A value head wider than the weight buffer's n
columns is cut into panels: P is forwarded once for each, and each has an accumulator tile of its own.

Where q is dense, the heads of a group share their key/value head's panels: a tile holds rows of all of them, row i is
query row i // group of head i % group, gathered by a list of row numbers. A concentrated q keeps heads in slots, which
no load stacks; there each head streams K and V for itself.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

import numpy as np

from focusc.backends.lower.attention_tiles import PITCH, VECTORS, Room, Tiles
from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.emit import Ix, Loop
from focusc.backends.lower.masks import Band, Hiding, Place, Span
from focusc.backends.lower.views import ConcView, View, matrix_shape
from focusc.backends.mapping import Rows
from focusc.ir import ConcentratedType, Op, TensorType, Value
from focusc.ir.diagnostics import fail


@dataclass(frozen=True)
class Heads:
    """Operands of one attention: windows of Q, K, V, and the head geometry: `size` columns of Q and K, `wide` of V."""

    q: View | ConcView
    k: View
    v: View | None
    heads: int
    kv_heads: int
    size: int
    wide: int
    scale: float

    @property
    def group(self) -> int:
        """Query heads per key/value head."""
        return self.heads // self.kv_heads

    @property
    def slots(self) -> int:
        """32-wide slots of a query head."""
        return self.size // 32

    def panels(self, most: int) -> list[tuple[int, int]]:
        """(first column, columns) of each panel of a value head: whole slots, at most `most` columns, evenly cut."""
        slots = -(-self.wide // 32)
        step = 32 * -(-slots // -(-slots // (most // 32)))
        return [(at, min(step, self.wide - at)) for at in range(0, self.wide, step)]

    @staticmethod
    def of(low: Lowering, op: Op) -> Heads:
        """Read the operands; CompileError if a concentrated query cannot be cut at head boundaries."""
        q, k = op.operands[0], op.operands[1]
        v = op.operands[2] if op.name == "nn.attention" else None
        assert q is not None and k is not None
        found = low.at.get(q)
        query = found if isinstance(found, ConcView) else low.view(q)
        size = matrix_shape(q.type)[1] // op.attrs["heads"]
        if isinstance(query, ConcView) and size % 32:
            raise fail(
                "lower.head",
                f"heads of {size} columns do not start at 32-wide slots: a concentrated query cannot be cut into heads",
                op.loc,
                hint="leave the query site out: concentrate{sites=...}",
            )
        heads, kv = op.attrs["heads"], op.attrs["kv_heads"]
        wide = matrix_shape(v.type)[1] // kv if v is not None else 0
        values = low.view(v) if v is not None else None
        return Heads(query, low.view(k), values, heads, kv, size, wide, op.attrs["scale"])

    def load(self, low: Lowering, head: Ix, it: Ix | int, row: Ix | int, rows: Ix | int, within: Ix | int = 0) -> Value:
        """Query rows of one head."""
        e = low.emit
        if isinstance(self.q, ConcView):
            return e.load_conc(self.q.buffer, it, within, rows, head * self.slots, self.slots, self.size)
        return e.load(self.q.buffer, self.q.row + row, head * self.size + self.q.col, rows, self.size)

    def products(self, low: Lowering, act: Value, kv: Ix, key: Ix | int, keys: Ix | int) -> Value:
        """Q K^T for a block of keys."""
        e = low.emit
        panel = e.load_weight(self.k.buffer, self.k.row + key, kv * self.size + self.k.col, self.size, keys, trans=True)
        return e.mma(act, panel)

    def scores(self, low: Lowering, act: Value, kv: Ix, key: Ix | int, keys: Ix | int) -> Value:
        """scale * Q K^T for a block of keys."""
        return low.emit.scalar("mul", self.products(low, act, kv, key, keys), self.scale)


@handles("nn.attention")
def attention(low: Lowering, op: Op) -> None:
    """softmax(scale Q K^T + mask) V for each batch, head, query tile and key block."""
    q, k = op.operands[0], op.operands[1]
    assert q is not None and k is not None
    assert isinstance(q.type, TensorType | ConcentratedType) and isinstance(k.type, TensorType)
    total, length, keys = matrix_shape(q.type)[0], q.type.shape[-2], k.type.shape[-2]
    h, hiding = Heads.of(low, op), Hiding.of(low, op, length, keys)
    batch = total // length
    t = _tiles(low, op, h, hiding)
    if (stacked := _stacked(low, h, hiding, t)) is not None:
        _account(low, op, h, batch, hiding, stacked)
        _shared_panels(low, op, h, batch, hiding, stacked)
        return
    low.kernel(op, "act", "wgt", "store")
    sink = low.sink(op.results[0], direct=t.direct)
    _account(low, op, h, batch, hiding, t)
    e = low.emit
    with e.loop(batch, 1) as b, e.loop(h.kv_heads, 1) as kv, e.loop(h.group, 1) as g:
        head = kv.off * h.group + g.off
        base = b.off * length
        with e.loop(t.rows.total, t.rows.step, first=t.rows.first) as m, _blocks(low, m, t) as r:
            row = m.off + r.off

            def load(m: Loop = m, r: Loop = r, row: Ix = row) -> Value:
                return h.load(low, head, m.it, base + row, r.len, r.off)

            at = Place(b.off, head, row, r.len)
            outs = _softmax_v(low, h, load, kv.off, r.len, t, hiding, at, b.off * keys)
            for (col, _), out in zip(h.panels(low.tiling.n), outs, strict=True):
                low.put(sink, out, m.it, base + row, head * h.wide + col, head * (h.wide // 32) + col // 32)


@contextmanager
def _blocks(low: Lowering, m: Loop, t: Tiles) -> Iterator[Loop]:
    """The row blocks of an m-tile; the tile itself if it is one block."""
    if t.sub >= t.rows.most:
        yield Loop(Ix.of(0), Ix.of(0), m.len, [])
    else:
        with low.emit.loop(t.rows.most, t.sub, bound=m.len) as r:
            yield r


def _tiles(low: Lowering, op: Op, h: Heads, hiding: Hiding) -> Tiles:
    """Tiles of one head's rows; CompileError `tile.obuf` if not one row fits the output buffer."""
    band = hiding.band
    given = Rows(band.rows, h.q.first, h.q.m) if isinstance(h.q, ConcView) else None
    gather = low.gather_of(op.results[0]) if h.wide % 32 == 0 else None
    room = _room(low, h, hiding)
    found = room.choose(given, low.gather_rows(gather) if gather is not None else None)
    if found is None:
        _, block = room.fitting(room.widest)
        raise fail(
            "tile.obuf",
            f"attention with value heads of {h.wide} columns needs {room.row_bytes(block)} bytes a query row for "
            f"{block} keys, the output buffer has {low.tiling.obuf}",
            op.loc,
            hint="enlarge buffers.output",
        )
    return found


def _room(low: Lowering, h: Heads, hiding: Hiding) -> Room:
    return Room(low.tiling, h.wide, hiding.planes, hiding.band)


def _stacked(low: Lowering, h: Heads, hiding: Hiding, alone: Tiles) -> Tiles | None:
    """The tiles of query rows if all heads of a group go in one tile; None if they cannot, or gain nothing. A mask that
    is data has no rows in that order."""
    if isinstance(h.q, ConcView) or h.group == 1 or alone.direct or h.wide % PITCH or not hiding.plain:
        return None
    if h.q.pitch % h.size or h.q.col % h.size:
        return None
    return _room(low, h, hiding).stack(h.group, hiding.causal, alone)


def _shared_panels(low: Lowering, op: Op, h: Heads, batch: int, hiding: Hiding, t: Tiles) -> None:
    """Attention with the heads of a group in one tile; each panel of K and V is loaded once for all of them."""
    q, length, keys = h.q, hiding.band.rows, hiding.band.keys
    total = batch * length
    assert isinstance(q, View)
    low.kernel(op, "act", "wgt", "store")
    sink = low.sink(op.results[0], direct=False).view
    assert isinstance(sink, View)
    per = q.pitch // h.size
    table = low.reshaped(View(q.buffer, q.row, 0, q.rows, q.pitch, q.pitch), q.rows * per, h.size)
    index = _head_rows(low, h, total, per, q.col // h.size)
    assert table is not None
    e = low.emit
    with e.loop(batch, 1) as b, e.loop(h.kv_heads, 1) as kv, e.loop(t.rows.total, t.rows.step) as m:
        row, count = b.off * length + m.off, m.len * h.group
        start = kv.off * (total * h.group) + row * h.group

        def load(start: Ix = start, count: Ix = count) -> Value:
            return e.load_index(table.buffer, index, start, count)

        at = Place(b.off, kv.off * h.group, m.off, m.len, h.group)
        outs = _softmax_v(low, h, load, kv.off, count, t, hiding, at, b.off * keys)
        for (col, _), out in zip(h.panels(low.tiling.n), outs, strict=True):
            to = kv.off * (h.group * h.wide) + col + sink.col
            e.store_heads(out, sink.buffer, row + sink.row, to, h.group, h.wide)


def _head_rows(low: Lowering, h: Heads, total: int, per: int, first: int) -> Value:
    """i32 list [kv head, row, head of the group]: which row of the table [rows * per, head size] holds that head."""
    name = f"head_rows_{total}x{per}_{first}_{h.heads}_{h.kv_heads}"
    if name not in low.shared:
        rows = np.arange(total)[None, :, None] * per + first
        heads = np.arange(h.heads).reshape(h.kv_heads, 1, h.group)
        with low.emit.outside():
            listed = low.emit.b.constant((rows + heads).astype(np.int32).reshape(1, -1), name=name)
            low.shared[name] = low.bind(listed).buffer
    return low.shared[name]


def _softmax_v(
    low: Lowering,
    h: Heads,
    load: Callable[[], Value],
    kv: Ix,
    length: Ix,
    t: Tiles,
    hiding: Hiding,
    at: Place,
    key_base: Ix,
) -> list[Value]:
    """One accumulator tile [length, columns] for each panel of the value head."""
    e = low.emit
    assert h.v is not None
    v, panels = h.v, h.panels(low.tiling.n)
    span = Span.of(e, hiding.band, at.row, at.rows)
    if at.group > 1:
        span = span.pitched(e, PITCH, t.keys, hiding.band.keys)

    def values(tile: Value, c: Loop, panel: tuple[int, int], acc: Value | None = None) -> Value:
        col, cols = panel
        row = v.row + key_base + span.start + c.off
        return e.mma(e.forward(tile), e.load_weight(v.buffer, row, kv * h.wide + v.col + col, c.len, cols), acc)

    def products(c: Loop) -> Value:
        return h.products(low, load(), kv, key_base + span.start + c.off, c.len)

    def scores(c: Loop, product: Value) -> Value:
        return hiding.apply(low, e.scalar("mul", product, h.scale), at, span.start + c.off, c.len)

    if t.once:  # one block: plain softmax
        whole = Loop(Ix.of(0), Ix.of(0), span.length if hiding.band.window else Ix.of(hiding.band.keys), [])
        s = scores(whole, products(whole))
        p = e.binary("exps", s, hiding.maximum(e, s))
        total = hiding.reciprocal(e, e.reduce("rsum", p))
        return [e.binary("mul", values(p, whole, panel), total) for panel in panels]
    floor = e.fill(length, 1, hiding.floor)
    state = [floor, e.fill(length, 1, 0.0), *(e.fill(length, cols, 0.0) for _, cols in panels)]

    def absorb(c: Loop, s: Value, m_old: Value, l_old: Value, *o_old: Value) -> list[Value]:
        """The state after the keys of `c`, whose scores are `s`."""
        m_new = e.reduce("rmax", s, m_old)
        decay = e.binary("exps", m_old, m_new)
        p = e.binary("exps", s, m_new)
        l_new = e.reduce("rsum", p, e.binary("mul", l_old, decay))
        o_new = [values(p, c, panel, e.binary("mul", o, decay)) for panel, o in zip(panels, o_old, strict=True)]
        return [m_new, l_new, *o_new]

    pair, keys = 2 * t.keys, span.most
    # room for the products of two blocks, and a mask for one at a time
    twice = 4 * length.most * (pair + (hiding.planes - 1) * t.keys + h.wide + VECTORS) <= low.tiling.obuf
    start = e.whole(span.length, pair) if twice and keys >= pair else Ix.of(0)
    rest = span.length + start * -1
    if at.group > 1 and rest.is_const and 0 < rest.const < t.keys and rest.const % PITCH:
        # a last block alone is a tile as narrow as itself, which the windows of heads do not allow; before it stands a
        # pair, since no whole span is as narrow as that
        start, rest = start + -pair, rest + pair
    if start.most > 0:  # two blocks a round: the array is at one while the vector unit is at the other
        whole_pairs = min(start.most, keys // pair * pair)
        with e.loop(whole_pairs, pair, bound=None if start.is_const else start, inits=state) as c:
            parts = [Loop(c.it, c.off + first, Ix.of(t.keys), []) for first in (0, t.keys)]
            carried = c.carried
            for part, product in zip(parts, [products(part) for part in parts], strict=True):
                carried = absorb(part, scores(part, product), *carried)
            c.yields += carried
        state = c.results
    if not rest.is_const or rest.const:
        most = rest.const if rest.is_const else max(min(keys, pair) if start.most > 0 else keys, t.keys)
        with e.loop(most, t.keys, bound=None if rest.is_const else rest, inits=state) as c:
            part = Loop(c.it, c.off + start, c.len, [])
            c.yields += absorb(part, scores(part, products(part)), *c.carried)
        state = c.results
    _, total, *outs = state
    total = hiding.reciprocal(e, total)
    return [e.binary("mul", out, total) for out in outs]


def _account(low: Lowering, op: Op, h: Heads, batch: int, hiding: Hiding, t: Tiles) -> None:
    """Dense MACs, and how many of the (query, key) pairs that the tiles compute their rows see."""
    full, decoder = low.dense_rows(op)
    band = hiding.band
    own = Band(band.rows, band.keys, 0 if hiding.causal else None, hiding.window)
    unpruned = replace(own, rows=full, keys=full + band.shift) if decoder else own
    done, start = 0, 0
    for piece in range(t.rows.pieces):
        stop = min(band.rows, start + (t.rows.first if piece == 0 else t.rows.step))
        for row in range(start, stop, t.sub):
            count = min(t.sub, stop - row)
            done += count * (band.keys if t.once and not band.window else band.visited(row, count))
        start = stop
    macs = batch * h.heads * (h.size + h.wide) * round(hiding.share * unpruned.pairs)
    low.account(op, macs, decoder=decoder, useful=round(hiding.share * own.pairs), done=done)
