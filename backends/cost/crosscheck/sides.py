"""Both sides of a cross-check, and the facts that causes are computed from: rows, tiles, and what runs alone."""

from __future__ import annotations

from math import prod

import numpy as np

from focusc.backends.cost.accounting import CORRECTED
from focusc.backends.cost.arithmetic import ceil
from focusc.backends.cost.attention import plan_online
from focusc.backends.cost.crosscheck.choices import Blocks, Choices
from focusc.backends.cost.crosscheck.program import Executed
from focusc.backends.cost.decoder import Product, products
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import Ints, TraceCounts
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import OPS, Cost, Ledger
from focusc.backends.focus.cost_run import Run
from focusc.backends.workload import Workload
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.machine import Machine
from focusc.isa.site_counts import SiteCounts

__all__ = ["ACCUMULATOR", "B", "Sides"]

B = ELEMENT_BYTES
ACCUMULATOR = 4
"""Bytes of an f32."""
NORM_WORDS = 4
"""f32 words a row that a normalisation keeps beside it."""


class Sides:
    """One cross-check: the program's figures, the closed form's, and what both were given."""

    def __init__(self, executed: Executed, found: Cost, workload: Workload, trace: TraceCounts | None,
                 hardware: Accelerator, machine: Machine, options: Options,
                 counts: DynamicCounts | SiteCounts | None) -> None:
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
        self.choices = Choices(workload, trace, counts, hardware, machine, self.block)
        self._blocks: dict[int, Blocks] = {}

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
        """Row tiles of a linear layer in the program, as the mapping cuts them."""
        return float(self.choices.mapping(p, self.rows(p.op, layer)).rows.pieces)

    def column_tiles(self, layer: int, p: Product) -> float:
        """Column tiles of a linear layer in the program, as the mapping cuts them."""
        return float(ceil(p.n, self.choices.mapping(p, self.rows(p.op, layer)).n))

    def columns(self, layer: int, p: Product) -> float:
        """Column tiles of a linear layer in the program for each of the closed form's."""
        return self.column_tiles(layer, p) / float(ceil(p.n, self.tiles.n))

    def blocks(self, layer: int) -> Blocks:
        """What the blocks of attention take in the program, as its tiles are chosen."""
        if layer not in self._blocks:
            self._blocks[layer] = self.choices.blocks(layer, int(self.before[layer]))
        return self._blocks[layer]

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

    def share(self, layer: int) -> float:
        """Unique query vectors over all, as the closed form has it."""
        cols = self.online.groups * float(ceil(self.workload.head_size, self.array.rows))
        rows = cols * float(self.online.sums.row_groups[layer])
        filled = 2 * cols * float(self.online.sums.key_groups[layer]) * self.array.overhead_cycles
        return (float(self.found.compute_by_op[layer, OPS.index("attention")]) - rows - filled) / rows

    def selects(self, layer: int) -> bool:
        """Whether the closed form chooses tokens in a layer."""
        return bool(self.found.compute_by_op[layer, OPS.index("select")])

    def apart(self, layer: int, op: str) -> tuple[str, ...]:
        """Kernels of an operation beside that of its product (`Whole.apart`), as shapes and room decide."""
        rows, behind = self.rows(op, layer), int(self.after[layer])
        if op in ("q_proj", "k_proj") and self.choices.turned_apart(self.products[op], rows):
            if op == "k_proj" or not self.merging:
                return ("rotary",)
            return "rotary", "direct" if self.choices.turned_direct(rows) else "gather"
        if op == "attention" and self.merging and not self.choices.attention(rows)[0].direct:
            return ("gather",)
        if op == "select":
            moved = bool(layer > 0 and self.before[layer] < self.before[layer - 1])
            return (*("tables", "tables") * moved, *("compact",) * (behind < rows))
        return ()

    def fills(self, layer: int, p: Product) -> bool:
        """Whether one tile of a linear layer fills the output buffer, so that there is no second one."""
        found = self.choices.mapping(p, self.rows(p.op, layer))
        return 2 * ACCUMULATOR * found.n * found.rows.most > self.hardware.buffers["output"].bytes

    def norm_tiles(self, rows: int) -> float:
        """Row tiles of a normalisation whose result is stored as it is."""
        room = self.hardware.buffers["output"].bytes // (ACCUMULATOR * (self.workload.width + NORM_WORDS))
        return float(ceil(rows, min(room, self.tiles.m)))
