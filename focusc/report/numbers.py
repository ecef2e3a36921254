"""Numbers with units, short enough for a table."""

from __future__ import annotations

_SI = ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k"))


def si(value: float, unit: str = "") -> str:
    """1234567 as `1.23 M`; the unit follows the prefix."""
    for size, prefix in _SI:
        if abs(value) >= size:
            return f"{value / size:.3g} {prefix}{unit}"
    return f"{value:.3g} {unit}".rstrip()


def count(value: float) -> str:
    """A whole number with thousands separated."""
    return f"{round(value):,}"


def percent(value: float, digits: int = 1) -> str:
    """A share of one as per cent."""
    return f"{100 * value:.{digits}f} %"


def seconds(value: float) -> str:
    """A duration in the unit that keeps it readable."""
    if value >= 1:
        return f"{value:.2f} s"
    return f"{value * 1e3:.2f} ms" if value >= 1e-3 else f"{value * 1e6:.1f} us"


def ratio(value: float) -> str:
    """A factor: 3.14x."""
    return f"{value:.2f}x"
