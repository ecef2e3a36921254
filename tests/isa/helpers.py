"""Small programs for tests: memory layout, symbols and running."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from focusc.backends.hardware import load_hardware
from focusc.isa import Insn, Program, Symbol
from focusc.isa.emulator import Emulator, Run
from focusc.isa.insns import Halt
from focusc.isa.program import ITEM_BYTES, align

HARDWARE = load_hardware("focus").to_dict()


class Layout:
    """Places constants and buffers; addresses are known before the text is written."""

    def __init__(self, **consts: np.ndarray) -> None:
        self.const = bytearray()
        self.at: dict[str, int] = {}
        self.symbols: list[Symbol] = []
        for name, data in consts.items():
            self.const += bytes(align(len(self.const)) - len(self.const))
            self.at[name] = len(self.const)
            self.const += np.ascontiguousarray(data).tobytes()
        self.base = self.end = align(len(self.const))

    def __getitem__(self, name: str) -> int:
        return self.at[name]

    def add(self, name: str, kind: str, shape: tuple[int, ...], dtype: str = "f16") -> int:
        """Reserve a buffer in the arena and return its address."""
        self.at[name] = self.end
        self.symbols.append(Symbol(name, kind, dtype, shape, self.end))
        self.end = align(self.end + int(np.prod(shape)) * ITEM_BYTES[dtype])
        return self.at[name]

    def room(self, size: int) -> int:
        """Reserve bytes without a symbol."""
        at, self.end = self.end, align(self.end + size)
        return at

    def program(self, text: Sequence[Insn], **kwargs: Any) -> Program:
        kwargs.setdefault("hardware", HARDWARE)
        return Program([*text, Halt()], bytes(self.const), self.symbols, self.end - self.base, **kwargs)


def run(program: Program, inputs: dict[str, Any] | None = None, observe: Any = None) -> Run:
    """Strict run, checked against a normal one."""
    strict = Emulator(program, strict=True, observe=observe).run(inputs or {})
    plain = Emulator(program).run(inputs or {})
    for name, data in strict.outputs.items():
        assert data.tobytes() == plain.outputs[name].tobytes()
    return strict


def close(found: np.ndarray, expected: np.ndarray, scale: float = 2e-3) -> None:
    """Equal up to the rounding of f16 storage."""
    np.testing.assert_allclose(found.astype(np.float32), expected, atol=scale * max(1.0, float(np.abs(expected).max())))
