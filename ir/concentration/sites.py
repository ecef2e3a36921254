"""What concentration saves: unique vectors by layer and site as the interpreter meets them, and multiply-accumulates.

MACs counted: the linears of the decoder layers and both products of their attention (a causal one: row i meets i + 1
keys, or as many as its window holds by number, where tokens are gone); not what a layer without one does to mix tokens.
A linear on concentrated rows executes, for every 32-wide slice, only the rows whose vector linked to no other; so does
Q*K^T, head by head. P*V runs on all rows. Vision tower, embedding and output head are outside.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from focusc.ir.concentrated import Concentrated
from focusc.ir.concentration.layout import Layout
from focusc.ir.concentration.neighbours import operand, shape
from focusc.ir.concentration.structure import DecoderLayer, find_decoder_layers
from focusc.ir.core import Module, Op, Value
from focusc.ir.types import ConcentratedType

__all__ = ["DecoderLayer", "Macs", "SiteCount", "SiteObserver", "find_decoder_layers", "macs"]

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class SiteCount:
    """One site: visual tokens before pruning and retained, slots, and unique vectors per slot (mean, min, max over all
    slots and runs; text rows not counted)."""

    layer: int
    site: str
    tokens: int
    retained: int
    slots: int
    unique: float
    unique_min: int
    unique_max: int

    @property
    def compression(self) -> float:
        """Retained rows for one unique row."""
        return self.retained / self.unique if self.unique else 1.0


class SiteObserver:
    """An interpreter observer that counts the unique vectors of every sic.gather; can be merged with another of an
    equal module, also across processes."""

    def __init__(self, module: Module) -> None:
        self.runs = 0
        self.sums: list[Array] = []
        self.low: list[int] = []
        self.high: list[int] = []
        self.about: list[tuple[int, str, int, int]] = []
        self._index: dict[Op, int] = {}
        layout = module.attrs.get("layout") or {"visual": (0, 0)}
        for op in module.walk():
            if op.name == "sic.gather":
                type_ = op.result.type
                self._index[op] = len(self.sums)
                self.sums.append(np.zeros(type_.slots))  # type: ignore[attr-defined]
                self.low.append(1 << 62)
                self.high.append(0)
                self.about.append((op.attrs["layer"], op.attrs["site"], layout["visual"][1], op.attrs["visual_len"]))

    def __call__(self, op: Op, results: tuple[Any, ...]) -> None:
        """See one op after it ran."""
        i = self._index.get(op)
        if i is None:
            return
        value: Concentrated = results[0]
        rows, retained = value.shape[-2], self.about[i][3]
        unique = value.executed.sum(axis=0) - (rows - retained)
        self.sums[i] += unique
        self.low[i] = min(self.low[i], int(unique.min()))
        self.high[i] = max(self.high[i], int(unique.max()))
        if i == 0:
            self.runs += 1

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_index": {}}

    def merge(self, other: SiteObserver) -> None:
        """Add the counts of another observer."""
        self.runs += other.runs
        for i, sums in enumerate(other.sums):
            self.sums[i] = self.sums[i] + sums
            self.low[i] = min(self.low[i], other.low[i])
            self.high[i] = max(self.high[i], other.high[i])

    def unique(self, i: int) -> Array:
        """Mean unique visual vectors of the i-th gather by slot."""
        return self.sums[i] / max(self.runs, 1)

    def counts(self) -> list[SiteCount]:
        """All sites in order of execution."""
        return [
            SiteCount(
                *about,
                len(self.sums[i]),
                float(self.unique(i).mean()) if self.runs else float(about[3]),
                self.low[i] if self.runs else about[3],
                self.high[i] if self.runs else about[3],
            )
            for i, about in enumerate(self.about)
        ]


@dataclass(frozen=True)
class Macs:
    """Multiply-accumulates of one run, on average: of the unconcentrated decoder (`dense`) and `executed`; and of those
    the part of visual rows and of text rows reading visual columns, which is all that concentration can touch."""

    dense: float
    executed: float
    visual_dense: float
    visual_executed: float

    @property
    def sparsity(self) -> float:
        """Share of all decoder MACs that is not executed."""
        return 1 - self.executed / self.dense

    @property
    def visual_sparsity(self) -> float:
        """Share of the MACs of visual tokens that is not executed."""
        return 1 - self.visual_executed / self.visual_dense


def macs(module: Module, observed: SiteObserver | None = None) -> Macs:
    """The MACs of a module of level `nn`; `observed` gives the unique vectors, without it none are merged."""
    layers = find_decoder_layers(module)
    layout = Layout.of(module)
    done: dict[str, Any] = module.attrs.get("concentrate") or {}
    attentions = [layer.attention for layer in layers if layer.attention is not None]
    original = int(done.get("rows", shape(operand(attentions[0], 0))[-2]))
    text = original - layout.length
    gathers = [op for op in module.walk() if op.name == "sic.gather"]
    unique = {op.result: observed.unique(i) for i, op in enumerate(gathers)} if observed is not None else {}
    totals = np.zeros(4)
    for layer in layers:
        for op in layer.linears:
            totals += _linear(op, original, text, unique)
        if layer.attention is not None:
            totals += _attention(layer.attention, original, text, layout.start, unique)
    return Macs(*(float(x) for x in totals))


def _per_slot(x: Value, visual: int, unique: dict[Value, Array]) -> tuple[Array, Array]:
    """(unique visual rows, columns) of every slot of an activation; a dense one is a single slot."""
    found = unique.get(x)
    width = shape(x)[-1]
    if found is None:
        return np.array([float(visual)]), np.array([width])
    assert isinstance(x.type, ConcentratedType)
    vector = x.type.vector
    return found, np.array([min(vector, width - vector * slot) for slot in range(len(found))])


def _linear(op: Op, original: int, text: int, unique: dict[Value, Array]) -> Array:
    x = operand(op, 0)
    k, n = shape(operand(op, 1))
    visual = shape(x)[-2] - text
    rows, columns = _per_slot(x, visual, unique)
    executed = float((rows * columns).sum()) * n
    return np.array([original * k * n, executed + text * k * n, (original - text) * k * n, executed])


def _attention(attention: Op, original: int, text: int, start: int, unique: dict[Value, Array]) -> Array:
    q = operand(attention, 0)
    width, value_width = shape(q)[-1], shape(attention.result)[-1]
    now = shape(q)[-2]
    visual, before = now - text, original - text
    window = attention.attrs["window"]

    def pairs(first: int, end: int, keys: range) -> float:
        """Pairs of a row in [first, end) and a key of `keys` that it sees by their numbers."""
        own = np.arange(first, end)
        until = np.minimum(own + 1, keys.stop) if attention.attrs["causal"] else np.full_like(own, keys.stop)
        since = np.maximum(own + 1 - window, keys.start) if window else np.full_like(own, keys.start)
        return float(np.maximum(until - since, 0).sum())

    def products(rows: int, seen: int) -> tuple[float, float, float, float]:
        """Pairs: all; visual rows on all keys; visual rows and the text behind on visual keys; visual on visual."""
        end = start + seen
        of_visual = pairs(start, end, range(end if attention.attrs["causal"] else rows))
        on_visual = pairs(start if attention.attrs["causal"] else 0, rows, range(start, end))
        own = pairs(start, end, range(start, end))
        return pairs(0, rows, range(rows)), of_visual, on_visual, own

    every, of_visual, on_visual, own = products(now, visual)
    all_dense, _, on_dense, _ = products(original, before)
    rows, columns = _per_slot(q, visual, unique)
    share = float((rows * columns).sum()) / (visual * width) if visual else 0.0
    executed = (every - of_visual * (1 - share)) * width + every * value_width
    on_executed = (on_visual - own * (1 - share)) * width + on_visual * value_width
    both = width + value_width
    return np.array([all_dense * both, executed, on_dense * both, on_executed])
