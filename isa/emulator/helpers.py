"""Threads that compute matrix products ahead of their turn, or after it while nobody needs them yet.

`plan` says which; the helpers multiply while the main thread executes vector commands. Each product is the same BLAS
call as without helpers and is in its tile before another command sees that, so results do not change.
"""

from __future__ import annotations

import os
from collections import deque
from queue import SimpleQueue
from threading import Lock, Thread
from typing import Final

import numpy as np
from numpy.typing import NDArray

from focusc.isa.emulator.blas import one_thread_each
from focusc.isa.emulator.memory import Memory
from focusc.isa.emulator.plan import NO_PLAN, Panel, Plan
from focusc.isa.errors import Fault

__all__ = ["Helpers", "multiply", "spare_cores"]

F32 = NDArray[np.float32]

_MOST_HELPERS: Final = 3
_MOST_ELEMENTS: Final = 1 << 23
"""Elements (32 MiB) of products that are computed and not yet taken."""
_WORTH: Final = 1 << 21
"""Multiply-accumulates (some 50 us) from which a product is worth handing out."""
_EVERYTHING: Final = 1 << 62


def spare_cores() -> int:
    """How many helpers the machine has room for."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores - 1, _MOST_HELPERS)


def multiply(a: F32, w: F32, tile: F32, acc: bool, scratch: F32) -> None:
    """tile (+)= a @ w, float32; `scratch` has the tile's shape and is used if the product is added."""
    if acc:
        np.add(tile, np.matmul(a, w, out=scratch), out=tile)
    else:
        np.matmul(a, w, out=tile)


class _Product:
    """a @ w, computed once by the thread that claims it: an array of its own, or what a tile receives."""

    __slots__ = ("_claims", "_done", "a", "acc", "out", "size", "tile", "w")

    def __init__(self, a: F32, w: F32, tile: F32 | None = None, acc: bool = False) -> None:
        self.a, self.w, self.tile, self.acc = a, w, tile, acc
        self.size = a.shape[0] * w.shape[1]
        # Of a late product: where it is computed if it is added, allocated while its command can still be blamed.
        self.out: F32 | None = np.empty((a.shape[0], w.shape[1]), np.float32) if acc else tile
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
            if self.out is None or self.tile is None:
                self.out = np.matmul(self.a, self.w)
            else:
                multiply(self.a, self.w, self.tile, self.acc, self.out)
        except MemoryError:
            self.out = None  # whoever takes it sees that it is not there
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
    """Threads that compute products, for one run; `stop` ends them."""

    def __init__(self, count: int, memory: Memory) -> None:
        self.count, self.memory = count, memory
        self.plan = NO_PLAN
        self._queue: SimpleQueue[_Product | None] = SimpleQueue()
        self._ahead: dict[int, _Product] = {}
        self._order: deque[_Product] = deque()
        self._late: list[tuple[int, _Product]] = []
        self._elements = 0
        self._threads: list[Thread] = []

    def begin_chunk(self, found: Plan) -> None:
        """Go on to the next chunk of the trace, whose products and commands are numbered from 0."""
        assert not self._ahead and not self._late
        self.plan = found
        self._order.clear()

    def multiply(self, number: int, a: F32, w: F32, tile: F32, acc: bool, scratch: F32) -> None:
        """tile (+)= a @ w, the chunk's `mma` of that number: at once, or until `settle` for the command that is due.

        `scratch` has the shape of the tile and is used if the product is added.
        """
        led = self.plan.followers.get(number)
        if led is not None:
            self._release(a, led)
        product = self._ahead.pop(number, None)
        if product is not None:
            self._elements -= product.size
            found = self._taken(product)
            if found is not None:
                if acc:
                    np.add(tile, found, out=tile)
                else:
                    np.copyto(tile, found)
                return
        elif (due := self.plan.late.get(number)) is not None and self._postpone(a, w, tile, acc, due):
            return
        multiply(a, w, tile, acc, scratch)

    def _taken(self, product: _Product) -> F32 | None:
        """A product that was handed out; None if it is for the caller to compute."""
        if product.claim():
            return None
        while not product.ready:
            other = self._next()
            if other is None:
                product.wait()
                break
            other.compute()
        return product.out

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
            product = self._ahead[number] = _Product(a, w.T if trans else w)
            self._order.append(product)
            self._hand_out(product)

    def _postpone(self, a: F32, w: F32, tile: F32, acc: bool, due: int) -> bool:
        """Hand out a product that nobody needs before command `due`; False if it is not worth it."""
        if tile.size * a.shape[1] < _WORTH or self._elements + tile.size > _MOST_ELEMENTS:
            return False
        product = _Product(a, w, tile, acc)
        self._late.append((due, product))
        self._hand_out(product)
        return True

    def _hand_out(self, product: _Product) -> None:
        self._elements += product.size
        self._queue.put(product)
        if not self._threads:
            self._threads = [Thread(target=self._work, daemon=True) for _ in range(self.count)]
            for thread in self._threads:
                thread.start()

    def settle(self, command: int) -> None:
        """Finish the late products that the chunk's command of that number must see."""
        waiting: list[tuple[int, _Product]] = []
        for due, product in self._late:
            if due > command:
                waiting.append((due, product))
                continue
            self._elements -= product.size
            if product.claim():
                product.compute()
            if self._taken(product) is None and product.tile is not None:
                multiply(product.a, product.w, product.tile, product.acc, np.empty_like(product.tile))
        self._late = waiting

    def _work(self) -> None:
        with np.errstate(all="ignore"), one_thread_each():
            while (product := self._queue.get()) is not None:
                if product.claim():
                    product.compute()

    def stop(self) -> None:
        """Finish what is late and end the threads."""
        for _ in self._threads:
            self._queue.put(None)
        self.settle(_EVERYTHING)
        while self._next() is not None:
            pass  # nobody wants it: claimed, so that no helper starts on it
        for thread in self._threads:
            thread.join()
        self._threads = []
        self._ahead.clear()
