"""Dropping tokens under attention masks and windows: a mask's rows and keys go with them, distances stay."""

from __future__ import annotations

import numpy as np
import pytest

from focusc.ir import CompileError, Module, PassManager, Rewriter, interpret
from focusc.ir.concentration.sites import macs
from focusc.ir.ops.attention import seen_keys
from tests.graphs import shape_of
from tests.ir.concentrate.decoder import Shape, decoder, video_like

PRUNED = "concentrate{method=sec}"


def with_masks(module: Module, mask: np.ndarray, *layers: int) -> Module:
    """A mask operand for the attentions of these layers, or for every one."""
    out = module.clone()
    rewriter = Rewriter(out)
    for i, op in enumerate([op for op in out.walk() if op.name == "nn.attention"]):
        if not layers or i in layers:
            rewriter.set_operand(op, 3, rewriter.builder_before(op).constant(mask))
    return out


def logits(module: Module, s: Shape) -> np.ndarray:
    return interpret(module, {"x": video_like(s)})["logits"]


@pytest.mark.parametrize("form", ["rows and keys", "keys", "added"])
def test_the_rows_and_keys_of_a_mask_are_dropped_with_the_tokens(form: str) -> None:
    """A mask that repeats what `causal` says, or allows everything, changes nothing."""
    s = Shape()
    plain = decoder(s)
    triangle = np.tri(s.rows, dtype=bool)
    mask = {"rows and keys": triangle, "keys": np.ones(s.rows, bool),
            "added": np.where(triangle, 0, -np.inf).astype(np.float32)[None, None]}[form]
    pruned = PassManager(PRUNED).run(with_masks(plain, mask))
    masks = {shape_of(op.operands[3])[-1] for op in pruned.walk() if op.name == "nn.attention"}
    assert len(masks) > 1, "later layers are expected to see fewer keys"
    np.testing.assert_allclose(logits(pruned, s), logits(PassManager(PRUNED).run(plain), s), atol=1e-5)


def windowed(module: Module, window: int, *layers: int) -> Module:
    """With a window in the attentions of these layers."""
    for i, op in enumerate([op for op in module.walk() if op.name == "nn.attention"]):
        if i in layers:
            op.attrs["window"] = window
    return module


WIDE = 40
"""Of 42 rows with visual ones from row 2 on: the prompt sees all visual tokens."""


@pytest.mark.parametrize("options", ["method=sec,schedule=[0:0.6,1:0.3]", "method=none,frames=3,patches=2",
                                     "method=focus,schedule=[1:0.5]"])
def test_a_window_counts_the_tokens_that_were_there(options: str) -> None:
    """It says the same as a mask of all rows and keys, whose rows and keys are dropped."""
    s = Shape()
    by_window = PassManager(f"concentrate{{{options}}}").run(windowed(decoder(s), 8, 2))
    band = seen_keys(s.rows, s.rows, True, 8)
    by_mask = PassManager(f"concentrate{{{options}}}").run(with_masks(decoder(s), band, 2))
    last = [op for op in by_window.walk() if op.name == "nn.attention"][-1]
    assert shape_of(last.operands[4])[0] < s.rows
    np.testing.assert_allclose(logits(by_window, s), logits(by_mask, s), atol=1e-5)
    blind = PassManager(f"concentrate{{{options}}}").run(decoder(s))
    assert np.abs(logits(by_window, s) - logits(blind, s)).max() > 1e-3, "the window is expected to matter"


def test_where_keys_stood_follows_every_pruning() -> None:
    s = Shape()
    pruned = PassManager("concentrate{method=sec,schedule=[0:0.6,1:0.3]}").run(windowed(decoder(s), 8, 2))
    seen: dict[str, list[np.ndarray]] = {}
    interpret(pruned, {"x": video_like(s)}, lambda op, results: seen.setdefault(op.name, []).append(results[-1]))
    stood = [x for x in seen["sec.compact"] if x.shape[-1] == 1][-1][:, 0]
    kept = seen["sec.select"][-1]
    text = [*range(s.start), *range(s.start + s.visual, s.rows)]
    assert sorted(text + [s.start + int(p) for p in kept]) == stood.astype(int).tolist()


def test_a_layer_whose_window_the_prompt_does_not_see_across_cannot_prune() -> None:
    with pytest.raises(CompileError, match=r"concentrate\.structure.*layer 2 cannot prune: its attention has a window"):
        PassManager("concentrate{method=sec,schedule=[2:0.5]}").run(windowed(decoder(Shape()), 8, 2))
    with pytest.raises(CompileError, match=r"window of 39 tokens"):
        PassManager("concentrate{method=sec,schedule=[2:0.5]}").run(windowed(decoder(Shape()), 39, 2))
    pruned = PassManager("concentrate{method=sec,schedule=[1:0.5,2:0.3]}").run(windowed(decoder(Shape()), WIDE, 2))
    ranked = [op for op in pruned.walk() if op.name == "sec.importance"][-1]
    assert ranked.attrs["window"] == WIDE and ranked.operands[3] is not None


def test_a_published_schedule_moves_behind_windows() -> None:
    """The schedule prunes in layers 0, 1, 2; layer 1 has a window, so its share goes to layer 2."""
    pruned = PassManager(PRUNED).run(windowed(decoder(Shape()), 8, 1))
    done = pruned.attrs["concentrate"]
    assert done["schedule"] == ((0, 0.2), (2, 0.1))
    ((layer, site, why),) = done["left_out"]
    assert (layer, site) == (1, "prune") and "a window of 8 tokens" in why and why.endswith("layer 2 prunes instead")
    logits(pruned, Shape())


def test_the_ranking_gets_the_mask_of_its_attention() -> None:
    s = Shape()
    mask = np.ones((1, s.rows), bool)
    mask[:, : s.start] = False
    pruned = PassManager("concentrate{method=sec,schedule=[0:0.5]}").run(with_masks(decoder(s), mask, 0))
    ranked = next(op for op in pruned.walk() if op.name == "sec.importance")
    assert ranked.operands[2] is next(op for op in pruned.walk() if op.name == "nn.attention").operands[3]


def test_pairs_under_a_window_are_counted() -> None:
    s = Shape(layers=1)
    module = windowed(decoder(s), 8, 0)
    plain, windows = (macs(m) for m in (decoder(s), module))
    width = 2 * s.heads * s.head_size
    fewer = np.tri(s.rows).sum() - seen_keys(s.rows, s.rows, True, 8).sum()
    assert plain.dense - windows.dense == plain.executed - windows.executed == fewer * width
    visual = slice(s.start, s.start + s.visual)
    on_visual = np.tri(s.rows)[:, visual].sum() - seen_keys(s.rows, s.rows, True, 8)[:, visual].sum()
    assert plain.visual_dense - windows.visual_dense == on_visual * width


def test_a_mask_that_hides_visual_tokens_from_the_prompt_cannot_rank_them() -> None:
    s = Shape()
    mask = np.tri(s.rows, dtype=bool)
    mask[-1, s.start] = False
    pruned = PassManager(PRUNED).run(with_masks(decoder(s), mask))
    assert pruned.attrs["concentrate"]["schedule"] == ()
    assert {why for _, _, why in pruned.attrs["concentrate"]["left_out"]} == {
        "its attention's mask hides visual tokens from the prompt; no later layer can"}
