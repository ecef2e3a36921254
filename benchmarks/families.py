"""Every small family through the whole chain, in both opsets: `make families`.

    python benchmarks/families.py                        the table; status 1 if a figure is missed
    python benchmarks/families.py qwen --opset 23        only variants whose name holds "qwen"
    python benchmarks/families.py --json families.json   all figures as JSON besides

Rungs, each against the one before it:

    export        torch against onnxruntime, largest difference over the largest logit          <= 1e-4
    interpreter   the fused IR (f32) against onnxruntime, relative error of the logits           <= 1e-4
    dense         the dense program on the emulator (f16 storage) against onnxruntime            <= 2e-2, same top-1
    focus         the concentrated program against the interpreter of the concentrated IR: same top-1, and given the
                  same inputs the links of SIC and the selections of SEC                         >= 99.9 %

A rung that fails is reported with its error, and the others go on. Relative error: norm of the difference over the
norm of what was expected, the largest over the samples: the traced one, and others of the same layout.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from decisions import focus_against_interpreter, relative

from focusc.driver import CompileOptions, compile_model, concentration_sites, load_model
from focusc.driver.comparison import Sample, metadata, reference, top1
from focusc.driver.compiler import FRONT
from focusc.driver.execution import Runner
from focusc.driver.passes import run_pipeline
from focusc.export.errors import ExportError
from focusc.export.instances import INSTANCES, Instance, write_config
from focusc.export.layout import from_metadata
from focusc.export.vlm import OPSETS, Request, export_vlm
from focusc.ir import CompileError, Executor
from focusc.isa.errors import IsaError

Array = np.ndarray[Any, np.dtype[Any]]

PARITY, F32_ERROR, F16_ERROR, DECISIONS = 1e-4, 1e-4, 2e-2, 0.999
"""Figures to reach."""
SAMPLES = 3
"""The traced sample and two more of its layout."""
RUNGS = ("export", "interpreter", "dense", "focus")


@dataclass
class Rung:
    """One step: what was found, how long it took, and whether that is enough. `error`: why it could not be done."""

    reached: bool = False
    found: dict[str, Any] = field(default_factory=dict[str, Any])
    seconds: dict[str, float] = field(default_factory=dict[str, float])
    error: str = ""


@dataclass
class Ladder:
    """One variant in one opset."""

    name: str
    opset: int
    rungs: dict[str, Rung] = field(default_factory=dict[str, Rung])
    sites: dict[str, int] = field(default_factory=dict[str, int])
    """Sites found (`sic`), points of pruning (`sec`), what is left out (`none`)."""

    @property
    def reached(self) -> bool:
        """Every figure."""
        return all(name in self.rungs and self.rungs[name].reached for name in RUNGS)


# ---- the rungs


def samples_of(model: Path, count: int = SAMPLES) -> list[Sample]:
    """The sample that was traced, and others: noisy mirrored pixels, text in another order, placeholders in place."""
    with np.load(model.with_suffix(".npz")) as file:
        traced = {name: np.array(file[name]) for name in file.files}
    layout = from_metadata(metadata(model))
    rng, found = np.random.default_rng(0), [Sample(traced)]
    while len(found) < count and layout is not None:
        other = dict(traced)
        for name, value in traced.items():
            if value.dtype.kind == "f":
                other[name] = (0.8 * value[..., ::-1] + 0.4 * rng.standard_normal(value.shape)).astype(value.dtype)
        ids = traced["input_ids"].copy()
        inside = set(ids[0, layout.start : layout.end].tolist())
        text = [i for i in range(ids.shape[1]) if int(ids[0, i]) not in inside]
        ids[0, text] = ids[0, rng.permutation(text)]
        other["input_ids"] = ids
        found.append(Sample(other))
    return found


def export_rung(instance: Instance, opset: int, model: Path) -> Rung:
    """Export and parity with torch."""
    config = write_config(instance.model_type, model.parent / "config.json")
    report = export_vlm(config, model, opset=opset, random_weights=0, request=Request(frames=instance.frames))
    assert report.layout is not None
    parity = report.max_rel if report.max_rel is not None else float("inf")
    facts = {"parity": parity, "nodes": report.nodes, "ops": report.ops, "grid": report.layout.grid,
             "strides": report.layout.strides, "layout": report.layout_source, "sample": report.sample}
    return Rung(parity <= PARITY, facts, {"export": sum(report.seconds.values())})


def interpreter_rung(model: Path, samples: Sequence[Sample]) -> Rung:
    """The module after the passes of every target, in f32."""
    clock = Clock()
    with clock("import"):
        fused = run_pipeline(load_model(model), FRONT).module
    session, run = reference(model), Executor(fused)
    with clock("interpret"):
        found = [run(sample.inputs) for sample in samples]
    with clock("onnxruntime"):
        expected = [session(sample.inputs) for sample in samples]
    error = largest_error(found, expected)
    return Rung(error <= F32_ERROR, {"error": error, "ops": len(list(fused.walk()))}, clock.seconds)


def dense_rung(model: Path, samples: Sequence[Sample]) -> Rung:
    """The dense program."""
    clock = Clock()
    with clock("compile"):
        made = compile_model(model, CompileOptions.load(concentrate="none"))
    runner = Runner(made.program, made.machine)
    with clock("emulate"):
        found = [runner.outputs(sample.inputs) for sample in samples]
    session = reference(model)
    expected = [session(sample.inputs) for sample in samples]
    error = largest_error(found, expected)
    same = [top1(a) == top1(b) for a, b in zip(found, expected, strict=True)]
    facts = {"error": error, "top1": sum(same), "samples": len(samples), "instructions": len(made.program.text)}
    return Rung(error <= F16_ERROR and all(same), facts, clock.seconds)


def focus_rung(model: Path, samples: Sequence[Sample]) -> Rung:
    """The concentrated program; what cannot be concentrated is left out of it."""
    clock = Clock()
    with clock("compile"):
        made = compile_model(model, CompileOptions.load(concentrate="focus"))
    with clock("emulate"):
        found = focus_against_interpreter(made, samples, len(samples))
    same_links = (found["sic_agreement"] * found["sic_links"] + found["sic_ties"]) / max(found["sic_links"], 1)
    facts = {**found, "sic_agreement_or_tied": same_links, "instructions": len(made.program.text)}
    reached = (found["top1"] == 1 and (same_links >= DECISIONS or not found["sic_links"])
               and (found["sec_agreement"] >= DECISIONS or not found["sec_selections"]))
    return Rung(reached, facts, clock.seconds)


def largest_error(found: Sequence[dict[str, Array]], expected: Sequence[dict[str, Array]]) -> float:
    """The largest relative error of any output of any sample."""
    return max(relative(np.asarray(a[name]), b[name]) for a, b in zip(found, expected, strict=True) for name in b)


class Clock:
    """Seconds by step: `with clock("compile"): ...`."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = {}
        self._name, self._start = "", 0.0

    def __call__(self, name: str) -> Clock:
        self._name = name
        return self

    def __enter__(self) -> None:
        self._start = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self.seconds[self._name] = time.perf_counter() - self._start


def attempt(make: Callable[[], Rung]) -> Rung:
    """The rung, or one that says what went wrong; one bad family does not stop the others."""
    try:
        return make()
    except (CompileError, IsaError) as error:
        return Rung(error=error.render())
    except (ExportError, OSError) as error:
        return Rung(error=str(error))
    except Exception as error:  # ours to fix; told like the others
        return Rung(error=f"{type(error).__name__}: {error}")


def climb(instance: Instance, opset: int, folder: Path) -> Ladder:
    """All rungs of one variant; without a model there is nothing to climb."""
    model = folder / f"{instance.name}-{opset}.onnx"
    ladder = Ladder(instance.name, opset)
    ladder.rungs["export"] = attempt(lambda: export_rung(instance, opset, model))
    if ladder.rungs["export"].error:
        return ladder
    samples = samples_of(model)
    ladder.rungs["interpreter"] = attempt(lambda: interpreter_rung(model, samples))
    ladder.rungs["dense"] = attempt(lambda: dense_rung(model, samples))
    ladder.rungs["focus"] = attempt(lambda: focus_rung(model, samples))
    if not ladder.rungs["focus"].error:
        kinds = [site["kind"] for site in concentration_sites(model, concentrate="focus")]
        ladder.sites = {kind: kinds.count(kind) for kind in ("sic", "sec", "none")}
    return ladder


def chosen(names: Sequence[str], opsets: Sequence[int]) -> Iterator[tuple[Instance, int]]:
    """Variants whose name holds one of `names` (all without any), in each opset."""
    for instance in INSTANCES:
        if not names or any(name in instance.name for name in names):
            for opset in opsets:
                yield instance, opset


# ---- what is printed


def cells(ladder: Ladder) -> list[str]:
    """One line of the table."""
    def cell(rung: str, text: Callable[[dict[str, Any]], str]) -> str:
        done = ladder.rungs.get(rung)
        return "" if done is None else "error" if done.error else text(done.found)

    seconds = {name: rung.seconds for name, rung in ladder.rungs.items()}
    spent = [seconds.get(rung, {}).get(step) for rung, step in (
        ("export", "export"), ("interpreter", "import"), ("dense", "compile"), ("dense", "emulate"),
        ("focus", "compile"))]
    found = ladder.sites
    return [
        ladder.name, str(ladder.opset),
        cell("export", lambda f: f"{f['parity']:.0e}"),
        cell("interpreter", lambda f: f"{f['error']:.0e}"),
        cell("dense", lambda f: f"{f['error']:.1e}"),
        cell("dense", lambda f: f"{f['top1']}/{f['samples']}"),
        f"{found['sic']} + {found['sec']}" + (f", {found['none']} not" if found["none"] else "") if found else "",
        cell("focus", lambda f: f"{f['error_mean']:.1e}"),
        cell("focus", lambda f: f"{round(f['top1'] * f['samples'])}/{f['samples']}"),
        cell("focus", lambda f: f"{f['sic_agreement_or_tied']:.2%} of {f['sic_links']:,}"),
        cell("focus", lambda f: f"{f['sec_agreement']:.1%} of {f['sec_selections']}"),
        " ".join("-" if s is None else f"{s:.1f}" for s in spent),
        "reached" if ladder.reached else "MISSED",
    ]


COLUMNS = ("variant", "opset", "export", "interpreter", "dense", "top-1", "sites", "focus", "top-1", "SIC links",
           "SEC selections", "seconds", "")


def show(ladders: Sequence[Ladder]) -> None:
    """The table, then every error."""
    lines = [list(COLUMNS), *(cells(ladder) for ladder in ladders)]
    widths = [max(len(line[i]) for line in lines) for i in range(len(COLUMNS))]
    for line in lines:
        print("  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip())
    print("sites: SIC + SEC; seconds: export, import, compile dense, emulate dense, compile focus")
    for ladder in ladders:
        for name, rung in ladder.rungs.items():
            if rung.error:
                print(f"\n{ladder.name} opset {ladder.opset}, {name}:\n{rung.error}")
    done = sum(ladder.reached for ladder in ladders)
    print(f"\n{done} of {len(ladders)} reach every figure")


def main() -> None:
    """Climb, print, and say by the exit status whether everything was reached."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="parts of variant names; all variants without any")
    parser.add_argument("--opset", type=int, choices=OPSETS, action="append", help="only this one; may be repeated")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all figures")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="leave the models and their samples here")
    options = parser.parse_args()
    ladders: list[Ladder] = []
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) if options.keep is None else options.keep
        folder.mkdir(exist_ok=True)
        for instance, opset in chosen(options.names, options.opset or OPSETS):
            print(f"{instance.name} opset {opset} ...", file=sys.stderr, flush=True)
            ladders.append(climb(instance, opset, folder))
    show(ladders)
    if options.json is not None:
        options.json.write_text(json.dumps([{**asdict(ladder), "reached": ladder.reached} for ladder in ladders],
                                           indent=1) + "\n", encoding="utf-8")
    raise SystemExit(0 if ladders and all(ladder.reached for ladder in ladders) else 1)


if __name__ == "__main__":
    main()
