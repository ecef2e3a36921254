"""Hardware descriptions by target name or TOML path."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, TypeVar

from focusc.backends.toml_text import key_lines
from focusc.isa.errors import IsaError, suggest
from focusc.isa.machine import Machine

T = TypeVar("T")

TARGETS: tuple[str, ...] = ("focus", "systolic")
"""Targets that ship with a description, `<target>/<target>.toml` beside this file."""

_LARGEST_FILE = 1 << 20


def load_hardware(name_or_path: str | Path) -> Machine:
    """The description of a shipped target (`focus`, `systolic`) or of a TOML file.

    Raises IsaError: `hardware.unknown` (neither a target nor a file), `hardware.toml` (not TOML, with line and column)
    or `hardware.description` (unknown, missing or impossible keys, each with its path and its line).
    """
    return parse_hardware(*read_description(name_or_path, TARGETS))


def read_description(name_or_path: str | Path, targets: tuple[str, ...]) -> tuple[str, str]:
    """(text, name for messages) of a shipped description, `<target>/<target>.toml`, or of a file.

    Raises IsaError `hardware.unknown` or `hardware.toml` as `load_hardware`.
    """
    name = str(name_or_path)
    if name in targets:
        text = resources.files("focusc.backends").joinpath(name, f"{name}.toml").read_text(encoding="utf-8")
        return text, f"{name}.toml"
    path = Path(name)
    if not path.is_file():
        raise IsaError(
            "hardware.unknown",
            f"no hardware description {name!r}: neither a shipped target nor a file",
            hint=f"{suggest(name, targets, 'targets:')}; or give the path of a .toml file",
        )
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise IsaError("hardware.toml", f"larger than {_LARGEST_FILE} bytes; expected a few KiB", where=name)
        return path.read_bytes().decode("utf-8"), path.name
    except (OSError, UnicodeDecodeError) as error:
        raise IsaError("hardware.toml", f"cannot be read as UTF-8 text: {error}", where=name) from None


def parse_hardware(text: str, where: str) -> Machine:
    """A description from TOML text; `where` names it in errors. Errors as `load_hardware`."""
    return parse_description(text, where, Machine.from_dict)


def parse_description(text: str, where: str, build: Callable[[Mapping[str, Any], str], T]) -> T:
    """What `build(data, where)` makes of TOML text; the findings of its IsaError get their lines."""
    try:
        data = tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise IsaError("hardware.toml", f"not TOML: {error}", where=where) from None
    try:
        return build(data, where)
    except IsaError as error:
        lines = [_with_line(line, text) for line in error.message.split("\n")]
        raise IsaError(error.code, "\n".join(lines), where=where, hint=error.hint) from None


def _with_line(finding: str, text: str) -> str:
    """Append the line of the finding `table.key: ...`: that of the key, or else of the closest table around it."""
    lines = key_lines(text)
    path = finding.split(":", 1)[0]
    if path in lines:
        return f"{finding} (line {lines[path]})"
    while "." in path:
        path = path.rpartition(".")[0]
        if path in lines:
            return f"{finding} (in {path}, line {lines[path]})"
    return finding
