"""Every operator with an import rule against onnx's own node cases, with the count of what passed and why not."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest
from golden_text import compare_golden
from node_cases import Verdict, cases, run


@pytest.mark.slow
def test_onnx_node_cases(tmp_path: Path, request: pytest.FixtureRequest) -> None:
    verdicts = [run(case, tmp_path) for case in cases()]
    failed = [f"{v.name}: {v.reason}" for v in verdicts if v.status == "failed"]
    assert not failed, "\n".join(failed)
    compare_golden("frontend/node_cases.txt", table(verdicts), request)


def table(verdicts: list[Verdict]) -> str:
    """Counts per operator, then every reason for which a case does not apply, by operator."""
    lines = [f"{'operator':<24}{'passed':>8}{'constants':>11}{'not applicable':>16}"]
    for op in [*sorted({v.op for v in verdicts}), ""]:
        found = Counter(v.status for v in verdicts if op in ("", v.op))
        lines.append(f"{op or 'all':<24}{found['passed']:>8}{found['constants']:>11}{found['not applicable']:>16}")
    lines += ["", "passed: as it is; constants: with inputs made constant that must be known when compiling", ""]
    reasons = Counter((v.op, v.reason) for v in verdicts if v.status == "not applicable")
    lines += [f"{op}: {count} x {reason}" for (op, reason), count in sorted(reasons.items())]
    return "\n".join(lines) + "\n"
