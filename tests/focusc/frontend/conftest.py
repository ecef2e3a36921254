"""Exports the demo model once."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest


@pytest.fixture(scope="session", params=[20, 23], ids=["opset20", "opset23"])
def demo_onnx(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo model with random weights, exported decomposed (opset 20) and with fused operators (opset 23)."""
    from focusc.export import export

    path = tmp_path_factory.mktemp("demo") / f"demo{request.param}.onnx"
    export("demo", path, opset=request.param, random_weights=1)
    return path


@pytest.fixture(scope="session")
def demo_inputs() -> dict[str, np.ndarray]:
    """Seeded pixels and token numbers for the demo model."""
    from focusc.models.demo.tokenizer import VOCAB_SIZE

    rng = np.random.default_rng(0)
    return {"pixel_values": rng.standard_normal((8, 3, 48, 48)).astype(np.float32),
            "input_ids": rng.integers(0, VOCAB_SIZE, (1, 301)).astype(np.int64)}
