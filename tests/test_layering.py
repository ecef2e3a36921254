"""Imports point one way: focusc -> backends -> ir, isa; heavy packages and the demo model stay in their own folders."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# what each folder may import of ours
OURS = {
    "ir": ("focusc.ir",),
    "isa": ("focusc.isa",),
    "backends": ("focusc.backends", "focusc.ir", "focusc.isa"),
    "focusc": ("focusc",),
}
# what each folder may import of others, besides the standard library
THEIRS = {
    "ir": {"numpy", "lark", "networkx"},
    "isa": {"numpy", "lark", "numba", "pydantic", "perfetto", "threadpoolctl"},
    "backends": {"numpy", "networkx", "pydantic"},
}
# heavy packages and the parts of focusc/ that may import them; elsewhere `import focusc` or a command would get slow
HEAVY = {
    "torch": ("focusc/models", "focusc/export"),
    "torchvision": (),
    "transformers": ("focusc/export",),
    "skimage": ("focusc/models",),
    "sklearn": ("focusc/models",),
    "matplotlib": ("focusc/report",),
}


def sources(folder: str) -> list[Path]:
    """Python files of a top-level folder; the links under focusc/ are not followed."""
    return sorted(path for path in (ROOT / folder).rglob("*.py") if not _through_link(path))


def _through_link(path: Path) -> bool:
    return any(parent.is_symlink() for parent in path.parents)


def imported(path: Path) -> Iterator[tuple[int, str]]:
    """(line, full module name) of every import statement, those inside functions included."""
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = node.module or ""
            if node.level:  # relative: spell it out from the file's own place
                package = ["focusc", *_inside_focusc(path).parts[: -node.level]]
                module = ".".join([*package, module] if module else package)
            if module == "focusc":  # `from focusc import ir` imports focusc.ir
                yield from ((node.lineno, f"focusc.{alias.name}") for alias in node.names)
            else:
                yield node.lineno, module


def _inside_focusc(path: Path) -> Path:
    """A file's place below the import name focusc."""
    place = path.relative_to(ROOT)
    return place.relative_to("focusc") if place.parts[0] == "focusc" else place


def _under(module: str, allowed: tuple[str, ...]) -> bool:
    return any(module == name or module.startswith(name + ".") for name in allowed)


@pytest.mark.parametrize("folder", sorted(OURS))
def test_a_folder_imports_only_what_lies_below_it(folder: str) -> None:
    files = sources(folder)
    assert files, f"no sources found under {folder}/"
    wrong = []
    for path in files:
        for line, module in imported(path):
            place = f"{path.relative_to(ROOT)}:{line}: {module}"
            top = module.split(".")[0]
            if top in ("ir", "isa", "backends", "tests", "benchmarks"):
                wrong.append(f"{place} (import it as focusc.{module})")
            elif top == "focusc" and not _under(module, OURS[folder]):
                wrong.append(place)
            elif folder in THEIRS and top not in sys.stdlib_module_names and top not in THEIRS[folder] | {"focusc"}:
                wrong.append(f"{place} (allowed: {', '.join(sorted(THEIRS[folder]))})")
    assert not wrong, "\n" + "\n".join(wrong)


def test_heavy_packages_stay_where_they_are_needed() -> None:
    wrong = []
    for path in sources("focusc"):
        name = path.relative_to(ROOT).as_posix()
        for line, module in imported(path):
            allowed = HEAVY.get(module.split(".")[0])
            if allowed is not None and not name.startswith(allowed):
                wrong.append(f"{name}:{line}: {module}")
    assert not wrong, "\n" + "\n".join(wrong)


def test_only_its_export_adapter_knows_the_demo_model() -> None:
    wrong = []
    for folder in OURS:
        for path in sources(folder):
            name = path.relative_to(ROOT).as_posix()
            if name.startswith(("focusc/models/", "focusc/export/")):
                continue
            wrong += [
                f"{name}:{line}: {module}" for line, module in imported(path) if _under(module, ("focusc.models",))
            ]
    assert not wrong, "\n" + "\n".join(wrong)


def test_the_links_lead_to_the_top_level_folders() -> None:
    for name in ("ir", "isa", "backends"):
        link = ROOT / "focusc" / name
        assert link.is_symlink(), f"focusc/{name} is not a link"
        assert link.resolve() == ROOT / name
