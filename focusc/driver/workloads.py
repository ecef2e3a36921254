"""Workloads by name: listing them, reading one, writing it as a model without weights."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focusc.driver.errors import InputError
from focusc.driver.files import write_error

if TYPE_CHECKING:
    from focusc.backends.workload import Workload


def list_workloads() -> list[dict[str, Any]]:
    """The shipped workloads with their sizes and the names of their variants."""
    from focusc.backends.workload import load_workload as load
    from focusc.backends.workload import shipped, variants

    return [{**load(name).to_dict(), "variants": list(variants(name))} for name in shipped()]


def load_workload(
    name: str | os.PathLike[str], *, variant: str = "", frames: int | None = None, layers: int | None = None
) -> Workload:
    """A shipped workload or a TOML file, with another number of frames or layers if given.

    Raises CompileError `workload.*`. A published schedule is scaled to the number of layers.
    """
    from focusc.backends.workload import load_workload as load

    workload = load(os.fspath(name), variant)
    if frames is not None:
        workload = workload.with_frames(frames)
    if layers is not None:
        workload = dataclasses.replace(workload, layers=layers)
    return workload


def write_workload(workload: Workload, path: str | os.PathLike[str] | None = None) -> dict[str, Any]:
    """Write the workload as a `.fir` module without weights (if `path` is given) and return its facts."""
    facts = {
        **workload.to_dict(),
        "tokens": workload.tokens,
        "retained": [list(pair) for pair in workload.retained()] if workload.visual_tokens else [],
    }
    if path is None:
        return facts
    target = Path(path)
    if target.suffix != ".fir":
        raise InputError(
            "file.suffix", "a workload is written as IR text", where=str(target), hint="end the name in .fir"
        )
    from focusc.backends.prefill import build
    from focusc.ir.files import write_module

    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        write_module(build(workload), target)
    except OSError as error:
        raise write_error(target, error) from error
    return {**facts, "path": str(target), "bytes": target.stat().st_size}
