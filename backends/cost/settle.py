"""From a filled ledger to a cost: bandwidth, energy, area and power."""

from __future__ import annotations

from focusc.backends.cost.accounting import Accounting, Quirk
from focusc.backends.cost.hardware import Accelerator
from focusc.backends.cost.interface import Shape
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import Cost, Ledger
from focusc.isa.errors import IsaError

__all__ = ["settle"]

SUMS = ("output",)
"""Buffers that hold partial sums while they grow."""


def settle(ledger: Ledger, shape: Shape, hardware: Accelerator, accounting: Accounting, options: Options) -> Cost:
    """Add what depends on all operations at once.

    Energy as published (cost_model section 5): DRAM bytes at their price, peak power of the buffers and rated power of
    the logic for the whole time; with figures of a memory model, its leakage and the bytes at its access energies,
    where buffers with a negative count are skipped. Corrected: as the emulator (`isa.energy`), bytes at the macros'
    access energy, leakage, and rated power only while at work.
    """
    if Quirk.NO_BANDWIDTH not in accounting:
        ledger.stalls["dram"] += (ledger.dram_bytes / hardware.bytes_per_cycle - ledger.busy).clip(min=0)
    if Quirk.SUMS_UNREAD not in accounting:
        for reads, writes in (ledger.sram[name] for name in SUMS if name in ledger.sram):
            reads += writes
    seconds = float(ledger.busy.sum()) / hardware.clock_hz
    spare = hardware.spare_buffers() if Quirk.SPARE_BUFFERS not in accounting else ()
    area, power, sram = {}, {}, {}
    if options.sram is not None and (unknown := set(hardware.buffers) - set(options.sram.buffers)):
        raise IsaError("cost.sram", f"the buffer figures lack {', '.join(sorted(unknown))}", where=hardware.name)
    for name in hardware.buffers:
        if name in spare:
            continue
        figures = hardware.buffer_figures(name)
        area[name], power[name] = figures.area_mm2, figures.peak_mw
        moved = [float(b.sum()) for b in ledger.sram[name]] if name in ledger.sram else [0.0, 0.0]
        if options.sram is not None:
            given = options.sram.buffers[name]
            area[name], power[name] = given.area_mm2, given.leak_mw
            dynamic = moved[0] * given.read_mj_per_byte + moved[1] * given.write_mj_per_byte if sum(moved) > 0 else 0.0
            sram[name] = dynamic + given.leak_mw * seconds
        elif Quirk.PEAK_SRAM_POWER in accounting:
            sram[name] = figures.peak_mw * seconds
        else:
            dynamic = (moved[0] * figures.read_pj_per_byte + moved[1] * figures.write_pj_per_byte) * 1e-9
            sram[name] = max(dynamic, 0.0) + figures.leak_mw * seconds
    core = {}
    idle = 1.0 if Quirk.CORE_ALWAYS_ON in accounting else hardware.energy.idle_fraction
    for name, part in hardware.components.items():
        rated = part.count * part.power_mw
        at_work = min(float(ledger.active[part.engine].sum()) / hardware.clock_hz, seconds)
        core[name] = rated * (idle * seconds + (1 - idle) * at_work)
        area[name], power[name] = part.count * part.area_mm2, rated
    dram_bytes = float(ledger.dram_bytes.sum())
    spare_bytes = sum(hardware.buffers[name].bytes for name in spare)
    return Cost(
        accelerator=hardware.name, workload=shape.name, accounting=accounting.name, clock_hz=hardware.clock_hz,
        macs_per_cycle=hardware.array.macs_per_cycle,
        compute_by_op=ledger.compute, stalls_by_op=ledger.stalls,
        macs_by_op=ledger.macs, dense_macs_by_op=ledger.dense_macs,
        dram_read_bytes={k: v[0] for k, v in ledger.dram.items()},
        dram_write_bytes={k: v[1] for k, v in ledger.dram.items()},
        sram_read_bytes={k: v[0] for k, v in ledger.sram.items()},
        sram_write_bytes={k: v[1] for k, v in ledger.sram.items()},
        activation_bytes=ledger.activation_bytes, compression_ratio=ledger.compression_ratio,
        dram_mj=dram_bytes * (hardware.dram.pj_per_byte * 1e-9),
        sram_mj_by_buffer=sram, core_mj_by_component=core, area_mm2_by_part=area, power_mw_by_part=power,
        capacity_bytes=options.sram.capacity_bytes if options.sram else hardware.capacity_bytes - spare_bytes,
    )
