"""Kernels of the concentrators: importance and selection (SEC), gather and scatter that no producer took (SIC)."""

from __future__ import annotations

from dataclasses import replace

from focusc.backends.lower.attention import Heads
from focusc.backends.lower.context import Lowering, handles
from focusc.backends.lower.emit import Ix, Loop
from focusc.backends.lower.gather import move_listed
from focusc.backends.lower.masks import Hiding, Place
from focusc.backends.lower.strided import Strided
from focusc.backends.lower.views import ConcView, View, matrix_shape
from focusc.ir import Op, TensorType, TokensType, Value


@handles("sec.importance")
def importance(low: Lowering, op: Op) -> None:
    """Largest softmaxed weight of the query rows to each visual key: one pass for the row statistics, one that folds.

    The scores of the few query rows are computed twice, which costs less than keeping them.
    """
    q, k = op.operands[:2]
    assert q is not None and k is not None
    total, keys = matrix_shape(q.type)[0], matrix_shape(k.type)[0]
    query, v0, count = op.attrs["query"], op.attrs["visual_start"], op.attrs["visual_len"]
    h, hiding = Heads.of(low, op), Hiding.of(low, op, total, keys)
    low.account(op, 0, decoder=True)
    low.kernel(op, "act", "wgt", "store")
    e = low.emit
    block = min(low.tiling.n, -(-keys // 32) * 32)
    most = low.tiling.obuf // (4 * (2 * hiding.planes * block + 6))
    vector = e.op("tile.sec_init", count=count)
    pieces = h.q.pieces(total - query, total) if isinstance(h.q, ConcView) else [(0, 0, total - query, query)]
    for it, within, row, rows in pieces:
        for at in range(0, rows, most):
            piece = (it, within + at, row + at, min(most, rows - at))
            vector = _fold(low, h, hiding, vector, piece, (v0, count), block)
    low.at[op.results[0]] = View(vector, 0, 0, 1, count, count, "f32")


def _fold(
    low: Lowering,
    h: Heads,
    hiding: Hiding,
    vector: Value,
    piece: tuple[int, int, int, int],
    visual: tuple[int, int],
    block: int,
) -> Value:
    """Fold the weights of one run of query rows, all heads, into the importance vector."""
    e = low.emit
    it, within, row, rows = piece
    start, length = hiding.band.first(row), hiding.band.visited(row, rows)
    first, stop = max(visual[0], start), visual[0] + visual[1]
    before = hiding.plain and not hiding.band.window  # all visual keys come before the query rows
    with e.loop(h.kv_heads, 1, inits=[vector]) as kv:
        with e.loop(h.group, 1, inits=[kv.carried[0]]) as g:
            head = kv.off * h.group + g.off
            at = Place(Ix.of(0), head, Ix.of(row), Ix.of(rows))

            def scores(key: Ix, keys: Ix, all_seen: bool, kv: Loop = kv, at: Place = at) -> Value:
                s = h.scores(low, h.load(low, at.head, it, row, rows, within), kv.off, key, keys)
                return s if all_seen else hiding.apply(low, s, at, key, keys)

            with e.loop(length, block, inits=[e.fill(rows, 1, hiding.floor), e.fill(rows, 1, 0.0)]) as c:
                m_old, l_old = c.carried
                s = scores(c.off + start, c.len, False)
                m_new = e.reduce("rmax", s, m_old)
                decay = e.binary("exps", m_old, m_new)
                p = e.binary("exps", s, m_new)
                c.yields += [m_new, e.reduce("rsum", p, e.binary("mul", l_old, decay))]
            peak, total = c.results
            scale = hiding.reciprocal(e, total)
            if first >= stop:  # the window of these rows is all text
                g.yields.append(g.carried[0])
            else:
                with e.loop(stop - first, block, inits=[g.carried[0]]) as c:
                    p = e.binary("mul", e.binary("exps", scores(c.off + first, c.len, before), peak), scale)
                    c.yields.append(e.op("tile.sec_fold", c.carried[0], p, e.ix(c.off + (first - visual[0]))))
                g.yields.append(c.results[0])
        kv.yields.append(g.results[0])
    return kv.results[0]


@handles("sec.select")
def select(low: Lowering, op: Op) -> None:
    """Top-k of the importance vector: row list for compaction, positions for SIC."""
    imp, old = op.operands[0], op.operands[1]
    assert imp is not None
    vector = low.at[imp]
    assert isinstance(vector, View)
    rows, kept = op.results
    assert isinstance(rows.type, TokensType) and isinstance(kept.type, TokensType)
    low.kernel(op)
    row_list = low.allocate(1, rows.type.count, rows.name or "rows", "i32")
    positions = low.allocate(1, kept.type.count, kept.name or "positions", "i32")
    low.emit.effect(
        "tile.sec_topk",
        vector.buffer,
        low.view(old).buffer if old is not None else None,
        row_list.buffer,
        positions.buffer,
        **{key: op.attrs[key] for key in ("k", "visual_start", "visual_len", "rows")},
    )
    low.at[rows], low.at[kept] = row_list, positions


@handles("sec.subset")
def subset(low: Lowering, op: Op) -> None:
    """A selection known at compile time: two constant lists."""
    lists = op.evaluate(**op.keywords())  # type: ignore[misc]
    for value, data in zip(op.results, lists, strict=True):
        low.at[value] = low.bind(low.emit.b.constant(data, data.dtype, value.name))


@handles("sec.compact")
def compact(low: Lowering, op: Op) -> None:
    """Keep the rows of the list."""
    x, rows = op.operands
    assert x is not None and rows is not None and isinstance(x.type, TensorType)
    result = op.results[0]
    assert isinstance(result.type, TensorType)
    source, target = Strided.of(low.view(x), x.type.shape), Strided.of(low.result(result), result.type.shape)
    move_listed(low, op, source, target, op.attrs["axis"] % x.type.rank, low.view(rows))


@handles("sic.gather")
def gather(low: Lowering, op: Op) -> None:
    """SIC on a stored value, where its producer could not do it on the way out."""
    x = op.operands[0]
    assert x is not None
    source = low.view(x)
    low.kernel(op)
    sink = low.gather_sink(op)
    assert isinstance(sink.view, ConcView)
    e = low.emit
    rows = low.rows_of(source.rows, sink.view)
    cols = low.columns(rows.most, 1, source.cols)
    with e.loop(rows.total, rows.step, first=rows.first, repeat=True) as m, e.loop(source.cols, cols) as c:
        tile = e.to_tile(e.load(source.buffer, m.off + source.row, c.off + source.col, m.len, c.len))
        low.put(sink, tile, m.it, m.off, c.off, c.it * (cols // 32))


@handles("sic.scatter")
def scatter(low: Lowering, op: Op) -> None:
    """Reconstruct the rows: each gets its group's vector."""
    c_value = op.operands[0]
    assert c_value is not None
    source = low.at[c_value]
    assert isinstance(source, ConcView)
    low.kernel(op)
    # Slots are whole, so the rows are stored with the padding of the last one; readers see a window without it.
    dense = low.allocate(source.rows, source.slots * 32, op.results[0].name)
    low.at[op.results[0]] = replace(dense, cols=source.cols)
    e = low.emit
    with e.loop(source.rows, source.m, first=source.first) as m, e.loop(source.slots, 1) as s:
        tile = e.to_tile(e.load_conc(source.buffer, m.it, 0, m.len, s.off, 1, 32))
        e.store(tile, dense.buffer, m.off, s.off * 32)
