"""What a cost model returns: cycles by cause, MACs, bytes by buffer and tensor, energy, area and power."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from focusc.backends.cost.arithmetic import Floats

__all__ = ["CAUSES", "OPS", "Cost", "Ledger"]

OPS: Final = ("q_proj", "k_proj", "v_proj", "attention", "o_proj", "gate_proj", "up_proj", "down_proj", "norm",
              "select")
"""Operations of a decoder layer; `norm` is the vector work between products, `select` the choice of tokens."""
CAUSES: Final = ("scatter", "gather", "tail", "codec", "vector", "select", "dram")
"""Why the array stands still: scatter accumulators, gather of results, gather of the last tile, motion search, vector
work, top-k, DRAM bandwidth."""
ENGINES: Final = ("array", "exp", "mul", "add", "recip", "sqrt", "compare", "norm", "average", "scatter", "fold",
                  "merge", "codec")


class Ledger:
    """Collects quantities per layer and operation while a model runs; every entry is float64[layers, ops].

    Whole numbers stay exact: all sums are below 2**53.
    """

    def __init__(self, layers: int) -> None:
        self.layers = layers
        self.compute = self._zeros()
        self.stalls = {cause: self._zeros() for cause in CAUSES}
        self.macs = self._zeros()
        self.dense_macs = self._zeros()
        self.dram: dict[str, tuple[Floats, Floats]] = {}
        self.sram: dict[str, tuple[Floats, Floats]] = {}
        self.active = {engine: self._zeros() for engine in ENGINES}
        self.activation_bytes = 0.0
        self.compression_ratio: float | None = None

    def _zeros(self) -> Floats:
        return np.zeros((self.layers, len(OPS)))

    def run(self, op: str, compute: Any, *, macs: Any = 0, engine: str = "array") -> None:
        """Cycles that count as computing and multiply-accumulates of an operation; `engine` is what works in them."""
        i = OPS.index(op)
        self.compute[:, i] += compute
        self.active[engine][:, i] += compute
        self.macs[:, i] += macs

    def stall(self, op: str, cause: str, cycles: Any) -> None:
        """Cycles in which the array waits; negative ones count as none."""
        self.stalls[cause][:, OPS.index(op)] += np.maximum(cycles, 0)

    def work(self, op: str, engine: str, cycles: Any) -> None:
        """Cycles in which a unit is at work."""
        self.active[engine][:, OPS.index(op)] += cycles

    def move(self, op: str, tensor: str, read: Any = 0, write: Any = 0) -> None:
        """DRAM bytes of a tensor."""
        self._book(self.dram, op, tensor, read, write)

    def touch(self, op: str, buffer: str, read: Any = 0, write: Any = 0) -> None:
        """Bytes of an on-chip buffer."""
        self._book(self.sram, op, buffer, read, write)

    def _book(self, book: dict[str, tuple[Floats, Floats]], op: str, name: str, read: Any, write: Any) -> None:
        entry = book.setdefault(name, (self._zeros(), self._zeros()))
        for column, amount in zip(entry, (read, write), strict=True):
            column[:, OPS.index(op)] += amount

    @property
    def dram_bytes(self) -> Floats:
        """Bytes moved: float64[layers, ops]."""
        return sum((read + write for read, write in self.dram.values()), self._zeros())

    @property
    def busy(self) -> Floats:
        """Compute and stalls: float64[layers, ops]."""
        return self.compute + sum(self.stalls.values())


@dataclass(frozen=True, eq=False)
class Cost:
    """The cost of one prefill. Arrays are float64[layers, ops], operations as `OPS`; dicts sum to the totals."""

    accelerator: str
    workload: str
    accounting: str
    clock_hz: int
    macs_per_cycle: int
    compute_by_op: Floats
    stalls_by_op: dict[str, Floats]
    """Cause -> cycles."""
    macs_by_op: Floats
    dense_macs_by_op: Floats
    dram_read_bytes: dict[str, Floats]
    """Tensor -> bytes."""
    dram_write_bytes: dict[str, Floats]
    sram_read_bytes: dict[str, Floats]
    """Buffer -> bytes."""
    sram_write_bytes: dict[str, Floats]
    activation_bytes: float
    """The published activation counter: f16 bytes of every product's input, attention scores in full."""
    compression_ratio: float | None
    """Mean of retained tokens over unique vectors, as published (float32); None without a trace of vectors."""
    dram_mj: float
    sram_mj_by_buffer: dict[str, float]
    core_mj_by_component: dict[str, float]
    area_mm2_by_part: dict[str, float]
    """Buffers and logic components."""
    power_mw_by_part: dict[str, float]
    """Peak power of buffers, rated power of logic."""
    capacity_bytes: int

    @property
    def compute_cycles(self) -> float:
        """Cycles in which the array works, its fill and drain included."""
        return float(self.compute_by_op.sum())

    @property
    def stall_cycles_by_cause(self) -> dict[str, float]:
        """Cause -> cycles."""
        return {cause: float(cycles.sum()) for cause, cycles in self.stalls_by_op.items()}

    @property
    def stall_cycles(self) -> float:
        """Cycles in which the array waits."""
        return sum(self.stall_cycles_by_cause.values())

    @property
    def cycles(self) -> float:
        """All cycles."""
        return self.compute_cycles + self.stall_cycles

    @property
    def cycles_by_op(self) -> Floats:
        """Compute and stalls: float64[layers, ops]."""
        return self.compute_by_op + sum(self.stalls_by_op.values())

    @property
    def time_s(self) -> float:
        """Seconds."""
        return self.cycles / self.clock_hz

    @property
    def macs(self) -> float:
        """Multiply-accumulates done."""
        return float(self.macs_by_op.sum())

    @property
    def dense_macs(self) -> float:
        """Multiply-accumulates without any pruning or merging."""
        return float(self.dense_macs_by_op.sum())

    @property
    def dram_bytes(self) -> float:
        """Bytes read and written."""
        return float(sum(b.sum() for b in (*self.dram_read_bytes.values(), *self.dram_write_bytes.values())))

    @property
    def dram_bytes_by_op(self) -> Floats:
        """Bytes read and written: float64[layers, ops]."""
        return sum((*self.dram_read_bytes.values(), *self.dram_write_bytes.values()), np.zeros_like(self.compute_by_op))

    @property
    def sram_mj(self) -> float:
        """Energy of the buffers."""
        return sum(self.sram_mj_by_buffer.values())

    @property
    def core_mj(self) -> float:
        """Energy of the logic."""
        return sum(self.core_mj_by_component.values())

    @property
    def energy_mj(self) -> float:
        """All energy."""
        return self.dram_mj + self.sram_mj + self.core_mj

    @property
    def area_mm2(self) -> float:
        """Buffers and logic."""
        return sum(self.area_mm2_by_part.values())

    @property
    def power_mw(self) -> float:
        """On-chip power with everything at work."""
        return sum(self.power_mw_by_part.values())

    @property
    def utilisation(self) -> float:
        """MACs done of those the array could do in all cycles."""
        return self.macs / (self.cycles * self.macs_per_cycle) if self.cycles else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Totals as plain data; units are in the names."""
        return {
            "accelerator": self.accelerator, "workload": self.workload, "accounting": self.accounting,
            "cycles": self.cycles, "compute_cycles": self.compute_cycles, "stall_cycles": self.stall_cycles,
            "stall_cycles_by_cause": self.stall_cycles_by_cause, "time_s": self.time_s,
            "cycles_by_op": dict(zip(OPS, self.cycles_by_op.sum(axis=0).tolist(), strict=True)),
            "macs": self.macs, "dense_macs": self.dense_macs, "utilisation": self.utilisation,
            "dram_bytes": self.dram_bytes,
            "dram_read_bytes": {k: float(v.sum()) for k, v in self.dram_read_bytes.items()},
            "dram_write_bytes": {k: float(v.sum()) for k, v in self.dram_write_bytes.items()},
            "sram_read_bytes": {k: float(v.sum()) for k, v in self.sram_read_bytes.items()},
            "sram_write_bytes": {k: float(v.sum()) for k, v in self.sram_write_bytes.items()},
            "activation_bytes": self.activation_bytes, "compression_ratio": self.compression_ratio,
            "dram_mj": self.dram_mj, "sram_mj": self.sram_mj, "core_mj": self.core_mj, "energy_mj": self.energy_mj,
            "sram_mj_by_buffer": self.sram_mj_by_buffer, "core_mj_by_component": self.core_mj_by_component,
            "area_mm2": self.area_mm2, "power_mw": self.power_mw, "capacity_bytes": self.capacity_bytes,
            "area_mm2_by_part": self.area_mm2_by_part, "power_mw_by_part": self.power_mw_by_part,
        }
