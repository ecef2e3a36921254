"""Expected texts in files; `--bless` writes them anew."""

from __future__ import annotations

from pathlib import Path

import pytest

GOLDEN = Path(__file__).parent / "golden"


def compare_golden(name: str, found: str, request: pytest.FixtureRequest) -> None:
    """Assert that `found` is the text of tests/golden/<name>."""
    path = GOLDEN / name
    if request.config.getoption("--bless"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(found, encoding="utf-8")
        return
    assert path.is_file(), f"{path.name} does not exist; --bless writes it"
    assert found == path.read_text(encoding="utf-8")
