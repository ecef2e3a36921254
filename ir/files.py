"""Modules on disk: a `.fir` text and its resources beside it."""

from __future__ import annotations

from pathlib import Path

from focusc.ir.core import Module
from focusc.ir.diagnostics import fail
from focusc.ir.resource import Resource
from focusc.ir.resource_file import ResourceTable, read_resources, replacing, write_resources
from focusc.ir.text.parser import parse
from focusc.ir.text.printer import print_module

SIDECAR = "resources.safetensors"
"""Resource file that all texts of a directory share."""


def sidecar_of(path: Path) -> Path:
    """Where the resources of a text are: `NAME.safetensors` if there is one, else the directory's shared file."""
    own = path.with_suffix(".safetensors")
    return own if own.exists() else path.with_name(SIDECAR)


def read_module(path: str | Path) -> Module:
    """The module in a `.fir` file; its resources are mapped, not read. CompileError if it is not one."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as e:
        raise fail("file.read", f"{path} cannot be read: {e.strerror}") from None
    except UnicodeDecodeError as e:
        raise fail("file.read", f"{path} is not UTF-8 text: byte {e.start}") from None
    sidecar = sidecar_of(path)
    resources: dict[str, Resource] = read_resources(sidecar) if sidecar.exists() else {}
    return parse(text, file=str(path), resources=resources)


def write_module(module: Module, path: str | Path) -> Path:
    """Write the text to `path` and the resources, if any, to `NAME.safetensors` beside it.

    Both are written beside and renamed, the resources first: a text without its weights would be useless.
    """
    path = Path(path)
    table = ResourceTable()
    text = print_module(module, table=table)
    if table.by_name:
        write_resources(path.with_suffix(".safetensors"), table.by_name)
    with replacing(path) as file:
        file.write(text.encode())
    return path
