"""What of a model can be compiled, and where it would concentrate, before anything is compiled."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from focusc.driver.files import existing

if TYPE_CHECKING:
    from focusc.frontend import OpReport


def ops(model: str | os.PathLike[str], *, layout: Mapping[str, Any] | None = None) -> OpReport:
    """Every node of an ONNX model: supported or not, and why; a layout, if given, is checked as well."""
    from focusc.frontend import check_layout, op_report

    file = existing(model, "ONNX model")
    if layout is not None:
        check_layout(layout)
    return op_report(file)


def concentration_sites(
    model: str | os.PathLike[str], *, layout: Mapping[str, Any] | None = None
) -> list[dict[str, Any]]:
    """The ops that `concentrate=focus` inserts: layer, kind (sic or sec), site, source node, rows, columns."""
    from focusc.driver.compiler import FRONT
    from focusc.driver.load import load_model
    from focusc.ir import PassManager

    module = PassManager(f"{FRONT},concentrate{{method=focus}}").run(load_model(model, layout))
    found: list[dict[str, Any]] = []
    for op in module.walk():
        if op.name not in ("sic.gather", "sec.select"):
            continue
        shape = getattr(op.operands[0].type, "shape", ()) if op.operands[0] is not None else ()
        kind = op.name.split(".")[0]
        found.append(
            {
                "layer": op.attrs["layer"],
                "kind": kind,
                "site": op.attrs["site"] if kind == "sic" else f"keep {op.attrs['k']}",
                "node": op.loc.origin(),
                "rows": shape[-2] if len(shape) > 1 else op.attrs.get("visual_len", ""),
                "columns": shape[-1] if len(shape) > 1 else "",
            }
        )
    return found
