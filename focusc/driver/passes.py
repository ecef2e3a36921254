"""Running pipelines for the driver: the passes of the IR and of the backends, with progress and a record of each."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focusc.driver.errors import InputError
from focusc.driver.files import write_error
from focusc.driver.progress import Progress, silent

if TYPE_CHECKING:
    from focusc.ir import Module

BACKEND_PASSES = "focusc.backends.passes"


@dataclass(frozen=True)
class Passed:
    """A module after a pipeline, and what each pass did: name, seconds, counts, ops before and after.

    `before_tiling` is the last module that is still target-independent.
    """

    module: Module
    steps: list[dict[str, Any]]
    before_tiling: Module


def run_pipeline(
    module: Module,
    pipeline: str,
    *,
    dump_ir: str | os.PathLike[str] | None = None,
    verify_each: bool = False,
    progress: Progress = silent,
) -> Passed:
    """Run `pipeline`, with snapshots and execution around each pass if wanted; CompileError names the failing pass."""
    from focusc.ir import PassManager
    from focusc.ir.passes.manager import PassRecord

    register_backend_passes()
    done: list[dict[str, Any]] = []

    before_tiling = module

    def note(record: PassRecord, result: Module) -> None:
        nonlocal before_tiling
        if result.attrs.get("level") != "tile":
            before_tiling = result
        done.append(
            {
                "name": record.name,
                "seconds": record.seconds,
                "counts": dict(record.stats.counts),
                "ops_before": record.ops_before,
                "ops_after": record.ops_after,
            }
        )
        progress(record.name, len(done), len(manager.steps))

    where = Path(dump_ir) if dump_ir is not None else None
    manager = PassManager(pipeline, verify_each=verify_each, dump_ir=where, on_pass=note)
    try:
        return Passed(manager.run(module), done, before_tiling)
    except OSError as error:
        if where is None:
            raise
        raise write_error(error.filename or where, error) from error


def register_backend_passes() -> None:
    """Let pipeline text name the backends' passes too."""
    from focusc.ir.passes.manager import PACKAGES

    if BACKEND_PASSES not in PACKAGES:
        PACKAGES.append(BACKEND_PASSES)


def check_folder(path: str | os.PathLike[str]) -> None:
    """InputError if `path` is there and is not a folder."""
    if os.path.exists(path) and not os.path.isdir(path):
        raise InputError(
            "file.folder", "this is a file; a folder for the snapshots was expected", where=os.fspath(path)
        )
