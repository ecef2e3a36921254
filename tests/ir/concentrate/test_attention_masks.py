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


def test_a_window_counts_the_tokens_that_were_there() -> None:
    module = decoder(Shape())
    for op in module.walk():
        if op.name == "nn.attention":
            op.attrs["window"] = 8
    with pytest.raises(CompileError, match=r"concentrate\.unsupported.*window"):
        PassManager(PRUNED).run(module)
