"""DRAM planning: addresses for buffers from their live ranges, so that dead buffers' bytes are used again.

Offline dynamic storage allocation: buffers are placed largest first, each at the lowest address where it
overlaps no buffer that is live at the same time (best-known simple heuristic for static graphs; the problem is
NP-hard, so the plan reports the lower bound next to the peak reached).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

ALIGNMENT = 64  # bytes; the container maps constants at 64-byte boundaries and the arena follows them


def align(value: int, to: int = ALIGNMENT) -> int:
    """The least multiple of `to` that is >= `value` (both in bytes)."""
    return -(-value // to) * to


@dataclass(frozen=True, slots=True)
class LiveRange:
    """A block of `size` bytes that must keep its contents from step `start` to step `stop`, both inclusive."""

    name: str
    size: int
    start: int
    stop: int

    def overlaps(self, other: LiveRange) -> bool:
        """Whether both hold data at some step."""
        return self.start <= other.stop and other.start <= self.stop


@dataclass(frozen=True, slots=True)
class Plan:
    """Offsets in bytes by name, the peak reached and the lower bound (both bytes)."""

    offsets: dict[str, int]
    peak: int
    lower_bound: int

    def to_dict(self, ranges: Iterable[LiveRange]) -> dict[str, object]:
        """The memory plan as plain data for the container's plan section."""
        rows = [
            {"name": r.name, "offset": self.offsets[r.name], "bytes": r.size, "from": r.start, "to": r.stop}
            for r in ranges
        ]
        return {"peak_bytes": self.peak, "lower_bound_bytes": self.lower_bound, "buffers": rows}


def plan(ranges: Iterable[LiveRange], alignment: int = ALIGNMENT) -> Plan:
    """Place every range; no two ranges that are live together share a byte.

    The lower bound is the largest sum of aligned sizes live at one step.
    """
    todo = sorted(ranges, key=lambda r: (-r.size, r.start, r.name))
    placed: list[tuple[int, LiveRange]] = []
    offsets: dict[str, int] = {}
    for item in todo:
        offset = first_fit(item.size, [(at, r.size) for at, r in placed if r.overlaps(item)], alignment)
        placed.append((offset, item))
        offsets[item.name] = offset
    peak = max((at + r.size for at, r in placed), default=0)
    steps = sorted({r.start for r in todo})
    bound = max((sum(align(r.size, alignment) for r in todo if r.start <= s <= r.stop) for s in steps), default=0)
    return Plan(offsets, align(peak, alignment), bound)


def first_fit(size: int, taken: Iterable[tuple[int, int]], alignment: int = ALIGNMENT) -> int:
    """The lowest aligned offset where `size` bytes fit between the (offset, size) blocks `taken`."""
    at = 0
    for start, length in sorted(taken):
        if at + size <= start:
            break
        at = max(at, align(start + length, alignment))
    return at
