"""Energy of an execution: events times energy per event, leakage and idle power times time, DRAM bytes.

* DRAM: `dram.pj_per_byte` for every byte moved.
* Buffers: bytes read and written at the macros' access energy (current x voltage a word), and the macros' leakage for
  the whole time.
* Logic: a component draws its rated power while it is at work, that is mW / MHz nanojoules a cycle, and the fraction
  `energy.idle_fraction` of it otherwise. The array is at work while vectors stream and while it fills or drains.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from focusc.isa.counters import ACTIVITIES, Counters
from focusc.isa.machine import BUFFERS, Machine
from focusc.isa.timing import Timing

__all__ = ["Energy", "energy"]

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Energy:
    """Millijoules by part; the parts sum to `total`."""

    dram: float
    sram: float
    core: float
    components: dict[str, float]
    """Each buffer and logic component, and `dram`."""
    by_command: Floats
    """Each command's own events, plus its share (`Timing.span`) of what runs with time; sums to the total."""

    @property
    def total(self) -> float:
        """All parts."""
        return self.dram + self.sram + self.core

    def to_dict(self) -> dict[str, float]:
        """The four figures of stats.json."""
        return {"dram": self.dram, "sram": self.sram, "core": self.core, "total": self.total}


def energy(machine: Machine, counters: Counters, timing: Timing) -> Energy:
    """Energy in mJ of the execution that `counters` and `timing` describe."""
    seconds = timing.cycles / machine.clock_hz
    share = timing.span / max(timing.cycles, 1)
    parts: dict[str, float] = {}
    dram = (counters.dram_read + counters.dram_write) * (machine.dram.pj_per_byte * 1e-9)
    parts["dram"] = float(dram.sum())
    events: Floats = dram.astype(np.float64)
    running = 0.0
    for name in BUFFERS:
        per_read, per_write = machine.buffer_access_pj_per_byte(name)
        read, written = counters.sram[name]
        dynamic = (read * per_read + written * per_write) * 1e-9
        leakage = machine.buffer_leak_mw(name) * seconds
        parts[f"buffer.{name}"] = float(dynamic.sum()) + leakage
        events = events + dynamic
        running += leakage
    active = dict(counters.active)
    # Fill and drain keep the array clocked: spread over its commands by their vectors.
    fill = timing.stalls["mxu"]["fill"]
    streamed = active["array"].sum()
    active["array"] = active["array"] * (1 + fill / streamed) if streamed else active["array"]
    idle = machine.energy.idle_fraction
    assert set(active) == set(ACTIVITIES)
    for name, part in machine.components.items():
        power = part.power_mw * part.count
        dynamic = active[part.engine] * (power * (1 - idle) / machine.clock_hz)
        always = power * idle * seconds
        parts[name] = float(dynamic.sum()) + always
        events = events + dynamic
        running += always
    sram = sum(parts[f"buffer.{name}"] for name in BUFFERS)
    core = sum(parts[name] for name in machine.components)
    return Energy(parts["dram"], sram, core, parts, events + share * running)
