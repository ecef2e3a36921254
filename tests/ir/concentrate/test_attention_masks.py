"""Dropping tokens under attention masks: the mask's rows and keys go with them; a window cannot be followed."""

from __future__ import annotations

import numpy as np
import pytest

from focusc.ir import CompileError, Module, PassManager, Rewriter, interpret
from tests.ir.concentrate.decoder import Shape, decoder, video_like

PRUNED = "concentrate{method=sec}"


def with_masks(module: Module, mask: np.ndarray) -> Module:
    """A mask operand for every attention."""
    out = module.clone()
    rewriter = Rewriter(out)
    for op in list(out.walk()):
        if op.name == "nn.attention":
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
    masks = {op.operands[3].type.shape[-1] for op in pruned.walk() if op.name == "nn.attention"}
    assert len(masks) > 1, "later layers are expected to see fewer keys"
    np.testing.assert_allclose(logits(pruned, s), logits(PassManager(PRUNED).run(plain), s), atol=1e-5)


def windowed(module: Module, *layers: int) -> Module:
    """With a window of 8 tokens in the attentions of these layers."""
    for i, op in enumerate([op for op in module.walk() if op.name == "nn.attention"]):
        if i in layers:
            op.attrs["window"] = 8
    return module


def test_a_window_counts_the_tokens_that_were_there() -> None:
    with pytest.raises(CompileError, match=r"concentrate\.unsupported.*window"):
        PassManager("concentrate{method=sec,schedule=[0:0.5]}").run(windowed(decoder(Shape()), 2))
    with pytest.raises(CompileError, match=r"concentrate\.structure.*layer 2 cannot prune: its attention has a window"):
        PassManager("concentrate{method=sec,schedule=[2:0.5]}").run(windowed(decoder(Shape()), 2))


def test_a_published_schedule_moves_behind_windows() -> None:
    """The schedule prunes in layers 0, 1, 2; as layer 1 has a window, all that can be is the last share in layer 2."""
    pruned = PassManager(PRUNED).run(windowed(decoder(Shape()), 1))
    done = pruned.attrs["concentrate"]
    assert done["schedule"] == ((2, 0.1),)
    assert [(layer, site) for layer, site, _ in done["left_out"]] == [(0, "prune"), (1, "prune")]
    first, second = (why for _, _, why in done["left_out"])
    assert "with a window, which counts the tokens" in first and first.endswith("layer 2 prunes instead")
    assert "a window of 8 tokens" in second and second.endswith("layer 2 prunes instead")
    logits(pruned, Shape())


def test_a_mask_that_hides_visual_tokens_from_the_prompt_cannot_rank_them() -> None:
    s = Shape()
    mask = np.tri(s.rows, dtype=bool)
    mask[-1, s.start] = False
    pruned = PassManager(PRUNED).run(with_masks(decoder(s), mask))
    assert pruned.attrs["concentrate"]["schedule"] == ()
    assert {why for _, _, why in pruned.attrs["concentrate"]["left_out"]} == {
        "its attention's mask hides visual tokens from the prompt; no later layer can"}
