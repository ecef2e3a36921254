"""The concentrate pass on a small decoder: what it keeps, what it inserts, and what it refuses."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from focusc.ir import (
    Builder,
    CompileError,
    Module,
    Op,
    PassManager,
    Rewriter,
    Stats,
    TensorType,
    TokensType,
    interpret,
    parse_pipeline,
    verify,
)
from focusc.ir.concentration.schedule import PUBLISHED, scaled
from focusc.ir.concentration.structure import find_decoder_layers
from focusc.ir.ops.nn import Rope
from focusc.ir.ops.sec import Importance, Select, Subset
from focusc.ir.ops.sic import SITES, Gather
from focusc.ir.ops.tensor_shape import Slice
from focusc.ir.passes.concentrate import concentrate
from tests.graphs import made_by, shape_of
from tests.ir.concentrate.decoder import Shape, decoder, video_like
from tests.reference_concentration import Window, budget, importance, select, sic

SMALL = Shape()


def run(module: Module, s: Shape = SMALL, seed: int = 0) -> np.ndarray:
    return interpret(module, {"x": video_like(s, seed)})["logits"]


def apply(module: Module, **options: Any) -> tuple[Module, Stats]:
    stats = Stats(concentrate.counters)
    out = concentrate(module, stats, **options)
    verify(out)
    return out, stats


def watch(module: Module, s: Shape = SMALL) -> list[tuple[Op, tuple[Any, ...]]]:
    seen: list[tuple[Op, tuple[Any, ...]]] = []
    interpret(module, {"x": video_like(s)}, lambda op, got: seen.append((op, got)))
    return seen


def test_none_returns_the_module_itself() -> None:
    module = decoder()
    assert concentrate(module, method="none") is module


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    "options",
    [
        {"method": "sic", "threshold": 1.5},
        {"method": "focus", "threshold": 1.5, "schedule": "0:1,2:1"},
        {"method": "sec", "schedule": "1:1.0"},
        {"method": "sic", "links": "none"},
    ],
)
def test_what_merges_and_drops_nothing_changes_nothing(options: dict[str, Any], packed: bool) -> None:
    s = replace(SMALL, packed=packed)
    module = decoder(s)
    out, _ = apply(module, **options)
    np.testing.assert_array_equal(run(out, s), run(module, s))


def test_the_module_given_is_not_touched() -> None:
    module = decoder()
    before = str(module)
    out, _ = apply(module, schedule="0:0.5")
    assert str(module) == before and out is not module and "concentrate" not in module.attrs


def test_every_site_is_gathered_once_per_layer_and_feeds_its_gemms() -> None:
    out, stats = apply(decoder(), method="sic")
    gathers = [op for op in out.walk() if isinstance(op, Gather)]
    sites = ["qkv_in", "query", "o_in", "mlp_in", "down_in"]
    assert [(g.layer, g.site) for g in gathers] == [(i, s) for i in range(3) for s in sites]
    readers = {"qkv_in": 3, "query": 1, "o_in": 1, "mlp_in": 2, "down_in": 1}
    for g in gathers:
        assert len(g.result.users) == readers[g.site]
        assert {u.name for u in g.result.users} == {"nn.attention" if g.site == "query" else "nn.linear"}
    assert stats.text() == "layers=3 gathers=15 prunings=0 kept=36 dropped=0 left_out=0"


def test_sites_can_be_chosen() -> None:
    out, stats = apply(decoder(), method="sic", sites=("down_in", "qkv_in"))
    assert {op.site for op in out.walk() if isinstance(op, Gather)} == {"qkv_in", "down_in"}
    assert stats["gathers"] == 6


def test_tokens_go_after_the_attention_and_before_the_mlp_of_the_scheduled_layer() -> None:
    out, stats = apply(decoder(), method="sec", schedule="0:0.5,2:0.25")
    rows = {
        op.name + str(i): shape_of(op.result)[1]
        for i, op in enumerate(o for o in out.walk() if o.name in ("nn.attention", "nn.swiglu"))
    }
    assert list(rows.values()) == [42, 24, 24, 24, 24, 15]
    assert stats.text() == "layers=3 gathers=0 prunings=2 kept=9 dropped=27 left_out=0"
    selects = [op for op in out.walk() if op.name == "sec.select"]
    assert [[r.type for r in op.results] for op in selects] == [
        [TokensType(24, 42), TokensType(18, 36)],
        [TokensType(15, 24), TokensType(9, 36)],
    ]


def test_rotary_rows_follow_the_tokens_and_the_last_row_stays_last() -> None:
    out, _ = apply(decoder(), method="sec", schedule="0:0.5")
    ropes = [op for op in out.walk() if isinstance(op, Rope)]
    assert [op.cos.type.shape[0] for op in ropes] == [42, 42, 24, 24, 24, 24]
    compacts = [op for op in out.walk() if op.name == "sec.compact"]
    assert len(compacts) == 3, "the stream, cos and sin, each once"
    last = next(op for op in out.walk() if isinstance(op, Slice))
    assert (last.starts, last.ends) == ((23,), (24,))


def test_pruned_run_equals_deleting_the_tokens_by_hand() -> None:
    """Layer 0 alone, then the rest on the rows that the transcription says stay."""
    s = SMALL
    out, _ = apply(decoder(s), method="sec", schedule="0:0.4")
    seen = watch(out)
    q, k = (got[0][0] for op, got in seen if op.name == "nn.rope" and op.loc.node == "layer0")
    found = importance(
        q, k, heads=4, kv_heads=2, scale=32**-0.5, query=s.query, visual_start=s.start, visual_len=s.visual
    )
    chosen = select(found, budget(s.visual, 0.4, s.visual))
    rows, kept = next(got for op, got in seen if op.name == "sec.select")
    assert kept.tolist() == chosen
    assert rows.tolist() == [0, 1, *(2 + c for c in chosen), *range(38, 42)]
    stream = next(got[0] for op, got in seen if op.name == "tensor.add")
    after = next(got[0] for op, got in seen if op.name == "sec.compact" and got[0].ndim == 3)
    np.testing.assert_array_equal(after, stream[:, rows])


def test_positions_of_survivors_reach_every_later_site() -> None:
    """Each gather of a pruned and merged run equals the transcription given the positions that remain."""
    s = replace(SMALL, layers=2)
    out, _ = apply(decoder(s), schedule="0:0.6,1:0.3", threshold=0.8, boundary="grid", m=9)
    values: dict[Any, Any] = {}
    inputs = video_like(s)
    interpret(out, {"x": inputs}, lambda op, got: values.update(zip(op.results, got, strict=True)))
    kept_once = False
    for op in out.walk():
        if not isinstance(op, Gather):
            continue
        positions = list(range(36)) if op.positions is None else values[op.positions].tolist()
        kept_once |= len(positions) < 36
        w = Window(s.grid, (12, 4, 1), threshold=0.8, boundary="grid", m=9)
        visual = slice(s.start, s.start + len(positions))
        x = values.get(op.x, inputs)
        expected = sic(x[0, visual], positions, w)
        np.testing.assert_allclose(values[op.result].dense()[0, visual], expected.rows, atol=1e-5)
    assert kept_once


def test_importance_reads_the_concentrated_queries() -> None:
    out, _ = apply(decoder(), schedule="0:0.5")
    op = next(o for o in out.walk() if isinstance(o, Importance))
    gather = made_by(op.q)
    assert isinstance(gather, Gather) and gather.site == "query"


@pytest.mark.parametrize(
    ("options", "kept"),
    [
        ({"frames": 3}, [12 + i for i in range(12)]),
        ({"patches": 2}, [12 * f + 5 + 2 * c for f in range(3) for c in (0, 1)]),
        ({"frames": 3, "patches": 2}, [17, 19]),
    ],
)
def test_downsampling_keeps_the_middle_frames_and_patches(options: dict[str, int], kept: list[int]) -> None:
    out, stats = apply(decoder(), method="none", **options)
    subset = next(op for op in out.walk() if isinstance(op, Subset))
    assert list(subset.positions) == kept and stats["kept"] == len(kept)
    first = next(op for op in out.walk() if op.name == "nn.attention")
    assert shape_of(first.result)[1] == 6 + len(kept)
    run(out)


def test_controls_run_and_differ() -> None:
    module = decoder()
    outs = [
        run(apply(module, schedule="0:0.3", **c)[0])
        for c in (
            {},
            {"importance": "random"},
            {"importance": "random", "seed": 1},
            {"importance": "inverse"},
            {"importance": "uniform"},
            {"links": "random"},
        )
    ]
    assert len({o.tobytes() for o in outs}) == len(outs)


def test_pipeline_text_reaches_every_kind_of_option() -> None:
    steps = parse_pipeline(
        "concentrate{method=focus,schedule=[0:0.5,2:0.25],threshold=0.8,sites=[qkv_in,o_in],block=[1,2,2]}"
    )
    out = PassManager(steps).run(decoder())
    done = out.attrs["concentrate"]
    assert (
        done["schedule"] == ((0, 0.5), (2, 0.25)) and done["sites"] == ("qkv_in", "o_in") and done["block"] == (1, 2, 2)
    )


@pytest.mark.parametrize("family", PUBLISHED)
def test_published_schedules_scale_to_any_depth(family: str) -> None:
    layers, schedule = PUBLISHED[family]
    assert scaled(family, layers) == schedule
    for depth in range(1, 40):
        found = scaled(family, depth)
        assert found[-1][1] == schedule[-1][1] and all(0 <= layer < depth for layer, _ in found)
        assert all(a[0] < b[0] and a[1] > b[1] for a, b in itertools.pairwise(found))
    assert scaled("llava-video", 6) == ((0, 0.4), (1, 0.2), (3, 0.15), (5, 0.1))


def without_layout(m: Module) -> None:
    del m.attrs["layout"]


def relayout(**changes: Any) -> Any:
    def change(m: Module) -> None:
        m.attrs["layout"] = {**m.attrs["layout"], **changes}

    return change


def unfused(m: Module) -> None:
    """o_proj as a bare matmul."""
    attention = next(op for op in m.walk() if op.name == "nn.attention")
    linear = attention.result.users[0]
    Rewriter(m).replace_with(linear, "tensor.matmul", linear.operands[0], linear.operands[1])


@pytest.mark.parametrize(
    ("change", "options", "code", "words"),
    [
        (None, {"schedule": "3:0.5"}, "concentrate.layer", "layer 3, but the decoder has layers 0 to 2"),
        (None, {"schedule": "-1:0.5"}, "concentrate.layer", "layer -1"),
        (None, {"schedule": "0:0.3,1:0.4"}, "concentrate.alpha", "more than the 0.3 before"),
        (None, {"schedule": "0:0"}, "concentrate.alpha", "more than 0, at most 1"),
        (None, {"schedule": "0:1.5"}, "concentrate.alpha", "share of 1.5"),
        (None, {"schedule": "0:nan"}, "concentrate.schedule", "'0:nan' is not layer:share"),
        (None, {"schedule": "1:0.5,1:0.4"}, "concentrate.schedule", "layer 1 follows layer 1"),
        (None, {"schedule": "half"}, "concentrate.schedule", "'half' is not layer:share"),
        (None, {"schedule": "published:gpt"}, "concentrate.schedule", "no published schedule for 'gpt'"),
        (None, {"method": "magic"}, "concentrate.option", "expected none, sec, sic, focus"),
        (None, {"m": 0}, "concentrate.option", "m is 0"),
        (None, {"method": "none", "m": -3}, "concentrate.option", "m is -3"),
        (None, {"sites": ("kv_in",)}, "concentrate.site", "'kv_in' is unknown"),
        (None, {"block": (2, 2)}, "concentrate.option", "three whole numbers"),
        (None, {"threshold": 9.0}, "concentrate.option", "threshold is 9"),
        (None, {"seed": -1}, "concentrate.option", "seed is -1"),
        (None, {"vector": 24, "sites": ("query",)}, "concentrate.head-size", "heads have 32 columns"),
        (without_layout, {}, "layout.missing", "no token layout"),
        (relayout(visual=(20, 36)), {}, "layout.visual", r"\[20, 56\) leaves the sequence of 42 rows"),
        (relayout(query=9), {}, "layout.query", "but 4 of the 42 rows"),
        (relayout(grid=(3, 3, 5)), {}, "layout.grid", "has 45 points"),
        (relayout(grid=(3, 3, 3), strides=()), {}, "layout.grid", "has 27 points, but the visual span has 36"),
        (relayout(visual=(2,)), {}, "layout.type", "expected 2 whole numbers"),
        (relayout(query="all"), {}, "layout.type", "expected a whole number"),
        (unfused, {"sites": ("o_in",)}, "concentrate.structure", "no site o_in .*: no nn.linear follows its attention"),
    ],
)
def test_bad_input_is_explained(change: Any, options: dict[str, Any], code: str, words: str) -> None:
    module = decoder()
    if change is not None:
        change(module)
    with pytest.raises(CompileError, match=words) as error:
        concentrate(module, **options)
    assert error.value.diagnostics[0].code == code


def test_head_size_error_says_which_sites_work() -> None:
    module = decoder(Shape(heads=2, kv_heads=2, head_size=48))
    with pytest.raises(CompileError, match=r"sites=\[qkv_in,o_in,mlp_in,down_in\]"):
        concentrate(module, method="sic", sites=SITES)
    apply(module, method="sic", sites=("qkv_in", "o_in", "mlp_in", "down_in"))


def left_out(module: Module) -> list[tuple[int, str, str]]:
    return list(module.attrs["concentrate"].get("left_out", ()))


def test_what_a_layer_does_not_have_is_left_out_and_said() -> None:
    out, stats = apply(decoder(Shape(heads=2, kv_heads=2, head_size=48)))
    assert {op.site for op in out.walk() if isinstance(op, Gather)} == {"qkv_in", "o_in", "mlp_in", "down_in"}
    assert [(layer, site) for layer, site, _ in left_out(out)] == [(0, "query"), (1, "query"), (2, "query")]
    assert {why for *_, why in left_out(out)} == {
        "its heads have 48 columns, not a multiple of the 32-wide vectors: one vector would straddle two heads, and "
        "Q*K^T could not skip it"
    }
    assert stats["left_out"] == 3
    module = decoder()
    unfused(module)
    out, _ = apply(module)
    assert left_out(out) == [(0, "o_in", "no nn.linear follows its attention")]
    run(out)


def test_a_share_that_drops_nothing_is_said() -> None:
    out, stats = apply(decoder(), method="sec", schedule="0:1.0,1:0.5,2:0.5")
    assert [(op.layer, op.k) for op in out.walk() if isinstance(op, Select)] == [(1, 18)]
    assert left_out(out) == [(0, "prune", "a share of 1 keeps all 36 tokens there are"),
                             (2, "prune", "a share of 0.5 keeps all 18 tokens there are")]
    assert stats["left_out"] == 2 and stats["prunings"] == 1


def test_a_constant_add_before_the_mlp_is_no_residual_add() -> None:
    module = decoder(SMALL)
    plain = [len(layer.gate_up) for layer in find_decoder_layers(module)]
    rewriter = Rewriter(module)
    for layer in find_decoder_layers(module):
        normed = layer.gate_up[0].operands[0]
        assert normed is not None
        b = rewriter.builder_before(layer.gate_up[0])
        shifted = b.emit("tensor.add", normed, b.constant(np.ones(SMALL.width, np.float32)))
        for op in layer.gate_up:
            rewriter.set_operand(op, 0, shifted)
    assert [len(layer.gate_up) for layer in find_decoder_layers(module)] == plain


def test_concentrating_twice_is_refused() -> None:
    out, _ = apply(decoder(), method="sic")
    with pytest.raises(CompileError, match="concentrated already"):
        concentrate(out, method="sec")


def test_a_module_without_a_decoder_is_refused() -> None:
    b = Builder()
    x = b.argument("x", TensorType((1, 42, 8), "f32"))
    module = b.module("m", {"y": b.emit("nn.gelu", x)}, {"layout": decoder().attrs["layout"]})
    with pytest.raises(CompileError, match="no attention of the whole sequence"):
        concentrate(module)


def test_reading_visual_tokens_at_the_end_is_refused() -> None:
    module = decoder()
    last = next(op for op in module.walk() if op.name == "tensor.slice")
    Rewriter(module).set_attr(last, starts=(5,), ends=(6,))
    with pytest.raises(CompileError, match=r"\[5:6:1\] of 42 rows, which reads visual tokens"):
        concentrate(module, method="sec", schedule="0:0.5")
    apply(module, method="sic")
