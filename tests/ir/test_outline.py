"""Outlining: any choice of ops moves into host calls without a change of values, and calls stand on their own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.ir import Builder, CompileError, Diagnostic, Module, Op, TensorType, interpret, parse, print_module, verify
from focusc.ir.compare import same_module
from focusc.ir.macs import macs
from focusc.ir.outline import choose, outline
from focusc.ir.passes.manager import PassManager

REASON = Diagnostic("lower.op", "no unit for it")
STORABLE = ("f32", "f16", "i32", "i64")


@st.composite
def models(draw: st.DrawFn) -> Module:
    """A random graph of small ops: products, moves, comparisons and selections by them."""
    b = Builder()
    f32 = [b.argument("x", TensorType((4, 4), "f32")), b.constant(np.eye(4, dtype=np.float32) * 0.5)]
    truth: list[Any] = []
    for number in range(draw(st.integers(1, 9))):
        one, two = draw(st.sampled_from(f32)), draw(st.sampled_from(f32))
        kind = draw(st.sampled_from(["tensor.add", "tensor.matmul", "tensor.cumsum", "tensor.greater", "tensor.where"]))
        if kind == "tensor.cumsum":
            f32.append(b.emit(kind, one, axis=0, name=f"v{number}"))
        elif kind == "tensor.greater":
            truth.append(b.emit(kind, one, two, name=f"v{number}"))
        elif kind == "tensor.where" and truth:
            f32.append(b.emit(kind, draw(st.sampled_from(truth)), one, two, name=f"v{number}"))
        else:
            f32.append(b.emit("tensor.add" if kind == "tensor.where" else kind, one, two, name=f"v{number}"))
    chosen = draw(
        st.lists(
            st.sampled_from([v for v in f32 if v.op is None or v.op.name != "tensor.constant"]),
            min_size=1,
            max_size=2,
            unique=True,
        )
    )
    return b.module("m", {f"y{i}": v for i, v in enumerate(chosen)})


@settings(max_examples=120, deadline=None)
@given(models(), st.data())
def test_values_stay_and_calls_read_only_their_arguments(module: Module, data: st.DataObject) -> None:
    ops = [op for op in module.body.ops if op.name not in ("tensor.constant", "return")]
    # comparisons are always refused: their results have no place in DRAM
    refused = {op for op in ops if op.name == "tensor.greater"} | data.draw(
        st.sets(st.sampled_from(ops)) if ops else st.just(set())
    )
    parts = choose(module, dict.fromkeys([op for op in ops if op in refused], REASON), STORABLE)
    found = outline(module, parts)
    verify(found.module)
    moved = [op for part in parts for op in part]
    assert refused <= set(moved) and len(moved) == len(set(moved))
    assert len(found.calls) == len(parts)
    for part in parts:
        assert all(reason.code != "host.between" or not macs(op) for op, reason in part.items())
    for call in found.calls:
        for value in (*call.operands, *call.results):
            assert value is not None and isinstance(value.type, TensorType) and value.type.dtype in STORABLE
    text = print_module(found.module)
    assert same_module(parse(text), found.module) and print_module(parse(text)) == text
    x = {"x": np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)}
    before, after = interpret(module, x), interpret(found.module, x)
    assert all(np.array_equal(before[name], after[name], equal_nan=True) for name in before)
    # passes that look into regions leave a call on its own
    again = PassManager("canonicalise,fold-constants,common-subexpressions,dead-code").run(found.module)
    verify(again)
    assert all(np.array_equal(before[n], interpret(again, x)[n], equal_nan=True) for n in before)


def test_a_body_that_reads_from_outside_is_refused() -> None:
    text = """module "m"(%x: tensor<4xf32>) -> ("y") {
      %c = tensor.add(%x, %x) : tensor<4xf32>
      %y = host.call(%x) {nodes = []} { ^(%a: tensor<4xf32>):
        %s = tensor.add(%a, %c) : tensor<4xf32>
        yield(%s)
      } : tensor<4xf32>
      return(%y)
    }"""
    with pytest.raises(CompileError, match=r"value\.undefined"):
        verify(parse(text))


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("%y = host.call(%x) {nodes = []} { ^(%a: tensor<5xf32>):\n yield(%a)\n } : tensor<5xf32>", "the body takes"),
        ("%y = host.call(%x) {nodes = [1]} { ^(%a: tensor<4xf32>):\n yield(%a)\n } : tensor<4xf32>", "expected dict"),
    ],
)
def test_what_a_call_must_be(body: str, message: str) -> None:
    with pytest.raises(CompileError, match=message):
        parse(f'module "m"(%x: tensor<4xf32>) -> ("y") {{\n{body}\nreturn(%y)\n}}')


def value(b: Builder, *shape: int) -> Any:
    return b.argument(f"a{len(b.block.args)}", TensorType(shape, "f32"))


def test_macs_of_every_product() -> None:
    b = Builder()
    heads = {"heads": 2, "kv_heads": 1, "scale": 1.0}
    q, k = value(b, 1, 4, 16), value(b, 1, 4, 8)
    cases: list[tuple[Op, int]] = [
        (b.create("nn.linear", value(b, 2, 3, 8), value(b, 8, 5)), 2 * 3 * 8 * 5),
        (b.create("tensor.matmul", value(b, 7, 2, 3), value(b, 3, 4)), 7 * 2 * 3 * 4),
        (b.create("tensor.conv", value(b, 1, 4, 6), value(b, 8, 2, 3), group=2), 8 * 4 * 2 * 3),
        (
            b.create("nn.patch_embed", value(b, 1, 3, 4, 4), value(b, 12, 5), None, kernel=(2, 2), stride=(2, 2)),
            4 * 12 * 5,
        ),
        (b.create("nn.attention", q, k, k, **heads), 16 * 2 * (8 + 8)),
        (b.create("nn.attention", q, k, k, causal=True, **heads), 10 * 2 * (8 + 8)),
        (b.create("nn.attention", q, k, k, causal=True, window=2, **heads), 7 * 2 * (8 + 8)),
        (b.create("tensor.add", q, q), 0),
    ]
    for op, expected in cases:
        assert macs(op) == expected, op.name
