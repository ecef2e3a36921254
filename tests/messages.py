"""Error messages as golden texts: one file for each case under tests/golden/messages, named after its code."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import pytest

from focusc.cli.common import explain

GOLDEN = Path(__file__).parent / "golden" / "messages"


def check_message(name: str, raised: Callable[[], object], request: pytest.FixtureRequest, *, hide: str = "") -> None:
    """`raised()` must raise the error that tests/golden/messages/NAME.txt holds; NAME is its code, or code-variant.

    What the regular expression `hide` matches is no part of it. `pytest --bless` writes the file anew.
    """
    with pytest.raises(Exception) as caught:
        raised()
    code, text = explain(caught.value)
    text = re.sub(hide, "...", text) if hide else text
    assert name == code or name.startswith(f"{code}-"), f"{name}: the error is {text}"
    path = GOLDEN / f"{name}.txt"
    if request.config.getoption("--bless"):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n", encoding="utf-8")
        return
    assert path.is_file(), f"{path.name} does not exist; --bless writes it:\n{text}"
    assert text + "\n" == path.read_text(encoding="utf-8")
