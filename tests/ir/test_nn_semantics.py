"""The nn dialect against plain float64 formulas, and concentrated operands against their reconstruction."""

from __future__ import annotations

import math

import numpy as np
import pytest

from focusc.ir import Builder, Concentrated, ConcentratedType, InferError, TensorType
from focusc.ir.ops.activations import erf
from focusc.ir.ops.attention import ROWS, Attention
from focusc.ir.ops.nn import Embed, Gelu, LayerNorm, Linear, PatchEmbed, RmsNorm, Rope, Silu, SwiGlu

R = np.random.default_rng(7)


def normal(*shape: int) -> np.ndarray:
    return R.standard_normal(shape).astype(np.float32)


def close(found: np.ndarray, expected: np.ndarray, tolerance: float = 1e-5) -> None:
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, expected, rtol=tolerance, atol=tolerance)


def phi(x: np.ndarray) -> np.ndarray:
    return 0.5 * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def test_erf_is_right_to_single_precision() -> None:
    x = np.linspace(-6, 6, 20_001, dtype=np.float32)
    assert np.abs(erf(x) - np.vectorize(math.erf)(x.astype(np.float64))).max() < 5e-7
    x64 = x.astype(np.float64)
    np.testing.assert_array_equal(erf(x64), np.vectorize(math.erf)(x64))


def test_linear() -> None:
    x, w, bias = normal(2, 3, 8), normal(8, 5), normal(5)
    expected = x.astype(np.float64) @ w + bias
    close(Linear.evaluate(x, w, bias, epilogue="none"), expected)
    inner = math.sqrt(2 / math.pi) * (expected + 0.044715 * expected**3)
    close(Linear.evaluate(x, w, bias, epilogue="gelu_tanh"), 0.5 * expected * (1 + np.tanh(inner)))


def test_norms() -> None:
    x, gamma, beta = normal(2, 5, 16) + 3, normal(16), normal(16)
    wide = x.astype(np.float64)
    mean, variance = wide.mean(-1, keepdims=True), wide.var(-1, keepdims=True)
    close(LayerNorm.evaluate(x, gamma, beta, eps=1e-5), (wide - mean) / np.sqrt(variance + 1e-5) * gamma + beta)
    close(RmsNorm.evaluate(x, gamma, eps=1e-6), wide / np.sqrt((wide**2).mean(-1, keepdims=True) + 1e-6) * gamma)


def test_activations() -> None:
    x, up = normal(4, 50) * 4, normal(4, 50)
    wide = x.astype(np.float64)
    silu = wide / (1 + np.exp(-wide))
    close(Gelu.evaluate(x, approximate="none"), wide * phi(wide))
    close(Gelu.evaluate(x, approximate="quick"), wide / (1 + np.exp(-1.702 * wide)))
    close(Silu.evaluate(x), silu)
    close(SwiGlu.evaluate(x, up), silu * up)


def test_activations_saturate_without_nan() -> None:
    x = np.array([-1e4, -100, 0, 100, 1e4], np.float32)
    for kind in ("none", "tanh", "quick"):
        np.testing.assert_allclose(Gelu.evaluate(x, approximate=kind), np.maximum(x, 0), atol=1e-6)
    np.testing.assert_allclose(Silu.evaluate(x), np.maximum(x, 0), atol=1e-6)


@pytest.mark.parametrize("interleaved", [False, True])
def test_rope_rotates_pairs(interleaved: bool) -> None:
    heads, width, rows = 2, 6, 4
    x, angle = normal(1, rows, heads * width), normal(rows, width // 2)
    full = np.repeat(angle, 2, -1) if interleaved else np.concatenate([angle, angle], -1)
    found = Rope.evaluate(x, np.cos(full), np.sin(full), heads=heads, interleaved=interleaved)
    for h in range(heads):
        for i in range(width // 2):
            a, b = (2 * i, 2 * i + 1) if interleaved else (i, i + width // 2)
            z = x[0, :, h * width + a] + 1j * x[0, :, h * width + b]
            turned = z * np.exp(1j * angle[:, i])
            close(found[0, :, h * width + a], turned.real)
            close(found[0, :, h * width + b], turned.imag)


def attention64(
    q: np.ndarray, k: np.ndarray, v: np.ndarray, heads: int, kv_heads: int, scale: float, causal: bool
) -> np.ndarray:
    rows, keys, width, wide = q.shape[1], k.shape[1], q.shape[2] // heads, v.shape[2] // kv_heads
    out = np.zeros((q.shape[0], rows, heads * wide))
    for b in range(q.shape[0]):
        for h in range(heads):
            g = h // (heads // kv_heads)
            score = (
                q[b, :, h * width : (h + 1) * width].astype(np.float64) @ k[b, :, g * width : (g + 1) * width].T * scale
            )
            if causal:
                score[np.triu_indices(rows, keys - rows + 1, keys)] = -np.inf
            weight = np.exp(score - score.max(-1, keepdims=True))
            weight /= weight.sum(-1, keepdims=True)
            out[b, :, h * wide : (h + 1) * wide] = weight @ v[b, :, g * wide : (g + 1) * wide]
    return out


@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize(("heads", "kv_heads", "rows", "keys"), [(4, 4, 5, 5), (6, 2, 5, 9), (2, 1, 1, 7)])
def test_attention(heads: int, kv_heads: int, rows: int, keys: int, causal: bool) -> None:
    q, k, v = normal(2, rows, heads * 8), normal(2, keys, kv_heads * 8), normal(2, keys, kv_heads * 4)
    found = Attention.evaluate(q, k, v, heads=heads, kv_heads=kv_heads, scale=0.3, causal=causal)
    close(found, attention64(q, k, v, heads, kv_heads, 0.3, causal))


def test_attention_of_a_long_sequence_is_done_in_blocks() -> None:
    rows = ROWS + 7
    q, k, v = normal(1, rows, 8), normal(1, rows, 8), normal(1, rows, 8)
    found = Attention.evaluate(q, k, v, heads=1, kv_heads=1, scale=0.3, causal=True)
    close(found, attention64(q, k, v, 1, 1, 0.3, True))


def test_patch_embed_is_a_convolution() -> None:
    x, w, bias = normal(2, 3, 4, 6, 6), normal(3 * 2 * 3 * 3, 5), normal(5)
    found = PatchEmbed.evaluate(x, w, bias, kernel=(2, 3, 3), stride=(2, 2, 2), pads=(0, 1, 1, 0, 1, 1))
    padded = np.pad(x, [(0, 0), (0, 0), (0, 0), (1, 1), (1, 1)]).astype(np.float64)
    expected = [
        padded[n, :, d : d + 2, i : i + 3, j : j + 3].reshape(-1) @ w + bias
        for n in range(2) for d in range(0, 3, 2) for i in range(0, 6, 2) for j in range(0, 6, 2)
    ]  # fmt: skip
    close(found, np.array(expected).reshape(2, -1, 5))


def test_embed_refuses_numbers_outside() -> None:
    with pytest.raises(InferError, match=r"index \[1\] is 3, expected 0..2"):
        Embed.evaluate(np.array([0, 3]), normal(3, 2))


def concentrated(rows: int = 7, cols: int = 40, split: int = 4) -> Concentrated:
    """Two tiles, slots of 32; rows 1 and 3 share slot 0, row 6 shares slot 1 with row 5."""
    root = np.tile(np.arange(rows, dtype=np.int32)[:, None], (1, 2))
    root[3, 0], root[6, 1] = 1, 5
    values = normal(rows, cols)
    values[3, :32], values[6, 32:] = values[1, :32], values[5, 32:]
    return Concentrated((1, rows, cols), [(0, split), (split, rows)], root, values)


class TestConcentrated:
    def test_counts_maps_and_packed_rebuild_the_rows(self) -> None:
        c = concentrated()
        assert c.counts.tolist() == [[3, 4], [3, 2]]
        for t, (start, stop) in enumerate(c.tiles):
            rebuilt = np.concatenate([c.packed(t, s)[c.map(t, s)] for s in range(c.slots)], axis=1)
            np.testing.assert_array_equal(rebuilt[:, :40], c.values[start:stop])
            assert not rebuilt[:, 40:].any()
            assert c.map(t, 0).dtype == np.uint16

    def test_linear_and_attention_take_it(self) -> None:
        c, w = concentrated(), normal(40, 6)
        np.testing.assert_array_equal(
            Linear.evaluate(c, w, None, epilogue="none"), Linear.evaluate(c.dense(), w, None, epilogue="none")
        )
        k = normal(1, 7, 20)
        options = {"heads": 2, "kv_heads": 1, "scale": 0.2, "causal": True}
        np.testing.assert_array_equal(
            Attention.evaluate(c, k, k, **options), Attention.evaluate(c.dense(), k, k, **options)
        )

    def test_types_follow(self) -> None:
        b = Builder()
        x = b.argument("x", ConcentratedType((1, 7, 40), "f32"))
        w = b.argument("w", TensorType((40, 6), "f32"))
        assert b.emit("nn.linear", x, w).type == TensorType((1, 7, 6), "f32")

    @pytest.mark.parametrize(
        ("tiles", "slots", "message"),
        [([(0, 3), (4, 7)], 2, "do not cover rows 0 to 7"), ([(0, 7)], 3, r"root is \[7, 3\], expected \[7, 2\]")],
    )
    def test_refuses_what_does_not_fit(self, tiles: list[tuple[int, int]], slots: int, message: str) -> None:
        with pytest.raises(Exception, match=message):
            Concentrated((7, 40), tiles, np.zeros((7, slots), np.int32), normal(7, 40))
