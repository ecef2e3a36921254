"""Accuracy and MAC sparsity of concentration on the demo model's held-out questions: `python benchmarks/accuracy.py`.

Every row is a set of options of the pass `concentrate`; answers come from the interpreter, in float32. The part of the
model before the decoder does not depend on the row and runs once for each question; the dense rows are answered by
onnxruntime, with which the interpreter agrees to 1e-5. Controls ask whether the signals
matter: pruning and linking at random at the same rates, inverted or evenly spaced importance, and plain dropping of
frames or patches. The last part is the comparison of importance with random pruning on the split `transient`, which was
fixed before any model was trained (see docs/concentration.md).
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from focusc.ir import Executor, Module, Rewriter
from focusc.ir.concentration.sites import SiteObserver, find_decoder_layers, macs
from focusc.ir.passes.concentrate import concentrate

MID = "[1:0.5,2:0.4,3:0.3,4:0.2,5:0.1]"
HARD = "[0:0.5,1:0.4,2:0.3,3:0.2,4:0.1]"
SEEDS = 16
"""Variants of a random control; question i uses variant i % SEEDS."""


@dataclass(frozen=True)
class Row:
    """One line of the table; `n` questions of `split`."""

    name: str
    options: dict[str, Any]
    n: int
    split: str = "heldout"
    group: str = "concentration"

    @property
    def random(self) -> bool:
        """True if the row has random variants."""
        return "random" in (self.options.get("importance"), self.options.get("links"))


def rows(scale: float = 1.0) -> list[Row]:
    """The table. Less important rows ask fewer questions; the counts are multiples of the seven families."""
    full, half, few = (max(7, 7 * round(n * scale / 7)) for n in (2100, 350, 210))
    sparse = max(2, round(2048 * scale))

    def focus(schedule: str, threshold: float, **more: Any) -> dict[str, Any]:
        return {"method": "focus", "schedule": schedule, "threshold": threshold, **more}

    table = [
        Row("dense", {"method": "none"}, full),
        Row("sec mid", {"method": "sec", "schedule": MID}, half),
        Row("sec hard", {"method": "sec", "schedule": HARD}, half),
        Row("sec published", {"method": "sec"}, half),
        *(Row(f"sic {t}", {"method": "sic", "threshold": t}, few) for t in (0.95, 0.9, 0.8)),
        *(Row(f"focus mid {t}", focus(MID, t), full if t == 0.9 else few) for t in (0.95, 0.9, 0.8)),
        Row("focus hard 0.9", focus(HARD, 0.9), few),
        Row("focus default 0.95", {**DEFAULT, "threshold": 0.95}, full),
        Row("focus default", DEFAULT, full),
    ]
    control = {"group": "controls near the default's budget"}
    table += [
        Row("random pruning", {**DEFAULT, "importance": "random"}, half, **control),
        Row("uniform pruning", {**DEFAULT, "importance": "uniform"}, half, **control),
        Row("inverse importance", {**DEFAULT, "importance": "inverse"}, half, **control),
        Row("random links", {**DEFAULT, "links": "random"}, half, **control),
        Row("every 8th frame", {"method": "none", "frames": 8}, half, **control),
        Row("every 3rd row and column", {"method": "none", "patches": 3}, half, **control),
        Row("every 2nd frame, sic", {"method": "sic", "frames": 2, "threshold": 0.9}, half, **control),
        Row("every 2nd row and column, sic", {"method": "sic", "patches": 2, "threshold": 0.9}, half, **control),
    ]
    for name, schedule in (("hard", HARD), ("5 % from layer 0", "[0:0.05]")):
        group = {"split": "transient", "group": f"transient, {name}"}
        for importance in ("attention", "random", "uniform", "inverse"):
            main = name == "hard" and importance in ("attention", "random")
            n = sparse if main else max(2, sparse // 4)
            table.append(
                Row(f"{importance}", {"method": "sec", "schedule": schedule, "importance": importance}, n, **group)
            )
    return [*table, Row("dense", {"method": "none"}, sparse, "transient", "transient, hard")]


def candidates(scale: float = 1.0) -> list[Row]:
    """What `--tune` compares on the split `validation`, to choose DEFAULT without looking at the held-out test."""
    n = max(11, 11 * round(1100 * scale / 11))
    table = [Row("dense", {"method": "none"}, n, "validation")]
    for name, schedule in (("published", "published:llava-video"), ("mid", MID), ("hard", HARD)):
        for threshold in (0.95, 0.9, 0.85):
            options = {"method": "focus", "schedule": schedule, "threshold": threshold}
            table.append(Row(f"focus {name} {threshold}", options, n, "validation"))
    return table


DEFAULT: dict[str, Any] = {"method": "focus"}
"""The pass's own defaults; no setting did better on the split `validation`, see docs/concentration.md."""


def split_before_decoder(module: Module) -> tuple[Module, Module]:
    """(front, decoder): the module cut where the residual stream enters decoder layer 0, value `hidden`."""
    front, decoder = module.clone(), module.clone()
    hidden = find_decoder_layers(front)[0].hidden
    end = front.body.terminator
    assert end is not None
    for i in reversed(range(len(end.operands))):
        end.set_operand(i, None)
    end.operands = []
    end.operands.append(hidden)
    hidden.add_use(end)
    front.outputs = ["hidden"]
    entering = find_decoder_layers(decoder)[0].hidden
    rewriter = Rewriter(decoder)
    rewriter.replace_uses(entering, decoder.body.add_argument(entering.type, "hidden"))
    for part in (front, decoder):
        sweep(part)
    decoder.body.args = [a for a in decoder.body.args if a.users]
    return front, decoder


def sweep(module: Module) -> None:
    """Remove ops whose results nobody reads."""
    rewriter = Rewriter(module)
    for op in reversed(list(module.body.ops)):
        if op.spec.pure and not op.spec.terminator and not any(v.users for v in op.results):
            rewriter.erase(op)


class Bench:
    """A loaded model in one process: executors for all rows."""

    def __init__(self, onnx: str, table: list[Row], seeds: int = SEEDS) -> None:
        import onnxruntime

        threads = onnxruntime.SessionOptions()
        threads.intra_op_num_threads = threads.inter_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(onnx, threads, providers=["CPUExecutionProvider"])
        self.inputs = [i.name for i in self.session.get_inputs()]
        self.table = table
        self.front, decoder = split_before_decoder(load(onnx))
        self.prefix = Executor(self.front)
        self.wanted = [a.name for a in decoder.args]
        self.observers: list[SiteObserver] = []
        self.modules: list[Module] = []
        self.executors: list[list[Executor]] = []
        for row in table:
            variants = [concentrate(decoder, **row.options, seed=s) for s in range(seeds if row.random else 1)]
            watchers = [SiteObserver(m) for m in variants]
            self.executors.append([Executor(m, w) for m, w in zip(variants, watchers, strict=True)])
            self.modules.append(variants[0])
            self.observers.append(watchers[0])

    def ask(self, split: str, start: int, count: int) -> list[tuple[int, int, str, list[int | None]]]:
        """(index, expected token, family, tokens answered by row) of questions [start, start + count) of a split."""
        from focusc.models.demo.data import samples

        out = []
        for index, item in enumerate(samples(split, count, start=start), start=start):
            inputs: dict[str, Any] = {"pixel_values": item.pixel_values, "input_ids": item.input_ids}
            taken = {a.name: inputs[a.name] for a in self.front.args}
            inputs["hidden"] = self.prefix(taken)["hidden"]
            given = {name: inputs[name] for name in self.wanted}
            answers: list[int | None] = []
            for row, executors in zip(self.table, self.executors, strict=True):
                if row.split != split or index >= row.n:
                    answers.append(None)
                    continue
                if row.options == {"method": "none"}:
                    (logits,) = self.session.run(None, {k: inputs[k] for k in self.inputs})
                else:
                    (logits,) = executors[index % len(executors)](given).values()
                scores = np.asarray(logits)
                answers.append(int(scores.reshape(-1, scores.shape[-1])[-1].argmax()))
            out.append((index, item.answer_id, item.family, answers))
        return out


def load(onnx: str) -> Module:
    """The module that concentration starts from."""
    from focusc.driver.compiler import FRONT
    from focusc.driver.load import load_model
    from focusc.ir import PassManager

    return PassManager(FRONT).run(load_model(onnx))


_bench: Bench


def _start(onnx: str, table: list[Row]) -> None:
    global _bench
    _bench = Bench(onnx, table)


def _ask(task: tuple[float, str, int, int]) -> tuple[list[Any], int, list[SiteObserver]]:
    return _bench.ask(*task[1:]), os.getpid(), _bench.observers


@dataclass
class Tally:
    """Right answers of one row, by family and by question."""

    right: dict[int, bool] = field(default_factory=dict)
    families: dict[str, list[bool]] = field(default_factory=lambda: defaultdict(list))

    @property
    def accuracy(self) -> float:
        """Share of right answers."""
        return float(np.mean(list(self.right.values())))

    def minus(self, other: Tally) -> tuple[float, float]:
        """(difference of accuracies, its standard error) over the questions that both answered."""
        both = sorted(self.right.keys() & other.right.keys())
        d = np.array([float(self.right[i]) - float(other.right[i]) for i in both])
        return float(d.mean()), float(d.std() / np.sqrt(len(d)))


def measure(
    onnx: str, table: list[Row], processes: int, minutes: float, chunk: int = 14
) -> tuple[list[Tally], list[SiteObserver]]:
    """Ask every row its questions, as far as `minutes` allow; prints progress to stderr."""
    end = time.monotonic() + 60 * minutes
    for name in ("OPENBLAS_NUM_THREADS", "OMP_NUM_THREADS"):  # one thread in each worker: they read it on import
        os.environ.setdefault(name, "1")
    tasks = []
    for split in dict.fromkeys(row.split for row in table):
        n = max(row.n for row in table if row.split == split)
        tasks += [(start / n, split, start, min(chunk, n - start)) for start in range(0, n, chunk)]
    tasks.sort()  # all splits advance together, so that a run cut short has a bit of everything
    tallies = [Tally() for _ in table]
    latest: dict[int, list[SiteObserver]] = {}
    with multiprocessing.get_context("spawn").Pool(processes, _start, (onnx, table)) as pool:
        for done, (found, worker, observers) in enumerate(pool.imap_unordered(_ask, tasks), start=1):
            latest[worker] = observers
            for index, expected, family, answers in found:
                for tally, answer in zip(tallies, answers, strict=True):
                    if answer is not None:
                        tally.right[index] = answer == expected
                        tally.families[family].append(answer == expected)
            if done % 4 == 0 or sys.stderr.isatty():
                print(f"{done} of {len(tasks)} batches", file=sys.stderr, flush=True)
            if time.monotonic() > end:
                print(f"out of time after {done} of {len(tasks)} batches", file=sys.stderr)
                break
    merged, *others = latest.values()
    for more in others:
        for a, b in zip(merged, more, strict=True):
            a.merge(b)
    return tallies, merged


def report(table: list[Row], tallies: list[Tally], observers: list[SiteObserver], onnx: str) -> dict[str, Any]:
    """The results as data."""
    bench = Bench(onnx, table, seeds=1)
    out: list[dict[str, Any]] = []
    for row, tally, observer, module in zip(table, tallies, observers, bench.modules, strict=True):
        if not tally.right:
            continue
        work = macs(module, observer if observer.runs else None)
        n = len(tally.right)
        reference = next(t for r, t in zip(table, tallies, strict=True) if r.name == "dense" and r.split == row.split)
        lost, lost_error = reference.minus(tally)
        out.append(
            {
                "group": row.group,
                "name": row.name,
                "split": row.split,
                "options": row.options,
                "questions": n,
                "accuracy": tally.accuracy,
                "error": float(np.sqrt(tally.accuracy * (1 - tally.accuracy) / n)),
                "points_lost": 100 * lost,
                "points_lost_error": 100 * lost_error,
                "sparsity": work.sparsity,
                "visual_sparsity": work.visual_sparsity,
                "families": {name: float(np.mean(right)) for name, right in tally.families.items()},
            }
        )
        if row.name == "focus default":
            out[-1]["sites"] = [{**c.__dict__, "compression": c.compression} for c in observer.counts()]
    return {"rows": out, "transient": verdict(table, tallies)}


def verdict(table: list[Row], tallies: list[Tally]) -> list[dict[str, Any]]:
    """Importance minus random pruning on the transient questions, paired."""
    found = {(row.group, row.name): tally for row, tally in zip(table, tallies, strict=True)}
    out = []
    for group in dict.fromkeys(row.group for row in table if row.split == "transient"):
        for other in ("random", "uniform", "inverse"):
            a, b = found.get((group, "attention")), found.get((group, other))
            if a is not None and b is not None:
                gain, error = a.minus(b)
                out.append({"group": group, "against": other, "points": 100 * gain, "error": 100 * error})
    return out


def show(results: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines: list[str] = []
    for group in dict.fromkeys(r["group"] for r in results["rows"]):
        chosen = [r for r in results["rows"] if r["group"] == group]
        own = list(dict.fromkeys(f for r in chosen for f in r["families"]))
        lines += [
            "",
            f"**{group}**",
            "",
            f"| | MACs removed | of visual | accuracy | points lost | n | {' | '.join(own)} |",
            "|---" * (6 + len(own)) + "|",
        ]
        for r in chosen:
            cells = [
                r["name"],
                f"{100 * r['sparsity']:.1f} %",
                f"{100 * r['visual_sparsity']:.1f} %",
                f"{100 * r['accuracy']:.1f} +- {100 * r['error']:.1f}",
                f"{r['points_lost']:+.1f} +- {r['points_lost_error']:.1f}",
                str(r["questions"]),
                *(f"{100 * r['families'].get(f, float('nan')):.0f}" for f in own),
            ]
            lines.append(f"| {' | '.join(cells)} |")
    if results["transient"]:
        lines += ["", "Importance minus a control, the same questions, points:", ""]
        lines += [
            f"* {v['group']}, against {v['against']}: {v['points']:+.1f} +- {v['error']:.1f}"
            for v in results["transient"]
        ]
    return "\n".join(lines[1:])


def main() -> None:
    """Parse the arguments, run, print, write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--onnx", type=Path, help="an exported demo model; exported afresh if left out")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the questions to ask")
    parser.add_argument("--tune", action="store_true", help="compare schedules and thresholds on the split validation")
    parser.add_argument("--only", nargs="*", default=[], help="rows of these names (dense is added)")
    parser.add_argument(
        "--minutes", type=float, default=60, help="stop asking after this long and report what there is"
    )
    parser.add_argument("--processes", type=int, default=max(1, min(2, os.cpu_count() or 1)))
    parser.add_argument("--json", type=Path, help="also write the results here")
    args = parser.parse_args()
    every = candidates(args.scale) if args.tune else rows(args.scale)
    table = [r for r in every if not args.only or r.name == "dense" or r.name in args.only]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        onnx = args.onnx
        if onnx is None:
            from focusc.export import export

            onnx = Path(folder) / "demo.onnx"
            export("demo", onnx)
        tallies, observers = measure(str(onnx), table, args.processes, args.minutes)
        results = report(table, tallies, observers, str(onnx))
    words = [
        Path(word).name if "/" in word else word for word in sys.argv[1:]
    ]  # no machine's folders in a committed file
    results["command"] = " ".join(["python", "benchmarks/accuracy.py", *words])
    results["seconds"] = round(time.monotonic() - started)
    print(show(results))
    print(f"\n{results['seconds']} s")
    if args.json is not None:
        args.json.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
