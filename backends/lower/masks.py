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
from focusc.backends.lower.moves import copy
from focusc.backends.lower.views import View
from focusc.ir import Module, Op, TensorType, Value
from focusc.ir.masks import FORBIDDEN
from focusc.ir.ops.attention import seen_keys
from focusc.ir.ops.tile_vector import LOWEST

Array = np.ndarray[Any, Any]
FLOOR = -1e38
"""Least row maximum where every key may be hidden by selection: far above LOWEST, far below any score."""
LARGEST = 65504.0  # of f16
KEPT_EXACT = MOVES | {f"tensor.{name}" for name in ("add", "sub", "mul", "max", "neg")}
"""Ops through which an added mask is followed to where it comes from, to be stored as f32 all the way."""


def exact_values(module: Module) -> dict[Value, str]:
    """Storage of values that are masks or positions: f32, since forbidding values and positions exceed f16."""
    found: dict[Value, str] = {}
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
    """What rows see by position: row i stands at i + keys - rows; `causal`: no later key; `window`: the last ones."""

    rows: int
    keys: int
    causal: bool
    window: int

    @property
    def shift(self) -> int:
        """Keys before the first row's own."""
        return self.keys - self.rows

    @property
    def pairs(self) -> int:
        """(row, key) pairs that are seen."""
        own = np.arange(self.rows, dtype=np.int64) + self.shift
        stop = own + 1 if self.causal else np.full(self.rows, self.keys)
        start = np.maximum(own - self.window + 1, 0) if self.window else np.zeros(self.rows, np.int64)
        return int(np.maximum(stop - start, 0).sum())

    def first(self, row: int) -> int:
        """The first key that a row sees."""
        return max(row + self.shift - self.window + 1, 0) if self.window else 0

    def visited(self, row: int, count: int) -> int:
        """Keys that a tile of `count` rows from `row` on goes through."""
        stop = min(self.keys, row + count + self.shift) if self.causal else self.keys
        return stop - self.first(row)

    def reach(self, count: int) -> int:
        """The most keys that a tile of `count` rows goes through."""
        return min(self.keys, count + self.window - 1) if self.causal and self.window else self.keys


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

    @staticmethod
    def of(e: Emit, band: Band, row: Ix, count: Ix) -> Span:
        """For `count` rows from `row` on."""
        stop = row + count + band.shift if band.causal else Ix.of(band.keys)
        most = band.reach(count.most)
        if not band.window:
            return Span(Ix.of(0), most, stop if band.causal else None)
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
    column and as a row; `empty` says that a row may be left without any key."""

    band: Band
    data: Data | None = None
    positions: tuple[View, View] | None = None
    empty: bool = False

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
        band = Band(rows, keys, op.attrs.get("causal", True), op.attrs["window"])
        where = _listed_twice(low, op, positions) if positions is not None and band.window else None
        if mask is None:
            return Hiding(band, positions=where)
        assert isinstance(mask.type, TensorType)
        shape = mask.type.shape
        four: Any = (1,) * (4 - len(shape)) + shape
        known = mask.op is not None and mask.op.name == "tensor.constant" and not mask.op.attrs["value"].absent
        if known and mask.op is not None:
            values = mask.op.attrs["value"].array.reshape(four)
            data = Data(_constant(low, mask, values, band), four, mask.type.dtype != "bool")
            seen = values > -np.inf if data.added else values
            return Hiding(band, data, where, not _any_key(seen, band))
        return Hiding(band, Data(low.view(mask), four, mask.type.dtype != "bool"), where, True)

    def apply(self, low: Lowering, s: Value, at: Place, key: Ix, keys: Ix) -> Value:
        """The scores of a tile whose first column is a key, with those hidden that its rows do not see."""
        e, band = low.emit, self.band
        if self.data is not None:
            s = e.binary("add" if self.data.added else "sel", s, self.data.load(e, at, key, keys))
        if self.positions is not None:
            s = self._by_distance(low, s, at, key, keys)
        window = band.window if self.positions is None else 0
        if not band.causal and not window:
            return s
        row = at.row + band.shift
        if not band.causal:  # the bound behind a row moves beyond all keys, and the window with it
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
        return e.binary("sel", s, e.binary("sub", ahead, e.scalar("add", rows, -band.window)))

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


def _any_key(seen: Array, band: Band) -> bool:
    """Whether every row keeps a key, by a mask [B, heads, T, S] (extents 1 broadcast) and by position."""
    return bool((seen & seen_keys(band.rows, band.keys, band.causal, band.window)).any(axis=-1).all())


def _constant(low: Lowering, mask: Value, values: Array, band: Band) -> View:
    """A constant mask as it is stored: bool as bytes, an added one as f16 if that changes no weight, else as f32.

    A finite value below f16's range forbids its key as -infinity does, but for a row that is forbidden throughout.
    """
    if values.dtype == np.bool_:
        return low.view(mask)
    if (mask, band) not in low.masks:
        narrow = np.where(values < -LARGEST, np.float32(-np.inf), values)
        same = bool((narrow == values).all()) or _any_key(values > FORBIDDEN, band)
        dtype = "f16" if same and values.max(initial=0) <= LARGEST else "f32"
        with low.emit.outside():
            made = low.emit.b.constant(narrow if dtype == "f16" else values, name=mask.name)
            low.masks[mask, band] = low.bind(made, dtype)
    return low.masks[mask, band]
