"""Reading models and programs from files, whatever kind they are."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from focusc.driver.errors import InputError
from focusc.driver.files import existing

if TYPE_CHECKING:
    from focusc.ir import Module
    from focusc.isa import Program

_FBIN_HINT = "a program is what `focusc compile` or `focusc asm` writes"


def load_model(path: str | os.PathLike[str], layout: Mapping[str, Any] | None = None) -> Module:
    """The IR of an ONNX model (imported) or of an IR file (parsed).

    `layout` gives the token layout of an ONNX file that has none in its metadata, or replaces the one it has. Raises
    CompileError or InputError for anything that cannot be read.
    """
    file = existing(path, "model")
    if file.suffix == ".fir":
        if layout is not None:
            raise InputError(
                "layout.given",
                "an IR file carries its own token layout",
                where=str(file),
                hint="leave the layout options out",
            )
        from focusc.ir.files import read_module

        return read_module(file)
    if file.suffix == ".fbin":
        raise InputError(
            "model.kind",
            "this is a program, not a model",
            where=str(file),
            hint="run it with `focusc run`, look into it with `focusc objdump`",
        )
    if file.suffix != ".onnx":
        raise InputError(
            "model.kind",
            (f"found a file ending in {file.suffix!r}" if file.suffix else "the name has no ending")
            + ", expected .onnx or .fir",
            where=str(file),
            hint="rename it if it is one of these",
        )
    from focusc.frontend import import_onnx

    return import_onnx(file, layout=layout)


def load_program(path: str | os.PathLike[str]) -> Program:
    """A program from its container; every checksum and bound is checked, nothing in it is executed."""
    file = existing(path, "program (.fbin)")
    if file.suffix in (".onnx", ".fir", ".fasm"):
        raise InputError(
            "program.kind", f"this is a {file.suffix} file, not a program", where=str(file), hint=_FBIN_HINT
        )
    from focusc.isa import load

    return load(file)
