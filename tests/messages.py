"""Error messages as golden texts: one file for each case under tests/golden/messages, named after its code."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from focusc.cli.common import explain

GOLDEN = Path(__file__).parent / "golden" / "messages"


def check_message(name: str, raised: Callable[[], object], request: pytest.FixtureRequest, *, hide: str = "") -> None:
    """`raised()` must raise the error that tests/golden/messages/NAME.txt holds; NAME is its code, or code-variant.

    What the regular expression `hide` matches is no part of it. `pytest --bless` writes the file anew.
    """
    code, text = told(raised, hide)
    assert name == code or name.startswith(f"{code}-"), f"{name}: the error is {text}"
    check_text(name, text, request)


def check_messages(name: str, cases: Mapping[str, Callable[[], object]], request: pytest.FixtureRequest, *,
                   hide: str = "") -> None:
    """As `check_message`, for many cases in one file: each one's name, then its message."""
    check_text(name, "\n".join(f"# {case}\n{told(raised, hide)[1]}" for case, raised in cases.items()), request)


def told(raised: Callable[[], object], hide: str = "") -> tuple[str, str]:
    """(code, message) of the error that `raised()` raises; a bug of ours fails the test."""
    with pytest.raises(Exception) as caught:
        raised()
    code, text = explain(caught.value)
    if code == "bug":
        raise caught.value
    return code, re.sub(hide, "...", text) if hide else text


def check_text(name: str, text: str, request: pytest.FixtureRequest) -> None:
    """The text must be what tests/golden/messages/NAME.txt holds; --bless writes the file anew."""
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--bless"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
        return
    assert path.is_file(), f"{path.name} does not exist; --bless writes it:\n{text}"
    assert text + "\n" == path.read_text(encoding="utf-8")
