"""A compiled program against the closed form: cycles, MACs, bytes and energy of every operation, and why they differ.

The program is timed with the array model `scalesim`, the closed form is the corrected accounting of the same workload
and trace. The size of every cause is computed from shapes, the trace and the tiles that the compiler chooses
(`choices`), never from what the program counted, so that what is left checks both sides.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from focusc.backends.cost.accounting import CORRECTED
from focusc.backends.cost.crosscheck.buffers import Accesses, accesses
from focusc.backends.cost.crosscheck.comparison import CAUSES, Comparison
from focusc.backends.cost.crosscheck.energy import parts, total
from focusc.backends.cost.crosscheck.kernels import cycles, other_reads, written
from focusc.backends.cost.crosscheck.products import attention, linear, select
from focusc.backends.cost.crosscheck.program import execute, label
from focusc.backends.cost.crosscheck.sides import Sides
from focusc.backends.cost.hardware import Accelerator
from focusc.backends.cost.interface import TraceCounts
from focusc.backends.cost.model import cost
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import OPS
from focusc.backends.workload import Workload
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.machine import Machine
from focusc.isa.program import Program
from focusc.isa.site_counts import SiteCounts

__all__ = ["CAUSES", "Check", "Comparison", "cross_check"]


@dataclass(frozen=True)
class Check:
    """`rows`: all comparisons. `waits_program` and `waits_model`: cycles in which the array waits, by cause; the causes
    are each model's own, and fill and drain are array cycles in both."""

    rows: list[Comparison]
    waits_program: dict[str, float]
    waits_model: dict[str, float]


def cross_check(program: Program, machine: Machine, workload: Workload, trace: TraceCounts | None,
                counts: DynamicCounts | SiteCounts | None, hardware: Accelerator) -> Check:
    """Compare a compiled decoder with its closed form, summed over the layers.

    Rows of an operation are in cycles, MACs and bytes; those of `total` are the whole program's, those of `energy` are
    its parts in millijoules. `trace` is None for the dense array; `counts` (of the program's sites) are None unless it
    merges vectors. Raises IsaError as `simulate` and `cost` do.
    """
    options = Options(similarity=counts is not None)
    found = cost(workload, trace, hardware, accounting=CORRECTED, options=options)
    s = Sides(execute(program, machine, counts), found, workload, trace, hardware, machine, options, counts)
    made: dict[tuple[str, str], Comparison] = {}

    def note(rows: Iterable[Comparison]) -> dict[str, float]:
        """Count rows in; the causes of array cycles."""
        array: dict[str, float] = {}
        for row in rows:
            if row.quantity == "array cycles":
                array = row.causes
            made.setdefault((row.op, row.quantity), Comparison(row.op, row.quantity, 0.0, 0.0)).add(row)
        return array

    moved: list[Accesses] = []
    for layer in range(workload.layers):
        for op in OPS:
            array: dict[str, float] = {}
            if op in s.products:
                array = note(linear(s, layer, s.products[op]))
            elif op != "norm":
                array = note({"attention": attention, "select": select}[op](s, layer))
            note(cycles(s, layer, op, array))
            note(other_reads(s, layer, op))
            note(written(s, layer, op))
            inside = list(accesses(s, layer, op))
            note(Comparison(label(op), f"on chip, {one.buffer}", float(one.program.sum()), float(one.model.sum()),
                            {name: float(size.sum()) for name, size in one.causes.items()}) for one in inside)
            moved += inside
    order = list(dict.fromkeys(label(op) for op in OPS))
    rows = sorted((row for row in made.values() if row.program or row.model), key=lambda row: order.index(row.op))
    totals = {row.quantity: row for row in total(s, rows)}
    waits = {cause: float(count) for cause, count in s.executed.timing.stalls["mxu"].items() if cause != "fill"}
    return Check([*rows, *totals.values(), *parts(s, totals, moved)], waits, found.stall_cycles_by_cause)
