"""Products ahead of their turn: helper threads compute matrix products whose operands are known to be final.

A loop over output columns loads the same activations again and again, next to other weights. When the first of these
products (the leader) is due, so are the operands of the others, as long as nothing writes them before their own turn.
Control never depends on data, so the trace says all of this beforehand (`followers`). The helpers multiply while the
main thread executes vector commands; every `mma` still executes in its place and only finds its product ready.
Each product is the same BLAS call as without helpers, so results do not change.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Any, Final

import numba as nb
import numpy as np
from numpy.typing import NDArray

from focusc.isa.emulator.blas import one_thread_each
from focusc.isa.emulator.memory import Memory
from focusc.isa.errors import Fault
from focusc.isa.insns import BY_MNEMONIC, DTYPES, INSNS
from focusc.isa.program import conc_block
from focusc.isa.sequencer import Trace

__all__ = ["Followers", "Helpers", "Panel", "followers", "spare_cores"]

F32 = NDArray[np.float32]
Ints = NDArray[np.int64]
Panel = tuple[int, int, int, int, int]
"""Address, k, n, stride and whether it is stored transposed: the operands of an f16 `ld.wgt`."""
Followers = dict[int, list[tuple[int, Panel]]]
"""By number of the leading `mma` in the chunk: the numbers of its followers and their weights."""

_MOST_HELPERS: Final = 3
_MOST_ELEMENTS: Final = 1 << 23
"""Elements (32 MiB) of products that are computed and not yet taken."""
_WORTH: Final = 1 << 21
"""Multiply-accumulates (some 50 us) from which a product is worth handing out."""
_LEADERS: Final = 4
"""Activations that are followed at a time: as many as a loop body loads for its products."""
_WRITES_BACK: Final = 64
"""Stores that are looked through for one that changes an operand; with more in between nothing is computed ahead."""
_NOTHING, _LOAD, _FORWARD, _WEIGHT, _MMA, _TAKE, _WRITE, _WRITE_ANY = range(8)


def spare_cores() -> int:
    """How many helpers the machine has room for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores - 1, _MOST_HELPERS)


# -------------------------------------------------------------- what may be computed ahead


def _column(name: str, field: str) -> int:
    return list(BY_MNEMONIC[name].fields).index(field)


def _tables() -> tuple[NDArray[np.uint8], NDArray[np.int8]]:
    """By opcode: what a command does to the streams and to memory; fields that may name the stream head."""
    does, heads = np.zeros(256, np.uint8), np.full((256, 2), -1, np.int8)
    kinds = {"lda": _LOAD, "ldw": _WEIGHT, "mxu": _MMA, "st": _WRITE, "sic": _WRITE, "sec": _WRITE_ANY}
    for opcode, cls in INSNS.items():
        does[opcode] = kinds.get(cls.engine, _NOTHING)
        names = [name for name, item in cls.fields.items() if item.kind == "tile" and "s" in item.access]
        for place, name in enumerate(names):
            heads[opcode, place] = list(cls.fields).index(name)
    does[BY_MNEMONIC["fwd"].opcode] = _FORWARD
    does[BY_MNEMONIC["v.ld"].opcode] = _TAKE
    does[BY_MNEMONIC["sec.fold"].opcode] = does[BY_MNEMONIC["sec.init"].opcode] = _NOTHING
    does[BY_MNEMONIC["st.idx"].opcode] = does[BY_MNEMONIC["host"].opcode] = _WRITE_ANY
    return does, heads


_DOES, _HEADS = _tables()


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


def followers(trace: Trace, waiting: tuple[int, int]) -> Followers:
    """The products of a chunk that can be computed as soon as a leader's is due.

    `waiting` are the entries that the activation and the weight stream hold when the chunk begins. A follower takes an
    activation that was loaded by the same operands as its leader's, and f16 weights; nothing between the two loads of
    the activation, or between the leader and the weights, writes what they read.
    """
    leader, weight = _follow(trace.op, trace.fields, _extents(trace), _DOES, _HEADS, waiting[0], waiting[1],
                             BY_MNEMONIC["ld.act"].opcode, BY_MNEMONIC["ld.conc"].opcode,
                             _column("ld.wgt", "dtype"))
    names = ("addr", "k", "n", "stride", "trans")
    columns = [_column("ld.wgt", name) for name in names]
    groups: Followers = {}
    for number in np.flatnonzero(leader >= 0).tolist():
        address, k, n, stride, trans = trace.fields[weight[number], columns].tolist()
        groups.setdefault(int(leader[number]), []).append((number, (address, k, n, stride, trans)))
    return groups


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
    """(leader of each `mma` or -1, the command that loads its weights), by number of the `mma` in the chunk."""
    count = len(op)
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
                        leader[number], weight[number] = led[known, 0], w
                else:
                    known = turn
                    turn = (turn + 1) % _LEADERS
                if leader[number] < 0:
                    led[known, 0], led[known, 1], led[known, 2] = number, i, a
                    if not _unwritten(op, does, extents, writes, written, a, a):
                        led[known, 2] = -1
            number += 1
    return leader[:number], weight[:number]


# -------------------------------------------------------------- computing it


class _Product:
    """a @ w, computed once by the thread that claims it."""

    __slots__ = ("_claims", "_done", "a", "out", "size", "w")

    def __init__(self, a: F32, w: F32) -> None:
        self.a, self.w = a, w
        self.size = a.shape[0] * w.shape[1]
        self.out: F32 | None = None
        self._claims = [None]
        self._done = Lock()
        self._done.acquire()

    def claim(self) -> bool:
        """True for the one caller that is to compute it (a list's pop is atomic)."""
        try:
            self._claims.pop()
        except IndexError:
            return False
        return True

    def compute(self) -> None:
        """Only after `claim`."""
        try:
            self.out = np.matmul(self.a, self.w)
        except MemoryError:
            pass  # whoever takes it sees that it is not there
        finally:
            self._done.release()

    @property
    def ready(self) -> bool:
        return not self._done.locked()

    def wait(self) -> None:
        """Until `compute` has returned."""
        with self._done:
            pass


class Helpers:
    """Threads that compute products ahead, for one run; `stop` ends them."""

    def __init__(self, count: int, memory: Memory) -> None:
        self.count, self.memory = count, memory
        self.groups: Followers = {}
        self._queue: SimpleQueue[_Product | None] = SimpleQueue()
        self._ahead: dict[int, _Product] = {}
        self._order: deque[_Product] = deque()
        self._elements = 0
        self._threads: list[Thread] = []

    def begin_chunk(self, groups: Followers) -> None:
        """Go on to the next chunk of the trace, whose products are numbered from 0."""
        assert not self._ahead
        self.groups = groups
        self._order.clear()

    def product(self, number: int, a: F32, w: F32, out: F32) -> F32:
        """a @ w of the chunk's `mma` of that number: in `out`, or in an array of its own."""
        led = self.groups.get(number)
        if led is not None:
            self._release(a, led)
        product = self._ahead.pop(number, None)
        if product is None:
            return np.matmul(a, w, out=out)
        self._elements -= product.size
        if product.claim():
            return np.matmul(a, w, out=out)
        while not product.ready:
            other = self._next()
            if other is None:
                product.wait()
                break
            other.compute()
        return product.out if product.out is not None else np.matmul(a, w, out=out)

    def _next(self) -> _Product | None:
        """The next product that nobody computes yet, claimed."""
        while self._order:
            other = self._order.popleft()
            if other.claim():
                return other
        return None

    def _release(self, a: F32, led: list[tuple[int, Panel]]) -> None:
        """Hand out the products that the activations `a` are multiplied by next."""
        self._order.clear()  # products of an older leader: its helpers have them, or their own turn is close
        for number, (address, k, n, stride, trans) in led:
            size = len(a) * n
            if size * k < _WORTH:
                continue
            if self._elements + size > _MOST_ELEMENTS or k != a.shape[1]:
                return
            try:
                w = self.memory.load(address, *((n, k) if trans else (k, n)), stride, "f16")
            except Fault:
                return  # the load itself says what is wrong
            self._elements += size
            product = self._ahead[number] = _Product(a, w.T if trans else w)
            self._order.append(product)
            self._queue.put(product)
        if self._order and not self._threads:
            self._threads = [Thread(target=self._work, daemon=True) for _ in range(self.count)]
            for thread in self._threads:
                thread.start()

    def _work(self) -> None:
        with np.errstate(all="ignore"), one_thread_each():
            while (product := self._queue.get()) is not None:
                if product.claim():
                    product.compute()

    def stop(self) -> None:
        """End the threads."""
        for _ in self._threads:
            self._queue.put(None)
        while self._next() is not None:
            pass  # nobody wants it: claimed, so that no helper starts on it
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._ahead.clear()
