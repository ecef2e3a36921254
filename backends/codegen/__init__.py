"""Code generation: tile-level IR with addresses to an ISA program."""

from focusc.backends.codegen.program import HostModel, generate

__all__ = ["HostModel", "generate"]
