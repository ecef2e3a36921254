"""`focusc demo`: the whole path on the model that is shipped, told as it goes, with everything left in one folder."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from focusc.driver.clips import clip_samples
from focusc.driver.comparison import (
    Column,
    Sample,
    held_out,
    metadata,
    reference,
    reference_column,
    run_columns,
    table,
    top1,
)
from focusc.driver.compiler import Compilation, compile_model
from focusc.driver.execution import Runner
from focusc.driver.exporter import export
from focusc.driver.files import atomic_writer, write_text
from focusc.driver.inspection import objdump
from focusc.driver.options import METHODS, CompileOptions
from focusc.driver.patches import patch_flow
from focusc.driver.progress import Progress, silent
from focusc.driver.snapshots import write_snapshot
from focusc.export.evaluation import Evaluation, evaluation_of

SHOWN = 8
"""Questions whose answers are printed."""


@dataclass
class _Tale:
    """Prints what happens, with the time it took, and remembers which files were made."""

    folder: Path
    say: Callable[[str], None]
    files: dict[str, str] = field(default_factory=dict)
    started: float = field(default_factory=time.perf_counter)

    def step(self, text: str) -> None:
        self.say(f"[{time.perf_counter() - self.started:5.1f} s] {text}")

    def made(self, name: str, what: str) -> Path:
        self.files[name] = what
        return self.folder / name


def demo(
    output: str | os.PathLike[str],
    *,
    model: str = "demo",
    samples: int = 24,
    video: str | os.PathLike[str] | None = None,
    array: str = "pipelined",
    progress: Progress = silent,
    say: Callable[[str], None] = print,
) -> dict[str, Any]:
    """Export, compile dense and concentrated, run held-out questions, compare; returns the comparison and the files.

    Of a clip `video` the model is asked what its adapter has to ask about any clip; there is no right answer then.
    The folder `output` then holds the ONNX model, the programs, IR snapshots, disassembly, statistics, a timeline and
    the picture of the patches of one video.
    """
    questions = clip_samples(Evaluation(model), video)[:samples] if video is not None else None
    folder = Path(output)
    folder.mkdir(parents=True, exist_ok=True)
    tale = _Tale(folder, say)
    path = tale.made(f"{model}.onnx", "the model as exported from torch")
    tale.step(f"export {model} from torch to ONNX")
    say(f"          {export(model, path, progress=progress)}")
    options = _options(tale)
    compiled = {method: _compile(path, method, options, tale, progress) for method in METHODS}
    questions = questions or list(held_out(path, samples))
    kind = "held-out questions" if video is None else f"questions about {os.fspath(video)}"
    tale.step(
        f"answer {len(questions)} {kind} with onnxruntime and on the emulator, {len(METHODS)} programs"
    )
    columns = [reference_column(path, questions), *run_columns(compiled, questions, array, progress)]
    _answers(columns, questions, path, say)
    found = table(columns, questions, path.name, compiled["focus"].machine.name, array)
    _print_table(found, say)
    _look_closer(compiled["focus"], path, questions, columns, tale, array)
    tale.step(f"done; everything is in {folder}/")
    for name, what in tale.files.items():
        say(f"          {name:<22} {what}")
    return {**found, "folder": str(folder), "files": tale.files, "seconds": time.perf_counter() - tale.started}


def _options(tale: _Tale) -> CompileOptions:
    """Compile options with the usual schedule and threshold, written to a file for the reader to change and reuse."""
    from focusc.ir.passes.concentrate import concentrate

    usual = concentrate.options
    chosen = {name: usual[name].default for name in ("schedule", "threshold")}
    config = tale.made("concentrate.toml", "schedule and threshold, for `focusc compile --config`")
    lines = [f"{key} = {json.dumps(value)}" for key, value in chosen.items()]
    write_text(config, "\n".join(["[concentrate]", *lines, ""]))
    tale.say(f"          concentrate: {', '.join(f'{key} {value}' for key, value in chosen.items())}")
    return CompileOptions.load(config)


def _compile(path: Path, method: str, options: CompileOptions, tale: _Tale, progress: Progress) -> Compilation:
    """Compile one method; dense and focus leave their IR and disassembly as well."""
    name = "dense" if method == "none" else method
    keep = method in ("none", "focus")
    dump = tale.made(f"ir-{name}", "IR after every pass") if keep else None
    chosen = options.model_copy(update={"concentrate": {**options.concentrate, "method": method}})
    done = compile_model(path, chosen, dump_ir=dump, progress=progress)
    program = tale.made(f"{name}.fbin", f"the program, concentrate={method}")
    done.program.save(program)
    if keep:
        listing = "\n".join(objdump(program).text(headers=True, symbols=True, source=True))
        write_text(tale.made(f"{name}.lst", "its disassembly with source nodes"), listing + "\n")
    size = program.stat().st_size
    tale.step(f"compile {name}: {len(done.program.text):,} instructions, {size:,} bytes, {done.seconds:.1f} s")
    return done


def _answers(columns: Sequence[Column], questions: Sequence[Sample], path: Path, say: Callable[[str], None]) -> None:
    """Print the first questions with everyone's answer, and the right one if it is known."""
    from focusc.report.tables import answers_table, rendered

    word = _words(path)
    chosen = [column for column in columns if column.method in ("onnxruntime", "none", "focus")]
    rows = []
    for index, question in enumerate(questions[:SHOWN]):
        right = word(question.answer) if question.answer is not None else None
        rows.append((question.text, right, *(word(column.answers[index]) for column in chosen)))
    names = {"none": "emulated dense", "focus": "emulated focus"}
    say(rendered(answers_table(rows, [names.get(column.method, column.method) for column in chosen])))


def _words(path: Path) -> Callable[[int], str]:
    """Token number to word, as the model's adapter knows it."""
    evaluation = evaluation_of(metadata(path))
    return evaluation.answer_text if evaluation is not None else str


def _print_table(found: dict[str, Any], say: Callable[[str], None]) -> None:
    from focusc.report.tables import compare_table, rendered

    say(rendered(compare_table(found)))


def _look_closer(
    focus: Compilation, path: Path, questions: Sequence[Sample], columns: Sequence[Column], tale: _Tale, array: str
) -> None:
    """One question in detail: statistics, timeline, recorded counts, and the picture of its patches."""
    from focusc.report.patches import draw, frames_of

    index = _telling(columns, questions)
    sample = questions[index]
    tale.step(f"look closer at one question: {sample.text}")
    runner = Runner(focus.program, focus.machine)
    result = runner.run(
        sample.inputs, array=array, timeline=tale.made("focus.pftrace", "its timeline (ui.perfetto.dev)")
    )
    result.save_stats(tale.made("focus-stats.json", "cycles, energy, traffic, per-site and per-node figures"))
    result.save_trace(tale.made("focus-trace.npz", "recorded counts, for `focusc simulate`"))
    flow = patch_flow(focus.concentrated, sample.inputs)
    write_snapshot(focus.concentrated, tale.made("concentrated.fir", "the concentrated IR, for `focusc opt`"))
    word = _words(path)
    known = [("answer", word(sample.answer))] if sample.answer is not None else []
    answers = [
        *known,
        ("onnxruntime", word(top1(reference(path)(sample.inputs)))),
        ("emulated focus", word(top1(result.outputs))),
    ]
    picture = draw(flow, frames_of(sample.inputs, flow.grid[0]), question=sample.text, answers=answers)
    with atomic_writer(tale.made("patches.png", "which patches SEC kept and SIC merged")) as file:
        file.write(picture)


def _telling(columns: Sequence[Column], questions: Sequence[Sample]) -> int:
    """The first question that everybody answers rightly, else the first."""
    for index, question in enumerate(questions):
        if all(column.answers[index] == question.answer for column in columns):
            return index
    return 0
