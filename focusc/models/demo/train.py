"""Train the demo model: `python -m focusc.models.demo.train --out DIR`. Seeded and step-based; resumes from DIR.

Three phases: the vision tower on per-patch labels, questions about two frames, questions about all eight with
random thinning of the visual tokens (see `packed.Thinning`). A pair step takes about 0.7 s and a video step 1.2 s on
two quiet CPU cores without matrix units.
"""

from __future__ import annotations

import argparse
import os
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import packed
from .batches import frames_batch, question_batch
from .data import samples
from .model import DemoModel
from .optimiser import Mixed
from .tokenizer import QUERY

__all__ = ["Recipe", "main"]


@dataclass(frozen=True)
class Recipe:
    """Steps and rates of the three phases: those of the shipped weights."""

    seed: int = 1
    vision_steps: int = 600
    pair_steps: int = 1500
    rate: float = 0.25
    """Share of the vision phase's rates in the other two. At the full rate the loss stalls."""
    cooldown: tuple[tuple[int, float], ...] = ((120, 1.0), (1100, 0.57), (1700, 0.0))
    """(step, share of `rate`) in the video phase, linear in between; the last step ends it."""
    concentrated: int = 1100
    """Step of the video phase from which training meets the pruning and merging that a compiler will do."""
    validation: int = 330
    """Questions of the validation split looked at every 500 steps."""

    @property
    def video_steps(self) -> int:
        """Steps of the video phase."""
        return self.cooldown[-1][0]


class Heads(nn.Module):
    """Readouts that exist in training only: what a patch shows, and where the thing is that a word refers to."""

    def __init__(self, vision_width: int, width: int) -> None:
        super().__init__()
        self.out = nn.Linear(vision_width, 7 + 4 + 3)
        self.place = nn.Linear(width, 5)
        nn.init.zeros_(self.place.weight)

    def places(self, rows: Tensor, places: Tensor) -> Tensor:
        """Loss on place, size and travel at the words that refer to one object. Without it, questions that compare two
        objects hardly get off the ground: nothing rewards reading one of them."""
        seen = places[..., 5] > 0
        read = 10 * self.place(F.rms_norm(rows[seen], rows.shape[-1:]))      # ten times: so much faster it learns
        return F.l1_loss(read, places[..., :5][seen])

    def forward(self, features: Tensor, labels: Tensor) -> Tensor:
        """Loss on colour everywhere, on shape, offset and radius where there is an object."""
        y = self.out(features)
        colour = labels[..., 0].long()
        seen = colour > 0
        loss = F.cross_entropy(y[..., :7].flatten(0, 1), colour.flatten())
        loss = loss + F.cross_entropy(y[..., 7:11][seen], labels[..., 1][seen].long())
        loss = loss + F.l1_loss(y[..., 11:13][seen], labels[..., 2:4][seen])
        return loss + 2 * F.l1_loss(y[..., 13][seen], labels[..., 4][seen])


def thinning_at(rng: np.random.Generator, *, early: bool) -> packed.Thinning:
    """What to hide at a step of the video phase: early on random drops only (they also make steps cheaper), later the
    pruning and merging that a concentrating compiler will do."""
    u = rng.random()
    if u < (0.5 if early else 0.35):
        return packed.Thinning(drop=((int(rng.integers(0, 3)), float(rng.uniform(0.4, 0.7))),))
    if early or u < 0.65:
        return packed.Thinning()
    first, last = int(rng.integers(0, 3)), float(rng.uniform(0.08, 0.25))
    shares = np.linspace(float(rng.uniform(0.4, 0.6)), last, 6 - first - int(rng.integers(0, 2)))
    focus = tuple((first + i, float(a)) for i, a in enumerate(shares))
    merge = float(rng.uniform(0.8, 0.95))
    return packed.Thinning(focus=focus if u < 0.95 else (), merge=merge if u > 0.85 else None)


def accuracy(model: DemoModel, data: tuple[Tensor, Tensor, Tensor], families: list[str]) -> dict[str, float]:
    """Accuracy by family on stacked samples (pixels, queries, answers), without thinning."""
    right: list[bool] = []
    with torch.no_grad():
        for i in range(0, len(families), 22):
            x, q, a = (z[i:i + 22] for z in data)
            logits, _ = packed.forward(model, x, q, torch.arange(8).expand(len(x), -1))
            right += (logits.argmax(-1)[:, 0] == a).tolist()
    by_family = {f: [r for r, g in zip(right, families, strict=True) if g == f] for f in dict.fromkeys(families)}
    return {"all": float(np.mean(right)), **{f: float(np.mean(r)) for f, r in by_family.items()}}


def text_of(scores: dict[str, float]) -> str:
    return " ".join(f"{name} {value:.3f}" for name, value in scores.items())


class Trainer:
    """The state of a run and one method per phase."""

    def __init__(self, recipe: Recipe, out: Path) -> None:
        torch.manual_seed(recipe.seed)
        self.recipe, self.out, self.model = recipe, out, DemoModel()
        self.head = Heads(self.model.config.vision_width, self.model.config.width)
        hidden = {id(p): p for part in (self.model.vision.blocks, self.model.projector, self.model.layers)
                  for p in part.parameters() if p.ndim == 2}
        rest = [p for p in (*self.model.parameters(), *self.head.parameters()) if id(p) not in hidden]
        self.optimiser = Mixed(hidden.values(), rest, adam_lr=2e-3)
        self.done, self.losses, self.started = 0, [], time.monotonic()
        held = list(samples("validation", recipe.validation))
        self.families = [s.family for s in held]
        self.held = (torch.tensor(np.stack([s.pixel_values for s in held])),
                     torch.tensor(np.stack([s.input_ids[:, -QUERY:] for s in held])),
                     torch.tensor([s.answer_id for s in held]))

    def save(self) -> None:
        """Write the checkpoint beside its final name, then move it there: a kill leaves the old one whole."""
        part = self.out / "checkpoint.part"
        torch.save({"model": self.model.state_dict(), "head": self.head.state_dict(), "done": self.done,
                    "optimiser": self.optimiser.state_dict()}, part)
        os.replace(part, self.out / "checkpoint.pt")

    def resume(self) -> None:
        path = self.out / "checkpoint.pt"
        if path.exists():
            state = torch.load(path, weights_only=True)
            self.model.load_state_dict(state["model"])
            self.head.load_state_dict(state["head"])
            self.optimiser.load_state_dict(state["optimiser"])
            self.done = state["done"]
            print(f"resumed after step {self.done}", flush=True)

    def report(self, phase: str, loss: float, right: float) -> None:
        self.losses.append((loss, right))
        if self.done % 25 == 0:
            mean = np.mean(self.losses, axis=0)
            print(f"{self.done:5d} {phase:6s} loss {mean[0]:.3f} right {mean[1]:.3f}  "
                  f"{time.monotonic() - self.started:.0f} s", flush=True)
            self.losses.clear()
        if self.done % 100 == 0:
            self.save()
        if phase != "vision" and self.done % 500 == 0:
            print("  validation " + text_of(accuracy(self.model, self.held, self.families)), flush=True)

    def vision_step(self, step: int) -> None:
        pixels, labels = map(torch.from_numpy, frames_batch(self.recipe.seed, step, scenes=32))
        loss = self.head(self.model.vision(pixels), labels)
        loss.backward()
        self.optimiser.step(min(1.0, (step + 1) / 50))
        self.done += 1
        self.report("vision", loss.item(), 0.0)

    def question_step(self, phase: int, step: int, scale: float, *, videos: int, questions: int, frames: int,
                      thinning: packed.Thinning) -> None:
        b = question_batch(self.recipe.seed, phase, step, videos=videos, questions=questions, frames=frames)
        answers, tap = torch.from_numpy(b.answers), list[Tensor]()
        torch.manual_seed(self.recipe.seed * 1_000_003 + self.done)      # the random drops, the same when resumed
        logits, features = packed.forward(self.model, torch.from_numpy(b.pixels), torch.from_numpy(b.queries),
                                          torch.from_numpy(b.frames), thinning, tap)
        loss = F.cross_entropy(logits.flatten(0, 1), answers.flatten())
        total = loss + (0.2 if phase == 1 else 0.1) * self.head(features, torch.from_numpy(b.labels))
        total = total + 0.4 * self.head.places(tap[0], torch.from_numpy(b.places))
        total.backward()
        self.optimiser.step(scale)
        self.done += 1
        right = (logits.argmax(-1) == answers).float().mean().item()
        self.report("pairs" if phase == 1 else "videos", loss.item(), right)

    def run(self) -> None:
        r = self.recipe
        total = r.vision_steps + r.pair_steps + r.video_steps
        while self.done < total:
            step = self.done
            if step < r.vision_steps:
                self.vision_step(step)
            elif (step := step - r.vision_steps) < r.pair_steps:
                self.question_step(1, step, r.rate * min(1.0, (step + 1) / 50), videos=16, questions=12, frames=2,
                                   thinning=packed.Thinning())
            else:
                step -= r.pair_steps
                steps, shares = zip(*r.cooldown, strict=True)
                scale = r.rate * float(np.interp(step, steps, shares))
                thinning = thinning_at(np.random.default_rng([r.seed, 3, step]), early=step < r.concentrated)
                self.question_step(2, step, scale, videos=12, questions=12, frames=8, thinning=thinning)
        self.save()


def write_weights(model: DemoModel, path: Path) -> None:
    """Save the parameters as float16 safetensors, atomically."""
    from safetensors.torch import save_file

    part = path.with_suffix(".part")
    save_file({k: v.half().contiguous() for k, v in model.state_dict().items()}, part)
    os.replace(part, path)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m focusc.models.demo.train", description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("build/train-demo"), help="checkpoints and weights go here")
    parser.add_argument("--seed", type=int, default=Recipe.seed)
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.set_flush_denormal(True)                       # masked softmax rows are full of them, and they are slow
    args.out.mkdir(parents=True, exist_ok=True)
    trainer = Trainer(Recipe(seed=args.seed), args.out)
    trainer.resume()
    trainer.run()
    write_weights(trainer.model, args.out / "weights.safetensors")
    print("final " + text_of(accuracy(trainer.model, trainer.held, trainer.families)))


if __name__ == "__main__":
    main()
