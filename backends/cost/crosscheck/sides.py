"""Both sides of a cross-check, and the facts that causes are computed from: rows, tiles, and what runs alone."""

from __future__ import annotations

from math import prod

import numpy as np

from focusc.backends.cost.accounting import CORRECTED
from focusc.backends.cost.arithmetic import ceil
from focusc.backends.cost.attention import plan_online
from focusc.backends.cost.crosscheck.program import Executed
from focusc.backends.cost.decoder import Product, products
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import Ints, TraceCounts
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import OPS, Cost, Ledger
from focusc.backends.focus.cost_run import Run
from focusc.backends.workload import Workload
from focusc.isa.machine import Machine

__all__ = ["ACCUMULATOR", "B", "Sides"]

B = ELEMENT_BYTES
ACCUMULATOR = 4
"""Bytes of an f32."""
NORM_WORDS = 4
"""f32 words a row that a normalisation keeps beside it."""


class Sides:
    """One cross-check: the program's figures, the closed form's, and what both were given."""

    def __init__(self, executed: Executed, found: Cost, workload: Workload, trace: TraceCounts | None,
                 hardware: Accelerator, machine: Machine, options: Options) -> None:
        self.machine = machine
        self.executed, self.found, self.workload, self.hardware = executed, found, workload, hardware
        self.array, self.tiles, self.options = hardware.array, hardware.tiles, options
        every = np.full(workload.layers, workload.visual_tokens + workload.text_tokens, np.int64)
        self.before: Ints = every if trace is None else trace.retained[:, 0] + workload.text_tokens
        self.after: Ints = every if trace is None else trace.retained[:, 3] + workload.text_tokens
        self.online = plan_online(workload, hardware, CORRECTED, self.before, self.tiles.m)
        ledger = Ledger(workload.layers)
        self.run = None if trace is None else Run(ledger, workload, trace, hardware, CORRECTED, options)
        self.merging = self.run is not None and self.run.merging
        self.products = {p.op: p for p in products(workload)}
        self.block = prod(min(2, extent) for extent in workload.grid) if options.block == 8 else options.block

    def rows(self, op: str, layer: int) -> int:
        """Rows of an operation: the feed-forward block works on what is left after the pruning of its layer."""
        return int((self.after if op in ("gate_proj", "up_proj", "down_proj") else self.before)[layer])

    def width(self, op: str) -> int:
        """Columns of an operation's result."""
        return self.products[op].n if op in self.products else self.workload.heads * self.workload.head_size

    def table(self, layer: int) -> float:
        """Bytes of the cosines or sines of a layer's rows."""
        return float(self.before[layer] * self.workload.head_size * B)

    def passes(self, p: Product) -> float:
        """Array passes of one row tile of a linear layer."""
        return float(ceil(p.k, self.array.rows) * ceil(p.n, self.array.cols))

    def row_tiles(self, layer: int, p: Product) -> float:
        """Row tiles of a linear layer in the program."""
        return self.executed.part(layer, p.op).passes / self.passes(p)

    def read(self, layer: int, op: str, *tensors: str) -> float:
        """DRAM bytes that the closed form reads."""
        read = self.found.dram_read_bytes
        return float(sum(read[name][layer, OPS.index(op)] for name in tensors if name in read))

    def write(self, layer: int, op: str) -> float:
        """DRAM bytes that the closed form writes."""
        return float(sum(written[layer, OPS.index(op)] for written in self.found.dram_write_bytes.values()))

    def moving(self, moved: float) -> float:
        """Cycles of DRAM bytes that move while nothing else does."""
        return moved / self.hardware.bytes_per_cycle

    def gathering(self, layer: int, op: str) -> float:
        """Cycles of the similarity concentrator for an operation's result."""
        rows, text = self.rows(op, layer), self.workload.text_tokens
        return (self.block * (rows - text) + text) * float(ceil(self.width(op), self.array.cols))

    def fills(self, layer: int, p: Product) -> bool:
        """Whether one tile of a linear layer fills the output buffer, so that there is no second one."""
        part = self.executed.part(layer, p.op)
        tiles = part.runs * self.passes(p) / max(part.passes, 1.0)
        columns = 32 * -(-p.n // int(32 * tiles))
        height = min(-(-self.rows(p.op, layer) // int(self.row_tiles(layer, p))), self.tiles.m)
        return 2 * ACCUMULATOR * columns * height > self.hardware.buffers["output"].bytes

    def norm_tiles(self, rows: int) -> float:
        """Row tiles of a normalisation whose result is stored as it is."""
        room = self.hardware.buffers["output"].bytes // (ACCUMULATOR * (self.workload.width + NORM_WORDS))
        return float(ceil(rows, min(room, self.tiles.m)))
