"""Every op that a host segment can hold: its ONNX form, run by onnxruntime, gives what the op's own meaning gives."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import pytest

from focusc.host import HostSegments, segment_model
from focusc.host.graph import RULES, WIDER
from focusc.ir import DTYPES, OPS, Block, Builder, Op, TensorType, Value
from focusc.ir.matching import dtype_of, shape_of
from focusc.ir.outline import DIALECTS
from focusc.isa import Program, Symbol
from focusc.isa.host import HostSegment
from focusc.isa.insns import Halt
from tests.isa.helpers import HARDWARE

NAMES = sorted(name for name in OPS if name.split(".")[0] in DIALECTS)
STORED = {"f": "f32", "i": "i32", "u": "i32", "b": "i8"}
Array = np.ndarray[Any, Any]


def call_of(name: str, operands: list[Array | None], attrs: dict[str, Any]) -> Op:
    """A host call around one op."""
    b, inner = Builder(), Block()
    types = [TensorType.of(x) for x in operands if x is not None]
    outer = [b.argument(f"a{i}", type_) for i, type_ in enumerate(types)]
    given = iter([inner.add_argument(type_, f"a{i}") for i, type_ in enumerate(types)])
    made = Builder(inner).create(name, *[None if x is None else next(given) for x in operands], **attrs)
    Builder(inner).create("yield", *made.results)
    return b.create("host.call", *outer, regions=[inner])


def onnxruntime_gives(call: Op, operands: list[Array | None]) -> list[Array]:
    """Run the model of a call as a program's host segment."""
    given = [x for x in operands if x is not None]

    def symbol(name: str, kind: str, value: Value) -> Symbol:
        return Symbol(name, kind, STORED[DTYPES[dtype_of(value)].kind], shape_of(value), 0)

    block = call.regions[0]
    inputs = tuple(symbol(f"x{i}", "input", a) for i, a in enumerate(block.args))
    outputs = tuple(symbol(f"y{i}", "output", v) for i, v in enumerate(call.results))
    segment = HostSegment(inputs, outputs, (), segment_model(call))
    program = Program([Halt()], hardware=HARDWARE, arena_bytes=1 << 16, host=[segment])
    found = HostSegments(program)(0, {f"x{i}": x for i, x in enumerate(given)})
    return [found[f"y{i}"] for i in range(len(outputs))]


def check(name: str, operands: list[Array | None], attrs: dict[str, Any]) -> None:
    full = OPS[name].complete(attrs)
    keywords = {key: full.get(key) for key in OPS[name].spec.attrs}
    with np.errstate(all="ignore"):
        expected = OPS[name].evaluate(*operands, **keywords)
    call = call_of(name, operands, attrs)
    onnx.checker.check_model(onnx.ModelProto.FromString(segment_model(call)), full_check=True)
    whole = expected if isinstance(expected, tuple) else (expected,)
    scale = 2e-3 if any(np.asarray(x).dtype == np.float16 for x in (*whole, *operands) if x is not None) else 2e-6
    for got, want in zip(onnxruntime_gives(call, operands), whole, strict=True):
        want = np.asarray(want)
        assert got.shape == want.shape
        if want.dtype.kind == "f":
            bound = scale * max(1.0, float(np.abs(want[np.isfinite(want)]).max(initial=0)))
            np.testing.assert_allclose(got.astype(np.float64), want.astype(np.float64), rtol=0, atol=bound)
        else:
            np.testing.assert_array_equal(got, want)


def test_every_op_has_a_rule_and_no_rule_is_without_an_op() -> None:
    assert set(RULES) == set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_examples(name: str) -> None:
    for operands, attrs in OPS[name].examples():
        check(name, list(operands), attrs)


@pytest.mark.parametrize("name", NAMES)
def test_narrow_types_are_computed_wide_and_come_back(name: str) -> None:
    """Examples again with f32 as f16 and i64 as narrower whole numbers, where the op takes them."""
    for operands, attrs in OPS[name].examples():
        for kind, narrow in ((np.float32, np.float16), (np.int64, np.int32)):
            changed = [x.astype(narrow) if x is not None and x.dtype == kind else x for x in operands]
            if name not in ("tensor.constant", "tensor.cast") and any(x is not y for x, y in zip(operands, changed)):
                check(name, changed, attrs)


def test_wider_types_exist() -> None:
    assert all(narrow in DTYPES and wide in DTYPES and wide not in WIDER for narrow, wide in WIDER.items())
