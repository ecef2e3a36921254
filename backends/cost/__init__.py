"""Analytic cost models of the accelerators behind one interface: `cost(workload, trace, hardware)`."""

from __future__ import annotations

from focusc.backends.cost.accounting import CORRECTED, PUBLISHED, Accounting, Quirk
from focusc.backends.cost.hardware import ACCELERATORS, Accelerator, load_accelerator, parse_accelerator
from focusc.backends.cost.interface import SITES, CodecSparsity, Shape, SiteCounts, TokenSparsity, Trace, TraceCounts
from focusc.backends.cost.model import cost
from focusc.backends.cost.options import Options, SramFigures, SramTable
from focusc.backends.cost.result import CAUSES, OPS, Cost

__all__ = [
    "ACCELERATORS", "Accelerator", "Accounting", "CAUSES", "CORRECTED", "CodecSparsity", "Cost", "OPS", "Options",
    "PUBLISHED", "Quirk", "SITES", "Shape", "SiteCounts", "SramFigures", "SramTable", "TokenSparsity", "Trace",
    "TraceCounts", "cost", "load_accelerator", "parse_accelerator",
]
