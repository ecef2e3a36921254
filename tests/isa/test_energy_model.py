"""Energy: hand-computed events, parts that add up, and what may not happen."""

from __future__ import annotations

import numpy as np
import pytest

from focusc.isa import Insn, Program
from focusc.isa.counters import Counters, count
from focusc.isa.energy import Energy, energy
from focusc.isa.insns import LdAct, LdWgt, Mma, St, Tile, VAdd, VCopy, VExp, VFill, VMask, VMul, VRsum
from focusc.isa.machine import BUFFERS, Machine
from focusc.isa.timing import Timing, simulate
from tests.isa.timing_programs import concentrated, counts, gemm, machine, program


def spend(
    found: Program, hardware: Machine, *unique: int, rows: int = 0, array: str = "scalesim"
) -> tuple[Energy, Counters, Timing]:
    recorded = counts(rows, *unique) if unique else None
    timing = simulate(found, hardware, recorded, array=array)
    counted = count(timing.trace, timing.work, hardware)
    return energy(hardware, counted, timing), counted, timing


def test_dram_energy_is_99_98_pj_a_byte() -> None:
    spent, counted, _ = spend(gemm(64, 96, 48, store=True), machine())
    moved = 2 * (64 * 96 + 96 * 48 + 64 * 48)
    assert int(counted.dram_read.sum() + counted.dram_write.sum()) == moved
    assert spent.dram == pytest.approx(moved * 99.98e-9)


def test_dense_gemm_events_by_hand() -> None:
    rows, k, n = 64, 96, 48
    _, counted, _ = spend(gemm(rows, k, n, store=True), machine())
    groups, slices = 2, 3
    assert int(counted.macs.sum()) == rows * k * n
    assert int(counted.passes.sum()) == groups * slices
    assert int(counted.rows.sum()) == rows * groups * slices
    total = {name: (int(read.sum()), int(written.sum())) for name, (read, written) in counted.sram.items()}
    assert total["activation"] == (rows * 32 * 2 * groups * slices, rows * k * 2)
    assert total["weights"] == (k * n * 2, k * n * 2)
    # every slice writes the tile; all but the first read it; the store reads it once more
    assert total["output"] == (4 * rows * n * (slices - 1 + 1), 4 * rows * n * slices)
    assert total["partial"] == total["layouter"] == total["map"] == total["table"] == (0, 0)


def test_concentrated_gemm_events_by_hand() -> None:
    rows, n, unique = 64, 40, (10, 30)
    _, counted, _ = spend(concentrated(rows, 2, n), machine(), *unique, rows=rows)
    groups, slots = 2, 2
    assert int(counted.macs.sum()) == sum(unique) * 32 * n
    assert int(counted.scatter_adds.sum()) == rows * n * slots
    block = slots * (4 + 2 * rows) + 64 * sum(unique)
    weights = 2 * 64 * n
    assert int(counted.dram_write.sum()) == block
    assert int(counted.dram_read.sum()) == block + weights
    total = {name: (int(read.sum()), int(written.sum())) for name, (read, written) in counted.sram.items()}
    assert total["partial"] == (rows * 32 * 2 * groups * slots, sum(unique) * 32 * 2 * groups)
    detect = rows * 64 * 2 + rows * slots * 2
    # the grid is 1 x 1 x rows, so only 2 of the block's 8 members exist: one comparison reads the layouter
    assert total["layouter"] == (detect, detect)
    # written by `sic` and again when `ld.conc` brings it back
    assert total["map"] == (rows * 2 * groups * slots, 2 * rows * 2 * slots)
    assert total["table"] == (rows * 64 * 2 + sum(unique) * 64, rows * 64 * 2)


@pytest.mark.parametrize(
    ("insn", "read", "written"),
    [
        (VRsum(d=2, a=0), 64 * 32, 64),
        (VRsum(d=2, a=0, acc=1), 64 * 32 + 64, 64),
        (VMul(d=1, a=0, b=2), 64 * 32 + 64, 64 * 32),
        (VAdd(d=1, a=0, b=3), 64 * 32 + 32, 64 * 32),
        (VCopy(d=1, a=3), 32, 64 * 32),
        (VMask(d=1, row0=0, col0=0), 64 * 32, 64 * 32),
        (VFill(d=3, imm=0.0), 0, 32),
    ],
)
def test_a_vector_command_touches_each_window_at_its_own_shape(insn: Insn, read: int, written: int) -> None:
    shapes = ((64, 32), (64, 32), (64, 1), (1, 32))
    tiles = [Tile(t=t, off=t << 14, rows=rows, cols=cols, pitch=cols) for t, (rows, cols) in enumerate(shapes)]
    _, counted, _ = spend(program([*tiles, insn]), machine())
    got = counted.sram["output"]
    assert (int(got[0].sum()), int(got[1].sum())) == (4 * read, 4 * written)


def test_vector_units_burn_their_rated_energy() -> None:
    hardware = machine(energy={"idle_fraction": 0.0})
    spent, _, _ = spend(program([Tile(t=0, off=0, rows=192, cols=10, pitch=10), VExp(d=0, a=0)]), hardware)
    # 1920 elements over 192 lanes of 0.41 mW: 10 cycles of all lanes
    assert spent.components["exp"] == pytest.approx(192 * 0.41 * 10 / 500e6)
    assert spent.components["mul"] == spent.components["array"] == 0


def test_a_busy_array_draws_its_rated_power() -> None:
    hardware = machine(energy={"idle_fraction": 0.0})
    spent, _, _ = spend(gemm(1024, 32, 32), hardware)
    assert spent.components["array"] == pytest.approx(324.3681 * (1024 + 93) / 500e6)


@pytest.mark.parametrize("array", ["scalesim", "pipelined"])
def test_parts_and_commands_add_up(array: str) -> None:
    for found, unique, rows in (
        (gemm(200, 100, 96, 3, store=True), (), 0),
        (concentrated(64, 3, 40, 4), (9, 64, 1), 64),
    ):
        spent, _, _ = spend(found, machine(), *unique, rows=rows, array=array)
        assert spent.total == pytest.approx(spent.dram + spent.sram + spent.core)
        assert spent.total == pytest.approx(sum(spent.components.values()))
        assert spent.total == pytest.approx(float(spent.by_command.sum()))
        assert spent.sram == pytest.approx(sum(spent.components[f"buffer.{name}"] for name in BUFFERS))
        assert min(spent.components.values()) >= 0 and spent.by_command.min() >= 0


def test_logic_never_exceeds_its_rated_power_nor_falls_below_idle() -> None:
    hardware = machine()
    spent, _, timing = spend(gemm(1024, 1024, 96), hardware, array="pipelined")
    for name, part in hardware.components.items():
        rated = part.power_mw * part.count * timing.time_s
        assert rated * 0.1 - 1e-15 <= spent.components[name] <= rated * (1 + 1e-9)


def test_more_compression_costs_less_energy() -> None:
    spent = [spend(concentrated(256, 4, 96, 5), machine(), *[unique] * 4, rows=256)[0] for unique in (256, 128, 32)]
    for part in ("dram", "sram", "total"):
        values = [getattr(item, part) for item in spent]
        assert values == sorted(values, reverse=True) and len(set(values)) == 3


def test_a_faster_clock_leaks_less_in_all() -> None:
    text = [
        Tile(t=0, off=0, rows=512, cols=96, pitch=96),
        LdAct(addr=0, rows=512, cols=64, stride=128),
        LdWgt(addr=0, k=64, n=96, stride=192),
        Mma(t=0, k=64),
        St(a=0, addr=0, stride=192),
    ]
    slow, quick = (spend(program(text), machine(clock_hz=clock))[2].time_s for clock in (250_000_000, 500_000_000))
    assert quick < slow
    assert np.isfinite([slow, quick]).all()
