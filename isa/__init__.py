"""The instruction set: declarations, encoding, program container, assembler and emulator.

`from focusc.isa import Program, R, Addr, encode, decode, assemble, disassemble, load, save`; instruction classes are in
`focusc.isa.insns`, the emulator in `focusc.isa.emulator`, timing in `focusc.isa.timing`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from focusc.isa.errors import AsmError, Fault, FormatError, IsaError
from focusc.isa.fields import Addr, R
from focusc.isa.insns import INSNS, Insn, decode, encode
from focusc.isa.program import DebugEntry, Program, Symbol, conc_block

if TYPE_CHECKING:
    from focusc.isa.assembler import assemble
    from focusc.isa.container import load, save
    from focusc.isa.disassembler import disassemble
    from focusc.isa.sequencer import Trace, expand

__all__ = ["Addr", "AsmError", "DebugEntry", "Fault", "FormatError", "INSNS", "Insn", "IsaError", "Program", "R",
           "Symbol", "Trace", "assemble", "conc_block", "decode", "disassemble", "encode", "expand", "load", "save"]

_LAZY = {"assemble": "assembler", "disassemble": "disassembler", "load": "container", "save": "container",
         "expand": "sequencer", "Trace": "sequencer"}


def __getattr__(name: str) -> Any:
    """Import numba and lark users only when they are asked for, so that listing tools start fast."""
    if name in _LAZY:
        import importlib

        return getattr(importlib.import_module(f"focusc.isa.{_LAZY[name]}"), name)
    raise AttributeError(f"module focusc.isa has no attribute {name}")
