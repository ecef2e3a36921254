"""The task: splits that are functions of their name, photographs kept apart, answers without a give-away."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter

import numpy as np
import pytest

from focusc.models.demo import data, photos, tokenizer
from focusc.models.demo.questions import DEEP, STANDARD, TRANSIENT, ask
from focusc.models.demo.scene import FRAMES, GRID, PATCH, draw, make_scene


def test_a_sample_is_a_function_of_split_seed_and_index() -> None:
    a, b = data.sample("heldout", 5), list(data.samples("heldout", 6))[5]
    np.testing.assert_array_equal(a.pixel_values, b.pixel_values)
    assert (a.question, a.answer, a.family) == (b.question, b.answer, b.family)
    other = data.sample("heldout", 5, seed=1)
    assert not np.array_equal(a.pixel_values, other.pixel_values)
    assert not np.array_equal(a.pixel_values, data.sample("validation", 5).pixel_values)


def test_the_fixed_split_has_not_moved() -> None:
    """Held-out figures are comparable only while this stays. Change it knowingly, and measure again."""
    got = [(s.question, s.answer) for s in data.samples("heldout", 3)]
    assert got == HELDOUT
    assert [(s.question, s.answer) for s in data.samples("transient", 2)] == TRANSIENT_FIRST


HELDOUT = [("what colour is the circle ?", "yellow"), ("what shape is the green object ?", "square"),
           ("which way does the cyan star move ?", "left")]
TRANSIENT_FIRST = [("what colour was the small square ?", "green"),
                   ("what shape was the small yellow object ?", "square")]


def test_training_and_validation_photographs_are_disjoint() -> None:
    assert not set(photos.TRAIN) & set(photos.VALIDATION)
    for name, split in data.SPLITS.items():
        assert set(split.photographs) == set(photos.TRAIN if name == "train" else photos.VALIDATION)
    for name in photos.TRAIN + photos.VALIDATION:
        image = photos.load(name)
        assert min(image.shape[:2]) == 160
        assert image.std() > 0.02


def test_arrays_and_prompt() -> None:
    s = data.sample("deep", 1)
    assert s.pixel_values.shape == (8, 3, 48, 48)
    assert s.pixel_values.dtype == np.float32
    assert s.input_ids.shape == (1, 301)
    assert s.input_ids.dtype == np.int64
    assert (s.input_ids[0, 3:291] == tokenizer.token_id(tokenizer.VIDEO)).all()
    assert tokenizer.decode(s.input_ids[0, 291:]) == s.question
    assert tokenizer.VOCAB[s.answer_id] == s.answer
    assert np.isfinite(s.pixel_values).all()
    assert np.abs(s.pixel_values).max() < 3


@pytest.mark.parametrize("split", ["heldout", "transient", "deep"])
def test_families_take_turns_and_no_answer_dominates(split: str) -> None:
    drawn = list(data.samples(split, 60 * len(data.SPLITS[split].families)))
    by_family = {f: Counter(s.answer for s in drawn if s.family == f) for f in data.SPLITS[split].families}
    for family, answers in by_family.items():
        assert answers.total() == 60
        bound = 0.72 if len(answers) == 2 else 0.6 if family == "count_colour" else 0.5
        assert answers.most_common(1)[0][1] / 60 <= bound, (family, answers)


def test_standard_transient_and_deep_cover_all_families() -> None:
    assert set(STANDARD) | set(TRANSIENT) | set(DEEP) == set(data.SPLITS["validation"].families)


def test_small_objects_are_small_and_short_lived() -> None:
    """One or two patches hold nearly all of each small object; it shows in two or three frames."""
    rng = np.random.default_rng(0)
    for _ in range(60):
        scene = make_scene(rng, photos.VALIDATION, transient=True)
        for t in scene.small:
            assert 2 <= t.last - t.first <= 3
            assert 0 <= t.first < t.last <= FRAMES
            assert t.radius <= 4.0
            low, high = t.centre[0] + 0.5 - 0.75 * t.radius, t.centre[0] + 0.5 + 0.75 * t.radius
            patches = (high // PATCH).clip(0, GRID - 1) - (low // PATCH).clip(0, GRID - 1) + 1
            assert patches.prod() <= 2


def test_moving_objects_move_three_to_six_pixels_a_frame() -> None:
    rng = np.random.default_rng(1)
    moving = 0
    for _ in range(100):
        for t in make_scene(rng, photos.VALIDATION, transient=False).main:
            step = np.abs(np.diff(t.centre, axis=0)).sum(1)
            assert (step == 0).all() if not t.direction else (step.min() >= 2.999 and step.max() <= 6.001)
            moving += bool(t.direction)
            assert t.centre.min() > 0
            assert t.centre.max() < 48
    assert moving > 60


def test_direction_is_what_the_pixels_do() -> None:
    rng = np.random.default_rng(2)
    axis = {"left": (0, -1), "right": (0, 1), "up": (1, -1), "down": (1, 1)}
    seen = set()
    for _ in range(40):
        scene = make_scene(rng, photos.VALIDATION, transient=False, count=1)
        thing = scene.main[0]
        if not thing.direction:
            continue
        _, labels = draw(scene, labels=True)
        assert labels is not None
        cells = [np.argwhere(f.reshape(GRID, GRID, 5)[..., 0] > 0).mean(0)[::-1] for f in labels]
        i, sign = axis[thing.direction]
        assert sign * (cells[-1] - cells[0])[i] > 1
        seen.add(thing.direction)
    assert seen == set(axis)


def test_labels_name_what_is_drawn() -> None:
    scene = make_scene(np.random.default_rng(3), photos.VALIDATION, transient=True)
    pixels, labels = draw(scene, labels=True)
    assert labels is not None
    assert labels.shape == (FRAMES, GRID * GRID, 5)
    assert set(np.unique(labels[..., 0])) <= {0, *(t.colour + 1 for t in (*scene.main, *scene.small))}
    some, _ = draw(scene, np.array([2, 5]))
    assert some.shape == (2, *pixels.shape[1:])


def test_an_ambiguous_question_is_declined() -> None:
    rng = np.random.default_rng(4)
    scene = make_scene(rng, photos.VALIDATION, transient=False, count=1)
    assert ask("larger", scene, rng) is None
    assert ask("order", scene, rng) is None
    assert ask("small_colour", scene, rng) is None


def test_unknown_split() -> None:
    with pytest.raises(ValueError, match="no split 'test'; there are train, heldout"):
        data.sample("test", 0)


def test_questions_are_made_without_torch() -> None:
    code = "import sys, focusc.models.demo.data as d; d.sample('heldout', 0); assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_tokenizer_round_trip() -> None:
    for s in data.samples("validation", 44):
        assert tokenizer.decode(tokenizer.encode_query(s.question)) == s.question
    assert tokenizer.decode(tokenizer.token_id("red")) == "red"
    assert tokenizer.decode([63]) == "<unused>"
    apart, joined = map(tokenizer.encode_query, ("how many objects are there ?", "how many objects are there?"))
    assert (apart == joined).all()


@pytest.mark.parametrize(("text", "match"), [("what is the dog ?", "'dog' is not in the demo model's vocabulary"),
                                             ("is " * 11, "has 11 tokens, the model takes at most 10")])
def test_tokenizer_refuses(text: str, match: str) -> None:
    with pytest.raises(ValueError, match=match):
        tokenizer.encode_query(text)
