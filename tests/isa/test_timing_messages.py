"""Messages of the timing model and of recorded counts as golden texts."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from focusc.backends.hardware import load_hardware
from focusc.isa import Program, expand
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.insns import Endl, Halt, Insn, LdAct, LdWgt, Loop, Mma, SecInit, Sic, Tile, VAdd, VLd
from focusc.isa.machine import Machine
from focusc.isa.site_counts import sites_of
from focusc.isa.timing import simulate
from tests.arrays import save_arrays
from tests.isa.timing_programs import concentrated, counts, gemm, machine, program
from tests.messages import check_message
from tests.unchecked import unchecked

TILE = Tile(t=0, off=0, rows=4, cols=32, pitch=32)
LOAD = LdAct(addr=0, rows=4, cols=32, stride=64)


def timed(text: list[Insn], on: Machine | None = None, recorded: DynamicCounts | None = None) -> Callable[[], object]:
    return lambda: simulate(program(text), on or machine(), recorded)


def without_add() -> Machine:
    uses = {name: value for name, value in machine().to_dict()["sfu"]["uses"].items() if name != "add"}
    return machine(sfu={"uses": uses})


def small_output() -> Machine:
    return machine(buffers={"output": {**machine().to_dict()["buffers"]["output"], "bytes": 196608}})


LARGE = [Tile(t=0, off=0, rows=1024, cols=64, pitch=64), LdAct(addr=0, rows=1024, cols=64, stride=128)]
STUCK = [LARGE[0], Loop(count=5), LARGE[1], Endl(), Loop(count=5), VLd(d=0), Endl()]
CASES: dict[str, Callable[[], object]] = {
    "timing.array": lambda: simulate(program([TILE]), machine(), array=unchecked("fast")),
    "timing.stream": timed([TILE, VLd(d=0)]),
    "timing.shape": timed([TILE, LOAD, LdWgt(addr=0, k=31, n=32, stride=64), Mma(t=0, k=32)]),
    "timing.engine": timed([SecInit(n=4)], load_hardware("systolic")),
    "timing.buffer": lambda: simulate(gemm(1024, 32, 96), small_output()),
    "timing.buffer-importance": timed([SecInit(n=200)], machine(sec={"importance_entries": 100})),
    "timing.config": timed([TILE, Sic(a=0, addr=0, cap=8, row0=0)], None, counts(4, 4)),
    "timing.counts": lambda: simulate(concentrated(8, 1, 8), machine()),
    "timing.deadlock": timed(STUCK, machine(queue_depth=2)),
    "hardware.description-unit": timed([TILE, VAdd(d=0, a=0, b=0)], without_add()),
}


@pytest.mark.parametrize("name", CASES)
def test_timing(name: str, request: pytest.FixtureRequest) -> None:
    check_message(name, CASES[name], request, hide=r"(?<=from cycle )\d+")


RECORDED = {
    "counts.unique": counts(8, 9),
    "counts.shape": counts(7, 4),
    "counts.order": DynamicCounts(),
}


@pytest.mark.parametrize("name", RECORDED)
def test_counts(name: str, request: pytest.FixtureRequest) -> None:
    found = concentrated(8, 1, 8)
    check_message(name, lambda: RECORDED[name].check(found, expand(found)), request)


def test_files_of_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    counts(8, 4).save("t.npz", concentrated(8, 1, 8))
    other, digests = concentrated(8, 1, 9), r"\b[0-9a-f]{12}\b"
    found = DynamicCounts.load("t.npz")
    check_message("counts.program", lambda: simulate(other, machine(), found), request, hide=digests)
    with np.load("t.npz") as data:
        arrays = dict(data)
    save_arrays("new.npz", arrays | {"focusc_counts": np.array(99, np.int64)})
    check_message("counts.version", lambda: DynamicCounts.load("new.npz"), request)
    np.savez("no.npz", rows=np.zeros(3))
    check_message("counts.format", lambda: DynamicCounts.load("no.npz"), request)


def test_a_site_table_without_numbers(request: pytest.FixtureRequest) -> None:
    """The container checks the table on loading; a program that is built in Python has not been through it."""
    table = {"sites": [{"layer": 0, "site": "query", "tokens": 8, "retained": "all", "slots": 2}]}
    made = Program([TILE, Halt()], b"", [], 0, hardware=machine().to_dict(), meta=table)
    check_message("counts.sites", lambda: sites_of(made), request)
