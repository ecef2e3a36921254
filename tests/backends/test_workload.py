"""Workloads: the shipped files, what is refused, and the same compiler path as an imported model, without weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusc.backends import compile_module, load_hardware
from focusc.backends.prefill import build
from focusc.backends.trace_synth import synthesize
from focusc.backends.workload import Workload, load_workload, parse_workload, shipped, variants
from focusc.driver import CompileOptions, compile_model, simulate
from focusc.ir import CompileError, interpret, parse, print_module, same_module, verify
from focusc.ir.files import read_module, write_module
from focusc.isa import Program, assemble, disassemble, load
from focusc.isa.emulator import Emulator
from focusc.isa.errors import IsaError
from focusc.isa.machine import Machine
from focusc.isa.timing import ArrayModel
from tests.messages import check_messages

SMALL = """
name = "small"
layers = 2
width = 64
heads = 2
kv_heads = 1
ffn = 96
vocab = 40
qkv_bias = true
grid = [2, 3, 4]
visual_tokens = 24
text_tokens = 8
text_before = 3
schedule = "1:0.5"

[variants.long]
grid = [20, 3, 4]
visual_tokens = 240
"""


def small(variant: str = "") -> Workload:
    """A decoder small enough to compile in a blink."""
    return parse_workload(SMALL, "small.toml", variant)


def compiled(workload: Workload, **options: Any) -> Program:
    """The program of a workload through the driver's own path, without weights."""
    given = CompileOptions(concentrate=options)
    return compile_model(build(workload), given, weights=False).program


PUBLISHED = {  # visual tokens of each (model, data set): meta_data of the published tables, arXiv 2512.14661
    ("llava-video-7b", "videomme"): 11648, ("llava-video-7b", "mlvu"): 11648, ("llava-video-7b", "mvbench"): 2366,
    ("llava-onevision-7b", "videomme"): 6272, ("llava-onevision-7b", "mlvu"): 6272,
    ("llava-onevision-7b", "mvbench"): 6272, ("llava-onevision-7b", "vqav2"): 3149,
    ("llava-onevision-7b", "mme"): 1554, ("llava-onevision-7b", "mmbench"): 2052,
    ("minicpm-v-2.6", "videomme"): 12736, ("minicpm-v-2.6", "mlvu"): 12736, ("minicpm-v-2.6", "mvbench"): 402,
    ("qwen2.5-vl-7b", "vqav2"): 414, ("qwen2.5-vl-7b", "mme"): 273, ("qwen2.5-vl-7b", "mmbench"): 280,
}  # fmt: skip


@pytest.mark.parametrize(("name", "variant"), PUBLISHED)
def test_published_layouts_have_the_published_tokens(name: str, variant: str) -> None:
    workload = load_workload(name, variant)
    assert workload.visual_tokens == PUBLISHED[name, variant]
    assert (workload.layers, workload.width, workload.heads, workload.kv_width, workload.ffn) == (28, 3584, 28, 512,
                                                                                              18944)
    workload.layout.fit(workload.tokens)
    assert workload.retained()[-1][1] == int(workload.visual_tokens * 0.1)


@pytest.mark.parametrize("name", shipped())
def test_every_shipped_workload_and_variant_loads(name: str) -> None:
    for variant in ("", *variants(name)):
        workload = load_workload(name, variant)
        assert workload.name == name and workload.source
        assert workload.heads * workload.head_size == workload.width
        again = Workload(**{**workload.to_dict(), "grid": workload.grid, "strides": workload.strides,
                            "vision": workload.vision})
        assert again == workload


def test_frames_scale_a_clip() -> None:
    clip = load_workload("llava-video-7b").with_frames(8)
    assert (clip.visual_tokens, clip.grid, clip.frames) == (8 * 182, (8, 13, 14), 8)
    with pytest.raises(CompileError, match="it is no clip"):
        load_workload("llava-onevision-7b", "mme").with_frames(8)
    with pytest.raises(CompileError, match="found 0 frames, expected 1 to"):
        load_workload("llava-video-7b").with_frames(0)


def edited(old: str, new: str) -> str:
    assert old in SMALL
    return SMALL.replace(old, new, 1)


BAD = {
    "heads": (edited("heads = 2", "heads = 5"), "small.toml:5", "heads is 5, expected a divisor of width = 64"),
    "kv_heads": (edited("kv_heads = 1", "kv_heads = 3"), "small.toml:6", "kv_heads is 3, expected a divisor of heads"),
    "unknown key": (edited("ffn = 96", "fnn = 96"), "small.toml:7", "fnn is not a key of a workload"),
    "missing key": (edited("ffn = 96\n", ""), "small.toml:1", "ffn missing"),
    "type": (edited("layers = 2", "layers = 2.5"), "small.toml:3", "layers is 2.5, expected a whole number"),
    "grid type": (edited("[2, 3, 4]", "[2, 3]"), "small.toml:10", "grid is [2, 3], expected three whole numbers"),
    "zero": (edited("layers = 2", "layers = 0"), "small.toml:3", "layers is 0, expected 1 to"),
    "grid": (edited("[2, 3, 4]", "[2, 3, 5]"), "small.toml:10", "has 30 points, but the visual span has 24 rows"),
    "text": (edited("text_before = 3", "text_before = 8"), "small.toml:13", "text_before is 8, expected less than"),
    "schedule": (edited("1:0.5", "7:0.5"), "small.toml:14", "names layer 7, but the decoder has layers 0 to 1"),
    "syntax": ("name = ", "small.toml", "not TOML"),
    "head size": (edited("ffn = 96", "ffn = 96\nhead_size = 7"), "small.toml:8", "head_size is 7, expected an even"),
    "vision": (SMALL + "[vision]\nlayers = 1\nwidth = 10\nheads = 3\nhead_size = 4\nffn = 8\ntokens = 4\n",
               "small.toml:22", "vision.heads is 3, expected a divisor of vision.width = 10"),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_a_wrong_file_is_told_with_key_line_value_and_what_is_allowed(case: str) -> None:
    text, where, message = BAD[case]
    with pytest.raises(CompileError) as caught:
        parse_workload(text, "small.toml")
    shown = caught.value.render()
    assert shown.startswith(where) and message in shown and "error[workload." in shown


def test_messages(request: pytest.FixtureRequest) -> None:
    cases: dict[str, Callable[[], object]] = {
        case: lambda text=text: parse_workload(text, "small.toml") for case, (text, _, _) in BAD.items()
    }
    cases["variants"] = lambda: parse_workload("variants = 3\n" + SMALL.partition("\n[")[0], "small.toml")
    cases["vision type"] = lambda: parse_workload("vision = 3\n" + SMALL, "small.toml")
    cases["variant"] = lambda: small("x")
    cases["name"] = lambda: load_workload("llava-vido-7b")
    cases["frames of a picture"] = lambda: load_workload("llava-onevision-7b", "mme").with_frames(8)
    cases["no frames"] = lambda: load_workload("llava-video-7b").with_frames(0)
    check_messages("workload", cases, request)


def test_names_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(CompileError, match="did you mean llava-video-7b"):
        load_workload("llava-vido-7b")
    with pytest.raises(CompileError, match="no variant 'x'\n  hint: there are long"):
        small("x")
    file = tmp_path / "mine.toml"
    file.write_text(SMALL)
    assert load_workload(file) == small()


def test_the_module_has_shapes_and_no_values(tmp_path: Path) -> None:
    module = build(small())
    verify(module)
    text = print_module(module)
    assert 'absent<64x96xf32, "model.layers.1.mlp.up_proj.weight">' in text and "resource<" not in text
    assert same_module(module, parse(text))
    write_module(module, tmp_path / "w.fir")
    assert [p.name for p in tmp_path.iterdir()] == ["w.fir"]
    assert same_module(module, read_module(tmp_path / "w.fir"))
    with pytest.raises(CompileError, match="has a shape and no values"):
        interpret(module, {"text": np.zeros((1, 8), np.int64), "visual": np.zeros((1, 24, 64), np.float32)})


def test_without_a_vocabulary_hidden_rows_go_in_and_out() -> None:
    module = build(parse_workload(edited("vocab = 40\n", ""), "small.toml"))
    assert [arg.name for arg in module.args] == ["hidden"] and module.outputs == ["out"]


def test_weights_are_asked_for_unless_left_out() -> None:
    with pytest.raises(CompileError, match=r"codegen\.weights.*has a shape and no values"):
        compile_model(build(small()), CompileOptions())


def test_a_program_without_weights_is_the_same_program(tmp_path: Path) -> None:
    found = compiled(small())
    assert found.const_bytes > 2 * 40 * 64 and len(found.const) == 0 and not found.has_constants
    found.save(tmp_path / "w.fbin")
    assert load(tmp_path / "w.fbin") == found
    assert assemble(disassemble(found)) == found
    with pytest.raises(IsaError, match="compiled without weights"):
        Emulator(found)


def test_a_model_with_weights_can_leave_them_out() -> None:
    from tests.backends.models import Shape, vlm

    full, bare = (compile_module(vlm(Shape()), load_hardware("focus"), weights=weights) for weights in (True, False))
    assert bare.text.tolist() == full.text.tolist() and bare.const_bytes == len(full.const)


def test_the_workload_brings_its_schedule_and_threshold() -> None:
    meta = compiled(small()).meta["sites"]
    assert [row["retained"] for row in meta if row["layer"] == 1] == [24, 24, 24, 12, 12]
    given = compiled(small(), schedule="0:0.25").meta["sites"]
    assert [row["retained"] for row in given if row["site"] == "down_in"] == [6, 6]


@pytest.mark.parametrize("array", ["scalesim", "pipelined"])
def test_more_compression_never_costs_more_array_cycles(array: ArrayModel) -> None:
    workload = small("long")
    program = compiled(workload, m=64)
    busy: list[int] = []
    for compression in (1.0, 1.5, 2.5, 6.0):
        trace = synthesize(workload, compression=compression, correlation=0.2, m=64)
        busy.append(simulate(program, trace, array=array)["engines"]["mxu"])
    assert busy == sorted(busy, reverse=True) and busy[0] > busy[-1]


def test_dense_programs_need_no_trace() -> None:
    program = compile_model(build(small()), CompileOptions(concentrate={"method": "none"}), weights=False).program
    assert simulate(program)["cycles"] > 0


def test_one_path_for_all_sizes() -> None:
    """The text of the program does not grow with the frames: loops do."""
    shorter, longer = (len(compiled(small("long").with_frames(f), m=32).text) for f in (40, 400))
    assert longer < 1.2 * shorter
    assert isinstance(Machine.from_dict(compiled(small()).hardware), Machine)


@pytest.mark.parametrize("method", ["none", "focus"])
def test_the_text_hardly_grows_when_the_tokens_double(method: str) -> None:
    found = replace(load_workload("llava-video-7b"), layers=4)
    given = CompileOptions.load(concentrate=method)
    sizes = [
        len(compile_model(build(found.with_frames(frames)), given, weights=False).program.text)
        for frames in (8, 16, 32)
    ]
    assert all(after < 1.05 * before for before, after in pairwise(sizes)), sizes
