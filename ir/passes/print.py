"""print."""

from __future__ import annotations

import sys

from focusc.ir.core import Module
from focusc.ir.passes.registry import Stats, defpass
from focusc.ir.text.printer import print_module


@defpass("print", lines="lines written")
def print_ir(module: Module, stats: Stats, *, locations: bool = True, banner: str = "") -> Module:
    """Write the module to the standard error output, for a look in the middle of a pipeline. `banner` is put first."""
    text = print_module(module, locations=locations)
    if banner:
        text = f"// ---- {banner}\n{text}"
    sys.stderr.write(text)
    stats["lines"] += text.count("\n")
    return module
