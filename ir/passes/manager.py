"""Running pipelines: verification, timing, statistics, numbered snapshots, and execution before and after each pass."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from focusc.ir.core import Module
from focusc.ir.diagnostics import UNKNOWN, CompileError, Diagnostic
from focusc.ir.files import SIDECAR
from focusc.ir.interp import interpret
from focusc.ir.passes.registry import (
    ALIASES,
    PACKAGES,
    PASSES,
    Alias,
    Option,
    Pass,
    Stats,
    defpass,
    defpipeline,
    load_all,
    load_pass,
    parse_pipeline,
    pipeline_text,
)
from focusc.ir.resource_file import ResourceTable, replacing, write_resources
from focusc.ir.sampling import compare, seeded_inputs
from focusc.ir.text.printer import print_module
from focusc.ir.verify import verify

__all__ = [
    "ALIASES",
    "PACKAGES",
    "PASSES",
    "Alias",
    "Option",
    "Pass",
    "PassManager",
    "PassRecord",
    "Stats",
    "defpass",
    "defpipeline",
    "load_all",
    "load_pass",
    "parse_pipeline",
    "pipeline_text",
]

TOLERANCE = 1e-3
"""Default of `--verify-each`: largest accepted difference, relative to the larger of 1 and the output's magnitude."""


@dataclass(frozen=True)
class PassRecord:
    """What one pass did."""

    name: str
    options: dict[str, Any]
    stats: Stats
    seconds: float
    ops_before: int
    ops_after: int
    changed: bool

    def text(self) -> str:
        """One line for a report."""
        counts = f"  {self.stats.text()}" if self.stats.counts else ""
        return f"{self.name}: {self.ops_before} -> {self.ops_after} ops, {self.seconds * 1e3:.1f} ms{counts}"


class PassManager:
    """Runs a pipeline: text such as `fuse-nn,concentrate{method=focus}`, or the parsed steps.

    `verify_each` executes the module before the first and after every pass, on `inputs` or on inputs drawn with
    `seed`, and stops at the first pass whose outputs differ by more than `tolerance`. `dump_ir` names a directory for
    snapshots `NN-pass.fir` with one shared resource file; an earlier run's are removed. `on_pass` is called after each
    pass.
    """

    def __init__(
        self,
        pipeline: str | list[tuple[Pass, dict[str, Any]]],
        *,
        verify_each: bool = False,
        inputs: Mapping[str, Any] | None = None,
        seed: int = 0,
        tolerance: float = TOLERANCE,
        dump_ir: str | Path | None = None,
        on_pass: Callable[[PassRecord, Module], None] | None = None,
    ) -> None:
        self.steps = parse_pipeline(pipeline) if isinstance(pipeline, str) else list(pipeline)
        self.verify_each, self.inputs, self.seed, self.tolerance = verify_each, inputs, seed, tolerance
        self.dump_ir = Path(dump_ir) if dump_ir is not None else None
        self.on_pass = on_pass
        self.records: list[PassRecord] = []
        self._table = ResourceTable()
        self._texts: dict[str, str] = {}

    @property
    def stats(self) -> list[tuple[str, Stats]]:
        """Name and counters of each pass that ran."""
        return [(r.name, r.stats) for r in self.records]

    def run(self, module: Module) -> Module:
        """The module after all passes. Every result is verified; an error names the pass it happened in."""
        self.records = []
        self._table, self._texts = ResourceTable(), {}
        inputs: Mapping[str, Any] = {}
        before: dict[str, Any] = {}
        try:
            self._snapshot(0, "input", module)
            if self.verify_each:
                inputs = self.inputs if self.inputs is not None else seeded_inputs(module, self.seed)
                before = interpret(module, inputs)
            for number, (p, options) in enumerate(self.steps, 1):
                try:
                    module = self._step(module, p, options)
                    self._snapshot(number, p.name, module)
                    if self.verify_each and self.records[-1].changed:
                        before = self._check(p, module, inputs, before)
                except CompileError as e:
                    raise self._explain(e, number) from None
        finally:
            self._dump()
        return module

    def _step(self, module: Module, p: Pass, options: dict[str, Any]) -> Module:
        stats = Stats(p.counters)
        start = time.perf_counter()
        result = p.run(module, stats, **options)
        seconds = time.perf_counter() - start
        changed = result is not module
        if changed:
            verify(result)
        record = PassRecord(p.name, options, stats, seconds, _count(module), _count(result), changed)
        self.records.append(record)
        if self.on_pass is not None:
            self.on_pass(record, result)
        return result

    def _check(self, p: Pass, module: Module, inputs: Mapping[str, Any], before: dict[str, Any]) -> dict[str, Any]:
        """Outputs after the pass; CompileError `pass.values` if they differ and the pass must keep them."""
        after = interpret(module, inputs)
        if p.changes_values:
            return after
        found = compare(before, after, max(self.tolerance, p.tolerance))
        if found:
            raise CompileError(
                Diagnostic(
                    "pass.values",
                    f"pass {p.name} changes values: {found[0]}",
                    notes=tuple((UNKNOWN, text) for text in found[1:4]),
                )
            )
        # the first run stays the reference, so that small differences cannot add up unseen; a pass that may round
        # gives the reference for what comes after it
        return after if p.tolerance > self.tolerance else before

    def _snapshot(self, number: int, name: str, module: Module) -> None:
        """Keep the text of a snapshot; `_dump` writes it."""
        if self.dump_ir is not None:
            self.dump_ir.mkdir(parents=True, exist_ok=True)  # now, so that a bad folder is refused before the work
            self._texts[f"{number:02}-{name}.fir"] = print_module(module, table=self._table)

    def _dump(self) -> None:
        """Write the snapshots, whether the passes succeeded or not, then remove those of an earlier run.

        All files are written beside the old ones before the first takes its name, so that a full disk leaves the folder
        as it was; resources get theirs before the texts, so that no text is ever without its weights.
        """
        if self.dump_ir is None or not self._texts:
            return
        with ExitStack() as whole:
            for name, text in self._texts.items():
                whole.enter_context(replacing(self.dump_ir / name)).write(text.encode())
            if self._table.by_name:
                write_resources(self.dump_ir / SIDECAR, self._table.by_name)
        for path in self.dump_ir.iterdir():
            if path.name not in self._texts and _is_snapshot(path.name):
                path.unlink(missing_ok=True)

    def _explain(self, error: CompileError, number: int) -> CompileError:
        """The error with the pass, the passes before it, and how to reproduce it from a snapshot."""
        done = ", ".join(p.name for p, _ in self.steps[: number - 1]) or "none"
        note = (UNKNOWN, f"in pass {self.steps[number - 1][0].name}; passes before it: {done}")
        first, *rest = error.diagnostics
        hint = first.hint
        if self.dump_ir is not None:
            last = f"{number - 1:02}-{self.steps[number - 2][0].name if number > 1 else 'input'}.fir"
            hint = f"{hint}; " if hint else ""
            hint += (
                f"reproduce with {self.dump_ir.name}/{last} and the passes {pipeline_text(self.steps[number - 1 :])}"
            )
        return CompileError([replace(first, notes=(*first.notes, note), hint=hint), *rest])


def _is_snapshot(name: str) -> bool:
    """Whether a file has a name that only `_snapshot` gives: number and pass."""
    found = re.fullmatch(r"\d{2,}-(.+)\.fir", name)
    return found is not None and (found[1] == "input" or found[1] in load_all())


def _count(module: Module) -> int:
    return sum(1 for _ in module.walk())
