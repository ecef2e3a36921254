"""Accuracy of the demo model by question family: `python -m focusc.models.demo.evaluate [--split heldout] [-n 2100]`.

Runs the exported graph on onnxruntime, so what is measured is what the compiler is given. `--shuffled` asks every
question about another question's video: what is left is what the questions alone give away.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from .data import SPLITS, samples

__all__ = ["Score", "main", "score", "session_of"]

Answer = Callable[[np.ndarray, np.ndarray], int]
"""(pixel_values, input_ids) -> token id."""


@dataclass(frozen=True)
class Score:
    """Shares of right answers: over all questions, by family, and what always giving a family's most frequent answer
    would reach."""

    split: str
    seed: int
    questions: int
    shuffled: bool
    accuracy: float
    families: dict[str, float]
    constant: dict[str, float]

    @property
    def error(self) -> float:
        """Standard error of the overall accuracy."""
        return float(np.sqrt(self.accuracy * (1 - self.accuracy) / self.questions))

    def table(self) -> str:
        """The figures as a Markdown table."""
        control = " (videos shuffled)" if self.shuffled else ""
        lines = [f"{self.split}{control}, seed {self.seed}, {self.questions} questions", "",
                 "| family | accuracy | most frequent answer |", "|---|---|---|"]
        lines += [f"| {name} | {100 * value:.1f} | {100 * self.constant[name]:.1f} |"
                  for name, value in self.families.items()]
        return "\n".join([*lines, f"| **all** | **{100 * self.accuracy:.1f}** +- {100 * self.error:.1f} | |"])


def session_of(onnx_file: Path | str) -> Answer:
    """Answer with an exported graph on onnxruntime."""
    import onnxruntime

    session = onnxruntime.InferenceSession(str(onnx_file), providers=["CPUExecutionProvider"])

    def answer(pixels: np.ndarray, ids: np.ndarray) -> int:
        return int(np.asarray(session.run(["logits"], {"pixel_values": pixels, "input_ids": ids})[0]).argmax())

    return answer


def score(answer: Answer, split: str = "heldout", n: int = 2100, *, seed: int = 0, shuffled: bool = False) -> Score:
    """Ask the first `n` questions of a split.

    With `shuffled`, each is asked about the video of the question of its family before it.
    """
    right: dict[str, list[bool]] = defaultdict(list)
    truth: dict[str, Counter[str]] = defaultdict(Counter)
    step = len(SPLITS[split].families)
    waiting: dict[str, np.ndarray] = {}
    for item in samples(split, n + step * shuffled, seed):
        pixels, ids, expected = item.pixel_values, item.input_ids, item.answer_id
        if shuffled:
            previous = waiting.get(item.family)
            waiting[item.family] = pixels
            if previous is None:
                continue
            pixels = previous
        right[item.family].append(answer(pixels, ids) == expected)
        truth[item.family][item.answer] += 1
    every = [r for family in right.values() for r in family]
    return Score(split, seed, len(every), shuffled, float(np.mean(every)),
                 {f: float(np.mean(r)) for f, r in right.items()},
                 {f: c.most_common(1)[0][1] / c.total() for f, c in truth.items()})


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m focusc.models.demo.evaluate", description=__doc__)
    parser.add_argument("--split", default="heldout", choices=[s for s in SPLITS if s != "train"])
    parser.add_argument("-n", type=int, default=2100, help="number of questions")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--shuffled", action="store_true", help="control: ask about another video")
    parser.add_argument("--onnx", type=Path, help="an exported model; exported afresh if left out")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        file = args.onnx
        if file is None:
            from focusc.export import export

            file = Path(folder) / "demo.onnx"
            print(export("demo", file))
        result = score(session_of(file), args.split, args.n, seed=args.seed, shuffled=args.shuffled)
    print(json.dumps(asdict(result)) if args.json else f"{result.table()}\n\n{time.monotonic() - started:.0f} s")


if __name__ == "__main__":
    main()
