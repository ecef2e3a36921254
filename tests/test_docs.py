"""The pages that are written from the sources say what the sources say."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

DOCS = Path(__file__).parent.parent / "docs"


def load(path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_every_error_code_is_listed() -> None:
    listed = set(re.findall(r"^\| `([a-z.-]+)` \|", (DOCS / "errors.md").read_text(), re.MULTILINE))
    raised = {code for code, _ in load(DOCS / "list_errors.py").calls()}
    assert len(raised) > 100
    assert not raised - listed, "run python docs/list_errors.py"


def test_the_table_of_operators_is_that_of_the_registry() -> None:
    assert (DOCS / "operators.md").read_text() == load(DOCS / "list_operators.py").page(), (
        "run python docs/list_operators.py")


OURS = {"codegen.heads", "codegen.registers"}
"""Limits that no text we know of reaches; their messages ask for a report."""


def test_every_error_message_is_pinned() -> None:
    """Each code has a whole message in a golden text or in a test."""
    raised = {code for code, _ in load(DOCS / "list_errors.py").calls()}
    tests = Path(__file__).parent
    texts = [path.read_text(errors="replace") for path in (tests / "golden").rglob("*") if path.is_file()]
    texts += [path.read_text() for path in tests.rglob("test_*.py")]
    pinned = {code for text in texts for code in re.findall(r"error\[([a-z.-]+)\]", text)}
    assert raised - pinned == OURS


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "index.md").read_text()
    pages = {path.stem for path in DOCS.glob("*.md")} - {"index"}
    listed = set(re.findall(r"^([a-z_-]+)$", index, re.MULTILINE))
    assert pages - listed == set()


def test_links_between_pages_lead_somewhere() -> None:
    broken = []
    for page in (*DOCS.glob("*.md"), DOCS.parent / "README.md"):
        for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target and not (page.parent / target).exists():
                broken.append(f"{page.name}: {target}")
    assert broken == []


def test_every_command_is_documented() -> None:
    from focusc.cli import app

    text = (DOCS / "cli.md").read_text()
    for command in app.registered_commands:
        assert f"`focusc {command.name}" in text, f"docs/cli.md does not show focusc {command.name}"
