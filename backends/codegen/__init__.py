"""Code generation: tile-level IR with addresses to an ISA program."""

from focusc.backends.codegen.program import generate

__all__ = ["generate"]
