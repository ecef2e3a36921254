"""Refusals of the exporter, whose messages are golden texts."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from focusc.cli.common import explain
from focusc.driver.errors import InputError
from focusc.export.errors import ExportError
from tests.messages import check_text


@pytest.fixture
def refusals(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[list[ExportError]]:
    """What a test appends is compared, when it ends, with the golden file of the test.

    Folders, versions and the words of other libraries are no part of it.
    """
    errors: list[ExportError] = []
    yield errors
    lines = [explain(InputError(error.code, str(error), error.where, error.hint))[1] for error in errors]
    text = "\n".join(lines).replace(f"{tmp_path}/", "").replace(str(tmp_path), "FOLDER")
    text = re.sub(rf"{re.escape(str(tmp_path.parent))}/([a-z]+)\d+", r"\1", text)
    text = re.sub(r"\.py:\d+", ".py:LINE", text)
    text = re.sub(r"(transformers|by) [\d.e-]+", r"\1 ...", text)
    foreign = r"(is not JSON|be decoded|be read|be loaded|refuses it|of arrays|the image or the prompt): .*"
    name = request.node.originalname.removeprefix("test_")
    check_text(f"export-{name}", re.sub(foreign, r"\1: ...", text), request)
