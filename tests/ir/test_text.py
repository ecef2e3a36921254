"""The text format: exact round trips as properties, positions, and a parser that fuzzed text cannot harm."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.ir import (
    BufferType,
    Builder,
    CompileError,
    ConcentratedType,
    IndexType,
    Loc,
    Module,
    Resource,
    StreamType,
    TensorType,
    TileType,
    TokensType,
    difference,
    parse,
    print_module,
)
from focusc.ir.text.literals import parse_dense, parse_type
from focusc.ir.text.printer import print_resource
from focusc.ir.types import DTYPES

SAMPLE = """module "m"(%x: tensor<2x3xf32>, %"in.1": tensor<2xi64>) -> ("y", "a \\"b\\"") {layout = {visual = [1, 2]}} {
  %0 = tensor.constant() {value = dense<3xf32, [0.1, -inf, nan]>} : tensor<3xf32>
  // a comment
  %h = tensor.add(%x, %0) : tensor<2x3xf32> loc("/a/Add" "model.layers.0")
  %1 = nn.layer_norm(%h, %0, _) {eps = 1e-05} : tensor<2x3xf32>
  %2 = nn.embed(%"in.1", %1) : tensor<2x3xf32> loc("")
  return(%1, %2)
}
"""

shapes = st.lists(st.integers(0, 70), max_size=4).map(tuple)
dtypes = st.sampled_from(sorted(DTYPES))
counts = st.integers(0, 1000)
types = st.one_of(
    st.builds(TensorType, shapes, dtypes),
    st.builds(ConcentratedType, st.tuples(counts, counts), dtypes, st.integers(1, 64), st.integers(1, 4096)),
    st.builds(TokensType, counts, counts),
    st.just(IndexType()),
    st.builds(BufferType, shapes, dtypes, st.sampled_from(["rows", "conc"])),
    st.builds(StreamType, counts, counts, st.sampled_from(["dense", "conc"])),
    st.builds(TileType, counts, counts),
)
scalars = st.one_of(
    st.integers(-(2**63), 2**64 - 1), st.floats(), st.booleans(), st.text(st.characters(codec="utf-8"), max_size=8)
)
attributes = st.recursive(
    scalars,
    lambda s: st.one_of(st.lists(s, max_size=3).map(tuple), st.dictionaries(st.text(max_size=4), s, max_size=3)),
    max_leaves=8,
)
names = st.text(st.characters(codec="utf-8"), max_size=6)


@given(types)
def test_every_type_reads_back(type_: Any) -> None:
    assert parse_type(str(type_)) == type_


@given(st.lists(types, min_size=1, max_size=4), names, names, st.dictionaries(names, attributes, max_size=3), st.data())
def test_every_module_header_location_and_name_reads_back(
    inputs: list[Any], name: str, node: str, attrs: dict[str, Any], data: st.DataObject
) -> None:
    b = Builder(loc=Loc(node=node, module_path=name))
    labels = data.draw(st.lists(names.filter(bool), min_size=len(inputs), max_size=len(inputs), unique=True))
    values = [b.argument(label, t) for label, t in zip(labels, inputs, strict=True)]
    module = b.module(name, dict(zip(labels, values, strict=True)), attrs)
    text = print_module(module)
    again = parse(text)
    assert difference(module, again) is None
    assert print_module(again) == text


@given(dtypes, st.binary(min_size=32, max_size=32))
def test_every_inline_constant_reads_back_exactly(dtype: str, raw: bytes) -> None:
    if dtype == "bool":
        array = np.frombuffer(raw[:4], np.uint8) % 2 == 1
    else:
        array = np.frombuffer(raw, DTYPES[dtype])[:4]
    again = parse_dense(print_resource(Resource("", array))).array
    assert again.dtype == array.dtype
    np.testing.assert_array_equal(again, array)  # NaN equals NaN; their payloads are not kept


@given(st.floats())
def test_every_float_reads_back(value: float) -> None:
    b = Builder()
    module = b.module("m", {}, {"v": value})
    again = parse(print_module(module)).attrs["v"]
    assert type(again) is float
    assert again == value or (math.isnan(value) and math.isnan(again))
    assert math.copysign(1, again) == math.copysign(1, value) or math.isnan(value)


def test_sample_reads_back() -> None:
    module = parse(SAMPLE, file="sample.fir")
    assert [a.name for a in module.args] == ["x", "in.1"]
    assert module.outputs == ["y", 'a "b"']
    assert module.attrs == {"layout": {"visual": (1, 2)}}
    add = module.body.ops[1]
    assert add.loc == Loc("sample.fir", 4, 8, "/a/Add", "model.layers.0")
    assert add.result.name == "h"
    assert print_module(parse(print_module(module))) == print_module(module)


def test_numbers_are_given_anew_and_names_kept() -> None:
    text = print_module(parse(SAMPLE.replace("%2", "%77")))
    assert "%77" not in text
    assert "%h" in text
    assert "%2 = nn.embed" in text


def test_colliding_names_are_told_apart() -> None:
    b = Builder()
    x = b.argument("x", TensorType((2,), "f32"))
    first = b.emit("tensor.exp", x, name="x")
    second = b.emit("tensor.exp", first, name="/a b/")
    module = b.module("m", {"y": second})
    text = print_module(module)
    assert "%0 = tensor.exp(%x)" in text
    assert '%"/a b/" = tensor.exp(%0)' in text
    assert difference(parse(text), module) is None


def test_resource_of_another_type_is_refused() -> None:
    text = (
        'module "m"() -> ("y") {\n  %0 = tensor.constant() {value = resource<"w">} : tensor<8x8xf32>\n  return(%0)\n}\n'
    )
    good = Resource("w", np.zeros((8, 8), np.float32))
    assert parse(text, resources={"w": good}).body.ops[0].attrs["value"] is good
    with pytest.raises(CompileError, match=r"error\[resource.type\]: resource 'w' is tensor<8x9xf32>"):
        parse(text, resources={"w": Resource("w", np.zeros((8, 9), np.float32))})


def test_large_module_is_fast() -> None:
    b = Builder()
    value = b.argument("x", TensorType((4, 4), "f32"))
    for i in range(3000):
        value = b.emit("tensor.add", value, value, loc=Loc(node=f"/node{i}", module_path=f"model.layers.{i}"))
    module = b.module("big", {"y": value})
    start = time.process_time()
    text = print_module(module)
    again = parse(text)
    assert time.process_time() - start < 8  # about one second on an idle core
    assert difference(module, again) is None


def deep(kind: str, depth: int) -> str:
    opening, closing = kind
    return f'module "m"() -> () {{a = {opening * depth}{closing * depth}}} {{\n  return()\n}}\n'


@pytest.mark.parametrize("depth", [70, 5000, 200_000])
def test_deep_nesting_is_refused(depth: int) -> None:
    with pytest.raises(CompileError, match="nested more than 64 deep"):
        parse(deep("[]", depth))


def test_many_errors_are_reported_together() -> None:
    text = SAMPLE.replace("tensor.add", "tensor.plus").replace("nn.embed", "nn.embedding")
    with pytest.raises(CompileError) as error:
        parse(text)
    assert [d.code for d in error.value.diagnostics] == ["op.unknown", "op.unknown"]
    assert [d.loc.line for d in error.value.diagnostics] == [4, 6]


GOLDENS = sorted((Path(__file__).parents[1] / "golden" / "passes").rglob("*.fir"))
CORPUS = [SAMPLE, *(p.read_text(encoding="utf-8").split("// ----")[0] for p in GOLDENS[:12])]
FRAGMENTS = [
    *(
        "%0",
        "%x",
        "_",
        "(",
        ")",
        "{",
        "}",
        "[",
        "]",
        "<",
        ">",
        ",",
        ":",
        "=",
        '"',
        "\\",
        "^",
        "->",
        "-",
        "// ",
        "\n",
        "\x00",
    ),
    *("loc", "return", "yield", "module", "index", "nan", "1e999", "99999999999999999999999999", "\ud7ff", "é"),
    *("tensor<9999999999x9999999999xf32>", "tensor<-1xf32>", "dense<2xf32, [1]>", 'resource<"w">'),
]


ABSURD = [
    "tensor.range() {start = 0.0, limit = 1e300, delta = 1e-300}",
    "tensor.range() {start = 0, limit = 9223372036854775807, delta = 1}",
    "tensor.tile(%x) {repeats = [9223372036854775807, 9223372036854775807]}",
    "tensor.pad(%x) {pads = [9223372036854775807, 0, 0, 9223372036854775807]}",
    "tensor.expand(%x) {shape = [9223372036854775807, 2, 3]}",
    "tensor.reshape(%x) {shape = [-9223372036854775807, 3]}",
    "tensor.concat(%x, %x) {axis = 9223372036854775807}",
    "tensor.average_pool(%x) {kernel = [], strides = [], pads = []}",
    "tensor.transpose(%x) {perm = [9223372036854775807, 0]}",
    "nn.rope(%x, %x, %x) {heads = 9223372036854775807}",
    "nn.patch_embed(%x, %x, _) {kernel = [], stride = [], pads = []}",
]


@pytest.mark.parametrize("op", ABSURD)
def test_absurd_sizes_are_refused_at_once(op: str) -> None:
    start = time.process_time()
    with pytest.raises(CompileError):
        parse(f'module "m"(%x: tensor<2x3xf32>) -> ("y") {{\n  %0 = {op}\n  return(%0)\n}}\n')
    assert time.process_time() - start < 1


def mutate(text: str, edits: list[tuple[float, int, str]]) -> str:
    """Replace `length` characters at each relative position."""
    for where, length, new in edits:
        at = int(where * len(text))
        text = text[:at] + new + text[at + length :]
    return text


edit = st.tuples(st.floats(0, 1), st.integers(0, 12), st.one_of(st.sampled_from(FRAGMENTS), st.text(max_size=4)))


@settings(max_examples=400)
@given(st.sampled_from(CORPUS), st.lists(edit, min_size=1, max_size=4))
def test_mutated_text_is_a_module_or_a_clear_error(text: str, edits: list[tuple[float, int, str]]) -> None:
    try:
        module = parse(mutate(text, edits))
    except CompileError as error:
        assert error.diagnostics
        assert all(d.code and d.message for d in error.diagnostics)
        return
    assert isinstance(module, Module)
    printed = print_module(module)
    resources = {r.name: r for op in module.walk() for r in op.attrs.values() if isinstance(r, Resource)}
    assert print_module(parse(printed, resources=resources)) == printed


@settings(max_examples=300)
@given(st.lists(st.sampled_from(FRAGMENTS + SAMPLE.split()), max_size=40).map(" ".join))
def test_random_tokens_are_refused_without_a_traceback(text: str) -> None:
    try:
        parse(text)
    except CompileError as error:
        assert error.render().startswith(("<text>:", "error["))
