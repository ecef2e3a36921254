"""Decoder structure, MAC accounting and the counts of unique vectors."""

from __future__ import annotations

import pickle
from dataclasses import replace

import numpy as np
import pytest

from focusc.ir import Module, interpret
from focusc.ir.concentration.sites import Macs, SiteObserver, find_decoder_layers, macs
from focusc.ir.passes.concentrate import concentrate
from tests.ir.concentrate.decoder import Shape, decoder, video_like

S = Shape(layers=2)


def observed(module: Module, seeds: range = range(1)) -> SiteObserver:
    observer = SiteObserver(module)
    for seed in seeds:
        interpret(module, {"x": video_like(S, seed)}, observer)
    return observer


def linear_macs(rows: list[int]) -> int:
    """MACs of one layer's linears: rows at qkv, o, gate and up, down."""
    q, kv = S.heads * S.head_size, S.kv_heads * S.head_size
    shapes = [S.width * (q + 2 * kv), q * S.width, S.width * 2 * S.hidden, S.hidden * S.width]
    return sum(r * n for r, n in zip(rows, shapes, strict=True))


def attention_macs(rows: int) -> int:
    return rows * (rows + 1) // 2 * S.heads * S.head_size * 2


@pytest.mark.parametrize("packed", [False, True])
def test_layers_are_found_by_structure(packed: bool) -> None:
    s = replace(S, packed=packed)
    for module in (decoder(s), concentrate(decoder(s), schedule="0:0.5,1:0.2")):
        layers = find_decoder_layers(module)
        assert [layer.index for layer in layers] == [0, 1]
        for layer in layers:
            assert [len(x) for x in (layer.qkv, layer.o_proj, layer.gate_up, layer.down)] == [
                1 if packed else 3, 1, 1 if packed else 2, 1,
            ]  # fmt: skip
            assert layer.head_size == 32 and layer.heads == 4
            assert {op.loc.node for op in layer.linears} == {f"layer{layer.index}"}
    assert find_decoder_layers(decoder(s))[0].hidden.name == "x"


def test_dense_macs_are_those_of_the_formula() -> None:
    t = S.rows
    assert macs(decoder(S)).dense == 2 * (linear_macs([t] * 4) + attention_macs(t)) == macs(decoder(S)).executed
    assert macs(decoder(S)).sparsity == macs(decoder(S)).visual_sparsity == 0


def test_pruned_macs_count_what_is_present() -> None:
    t, kept = S.rows, 6 + 18
    found = macs(concentrate(decoder(S), method="sec", schedule="0:0.5"))
    first = linear_macs([t, t, kept, kept]) + attention_macs(t)
    assert found.executed == first + linear_macs([kept] * 4) + attention_macs(kept)
    assert found.dense == macs(decoder(S)).dense


def test_merged_macs_count_unlinked_vectors_only() -> None:
    """All visual rows equal, so each slot has one unique visual vector; text rows always run."""
    module = concentrate(decoder(S), method="sic", threshold=0.5)
    observer = SiteObserver(module)
    x = video_like(S)
    x[0, S.start : S.start + S.visual] = 1.0
    interpret(module, {"x": x}, observer)
    qkv = next(c for c in observer.counts() if c.layer == 0 and c.site == "qkv_in")
    assert (qkv.tokens, qkv.retained, qkv.slots, qkv.unique, qkv.unique_max) == (36, 36, 2, 1.0, 1)
    assert qkv.compression == 36
    found = macs(module, observer)
    text = S.rows - S.visual
    assert found.executed >= 2 * (linear_macs([text + 1] * 4) + attention_macs(text))
    assert found.sparsity > 0.6 and found.visual_sparsity > found.sparsity


def test_threshold_orders_sparsity() -> None:
    found: list[Macs] = []
    for threshold in (1.5, 0.95, 0.8, 0.5):
        module = concentrate(decoder(S), method="sic", threshold=threshold)
        found.append(macs(module, observed(module)))
    sparsity = [m.sparsity for m in found]
    assert sparsity[0] == 0 and sparsity == sorted(sparsity) and sparsity[-1] > 0.5


def test_observers_merge_across_processes() -> None:
    module = concentrate(decoder(S), schedule="0:0.5", threshold=0.8)
    both = observed(module, range(2))
    one, two = observed(module, range(1)), observed(module, range(1, 2))
    one.merge(pickle.loads(pickle.dumps(two)))
    assert one.counts() == both.counts() and one.runs == both.runs == 2
    np.testing.assert_allclose(one.unique(3), both.unique(3))


def test_counts_without_a_run_are_those_of_no_merging() -> None:
    module = concentrate(decoder(S), schedule="0:0.5")
    assert {c.unique for c in SiteObserver(module).counts()} == {36.0, 18.0}
