"""What a target has units for, seen from one op and the hardware description, before anything is lowered."""

from __future__ import annotations

from collections.abc import Iterator

from focusc.backends.options import SLOT
from focusc.ir import Diagnostic, Op, TensorType
from focusc.isa.machine import Machine

MOVES = frozenset(
    f"tensor.{name}"
    for name in (
        "constant", "reshape", "transpose", "slice", "concat", "cast", "expand", "tile", "pad",
        "gather", "gather_nd", "gather_elements", "scatter_nd",
    )
) | {"sec.compact"}
"""Ops that only move elements, of whatever type."""


def _elements(op: Op) -> Iterator[Diagnostic]:
    """The machine computes on f16 and f32, and has no tiles without rows or columns."""
    if op.name == "host.call":
        return
    types = [v.type for v in (*op.operands, *op.results) if v is not None]
    empty = next((t for t in types if isinstance(t, TensorType) and not t.size), None)
    if empty is not None:
        yield Diagnostic(
            "lower.empty",
            f"{op.name} works on {empty}, which has no elements; a tile has at least one",
            op.loc,
            hint="leave the empty part out of the model",
        )
    computed = [v.type for v in op.results if isinstance(v.type, TensorType) and v.type.dtype not in ("f16", "f32")]
    if computed and op.name not in MOVES:
        yield Diagnostic(
            "lower.dtype",
            f"{op.name} gives {computed[0]}; the machine computes on f16 and f32",
            op.loc,
            hint="compute it in the host program and give it as an input",
        )


def _convolutions(op: Op) -> Iterator[Diagnostic]:
    """What fuse-windows and fuse-patch-embed leave of convolutions."""
    if op.name != "tensor.conv":
        return
    w, dilations = op.operands[1], op.attrs["dilations"]
    assert w is not None and isinstance(w.type, TensorType)
    if w.type.rank > 5:
        found, expected = f"{w.type.rank - 2} spatial axes", "at most 3, which the address generator walks"
    elif any(d != 1 for d in dilations):
        found = f"dilations {list(dilations)} of windows over several channels"
        expected = "1, since the address generator has no other"
    else:
        found, expected = "weights that are computed", "constant weights"
    yield Diagnostic(
        "lower.conv",
        f"convolution with {found}; expected {expected}",
        op.loc,
        hint="write it as a product of gathered windows, or run it in the host program",
    )


def illegal(op: Op, machine: Machine) -> Iterator[Diagnostic]:
    """Every reason why `machine` cannot run `op` as it stands: what it computes on, and what its units can do."""
    yield from _elements(op)
    yield from _convolutions(op)
    a = op.attrs
    sec, sic = op.name in ("sec.importance", "sec.select"), op.name in ("sic.gather", "sic.scatter")
    if (sec and not machine.sec.present) or (sic and not machine.sic.present):
        yield Diagnostic(
            "target.concentrate",
            f"{op.name} needs the {'semantic' if sec else 'similarity'} concentrator, which the target {machine.name} "
            f"does not have ({'sec' if sec else 'sic'}.present)",
            op.loc,
            hint="choose --target focus, or --concentrate none",
        )
    entries = machine.sec.importance_entries
    if op.name == "sec.importance" and a["visual_len"] > entries:
        yield Diagnostic(
            "target.importance",
            f"layer {a['layer']} ranks {a['visual_len']} visual tokens; the importance buffer of {machine.name} holds "
            f"{entries} (sec.importance_entries)",
            op.loc,
            hint="give the model fewer frames, prune in an earlier layer, or enlarge sec.importance_entries",
        )
    controls = {"sec.importance": ("importance", "attention"), "sic.gather": ("links", "cosine")}
    if op.name in controls and a[controls[op.name][0]] != controls[op.name][1]:
        option, only = controls[op.name]
        yield Diagnostic(
            "target.control",
            f"{option} = {a[option]} is a control of the interpreter; the machine has {option} = {only}",
            op.loc,
            hint=f"concentrate with {option}={only}; focusc.ir.interpret runs the control",
        )
    if op.name == "sic.gather" and a["vector"] != SLOT:
        yield Diagnostic(
            "target.vector",
            f"vector is {a['vector']} columns; the similarity concentrator compares {SLOT}, the width of a slot",
            op.loc,
            hint=f"concentrate with vector={SLOT}; focusc.ir.interpret runs other widths",
        )
