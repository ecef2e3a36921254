"""onnx's own single-node tests (onnx.backend.test) through import, interpreter and accelerator, counted.

    python benchmarks/onnx_backend.py                 print the table
    python benchmarks/onnx_backend.py --write FILE    write it as docs/onnx_operators.md
    python benchmarks/onnx_backend.py Add Attention   only these operators, and every case that did not pass

A case is a model of one node, or the function body of an operator spelled out, with inputs and expected outputs. It is
imported as it is; if a value must be known when compiling (a shape, an axis), all inputs but the first are made
initialisers, then all of them. Models below opset 18 go through onnx.version_converter first, as a user's would.

A case that cannot pass does not apply, for a reason that is derived: the code and message of the importer's refusal, or
what the operator's declaration says. There is no list of cases to skip. Where the imported module has a lowering, it is
also compiled for the target `focus` and executed on the emulator, which stores f16.
"""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import onnx

from focusc.frontend import import_onnx
from focusc.frontend.bodies import function_body
from focusc.frontend.model_file import DEFAULT_DOMAINS, OPSETS
from focusc.frontend.registry import RULES
from focusc.ir import CompileError, Module, TensorType, interpret
from focusc.ir.types import DTYPES
from focusc.isa.errors import IsaError

Array = np.ndarray[Any, np.dtype[Any]]

BODIES = "(function bodies)"
"""Stands for the operator of cases whose model is the function body of one, spelled out in several nodes."""

F16_ERROR = 2e-2
"""Largest difference on the accelerator over the largest expected magnitude: f16 storage between kernels."""

CONTENT_FREE = ("onnx.dtype", "onnx.input-kind", "onnx.dynamic-shape", "onnx.checker", "onnx.control-flow")
"""Codes that are the whole reason: their messages only add names out of the case."""

@dataclass(frozen=True)
class Case:
    """One of onnx's cases: a model and arrays for it. `rtol` is onnx's own tolerance."""

    name: str
    model: onnx.ModelProto
    data: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...]
    rtol: float

    @property
    def operator(self) -> str:
        """The operator that it tests."""
        return BODIES if len(self.model.graph.node) > 1 else self.model.graph.node[0].op_type


@dataclass(frozen=True)
class Verdict:
    """What became of a case. `status`: passed, constants (passed with inputs made constant), not applicable, failed.

    `target`: emulated, failed, or why the accelerator does not run it ("" if the case did not pass import).
    """

    operator: str
    name: str
    status: str
    reason: str = ""
    target: str = ""


@cache
def cases() -> tuple[Case, ...]:
    """onnx's node cases, in its order."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.simplefilter("ignore")
        from onnx.backend.test.case.node import collect_testcases

        found = collect_testcases(None)
    return tuple(Case(c.name, c.model, tuple((tuple(i), tuple(o)) for i, o in c.data_sets), c.rtol)
                 for c in found if c.model is not None and c.data_sets is not None)


def supported(case: Case) -> bool:
    """True if every operator of the case has an import rule, or a function body in its place."""
    opset = min(max((o.version for o in case.model.opset_import if o.domain in DEFAULT_DOMAINS), default=0),
                OPSETS.stop - 1)
    return all(n.domain in DEFAULT_DOMAINS
               and (n.op_type in RULES or function_body(n.op_type, max(opset, OPSETS.start)) is not None)
               for n in case.model.graph.node)


# ---- one case


def run(case: Case, folder: Path, *, emulate: bool = True) -> Verdict:
    """Import and execute one case against its recorded outputs."""
    verdict = Verdict(case.operator, case.name, "not applicable")
    model = converted(case.model)
    if model is None:
        return replace(verdict, reason="an operator as it was before opset 18")
    for fixed, status in enumerate(("passed", "constants", "constants")):
        try:
            wrong = attempt(replace(case, model=model), fixed, folder)
        except CompileError as error:
            found = error.diagnostics[0]
            verdict = replace(verdict, reason=reason(found.code, found.message))
            if found.code in ("onnx.dynamic-value", "onnx.data-dependent") and fixed < 2:
                continue
            return verdict
        if wrong:
            return replace(verdict, status="failed", reason=wrong)
        target = accelerated(replace(case, model=model), fixed, folder) if emulate else ""
        return replace(verdict, status=status, reason="", target=target)
    raise AssertionError("with all inputs constant every value is known")


def converted(model: onnx.ModelProto) -> onnx.ModelProto | None:
    """The model at an opset that can be imported; None if onnx cannot convert it."""
    copy = onnx.ModelProto.FromString(model.SerializeToString())
    found = next((o for o in copy.opset_import if o.domain in DEFAULT_DOMAINS), None)
    if found is None or found.version >= OPSETS.start:
        return copy
    since = {opset: [onnx.defs.get_schema(n.op_type, opset, n.domain).since_version for n in copy.graph.node]
             for opset in (found.version, OPSETS.start)}
    if since[found.version] == since[OPSETS.start]:  # the same operators, under a newer number
        found.version = OPSETS.start
        return copy
    try:
        return onnx.version_converter.convert_version(copy, OPSETS.start)
    except RuntimeError:  # no adapter, or a form that newer operators do not have
        return None


def attempt(case: Case, fixed: int, folder: Path) -> str:
    """What is wrong with the outputs, with no input, all but the first, or all inputs constant; "" if nothing is."""
    for inputs, outputs in case.data:
        module, arrays = imported(case.model, inputs, fixed, folder)
        with np.errstate(all="ignore"):
            got = interpret(module, arrays)
        expected = [plain(o) for o in outputs]
        coarse = max((precision(a) for a in (*map(plain, inputs), *expected)), default=0.0)
        for (name, value), other in zip(got.items(), expected, strict=True):
            wrong = difference(name, value, other, max(case.rtol, 4 * coarse), 2 * coarse)
            if wrong:
                return wrong
    return ""


def imported(model: onnx.ModelProto, inputs: Sequence[Any], fixed: int, folder: Path
             ) -> tuple[Module, dict[str, Array]]:
    """The module with so many inputs made initialisers, and arrays for those that are left."""
    model = onnx.ModelProto.FromString(model.SerializeToString())
    given = dict(zip((i.name for i in model.graph.input), inputs, strict=False))
    for name in list(given)[{0: len(given), 1: 1, 2: 0}[fixed]:]:
        if not isinstance(given[name], list | dict | None):  # sequences and absent optionals stay inputs
            model.graph.initializer.append(initialiser(given.pop(name), name))
            kept = [i for i in model.graph.input if i.name != name]
            del model.graph.input[:]
            model.graph.input.extend(kept)
    path = folder / "case.onnx"
    path.write_bytes(model.SerializeToString())
    module = import_onnx(path)
    arrays = {}
    for arg in module.args:
        assert isinstance(arg.type, TensorType)
        arrays[arg.name] = plain(given[arg.name]).astype(DTYPES[arg.type.dtype])
    return module, arrays


def initialiser(value: Any, name: str) -> onnx.TensorProto:
    """The value as a named initialiser."""
    if not isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.from_array(np.asarray(value), name)
    copy = onnx.TensorProto.FromString(value.SerializeToString())
    copy.name = name
    return copy


def plain(value: Any) -> Array:
    """The value as an array; a TensorProto's is read."""
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else np.asarray(value)


def precision(values: Array) -> float:
    """Relative precision of a floating type below f32; 0 for all others, which are computed as they are."""
    try:
        found = float(ml_dtypes.finfo(values.dtype).eps)
    except ValueError:
        return 0.0
    return found if found > np.finfo(np.float32).eps else 0.0


def difference(name: str, value: Array, expected: Array, relative: float, scaled: float) -> str:
    """What is wrong with a value; "" within the relative tolerance plus `scaled` times the largest magnitude."""
    if value.shape != expected.shape:
        return f"{name} has shape {list(value.shape)}, expected {list(expected.shape)}"
    if value.dtype.kind in "iub" and expected.dtype.kind in "iub":
        return "" if np.array_equal(value, expected) else f"{name} differs in {int((value != expected).sum())} elements"
    a, b = value.astype(np.float64), expected.astype(np.float64)
    finite = np.abs(b[np.isfinite(b)])
    slack = max(scaled, 1e-6) * float(finite.max(initial=0))
    if np.allclose(a, b, rtol=relative, atol=max(slack, 1e-7), equal_nan=True):
        return ""
    with np.errstate(all="ignore"):
        return f"{name} differs by {np.nanmax(np.abs(a - b), initial=0):.3g}"


def reason(code: str, message: str) -> str:
    """A reason that does not depend on names in the case."""
    kind = re.search(r"element type (\w+)", message)
    if code == "onnx.dtype" and kind is not None:
        return f"{code}: {kind[1]}"
    return code if code in CONTENT_FREE else f"{code}: {message.partition(': ')[2] or message}"


# ---- the accelerator


def accelerated(case: Case, fixed: int, folder: Path) -> str:
    """"emulated" if the case's module, or the one with all inputs but the first constant, is compiled and agrees."""
    found = ""
    inputs, outputs = case.data[0]
    for constants in dict.fromkeys((fixed, 1)):
        try:
            module, arrays = imported(case.model, inputs, constants, folder)
            if not arrays:
                return found or "computed when compiling"
            fused = passed(module)
            wrong = differences(interpret(fused, arrays), interpret(module, arrays), 1e-4)
            if wrong:
                return f"failed after the passes: {wrong}"
            got = emulated(fused, arrays)
        except CompileError as error:
            found = found or error.diagnostics[0].code
            continue
        except IsaError as error:
            if not error.code.startswith("input."):  # a fault, and not an input that the machine does not take
                return f"failed: {error.code}"
            found = found or error.code
            continue
        expected = dict(zip(got, map(plain, outputs), strict=True))
        wrong = differences(got, expected, F16_ERROR)
        if wrong and differences(interpret(fused, halved(arrays)), expected, F16_ERROR):
            found = found or "inputs beyond the precision of f16"
            continue
        return f"failed: {wrong}" if wrong else "emulated"
    return found


def halved(arrays: dict[str, Array]) -> dict[str, Array]:
    """The arrays as the machine stores them: floating numbers rounded to f16."""
    with np.errstate(over="ignore"):
        return {name: a.astype(np.float16).astype(a.dtype) if a.dtype.kind == "f" else a for name, a in arrays.items()}


def differences(found: dict[str, Array], expected: dict[str, Array], error: float) -> str:
    """The first thing that is wrong with any of the outputs."""
    return next((wrong for name, value in found.items() if (
        wrong := difference(name, value.reshape(expected[name].shape), expected[name], error, error))), "")


def passed(module: Module) -> Module:
    """The module after the passes that every target starts from."""
    from focusc.driver.compiler import FRONT
    from focusc.driver.passes import run_pipeline

    return run_pipeline(module, FRONT).module


def emulated(module: Module, arrays: dict[str, Array]) -> dict[str, Array]:
    """The outputs of a module at nn level on the emulator. CompileError if it has no lowering."""
    from focusc.backends import compile_module, load_hardware
    from focusc.driver.execution import Runner

    machine = load_hardware("focus")
    return Runner(compile_module(module, machine), machine).outputs(arrays)


# ---- the page


def row(operator: str, verdicts: Iterable[Verdict]) -> str:
    """One line of the table."""
    found = list(verdicts)
    by = Counter(v.status for v in found)
    lowered = sum(v.target == "emulated" for v in found)
    cells = (by["passed"] + by["constants"], by["constants"], by["not applicable"], by["failed"], lowered)
    return f"| {operator} | " + " | ".join(map(str, cells)) + " |"


def reasons(operator: str, verdicts: Iterable[Verdict]) -> list[str]:
    """One line for each reason for which cases of an operator do not apply."""
    found = Counter(v.reason for v in verdicts if v.status == "not applicable")
    return [f"* {operator}: {count} x {why}" for why, count in sorted(found.items())]


def unlisted(case: Case) -> str:
    """Why a case has no import rule, from the operator's declaration and types."""
    graph = case.model.graph
    if any(n.domain not in DEFAULT_DOMAINS for n in graph.node):
        return "operators outside the default ONNX domain"
    if any(a.HasField("g") or a.graphs for n in graph.node for a in n.attribute):
        return "control flow"
    types = [v.type for v in (*graph.input, *graph.output)]
    if any(t.WhichOneof("value") != "tensor_type" for t in types):
        return "sequences and optionals"
    if any(t.tensor_type.elem_type == onnx.TensorProto.STRING for t in types):
        return "strings"
    return "no import rule"


PAGE = """\
<!-- generated by `python benchmarks/onnx_backend.py --write docs/onnx_operators.md`; do not edit -->
# ONNX operators

Operators with an import rule, and what onnx's own backend node tests say of them (onnx {version}, {total} cases).

* passed: import and interpreter give the expected outputs within onnx's tolerance. Floating types other than f32 are
  computed in f32, and compared at their own precision.
* constant: of these, passed with inputs made initialisers, since the compiler must know them.
* not applicable: refused for the reason given below the table.
* accelerator: of these, compiled for the target `focus` and executed on the emulator within {error:g} of the largest
  value. The others have no lowering as a single node, are computed when compiling, are of another element type, or have
  inputs whose rounding to f16 alone changes the result more.

| operator | passed | constant | not applicable | failed | accelerator |
|---|---|---|---|---|---|
"""


def page(verdicts: Sequence[Verdict]) -> str:
    """The whole page."""
    operators = sorted({v.operator for v in verdicts})
    lines = [row(op, (v for v in verdicts if v.operator == op)) for op in operators]
    lines += [row("all", verdicts), ""]
    lines += ["## Not applicable", ""]
    for op in operators:
        lines += reasons(op, (v for v in verdicts if v.operator == op))
    lines += ["", "## Cases of operators without an import rule", ""]
    rest = [(unlisted(c), c.operator if c.operator != BODIES else BODIES) for c in cases() if not supported(c)]
    for why in sorted({w for w, _ in rest}):
        named = Counter(op for w, op in rest if w == why)
        lines.append(f"* {why}: " + ", ".join(f"{op} ({count})" for op, count in sorted(named.items())))
    head = PAGE.format(version=onnx.__version__, total=len(cases()), error=F16_ERROR)
    return head + "\n".join(lines) + "\n"


def main(arguments: Sequence[str]) -> int:
    """Run the cases; exit code 1 if one fails."""
    parser = argparse.ArgumentParser(description="onnx's backend node tests, counted")
    parser.add_argument("operators", nargs="*", help="only these; their cases are listed")
    parser.add_argument("--write", type=Path, metavar="FILE", help="write the page")
    parser.add_argument("--no-emulator", action="store_true", help="import and interpreter only")
    options = parser.parse_args(arguments)
    chosen = [c for c in cases() if supported(c) and c.operator in (options.operators or [c.operator])]
    with tempfile.TemporaryDirectory() as folder:
        verdicts = [run(c, Path(folder), emulate=not options.no_emulator) for c in chosen]
    if options.operators:
        for v in verdicts:
            print(f"{v.operator:24} {v.status:16} {v.target:24} {v.name} {v.reason}")
        print("\n".join(row(op, [v for v in verdicts if v.operator == op]) for op in options.operators))
    elif options.write:
        options.write.write_text(page(verdicts), encoding="utf-8")
    else:
        print(page(verdicts), end="")
    failed = [v for v in verdicts if v.status == "failed" or v.target.startswith("failed")]
    for v in failed:
        print(f"failed: {v.name}: {v.reason or v.target}", file=sys.stderr)
    print(f"{len(verdicts)} cases: {sum(v.status in ('passed', 'constants') for v in verdicts)} passed, "
          f"{sum(v.status == 'not applicable' for v in verdicts)} not applicable, {len(failed)} failed; "
          f"{sum(v.target == 'emulated' for v in verdicts)} also on the accelerator", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
