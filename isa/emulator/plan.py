"""What helper threads may compute, found in a chunk of the trace before it is executed.

A loop over output columns loads the same activations again and again, next to other weights. When the first of these
products (the leader) is due, so are the operands of the others, as long as nothing writes them before their own turn.
Other products, such as P @ V, cannot be known before; but if the commands behind them leave the tile alone (the softmax
of the next block of scores), they can be late. Control never depends on data, so the trace says all of this.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.insns import BY_MNEMONIC, DTYPES, INSNS
from focusc.isa.program import conc_block
from focusc.isa.sequencer import Trace

__all__ = ["NO_PLAN", "Followers", "Panel", "Plan", "plan"]

Ints = NDArray[np.int64]
Panel = tuple[int, int, int, int, int]
"""Address, k, n, stride and whether it is stored transposed: the operands of an f16 `ld.wgt`."""
Followers = dict[int, list[tuple[int, Panel]]]
"""By number of the leading `mma` in the chunk: the numbers of its followers and their weights."""


class Plan(NamedTuple):
    """What helpers may do in one chunk of the trace."""

    followers: Followers
    late: dict[int, int]
    """By number of an `mma` that can wait: the first command (its place in the chunk) that must see its product."""
    stops: list[int]
    """Those commands, ascending."""


NO_PLAN: Final = Plan({}, {}, [])

_LEADERS: Final = 4
"""Activations that are followed at a time: as many as a loop body loads for its products."""
_WRITES_BACK: Final = 64
"""Stores that are looked through for one that changes an operand; with more in between nothing is computed ahead."""
_LATEST: Final = 64
"""Commands by which a product can be late."""
_NOTHING, _LOAD, _FORWARD, _WEIGHT, _MMA, _TAKE, _WRITE, _WRITE_ANY = range(8)


def _column(name: str, field: str) -> int:
    return list(BY_MNEMONIC[name].fields).index(field)


def _tables() -> tuple[NDArray[np.uint8], NDArray[np.int8], NDArray[np.int8]]:
    """By opcode: what a command does to the streams and to memory; fields that may name the stream head; all tiles."""
    does, heads, tiles = np.zeros(256, np.uint8), np.full((256, 2), -1, np.int8), np.full((256, 3), -1, np.int8)
    kinds = {"lda": _LOAD, "ldw": _WEIGHT, "mxu": _MMA, "st": _WRITE, "sic": _WRITE, "sec": _WRITE_ANY}
    for opcode, cls in INSNS.items():
        does[opcode] = kinds.get(cls.engine, _NOTHING)
        names = [name for name, item in cls.fields.items() if item.kind == "tile" and "s" in item.access]
        for place, name in enumerate(names):
            heads[opcode, place] = list(cls.fields).index(name)
        for place, name in enumerate(name for name, item in cls.fields.items() if item.kind == "tile"):
            tiles[opcode, place] = list(cls.fields).index(name)
    does[BY_MNEMONIC["fwd"].opcode] = _FORWARD
    does[BY_MNEMONIC["v.ld"].opcode] = _TAKE
    does[BY_MNEMONIC["sec.fold"].opcode] = does[BY_MNEMONIC["sec.init"].opcode] = _NOTHING
    does[BY_MNEMONIC["st.idx"].opcode] = does[BY_MNEMONIC["host"].opcode] = _WRITE_ANY
    return does, heads, tiles


_DOES, _HEADS, _TILES = _tables()
_WORKS: Final = np.array([code in INSNS and INSNS[code].engine in ("mxu", "vec", "sic", "sec", "st")
                          for code in range(256)])
"""By opcode: whether a command keeps the main thread busy."""


def _extents(trace: Trace) -> Ints:
    """[n, 2]: the DRAM bytes that a load reads or a store writes; all of memory where that is not said here."""
    found = np.zeros((len(trace), 2), np.int64)
    found[:, 1] = np.iinfo(np.int64).max

    def put(name: str, extent: Callable[[dict[str, Ints]], Any]) -> None:
        rows = np.flatnonzero(trace.op == BY_MNEMONIC[name].opcode)
        values = {field: trace.fields[rows, at] for at, field in enumerate(BY_MNEMONIC[name].fields)}
        if len(rows):
            found[rows, 0] = values["addr"]
            found[rows, 1] = values["addr"] + extent(values)

    def window(tile: Ints) -> Ints:
        return trace.tiles[np.maximum(tile, 0)]

    found[trace.op == BY_MNEMONIC["fwd"].opcode, 1] = 0
    # Four bytes an element, the widest type: an overlap too many only costs time.
    put("ld.act", lambda v: (v["rows"] - 1) * v["stride"] + 4 * v["cols"])
    put("ld.conc", lambda v: v["slots"] * conc_block(v["cap"]))
    put("ld.wgt", lambda v: np.where(v["trans"] == 1, (v["n"] - 1) * v["stride"] + 4 * v["k"],
                                     (v["k"] - 1) * v["stride"] + 4 * v["n"]))
    if len(trace.tiles):
        put("st", lambda v: np.where(v["a"] >= 0, (window(v["a"])[:, 1] - 1) * v["stride"] + 4 * window(v["a"])[:, 2],
                                     np.int64(1) << 62))
        put("sic", lambda v: -(-window(v["a"])[:, 2] // 32) * conc_block(v["cap"]))
    return found


def plan(trace: Trace, waiting: tuple[int, int]) -> Plan:
    """The products of a chunk that can be computed as soon as a leader's is due, and those that can be late.

    `waiting` are the entries that the activation and the weight stream hold when the chunk begins. A follower takes an
    activation that was loaded by the same operands as its leader's, and f16 weights; nothing between the two loads of
    the activation, or between the leader and the weights, writes what they read. A late product is one with work for
    the main thread behind it that neither touches its tile nor writes its operands.
    """
    extents = _extents(trace)
    leader, mma, act, weight = _follow(trace.op, trace.fields, extents, _DOES, _HEADS, waiting[0], waiting[1],
                                       BY_MNEMONIC["ld.act"].opcode, BY_MNEMONIC["ld.conc"].opcode,
                                       _column("ld.wgt", "dtype"))
    names = ("addr", "k", "n", "stride", "trans")
    columns = [_column("ld.wgt", name) for name in names]
    groups: Followers = {}
    for number in np.flatnonzero(leader >= 0).tolist():
        address, k, n, stride, trans = trace.fields[weight[number], columns].tolist()
        groups.setdefault(int(leader[number]), []).append((number, (address, k, n, stride, trans)))
    due = _due(trace.op, trace.fields, trace.tiles, extents, _DOES, _TILES, _WORKS, mma, act, weight,
               _column("mma", "t"))
    late = {number: int(due[number]) for number in np.flatnonzero((due >= 0) & (leader < 0)).tolist()}
    return Plan(groups, late, sorted(set(late.values())))


assert DTYPES[0] == "f16"


@nb.njit(cache=True)
def _unwritten(op: Any, does: Any, extents: Any, writes: Any, written: int, since: int, load: int) -> bool:
    """Whether no store after command `since` changes what command `load` reads."""
    back = written - 1
    while back >= 0 and writes[back] > since:
        x = writes[back]
        if written - back > _WRITES_BACK or does[op[x]] == _WRITE_ANY:
            return False
        if extents[x, 0] < extents[load, 1] and extents[load, 0] < extents[x, 1]:
            return False
        back -= 1
    return True


@nb.njit(cache=True)
def _follow(op: Any, fields: Any, extents: Any, does: Any, heads: Any, acts: int, wgts: int, dense: int, conc: int,
            dtype: int) -> Any:
    """By number of the `mma` in the chunk: its leader or -1, its command, those that give its activation and weights.

    The last two are -1 where they come before the chunk.
    """
    count = len(op)
    mma, gives = np.empty(count, np.int64), np.empty(count, np.int64)
    act, wgt = np.full(acts + count, -1, np.int64), np.full(wgts + count, -1, np.int64)
    act_in, act_out, wgt_in, wgt_out = acts, 0, wgts, 0
    leader, weight = np.full(count, -1, np.int64), np.full(count, -1, np.int64)
    led = np.full((_LEADERS, 3), -1, np.int64)  # number of the mma, its command, the command of its activation
    writes = np.empty(count, np.int64)
    written = number = turn = 0
    for i in range(count):
        what = does[op[i]]
        for place in range(2):
            if heads[op[i], place] >= 0 and fields[i, heads[op[i], place]] < 0:
                act_out += 1
        if what in (_LOAD, _FORWARD):
            act[act_in] = i
            act_in += 1
        elif what == _WEIGHT:
            wgt[wgt_in] = i
            wgt_in += 1
        elif what == _TAKE:
            act_out += 1
        elif what in (_WRITE, _WRITE_ANY):
            writes[written] = i
            written += 1
            for g in range(_LEADERS):
                a = led[g, 2]
                if a >= 0 and (what == _WRITE_ANY or (extents[i, 0] < extents[a, 1] and extents[a, 0] < extents[i, 1])):
                    led[g, 2] = -1
        elif what == _MMA:
            if act_out >= act_in or wgt_out >= wgt_in:
                break  # a fault, when it comes to it
            a, w = act[act_out], wgt[wgt_out]
            act_out += 1
            wgt_out += 1
            mma[number], gives[number], weight[number] = i, a, w
            if a >= 0 and w >= 0 and (op[a] == dense or op[a] == conc) and fields[w, dtype] == 0:
                known = -1
                for g in range(_LEADERS):
                    if led[g, 2] >= 0 and op[led[g, 2]] == op[a]:
                        same = True
                        for j in range(fields.shape[1]):
                            same = same and fields[led[g, 2], j] == fields[a, j]
                        if same:
                            known = g
                            break
                if known >= 0:
                    if _unwritten(op, does, extents, writes, written, min(w, led[known, 1]), w):
                        leader[number] = led[known, 0]
                else:
                    known = turn
                    turn = (turn + 1) % _LEADERS
                if leader[number] < 0:
                    led[known, 0], led[known, 1], led[known, 2] = number, i, a
                    if not _unwritten(op, does, extents, writes, written, a, a):
                        led[known, 2] = -1
            number += 1
    return leader[:number], mma[:number], gives[:number], weight[:number]


@nb.njit(cache=True)
def _due(op: Any, fields: Any, tiles: Any, extents: Any, does: Any, tile_fields: Any, works: Any, mma: Any, act: Any,
         weight: Any, target: int) -> Any:
    """By number of the `mma`: the first command behind it that must see its product; -1 if no work lies between."""
    due = np.full(len(mma), -1, np.int64)
    for number in range(len(mma)):
        i, a, w = mma[number], act[number], weight[number]
        if a < 0 or w < 0:
            continue
        own = tiles[fields[i, target]]
        low, high = own[0], own[0] + 4 * ((own[1] - 1) * own[3] + own[2])
        busy = False
        j, last, seen = i + 1, min(len(op), i + 1 + _LATEST), False
        while j < last:
            for place in range(tile_fields.shape[1]):
                column = tile_fields[op[j], place]
                if column >= 0 and fields[j, column] >= 0:
                    t = tiles[fields[j, column]]
                    seen = seen or (t[0] < high and low < t[0] + 4 * ((t[1] - 1) * t[3] + t[2]))
            if does[op[j]] == _WRITE_ANY:
                seen = True
            elif does[op[j]] == _WRITE:
                for x in (a, w):
                    seen = seen or (extents[j, 0] < extents[x, 1] and extents[x, 0] < extents[j, 1])
            if seen:
                break
            busy = busy or works[op[j]]
            j += 1
        if busy:
            due[number] = j
    return due
