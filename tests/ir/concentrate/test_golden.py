"""Golden texts of the pass: tests/golden/passes/concentrate/*.fir hold what to run, a module, and the exact result."""

from __future__ import annotations

from pathlib import Path

import pytest

from focusc.ir import CompileError, Stats, parse, parse_pipeline, print_module, verify

FOLDER = Path(__file__).parents[2] / "golden" / "passes" / "concentrate"
CASES = sorted(FOLDER.glob("*.fir"))


def outcome(text: str) -> str:
    """The file's text with its expectation replaced by what the pass does now."""
    head = text.split("// ---- ")[0]
    ((found, options),) = parse_pipeline(head.splitlines()[0].removeprefix("// run: "))
    stats = Stats(found.counters)
    try:
        result = found.run(parse(head), stats, **options)
    except CompileError as error:
        return head + "// ---- error\n" + "".join(f"// {line}\n" for line in error.render().splitlines())
    verify(result)
    return f"{head}// ---- expect\n{print_module(result)}// ---- stats  {found.name}: {stats.text()}\n"


@pytest.mark.parametrize("case", CASES, ids=[c.stem for c in CASES])
def test_result_statistics_and_errors_are_exactly_as_recorded(case: Path) -> None:
    text = case.read_text(encoding="utf-8")
    assert outcome(text) == text


def test_there_are_goldens() -> None:
    assert len(CASES) >= 7


@pytest.mark.parametrize("case", [c for c in CASES if "refuses" not in c.stem], ids=lambda c: c.stem)
def test_expected_text_parses_back(case: Path) -> None:
    expected = case.read_text(encoding="utf-8").split("// ---- expect\n")[1].split("// ---- stats")[0]
    assert print_module(parse(expected)) == expected
