"""Named ranges of DRAM."""

from __future__ import annotations

from dataclasses import dataclass

from focusc.isa.errors import IsaError

__all__ = ["ITEM_BYTES", "KINDS", "Symbol"]

ITEM_BYTES = {"f16": 2, "bf16": 2, "f32": 4, "i8": 1, "u8": 1, "u16": 2, "i32": 4}
"""Bytes of one element of each symbol type."""
KINDS = ("input", "output", "scratch", "const")


@dataclass(frozen=True, slots=True)
class Symbol:
    """A named range of DRAM: `shape` elements of `dtype`, contiguous and row-major from byte `address`."""

    name: str
    kind: str
    dtype: str
    shape: tuple[int, ...]
    address: int

    def __post_init__(self) -> None:
        if not 0 < len(self.name) <= 512 or not self.name.isprintable():
            raise IsaError("program.symbol", f"symbol name {self.name[:60]!r}: expected 1 to 512 printable characters")
        if self.kind not in KINDS:
            raise IsaError("program.symbol", f"symbol {self.name}: kind is {self.kind!r}, expected one of "
                           + ", ".join(KINDS))
        if self.dtype not in ITEM_BYTES:
            raise IsaError("program.symbol", f"symbol {self.name}: type is {self.dtype!r}, expected one of "
                           + ", ".join(ITEM_BYTES))
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        if self.address < 0 or any(n < 0 for n in self.shape):
            raise IsaError("program.symbol", f"symbol {self.name}: negative address or extent")

    @property
    def count(self) -> int:
        """Elements."""
        total = 1
        for n in self.shape:
            total *= n
        return total

    @property
    def bytes(self) -> int:
        return self.count * ITEM_BYTES[self.dtype]
