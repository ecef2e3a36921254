"""Golden texts: every `.fir` file under tests/golden/passes and tests/golden/errors is a test.

A file holds directives, a module, and the exact text that is expected:

    // run: dead-code,common-subexpressions         the pipeline; without it, the text is only parsed and printed
    // execute: 0                                    optional: also run the result on inputs of that seed
    module "m"(...) -> (...) { ... }
    // ---- expect
    the module after the pipeline
    // ---- stats  dead-code: erased=1

or, where the input is refused, `// ---- error` and the rendered error as comments.

Pipelines run with `verify_each`, so a golden pass test is an equivalence test too. `pytest tests/golden --bless`
writes the expected part anew; read the diff before committing it.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

GOLDEN = Path(__file__).parent / "golden"
PART = "// ---- "


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--bless", action="store_true", help="write the expected parts of golden files anew")


def pytest_configure(config: pytest.Config) -> None:
    if config.getoption("--bless") and os.environ.get("CI"):
        raise pytest.UsageError("--bless is for people: it is refused where CI is set")


def pytest_collect_file(file_path: Path, parent: pytest.Collector) -> pytest.Collector | None:
    if file_path.suffix == ".fir" and any((GOLDEN / d) in file_path.parents for d in ("passes", "errors")):
        return GoldenFile.from_parent(parent, path=file_path)
    return None


class GoldenFile(pytest.File):
    """One `.fir` file."""

    def collect(self) -> Iterator[pytest.Item]:
        yield GoldenCase.from_parent(self, name=self.path.stem)


class Mismatch(Exception):
    """The text is not the expected one."""


class GoldenCase(pytest.Item):
    """The one test in a golden file."""

    def runtest(self) -> None:
        text = self.path.read_text(encoding="utf-8")
        source = text.split(PART)[0]
        expected, found = text[len(source) :], outcome(self.path, source)
        if self.config.getoption("--bless"):
            self.path.write_text(source + found, encoding="utf-8")
            return
        if found != expected:
            diff = difflib.unified_diff(
                expected.splitlines(), found.splitlines(), "expected", "found", lineterm="", n=2
            )
            raise Mismatch("\n".join(diff))

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException], style: Any = None) -> Any:
        if isinstance(excinfo.value, Mismatch):
            return f"{self.path.name}: the text differs (--bless accepts it)\n{excinfo.value}"
        return super().repr_failure(excinfo)

    def reportinfo(self) -> tuple[Path, int, str]:
        return self.path, 0, f"{self.path.parent.name}/{self.path.stem}"


def directives(source: str) -> dict[str, str]:
    """`// key: value` lines before the module."""
    found: dict[str, str] = {}
    for line in source.splitlines():
        if not line.startswith("//"):
            break
        key, colon, value = line[2:].partition(":")
        if colon:
            found[key.strip()] = value.strip()
    return found


def outcome(path: Path, source: str) -> str:
    """What follows the module in the file: the result and the counters, or the error."""
    import focusc.backends.compiler  # noqa: F401  declares the passes of the targets
    from focusc.ir import CompileError, PassManager, interpret, parse, print_module, seeded_inputs

    options = directives(source)
    errors = GOLDEN / "errors" in path.parents
    try:
        module = parse(source, file=path.name)
        manager = PassManager(options.get("run", ""), verify_each=not errors)
        result = manager.run(module)
        if "execute" in options:
            interpret(result, seeded_inputs(result, int(options["execute"])))
    except CompileError as e:
        code = e.diagnostics[0].code
        if errors and path.stem != code and not path.stem.startswith(f"{code}-"):
            raise AssertionError(f"{path.name} is named after another error: {code}") from e
        lines = [line for line in e.render().splitlines() if not line.startswith("  note: in pass ")]
        return f"{PART}error\n" + "".join(f"// {line}\n" for line in lines)
    assert not errors, f"{path.name} raises no error"
    stats = "".join(f"{PART}stats  {name}: {stats.text()}\n" for name, stats in manager.stats)
    return f"{PART}expect\n{print_module(result)}{stats}"
