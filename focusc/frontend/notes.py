"""What an import did otherwise than the file says, in the user's words."""

from __future__ import annotations

_SHOWN = 3
"""Tensors that a note names; of the others it says how many there are."""


class Notes:
    """Notes in the order in which they came; conversions of tensors are one note for each element type."""

    def __init__(self) -> None:
        self._converted: dict[str, list[str]] = {}
        self._others: list[str] = []

    def add(self, text: str) -> None:
        """Anything but a conversion."""
        self._others.append(text)

    def converted(self, kind: str, tensor: str) -> None:
        """The values of a tensor, stored as `kind`, are f32 in the IR."""
        self._converted.setdefault(kind, []).append(tensor)

    def texts(self) -> tuple[str, ...]:
        """All of them, as sentences without a full stop."""
        return (*(_conversion(kind, names) for kind, names in self._converted.items()), *self._others)


def _conversion(kind: str, names: list[str]) -> str:
    rest = len(names) - _SHOWN
    shown = ", ".join(names[:_SHOWN]) + (f" and {rest} more" if rest > 0 else "")
    what = "1 tensor is" if len(names) == 1 else f"{len(names)} tensors are"
    return f"{what} converted from {kind} to f32: {shown}"
