"""`focusc opt`: passes over one IR file."""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focusc.driver.files import check_outputs, write_error
from focusc.driver.load import load_model
from focusc.driver.passes import check_folder, run_pipeline
from focusc.driver.progress import Progress, silent

if TYPE_CHECKING:
    from focusc.ir import Module


@dataclass(frozen=True)
class Optimised:
    """The module after the passes, and what each counted."""

    module: Module
    steps: list[dict[str, Any]]
    output: str | None

    @property
    def text(self) -> str:
        """The module as text."""
        from focusc.ir import print_module

        return print_module(self.module)

    @property
    def stats_text(self) -> str:
        """One line a pass: its counters."""
        width = max((len(step["name"]) for step in self.steps), default=0)
        lines = []
        for step in self.steps:
            counts = " ".join(f"{key}={value:g}" for key, value in step["counts"].items() if value)
            lines.append(f"{step['name']:<{width}}  {counts or 'nothing to do'}")
        return "\n".join(lines)

    @property
    def data(self) -> dict[str, Any]:
        """For --json; the text is included if it was not written to a file."""
        return {"output": self.output, "passes": self.steps, **({} if self.output else {"text": self.text})}


def opt(
    source: str | os.PathLike[str],
    pipeline: str,
    *,
    output: str | os.PathLike[str] | None = None,
    dump_ir: str | os.PathLike[str] | None = None,
    verify_each: bool = False,
    progress: Progress = silent,
) -> Optimised:
    """Run `pipeline` over an IR file (or an imported ONNX model) and write the result to `output`, if given."""
    check_outputs({"-o": output, "--dump-ir": dump_ir}, {"the model": source})
    if dump_ir is not None:
        check_folder(dump_ir)
    done = run_pipeline(load_model(source), pipeline, dump_ir=dump_ir, verify_each=verify_each, progress=progress)
    if output is not None:
        write_snapshot(done.module, Path(output))
    return Optimised(done.module, done.steps, os.fspath(output) if output is not None else None)


def write_snapshot(module: Module, path: Path) -> None:
    """Write a module's text to `path` and its weights beside it; both appear complete or not at all."""
    from focusc.ir.files import write_module

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{path.name}.", dir=path.parent) as folder:
            write_module(module, Path(folder) / path.name)
            # the text last: a text without its weights would be useless
            for file in sorted(Path(folder).iterdir(), key=lambda item: item.name == path.name):
                os.replace(file, path.parent / file.name)
    except OSError as error:
        raise write_error(path, error) from error
