"""onnx's own backend node tests, operator by operator, and the page that counts them (docs/onnx_operators.md)."""

from __future__ import annotations

from collections import defaultdict
from functools import cache
from pathlib import Path

import onnx
import pytest

from benchmarks import onnx_backend as backend
from focusc.frontend.bodies import function_body
from focusc.frontend.model_file import OPSETS
from focusc.frontend.registry import RULES

ROOT = Path(__file__).parents[3]

EXPORTED = """
Transpose Add MatMul Mul Slice Reshape Unsqueeze Concat Gather LayerNormalization Neg Split Sqrt Reciprocal ReduceMean
Pow Softmax Attention RMSNormalization Gemm Gelu Sigmoid Expand Squeeze Conv GatherND AveragePool Resize ReduceSum
ScatterElements ScatterND Pad Exp Sub Where CumSum Greater Softplus Trilu
RotaryEmbedding Cos Sin Range Shape LessOrEqual Equal NonZero Cast"""
"""Operators of transformers exports: of every model, with linear-attention layers, of decode and symbolic graphs."""


def operators() -> list[str]:
    """Every operator with an import rule or a function body in its place, and the cases that are function bodies."""
    newest = {s.name for s in onnx.defs.get_all_schemas() if s.domain == ""}
    bodies = {name for name in newest if function_body(name, OPSETS.stop - 1) is not None}
    return [backend.BODIES, *sorted(bodies | set(RULES))]


@cache
def by_operator() -> dict[str, list[backend.Case]]:
    found: dict[str, list[backend.Case]] = defaultdict(list)
    for case in backend.cases():
        if backend.supported(case):
            found[case.operator].append(case)
    return dict(found)


@cache
def page() -> list[str]:
    return (ROOT / "docs" / "onnx_operators.md").read_text(encoding="utf-8").splitlines()


@pytest.mark.slow
@pytest.mark.parametrize("operator", operators())
def test_cases_of_an_operator_pass_or_do_not_apply_as_the_page_says(operator: str, tmp_path: Path) -> None:
    verdicts = [backend.run(case, tmp_path) for case in by_operator().get(operator, [])]
    wrong = [f"{v.name}: {v.reason or v.target}" for v in verdicts if v.status == "failed" or "failed" in v.target]
    assert not wrong, "\n".join(wrong)
    update = "run python benchmarks/onnx_backend.py --write docs/onnx_operators.md"
    expected = [backend.row(operator, verdicts), *backend.reasons(operator, verdicts)] if verdicts else []
    assert [line for line in expected if line not in page()] == [], update
    assert bool(verdicts) == any(line.startswith(f"| {operator} |") for line in page()), update


def test_the_last_row_of_the_page_is_the_sum_of_the_others() -> None:
    rows = [line.split("|")[1:-1] for line in page() if line.startswith("| ") and not line.startswith("| operator")]
    counts = {name.strip(): [int(c) for c in cells] for name, *cells in rows}
    total = counts.pop("all")
    assert total == [sum(column) for column in zip(*counts.values(), strict=True)]
    assert total[3] == 0 and total[0] > 1000


def test_every_operator_that_vlm_exports_contain_has_a_rule_and_cases() -> None:
    """The operator types that were counted in transformers exports at opset 18 to 23 (issue 3)."""
    table = {line.split("|")[1].strip(): [int(c) for c in line.split("|")[2:-1]] for line in page()
             if line.startswith("| ") and "| operator" not in line}
    assert [op for op in EXPORTED.split() if op not in RULES or not table.get(op, [0])[0]] == []
