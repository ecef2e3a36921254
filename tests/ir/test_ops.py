"""Every declared op: documented, exemplified, executable as typed, printable and parseable."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusc.ir import (
    OPS,
    Builder,
    Module,
    Op,
    TensorType,
    interpret,
    parse,
    print_module,
    read_module,
    same_module,
    seeded_inputs,
    verify,
)
from focusc.ir.types import DTYPES

DIALECTS = ("tensor", "nn", "sic", "sec", "host", "tile")
NAMES = sorted(n for n in OPS if n.split(".")[0] in DIALECTS)


TEXTS = {path.stem: read_module(path) for path in sorted((Path(__file__).parent / "examples").glob("*.fir"))}
"""Modules for ops whose operands are not plain arrays."""

for _path in sorted((Path(__file__).parents[1] / "golden" / "passes" / "tile").glob("*.fir")):
    if "// ---- expect\n" in (_text := _path.read_text(encoding="utf-8")):
        TEXTS[f"tile/{_path.stem}"] = parse(_text.split("// ---- expect\n")[1].split("// ---- stats")[0])


def example_modules(name: str) -> list[tuple[Module, dict[str, Any]]]:
    """A module and inputs for every example of an op."""
    cls = OPS[name]
    found: list[tuple[Module, dict[str, Any]]] = []
    for operands, attrs in cls.examples() if cls.examples is not None else []:
        b = Builder()
        values = [None if o is None else b.argument(f"x{i}", TensorType.of(o)) for i, o in enumerate(operands)]
        op = b.create(name, *values, **attrs)
        module = b.module(name, {f"y{i}": v for i, v in enumerate(op.results)})
        found.append((module, {f"x{i}": o for i, o in enumerate(operands) if o is not None}))
    found += [(m, seeded_inputs(m)) for m in TEXTS.values() if any(op.name == name for op in m.walk())]
    return found


def in_text(name: str) -> bool:
    return OPS[name].examples is None


@pytest.mark.parametrize("name", NAMES)
def test_has_a_docstring_and_documented_name(name: str) -> None:
    cls = OPS[name]
    assert cls.spec.doc.split("\n")[0].endswith((".", ":", ";")) or "\n" in cls.spec.doc
    assert cls.spec.name == cls.name == name
    assert cls.infer is not None
    assert cls.evaluate is not None


@pytest.mark.parametrize("name", NAMES)
def test_has_an_example(name: str) -> None:
    assert example_modules(name), f"{name} has neither examples() nor a module in tests/ir/examples"


@pytest.mark.parametrize("name", [n for n in NAMES if not in_text(n)])
def test_example_gives_values_of_the_inferred_type(name: str) -> None:
    for module, inputs in example_modules(name):
        verify(module)
        outputs = interpret(module, inputs)
        for key, value in zip(module.outputs, module.results, strict=True):
            if isinstance(value.type, TensorType):
                assert outputs[key].shape == value.type.shape
                assert outputs[key].dtype == DTYPES[value.type.dtype]


@pytest.mark.parametrize("name", sorted(TEXTS))
def test_example_module_executes(name: str) -> None:
    module = TEXTS[name]
    outputs = interpret(module, seeded_inputs(module))
    assert set(outputs) == set(module.outputs)
    for value in outputs.values():
        assert np.isfinite(np.asarray(value, dtype=np.float64)).all()


@pytest.mark.parametrize("name", [n for n in NAMES if n.split(".")[0] in ("tensor", "nn")])
def test_example_leaves_its_operands_alone(name: str) -> None:
    for module, inputs in example_modules(name):
        before = {k: v.copy() for k, v in inputs.items()}
        interpret(module, inputs)
        for key, value in before.items():
            np.testing.assert_array_equal(inputs[key], value)


@pytest.mark.parametrize("name", NAMES)
def test_example_round_trips_through_text_and_clone(name: str) -> None:
    for module, _ in example_modules(name):
        text = print_module(module)
        again = parse(text)
        assert same_module(again, module)
        assert print_module(again) == text
        clone = module.clone()
        verify(clone)
        assert same_module(clone, module)


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("nn.")])
def test_nn_ops_keep_half_precision(name: str) -> None:
    for module, inputs in example_modules(name):
        half = {k: v.astype(np.float16) if v.dtype == np.float32 else v for k, v in inputs.items()}
        b = Builder()
        values = {a.name: b.argument(a.name, TensorType.of(half[a.name])) for a in module.args}
        source: Op = module.body.ops[0]
        operands = [values[v.name] if v is not None else None for v in source.operands]
        op = b.create(name, *operands, **source.attrs)
        outputs = interpret(b.module("half", {"y": op.result}), half)
        assert outputs["y"].dtype == np.float16
        full = interpret(module, inputs)["y0"]
        np.testing.assert_allclose(outputs["y"].astype(np.float32), full, rtol=2e-2, atol=2e-2)
