"""Which keys the rows of an attention see, and hiding the others' scores.

By position: a causal bound and a window decide which keys a tile visits at all, and `tile.mask` hides the rest. By the
original positions of a pruned sequence: distances come from a list. By data: a bool mask selects scores, a float mask
is added to them. A hidden score is the most negative f32; beside an added mask, which may hold that very number for a
key that counts, it is -infinity.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from focusc.backends.legality import MOVES
from focusc.backends.lower.context import Lowering
from focusc.backends.lower.emit import Emit, Ix
from focusc.backends.lower.infinite import LARGEST
from focusc.backends.lower.moves import copy
from focusc.backends.lower.views import View
from focusc.ir import Module, Op, TensorType, Value
from focusc.ir.masks import FORBIDDEN
from focusc.ir.ops.attention import seen_keys
from focusc.ir.ops.tile_vector import LOWEST

Array = np.ndarray[Any, Any]
FLOOR = -1e38
"""Least row maximum where every key may be hidden by selection: far above LOWEST, far below any score."""
KEPT_EXACT = MOVES | {f"tensor.{name}" for name in ("add", "sub", "mul", "max", "neg")}
"""Ops through which an added mask is followed to where it comes from, to be stored as f32 all the way."""


def exact_values(module: Module) -> dict[Value, str]:
    """Storage of values that are masks or positions: f32, since forbidding values and positions exceed f16. The same
    for outputs of the module that the host gives: nothing on the accelerator needs them narrower."""
    calls = [v for op in module.body.ops if op.name == "host.call" for v in op.results]
    given = [v for v in calls if v.users and all(user.name == "return" for user in v.users)]
    found = {v: "f32" for v in given if isinstance(v.type, TensorType) and v.type.dtype == "f32"}
    stack = [v for op in module.walk() for v in _listed(op) if v is not None]
    while stack:
        value = stack.pop()
        if value in found or not isinstance(value.type, TensorType) or value.type.dtype not in ("f32", "f16"):
            continue
        found[value] = "f32"
        if value.op is not None and value.op.name in KEPT_EXACT:
            stack += [v for v in value.op.operands if v is not None]
    return found


def _listed(op: Op) -> Iterable[Value | None]:
    """Mask and positions of an op that has them."""
    first = {"nn.attention": 3, "sec.importance": 2}.get(op.name)
    return op.operands[first : first + 2] if first is not None else ()


@dataclass(frozen=True)
class Band:
    """Which keys rows may see by their numbers: row i stands at key p = i + keys - rows, and sees none after p +
    `ahead` (None: all of them) and, with a `window`, none before p - window + 1."""

    rows: int
    keys: int
    ahead: int | None
    window: int

    @property
    def shift(self) -> int:
        """Keys before the first row's own."""
        return self.keys - self.rows

    @property
    def pairs(self) -> int:
        """(row, key) pairs that are seen."""
        own = np.arange(self.rows, dtype=np.int64) + self.shift
        stop = self.keys if self.ahead is None else np.minimum(own + self.ahead + 1, self.keys)
        start = np.maximum(own - self.window + 1, 0) if self.window else np.zeros_like(own)
        return int(np.maximum(stop - start, 0).sum())

    def first(self, row: int) -> int:
        """The first key that a row sees."""
        return max(row + self.shift - self.window + 1, 0) if self.window else 0

    def visited(self, row: int, count: int) -> int:
        """Keys that a tile of `count` rows from `row` on goes through."""
        stop = self.keys if self.ahead is None else min(self.keys, row + count + self.shift + self.ahead)
        return stop - self.first(row)

    @property
    def width(self) -> int:
        """The most keys that a row sees, if a bound on either side makes them fewer than all; else 0."""
        return self.window + self.ahead if self.window and self.ahead is not None else 0

    def reach(self, count: int) -> int:
        """The most keys that a tile of `count` rows goes through."""
        return min(self.keys, count + self.width - 1) if self.width else self.keys

    def within(self, seen: Array) -> Band:
        """The narrowest band that holds what a mask [B, heads, rows, keys] leaves of this one."""
        if self.shift < 0 or seen.shape[2] != self.rows or seen.shape[3] != self.keys:
            return self
        row, key = np.nonzero(np.logical_or.reduce(seen.reshape(-1, self.rows, self.keys)))
        before: Array = row + self.shift - key
        window, ahead = int(before.max(initial=0)) + 1, -int(before.min(initial=0))
        window = min(window, self.window or self.keys)
        ahead = ahead if self.ahead is None else min(ahead, self.ahead)
        return replace(self, ahead=ahead if ahead < self.rows - 1 else None, window=window if window < self.keys else 0)


@dataclass(frozen=True)
class Span:
    """The keys of a tile: from `start`, `length` of them, at most `most`; `bound` is the length if it is known at run
    time only."""

    start: Ix
    most: int
    bound: Ix | None

    @property
    def length(self) -> Ix:
        """All keys in one block."""
        return Ix.of(self.most) if self.bound is None else self.bound

    def pitched(self, e: Emit, pitch: int, block: int, keys: int) -> Span:
        """A known number of keys, less than a block, made a multiple of `pitch`, which divides `block`: some keys
        before are visited too, or from key 0 on some behind; a row's own bounds hide them."""
        length = self.length
        if not length.is_const or length.const >= block or length.const % pitch == 0:
            return self
        wide = -(-length.const // pitch) * pitch
        assert wide <= keys, "a block is no longer than all keys, or than their multiple of the pitch"
        start = e.at_least(self.start + (length.const - wide), 0, keys - wide)
        return Span(start, wide, None)

    @staticmethod
    def of(e: Emit, band: Band, row: Ix, count: Ix) -> Span:
        """For `count` rows from `row` on."""
        stop, most = Ix.of(band.keys), band.reach(count.most)
        if band.ahead is not None:
            stop = row + count + (band.shift + band.ahead)
            stop = e.at_most(stop, band.keys) if band.ahead else stop
        if not band.window:
            return Span(Ix.of(0), most, stop if band.ahead is not None else None)
        start = e.at_least(row + (band.shift - band.window + 1), 0, band.keys - 1)
        return Span(start, most, replace(stop + start * -1, most=most))


@dataclass(frozen=True)
class Place:
    """A tile of scores: batch element, query head, first row, rows; it may hold the rows of `group` heads in turn."""

    batch: Ix
    head: Ix
    row: Ix
    rows: Ix
    group: int = 1


@dataclass(frozen=True)
class Data:
    """A mask operand: a matrix of [batch, heads, rows, keys], each extent 1 or whole. `added`, or true where seen."""

    view: View
    shape: tuple[int, int, int, int]
    added: bool

    def load(self, e: Emit, at: Place, key: Ix, keys: Ix) -> Value:
        """The part for a tile of scores that starts at a key."""
        batch, heads, rows, columns = self.shape
        lead = (at.batch * heads if batch > 1 else Ix.of(0)) + (at.head if heads > 1 else 0)
        row = lead * rows + (at.row if rows > 1 else 0) + self.view.row
        col = (key if columns > 1 else Ix.of(0)) + self.view.col
        return e.load(self.view.buffer, row, col, at.rows if rows > 1 else 1, keys if columns > 1 else 1)


@dataclass(frozen=True)
class Hiding:
    """All that hides scores in one attention. `positions` are where the keys stood before tokens were dropped, as a
    column and as a row; `empty` says that a row may be left without any key. `band` is what a tile visits, `share` how
    much of what its rows see by position a constant mask leaves."""

    band: Band
    causal: bool
    window: int
    data: Data | None = None
    positions: tuple[View, View] | None = None
    empty: bool = False
    share: float = 1.0

    @property
    def plain(self) -> bool:
        """Whether positions in the sequence say everything."""
        return self.data is None and self.positions is None

    @property
    def planes(self) -> int:
        """Tiles of the scores' size that are live at once."""
        return 1 if self.positions is None else 2

    @property
    def added(self) -> bool:
        """Whether numbers are added to the scores."""
        return self.data is not None and self.data.added

    @property
    def floor(self) -> float:
        """Where the row maximum starts: above every hidden score, not above any other."""
        return FLOOR if self.data is not None and not self.data.added else LOWEST

    @staticmethod
    def of(low: Lowering, op: Op, rows: int, keys: int) -> Hiding:
        """What `op`, an nn.attention or a sec.importance, hides from its rows."""
        mask, positions = _listed(op)
        causal, window = op.attrs.get("causal", True), op.attrs["window"]
        band = Band(rows, keys, 0 if causal else None, window)
        where = _listed_twice(low, op, positions) if positions is not None and window else None
        if mask is None:
            return Hiding(band, causal, window, positions=where)
        four, share, values = _four(mask), _left(mask, causal, window, keys - rows), _known(mask)
        added = isinstance(mask.type, TensorType) and mask.type.dtype != "bool"
        if values is None:
            return Hiding(band, causal, window, Data(low.view(mask), four, added), where, True, share)
        by_position = seen_keys(rows, keys, causal, window)
        data = Data(_constant(low, mask, values, by_position), four, added)
        some = np.greater(values, -np.inf) if added else values
        # A row whose keys all have values that forbid without hiding takes their mean, so it visits them.
        counted = _seen(values) if _any_key(_seen(values), by_position) else some
        empty = not _any_key(some, by_position)
        return Hiding(band.within(counted & by_position), causal, window, data, where, empty, share)

    def apply(self, low: Lowering, s: Value, at: Place, key: Ix, keys: Ix) -> Value:
        """The scores of a tile whose first column is a key, with those hidden that its rows do not see."""
        e, band = low.emit, self.band
        if self.data is not None:
            s = e.binary("add" if self.data.added else "sel", s, self.data.load(e, at, key, keys))
        if self.positions is not None:
            s = self._by_distance(low, s, at, key, keys)
        window = self.window if self.positions is None else 0
        if not self.causal and not window:
            return s
        row = at.row + band.shift
        if not self.causal:  # the bound behind a row moves beyond all keys, and the window with it
            beyond = band.rows + band.keys
            row, window = row + beyond, window + beyond
        return e.mask(s, row, key, group=at.group, window=window, inf=self.added)

    def _by_distance(self, low: Lowering, s: Value, at: Place, key: Ix, keys: Ix) -> Value:
        """Keep scores whose key stood less than a window before the row: key - (row - window) > 0."""
        e, band = low.emit, self.band
        assert self.positions is not None
        down, across = self.positions
        listed = e.load(across.buffer, across.row, key + across.col, 1, keys)
        ahead = e.binary("add", e.fill(at.rows, keys, 0.0), listed)
        rows = e.to_tile(e.load(down.buffer, at.row + (band.shift + down.row), down.col, at.rows, 1))
        return e.binary("sel", s, e.binary("sub", ahead, e.scalar("add", rows, -self.window)))

    def maximum(self, e: Emit, s: Value) -> Value:
        """The row maximum of all scores at once."""
        found = e.reduce("rmax", s)
        return e.scalar("max", found, self.floor) if self.empty else found

    def reciprocal(self, e: Emit, total: Value) -> Value:
        """1 / the row sum of weights; a row without keys, whose weights are all 0, gets 1. Any other sum is at least
        1, the weight of its largest score."""
        return e.unary("recip", e.scalar("max", total, 1.0) if self.empty else total)


def _listed_twice(low: Lowering, op: Op, positions: Value) -> tuple[View, View]:
    """A list of positions [keys, 1], and the same elements as a row."""
    down = low.view(positions)
    if not down.contiguous:
        dense = low.allocate(down.rows, 1, positions.name, down.dtype)
        copy(low, op, down, dense)
        down = dense
    across = low.reshaped(down, 1, down.rows)
    assert across is not None
    return down, across


def _four(mask: Value) -> tuple[int, int, int, int]:
    """Extents on batch, heads, rows, keys."""
    assert isinstance(mask.type, TensorType)
    return (1,) * (4 - mask.type.rank) + mask.type.shape  # type: ignore[return-value]


def _known(mask: Value) -> Array | None:
    """The values of a constant mask, on four axes."""
    if mask.op is None or mask.op.name != "tensor.constant" or mask.op.attrs["value"].absent:
        return None
    return np.asarray(mask.op.attrs["value"].array).reshape(_four(mask))


def _seen(values: Array) -> Array:
    """What a mask does not forbid."""
    return values if values.dtype == np.bool_ else np.greater(values, FORBIDDEN)


def _left(mask: Value, causal: bool, window: int, shift: int) -> float:
    """The share of what rows see by position that a constant mask leaves, before tokens were dropped from it; 1 for a
    mask that is not known."""
    while mask.op is not None and mask.op.name == "sec.compact" and mask.op.operands[0] is not None:
        mask = mask.op.operands[0]
    values = _known(mask)
    if values is None or values.shape[3] == 1:
        return 1.0
    keys = values.shape[3]
    by_position = seen_keys(keys - shift, keys, causal, window)
    return float((_seen(values) & by_position).mean() / by_position.mean())


def _any_key(seen: Array, by_position: Array) -> bool:
    """Whether every row keeps a key, by a mask [B, heads, T, S] (extents 1 broadcast) and by position."""
    return bool((seen & by_position).any(axis=-1).all())


def _constant(low: Lowering, mask: Value, values: Array, by_position: Array) -> View:
    """A constant mask as it is stored: bool as bytes, an added one as f16 if that changes no weight, else as f32.

    A finite value below f16's range forbids its key as -infinity does, but for a row that is forbidden throughout.
    """
    if values.dtype == np.bool_:
        return low.view(mask)
    narrow = np.where(values < -LARGEST, np.float32(-np.inf), values)
    same = bool((narrow == values).all()) or _any_key(_seen(values), by_position)
    dtype = "f16" if same and values.max(initial=0) <= LARGEST else "f32"
    if (mask, dtype) not in low.masks:
        with low.emit.outside():
            made = low.emit.b.constant(narrow if dtype == "f16" else values, name=mask.name)
            low.masks[mask, dtype] = low.bind(made, dtype)
    return low.masks[mask, dtype]
