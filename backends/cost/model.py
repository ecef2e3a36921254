"""The one entrance: a workload, a trace and an accelerator make a cost."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from focusc.backends.cost.accounting import PUBLISHED, Accounting
from focusc.backends.cost.decoder import rows_with_text
from focusc.backends.cost.hardware import Accelerator
from focusc.backends.cost.interface import SITES, VECTOR, CodecSparsity, Shape, TokenSparsity, Trace, site_counts
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import Cost, Ledger
from focusc.backends.cost.settle import settle
from focusc.isa.errors import IsaError

__all__ = ["cost"]


def cost(workload: Shape, trace: Trace, hardware: Accelerator, *, accounting: Accounting = PUBLISHED,
         options: Options | None = None) -> Cost:
    """Cost of one prefill of `workload` on `hardware`.

    `trace`: None for `systolic`, `TokenSparsity` for `adaptiv`, `CodecSparsity` for `cmc`, counts per site for `focus`.
    Raises IsaError: `cost.trace` (a trace of another kind, or of another workload), `cost.workload`, `cost.tile`.
    """
    options = options or Options()
    _check(workload, trace, hardware)
    if not rows_with_text(workload, accounting):
        raise IsaError("cost.workload", "there are no rows to charge: text alone, which this accounting leaves out",
                       where=workload.name)
    ledger = Ledger(workload.layers)
    fill = import_module(f"focusc.backends.{hardware.model}.cost").fill
    fill(ledger, workload, trace, hardware, accounting, options)
    return settle(ledger, workload, hardware, accounting, options)


_NOTHING, _TOKENS, _CODEC, _SITES = (
    "None", "a share of merged tokens (TokenSparsity)", "shares of copied rows (CodecSparsity)",
    "the vectors counted by layer and site (Trace)",
)
_KINDS: Final = {
    "systolic": (_NOTHING, "a dense array skips nothing: pass trace=None"),
    "adaptiv": (_TOKENS, "pass TokenSparsity(tokens), for example TokenSparsity(0.5)"),
    "cmc": (_CODEC, "pass CodecSparsity(linear, query, score), each a share of the rows"),
    "focus": (_SITES, "make one with `focusc trace synth` or `focusc run --record-trace`, and load it with "
              "focusc.backends.trace_file.load(file).trace"),
}
"""By model: the trace that it takes, in words, and how to get one."""


def _kind(trace: object) -> str:
    """What `trace` is, in words."""
    if trace is None:
        return _NOTHING
    if isinstance(trace, TokenSparsity | CodecSparsity):
        return _TOKENS if isinstance(trace, TokenSparsity) else _CODEC
    counted = all(hasattr(trace, name) for name in ("tokens", "retained", "zero", "similar"))
    return _SITES if counted else f"of type {type(trace).__name__}"


def _check(shape: Shape, trace: Trace, hardware: Accelerator) -> None:
    """The trace must be of the kind that the accelerator takes and fit the workload."""
    if shape.heads % shape.kv_heads:
        raise IsaError("cost.workload", f"{shape.heads} heads are no multiple of {shape.kv_heads} kv_heads",
                       where=shape.name)
    if shape.visual_tokens < 1 and hardware.model != "systolic":
        raise IsaError("cost.workload", "there are no visual tokens to merge or prune", where=shape.name,
                       hint="charge it to systolic")
    found, (expected, hint) = _kind(trace), _KINDS[hardware.model]
    if found != expected:
        raise IsaError("cost.trace", f"the trace is {found}, expected {expected}", where=hardware.name, hint=hint)
    if hardware.model != "focus":
        return
    q, widths = shape.heads * shape.head_size, {"q_proj": shape.width, "gate_proj": shape.width, "down_proj": shape.ffn}
    for name in SITES:
        found = site_counts(trace, name)  # type: ignore[arg-type]
        checks = (("layers", len(found.retained), shape.layers), ("visual tokens", found.length, shape.visual_tokens),
                  ("vectors a row", found.vectors, -(-widths.get(name, q) // VECTOR)))
        for what, value, expected in checks:
            if value != expected:
                raise IsaError("cost.trace", f"site {name} has {value} {what}, the workload {shape.name} has "
                               f"{expected}", where="trace")
