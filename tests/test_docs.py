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
