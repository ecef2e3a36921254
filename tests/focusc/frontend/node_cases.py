"""onnx's own single-node test cases, run through import and interpreter.

Most operators take as inputs what the importer needs to know when compiling (shapes, axes, pads). A case is first
imported as it is; if a value must be known, all inputs but the first are made initialisers, then all of them.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx

from focusc.frontend import import_onnx
from focusc.frontend.registry import RULES
from focusc.ir import CompileError, Module, TensorType, interpret
from focusc.ir.types import DTYPES

INFERENCE_ONLY = ("dropout_random", "training", "_train")
"""Parts of case names that test what only training does."""

ROUNDED = frozenset({"test_averagepool_2d_ceil_last_window_starts_on_pad"})
"""Cases whose recorded output is rounded to four digits."""


@dataclass(frozen=True)
class Verdict:
    """`status` is passed, constants (passed with inputs made constant), "not applicable" or failed, with the reason."""

    op: str
    name: str
    status: str
    reason: str = ""


def cases() -> Iterator[Any]:
    """Every node case whose operators all have an import rule."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    for case in found:
        if case.model is not None and all(n.op_type in RULES for n in case.model.graph.node):
            yield case


def run(case: Any, folder: Path) -> Verdict:
    """Import and execute one case against its recorded outputs."""
    # an expanded case holds the function body of the operator that its name begins with
    op = "(function bodies)" if len(case.model.graph.node) > 1 else case.model.graph.node[0].op_type
    if any(part in case.name for part in INFERENCE_ONLY):
        return Verdict(op, case.name, "not applicable", "training")
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    for imported in model.opset_import:
        if imported.domain in ("", "ai.onnx"):
            imported.version = min(max(imported.version, 18), 25)
    first = ""
    for fixed in range(3):
        try:
            results = [attempt(model, values(i), values(o), fixed, folder, 1e-3 if case.name in ROUNDED else 1e-5)
                       for i, o in case.data_sets]
        except CompileError as error:
            found = error.diagnostics[0]
            first = first or reason(found.code, found.message)
            if found.code == "onnx.dynamic-value" and fixed < 2:
                continue
            return Verdict(op, case.name, "not applicable", first if fixed == 0 else reason(found.code, found.message))
        wrong = [r for r in results if r]
        if wrong:
            return Verdict(op, case.name, "failed", wrong[0])
        return Verdict(op, case.name, "constants" if fixed else "passed")
    raise AssertionError("unreachable: with all inputs constant every value is known")


def values(found: list[Any]) -> list[Any]:
    """Arrays, also of inputs and outputs that a case gives as TensorProto."""
    return [onnx.numpy_helper.to_array(v) if isinstance(v, onnx.TensorProto) else v for v in found]


def attempt(model: onnx.ModelProto, inputs: list[Any], outputs: list[Any], fixed: int, folder: Path,
            tolerance: float) -> str:
    """Run one data set with no input, all but the first, or all inputs constant; "" or what is wrong."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    arrays = dict(zip((i.name for i in model.graph.input), inputs, strict=False))
    for name in list(arrays)[{0: len(arrays), 1: 1, 2: 0}[fixed]:]:
        if isinstance(arrays[name], np.ndarray | np.generic):
            model.graph.initializer.append(onnx.numpy_helper.from_array(np.asarray(arrays.pop(name)), name))
            kept = [i for i in model.graph.input if i.name != name]
            del model.graph.input[:]
            model.graph.input.extend(kept)
    path = folder / "case.onnx"
    path.write_bytes(model.SerializeToString())
    module = import_onnx(path)
    with np.errstate(all="ignore"):
        got = interpret(module, feed(module, arrays))
    for (name, value), expected in zip(got.items(), outputs, strict=True):
        expected = np.asarray(expected)
        if value.shape != expected.shape:
            return f"{name} has shape {value.shape}, expected {expected.shape}"
        loose = 1e-2 if expected.dtype.itemsize == 2 else tolerance
        a, b = value.astype(np.float64), expected.astype(np.float64)
        if not np.allclose(a, b, rtol=loose, atol=loose, equal_nan=True):
            return f"{name} differs by {np.abs(a - b).max():.3g}"
    return ""


def feed(module: Module, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The case's inputs in the element types that the module has."""
    found = {}
    for arg in module.args:
        assert isinstance(arg.type, TensorType)
        found[arg.name] = np.asarray(arrays[arg.name]).astype(DTYPES[arg.type.dtype])
    return found


def reason(code: str, message: str) -> str:
    """A reason that does not depend on names in the case."""
    if code in ("onnx.dtype", "onnx.input-kind", "onnx.dynamic-shape", "onnx.checker", "onnx.control-flow"):
        return code
    return f"{code}: {message.partition(': ')[2] or message}"
