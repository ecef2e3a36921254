"""The network: its sizes, the packed training pass against the plain prefill, the optimiser, the shipped weights."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch

from focusc.models import demo
from focusc.models.demo.data import samples

if TYPE_CHECKING:
    from focusc.models.demo.packed import Thinning


def test_widths_are_multiples_of_32() -> None:
    c = demo.load(random_weights=0).config
    sizes = (c.vision_width, c.vision_width // c.vision_heads, c.vision_mlp, c.width, c.head_size, c.mlp)
    assert all(size % 32 == 0 for size in sizes)
    assert sum(c.axes) == c.head_size // 2


def test_random_weights_are_seeded_and_leave_the_global_generator_alone() -> None:
    torch.manual_seed(7)
    before = torch.get_rng_state()
    a, b = demo.load(random_weights=1), demo.load(random_weights=1)
    assert torch.equal(before, torch.get_rng_state())
    assert all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))
    assert not torch.equal(a.lm_head.weight, demo.load(random_weights=2).lm_head.weight)


def test_positions_follow_qwen2_vl() -> None:
    from focusc.models.demo.model import positions

    p = positions()
    assert p.shape == (3, 301)
    assert p[:, 2].tolist() == [2, 2, 2]
    assert p[:, 3].tolist() == [3, 3, 3]
    assert p[:, 3 + 36 + 6 + 1].tolist() == [4, 4, 4]
    assert p[:, 290].tolist() == [10, 8, 8]
    assert p[:, 291].tolist() == [11, 11, 11]


def _packed(thinning: Thinning | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Logits of two questions about one video: packed, and one prefill each."""
    from focusc.models.demo import packed

    model, items = demo.load(random_weights=5), list(samples("validation", 2))
    pixels = torch.from_numpy(items[0].pixel_values)
    queries = torch.stack([torch.from_numpy(i.input_ids[0, -10:]) for i in items])[None]
    with torch.no_grad():
        one = torch.cat([model(pixels, torch.from_numpy(i.input_ids)) for i in items])
        all_, _ = packed.forward(model, pixels[None], queries, torch.arange(8)[None], thinning or packed.Thinning())
    return all_[0].numpy(), one.numpy()


def test_packed_questions_equal_separate_prefills() -> None:
    both, each = _packed()
    np.testing.assert_allclose(both, each, atol=2e-5)


@pytest.mark.parametrize("kind", ["drop", "focus", "merge"])
def test_thinning_that_hides_nothing_changes_nothing(kind: str) -> None:
    from focusc.models.demo.packed import Thinning

    thinning = {"drop": Thinning(drop=((1, 1.0),)), "focus": Thinning(focus=((0, 1.0), (3, 1.0))),
                "merge": Thinning(merge=1.1)}
    both, each = _packed(thinning[kind])
    np.testing.assert_allclose(both, each, atol=2e-5)


@pytest.mark.parametrize("kind", ["drop", "focus", "merge"])
def test_thinning_hides_something(kind: str) -> None:
    from focusc.models.demo.packed import Thinning

    thinning = {"drop": Thinning(drop=((1, 0.1),)), "focus": Thinning(focus=((0, 0.1), (3, 0.05))),
                "merge": Thinning(merge=0.2)}
    both, each = _packed(thinning[kind])
    assert np.abs(both - each).max() > 1e-3


def test_orthogonal_is_nearly_so() -> None:
    from focusc.models.demo.optimiser import orthogonal

    torch.manual_seed(0)
    for shape in ((2, 48, 32), (1, 32, 48)):
        values = torch.linalg.svdvals(orthogonal(torch.randn(shape)))
        assert values.min() > 0.5
        assert values.max() < 1.3


def test_a_few_steps_train_resume_and_repeat(tmp_path: object, request: pytest.FixtureRequest) -> None:
    """A run cut in two writes the same weights as a run in one piece, to the bit on one thread."""
    from pathlib import Path

    from focusc.models.demo.train import Recipe, Trainer

    threads = torch.get_num_threads()
    request.addfinalizer(lambda: torch.set_num_threads(threads))
    torch.set_num_threads(1)

    whole, cut = Path(str(tmp_path)) / "whole", Path(str(tmp_path)) / "cut"
    whole.mkdir()
    cut.mkdir()
    recipe = Recipe(vision_steps=2, pair_steps=1, cooldown=((0, 1.0), (1, 0.0)), validation=11)
    one = Trainer(recipe, whole)
    one.run()
    first = Trainer(replace(recipe, pair_steps=0, cooldown=((0, 0.0),)), cut)
    first.run()
    second = Trainer(recipe, cut)
    second.resume()
    assert second.done == 2
    second.run()
    for a, b in zip(one.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_shipped_weights_are_f16_small_and_load() -> None:
    from safetensors import safe_open

    assert demo.WEIGHTS.stat().st_size <= 6_000_000
    with safe_open(demo.WEIGHTS, "pt") as file:
        assert {file.get_tensor(k).dtype for k in file.keys()} == {torch.float16}  # noqa: SIM118
    assert all(torch.isfinite(p).all() for p in demo.load().parameters())


@pytest.mark.slow
def test_shipped_weights_answer_held_out_questions() -> None:
    from focusc.models.demo.evaluate import score

    model = demo.load()

    def answer(pixels: np.ndarray, ids: np.ndarray) -> int:
        with torch.no_grad():
            return int(model(torch.from_numpy(pixels), torch.from_numpy(ids)).argmax())

    result = score(answer, "heldout", 210)
    assert result.accuracy > 0.96                        # the model card has 100.0 on 2,100
    assert set(result.families) == {"colour", "shape", "motion", "count", "larger", "left_of", "exists"}
    assert "| **all** |" in result.table()
    assert score(answer, "heldout", 105, shuffled=True).accuracy < 0.6
