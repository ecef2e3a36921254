"""Products computed ahead of their turn: same bytes, same faults, and only where nothing writes the operands."""

from __future__ import annotations

from collections.abc import Iterator
from threading import Event, Thread
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from threadpoolctl import threadpool_info, threadpool_limits

from focusc.isa import Insn, Program
from focusc.isa.emulator import Emulator, ahead, machine
from focusc.isa.emulator.blas import one_thread_each
from focusc.isa.emulator.machine import Session
from focusc.isa.errors import Fault
from focusc.isa.insns import Endl, LdAct, LdWgt, Loop, Mma, St, Tile, VLd, VMuli
from focusc.isa.sequencer import expand
from tests.isa.helpers import Layout

RNG = np.random.default_rng(7)
WEIGHTS = RNG.standard_normal((64, 256)).astype(np.float16)
ROWS, K, N = 8, 64, 16


@pytest.fixture(autouse=True)
def _hand_out_everything(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small products too."""
    monkeypatch.setattr(ahead, "_WORTH", 0)
    yield


def layout() -> Layout:
    found = Layout(w=WEIGHTS)
    found.add("x", "input", (4, ROWS, K))
    found.add("y", "output", (12, ROWS, N))
    return found


def product(at: Layout, x: int, panel: int, tile: int, acc: int = 0, stored: int = 0) -> list[Insn]:
    """tile (+)= x[x] @ a panel of w, or of what is in y if `stored`."""
    weight = LdWgt(at["y"] + 2 * ROWS * N * (panel % 5), k=K, n=N, stride=2 * N)
    if not stored:
        weight = LdWgt(at["w"] + 2 * N * panel, k=K, n=N, stride=512)
    return [LdAct(at["x"] + 2 * ROWS * K * x, rows=ROWS, cols=K, stride=2 * K), weight, Mma(tile, k=K, acc=acc)]


def tiles() -> list[Insn]:
    return [Tile(t, off=t * 4 * ROWS * N, rows=ROWS, cols=N, pitch=N) for t in range(3)]


def start(at: Layout) -> list[Insn]:
    """Tiles and y hold numbers."""
    fill = [insn for t in range(3) for insn in product(at, 0, t, t)]
    return [*tiles(), *fill, *(St(i % 3, at["y"] + 2 * ROWS * N * i, stride=2 * N) for i in range(12))]


X = RNG.standard_normal((4, ROWS, K)).astype(np.float16)


def memory(program: Program, helpers: int) -> bytes:
    """What DRAM and the output buffer hold at the end."""
    session = Emulator(program, helpers=helpers).session({"x": X})
    session.finish()
    mem = session.state.mem
    mem.want_raw(0, len(mem.raw))
    return mem.raw.tobytes() + session.state.obuf[:3 * ROWS * N].tobytes()


# Steps of a random program: a product, a store that may change operands, one between a product's loads and its mma.
COMMAND = st.one_of(
    st.tuples(st.just("mma"), st.integers(0, 3), st.integers(0, 7), st.integers(0, 2), st.integers(0, 1),
              st.integers(0, 1)),
    st.tuples(st.just("st"), st.integers(0, 2), st.sampled_from(["x", "y"]), st.integers(0, 3)),
    st.tuples(st.just("split"), st.integers(0, 3), st.integers(0, 7), st.integers(0, 2), st.integers(0, 3)),
    st.tuples(st.just("muli"), st.integers(0, 2)),
)


@given(st.lists(COMMAND, max_size=24))
@example([("mma", 0, 0, 0, 0, 0), ("mma", 0, 1, 1, 0, 0), ("st", 1, "x", 0), ("mma", 0, 2, 2, 0, 0)])
@example([("split", 0, 0, 0, 0), ("mma", 0, 1, 1, 0, 0)])
@example([("mma", 0, 0, 0, 0, 1), ("st", 0, "y", 1), ("mma", 0, 1, 1, 0, 1)])
def test_results_do_not_depend_on_helpers(commands: list[tuple[Any, ...]]) -> None:
    at = layout()
    text = start(at)
    for what, *args in commands:
        if what == "mma":
            x, panel, tile, acc, stored = args
            text += product(at, x, panel, tile, acc, stored)
        elif what == "st":
            tile, name, place = args
            text.append(St(tile, at[name] + 2 * ROWS * N * place, stride=2 * N))
        elif what == "split":
            x, panel, tile, place = args
            *loads, mma = product(at, x, panel, tile)
            text += [*loads, St(tile, at["x"] + 2 * ROWS * N * place, stride=2 * N), mma]
        else:
            text.append(VMuli(args[0], args[0], imm=0.5))
    program = at.program(text)
    assert memory(program, 0) == memory(program, 2)


def groups(text: list[Insn], at: Layout) -> dict[int, list[int]]:
    found = ahead.followers(expand(at.program(text)), (0, 0))
    return {leader: [number for number, _ in led] for leader, led in found.items()}


def test_columns_follow_the_first_of_them() -> None:
    at = layout()
    text = [*tiles()]
    for panel in range(4):
        text += [*product(at, 0, panel, 0), St(0, at["y"] + 2 * ROWS * N * panel, stride=2 * N)]
    assert groups(text, at) == {0: [1, 2, 3]}


def test_two_activations_in_turn_are_two_groups() -> None:
    at = layout()
    text = [*tiles()]
    for panel in range(3):
        text += [*product(at, 0, panel, 0), *product(at, 1, panel, 1)]
    assert groups(text, at) == {0: [2, 4], 1: [3, 5]}


@pytest.mark.parametrize(("name", "stored"), [("x", 0), ("y", 1)])
def test_a_store_to_an_operand_begins_a_new_group(name: str, stored: int) -> None:
    at = layout()
    text = [*tiles(), *product(at, 0, 1, 0, stored=stored), *product(at, 0, 1, 1, stored=stored),
            St(0, at[name] + 2 * ROWS * N, stride=2 * N), *product(at, 0, 1, 2, stored=stored),
            *product(at, 0, 1, 0, stored=stored)]
    assert groups(text, at) == {0: [1], 2: [3]}


def test_entries_from_before_the_chunk_come_first() -> None:
    at = layout()
    text = [*tiles(), *product(at, 0, 0, 0), *product(at, 0, 1, 1), *product(at, 0, 2, 1)]
    assert list(ahead.followers(expand(at.program(text)), (1, 1))) == [1]
    assert list(ahead.followers(expand(at.program(text)), (0, 0))) == [0]


def test_helpers_compute(monkeypatch: pytest.MonkeyPatch) -> None:
    """The followers' products are handed out, and one that nobody computed yet is computed in place."""
    at = layout()
    text = [*tiles(), Loop(8), *product(at, 0, 0, 0), St(0, at["y"], stride=2 * N), Endl()]
    handed: list[int] = []
    release = ahead.Helpers._release

    def seen(self: ahead.Helpers, a: np.ndarray, led: list[tuple[int, ahead.Panel]]) -> None:
        release(self, a, led)
        handed.append(len(self._ahead))

    monkeypatch.setattr(ahead.Helpers, "_release", seen)
    expected = memory(at.program(text), 0)
    assert memory(at.program(text), 1) == expected and handed == [7]


def test_a_fault_is_at_its_instruction_whatever_was_computed_ahead() -> None:
    at = layout()
    outside = [LdAct(at["x"], rows=ROWS, cols=K, stride=2 * K), LdWgt(1 << 30, k=K, n=N, stride=512), Mma(0, k=K)]
    text = [*tiles(), *product(at, 0, 0, 0), *product(at, 0, 1, 1), *outside, *product(at, 0, 2, 2)]
    program = at.program(text)
    faults: list[tuple[str, int]] = []
    for helpers in (0, 2):
        with pytest.raises(Fault) as caught:
            Emulator(program, helpers=helpers).run({"x": X})
        faults.append((str(caught.value), caught.value.pc))
    assert faults[0] == faults[1] and faults[0][1] == text.index(outside[1])


def test_stepping_and_then_running_gives_the_same() -> None:
    at = layout()
    text = [*start(at), *product(at, 0, 0, 0), *product(at, 0, 1, 1), *product(at, 0, 2, 2),
            *(St(t, at["y"] + 2 * ROWS * N * t, stride=2 * N) for t in range(3))]
    program = at.program(text)
    expected = Emulator(program, helpers=0).run({"x": X}).outputs["y"].tobytes()
    for steps in (0, 5, 40, 47):
        session: Session = Emulator(program, helpers=2).session({"x": X})
        for _ in range(steps):
            session.step()
        session.finish()
        assert session.outputs()["y"].tobytes() == expected


def blas_threads() -> set[int]:
    return {pool["num_threads"] for pool in threadpool_info() if pool["user_api"] == "blas"}


def test_threads_of_the_library_are_given_back() -> None:
    at = layout()
    program = at.program([*tiles(), *product(at, 0, 0, 0), VLd(1)])  # v.ld has nothing to take: a fault
    with threadpool_limits(2, user_api="blas"):
        with pytest.raises(Fault):
            Emulator(program, helpers=1).run({"x": X})
        assert blas_threads() == {2}


def test_every_thread_can_limit_the_library() -> None:
    seen: list[set[int]] = []

    def enter() -> None:
        with one_thread_each():
            seen.append(blas_threads())
        seen.append(blas_threads())

    with threadpool_limits(2, user_api="blas"):
        for _ in range(2):
            enter()
            other = Thread(target=enter)
            other.start()
            other.join()
        assert seen == [{1}, {2}] * 4
        with threadpool_limits(3, user_api="blas"):  # this thread can still limit it by itself
            assert blas_threads() == {3}
        assert blas_threads() == {2}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_threads_that_overlap_leave_the_library_as_it_was(order: tuple[int, int]) -> None:
    inside, leave, left = ([Event(), Event()] for _ in range(3))
    done = Event()

    def enter(number: int) -> None:
        with one_thread_each():
            inside[number].set()
            leave[number].wait(10)
        left[number].set()
        done.wait(10)  # a thread that limited the library may live on

    with threadpool_limits(2, user_api="blas"):
        threads = [Thread(target=enter, args=(number,)) for number in range(2)]
        for number, thread in enumerate(threads):
            thread.start()
            assert inside[number].wait(10)
        for number, expected in zip(order, (1, 2)):
            leave[number].set()
            assert left[number].wait(10) and blas_threads() == {expected}
        with one_thread_each():
            assert blas_threads() == {1}
        assert blas_threads() == {2}
        done.set()
        for thread in threads:
            thread.join()


def test_each_way_and_each_thread_gives_the_same_bytes() -> None:
    """A product that the library would share out, and then sum in another order."""
    rows, k, n = 256, 512, 96
    w = RNG.standard_normal((k, n)).astype(np.float16)
    x = RNG.standard_normal((rows, k)).astype(np.float16)
    at = Layout(w=w)
    at.add("x", "input", (rows, k))
    at.add("y", "output", (rows, n))
    program = at.program([Tile(0, off=0, rows=rows, cols=n, pitch=n), LdAct(at["x"], rows=rows, cols=k, stride=2 * k),
                          LdWgt(at["w"], k=k, n=n, stride=2 * n), Mma(0, k=k), St(0, at["y"], stride=2 * n)])
    emulator = Emulator(program, helpers=0)
    found: list[bytes] = []
    with threadpool_limits(2, user_api="blas"):
        found.append(emulator.run({"x": x}).outputs["y"].tobytes())
        session = emulator.session({"x": x})
        while session.step():
            assert blas_threads() == {2}
        found.append(session.outputs()["y"].tobytes())
        other = Thread(target=lambda: found.append(emulator.run({"x": x}).outputs["y"].tobytes()))
        other.start()
        other.join()
    assert len(set(found)) == 1 and len(found) == 3


def test_a_kept_trace_gives_the_same_again(monkeypatch: pytest.MonkeyPatch) -> None:
    at = layout()
    text = [*start(at), *product(at, 0, 0, 0), *product(at, 0, 1, 1), St(1, at["y"], stride=2 * N)]
    emulator = Emulator(at.program(text), helpers=1)
    first = emulator.run({"x": X}).outputs["y"].tobytes()
    assert emulator.run({"x": X}).outputs["y"].tobytes() == first
    assert emulator.run({"x": -X}).outputs["y"].tobytes() != first
    monkeypatch.setattr(machine, "_KEPT", 10)
    long = Emulator(at.program(text), helpers=1)
    assert [long.run({"x": X}).outputs["y"].tobytes() for _ in range(2)] == [first, first]
