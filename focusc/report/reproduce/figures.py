"""The numbers of a reproduced table: each stands beside the published one and says where it comes from."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from focusc.driver.errors import InputError

__all__ = ["PROVENANCE", "Number", "Table", "joined", "mean", "ratio_of"]

PROVENANCE: Final = {
    "exact": "follows from the workload and published inputs alone",
    "matched": "on a trace with the published schedule and one compression, chosen so that the published MACs come out",
    "fitted": "the number to which that trace was fitted: that it agrees says nothing",
    "synthetic": "on a made-up trace that was not fitted to this number",
    "quoted": "measured by the authors; nothing of it is computed here",
}
"""Where a number comes from. Ratios of numbers of two kinds name both, as in `matched+quoted`."""

COLUMNS: Final = ("quantity", "unit", "accounting", "published", "computed", "relative_error", "provenance")


@dataclass(frozen=True)
class Number:
    """One figure of a table.

    `keys` name its row, `quantity` its column. `published` or `computed` is None where there is none; `accounting` is
    empty for quoted numbers.
    """

    keys: Mapping[str, str]
    quantity: str
    unit: str
    published: float | None
    computed: float | None
    provenance: str
    accounting: str = ""

    def __post_init__(self) -> None:
        unknown = set(self.provenance.split("+")) - set(PROVENANCE)
        if unknown or (self.published is None and self.computed is None):
            raise InputError("reproduce.number", f"{self.quantity} has provenance {self.provenance!r}, expected one or "
                             f"several of {', '.join(PROVENANCE)}, and a value", where=" ".join(self.keys.values()))

    @property
    def error(self) -> float | None:
        """Computed over published - 1; 0 where both are 0, None where one is missing or only the published one is 0."""
        if self.published is None or self.computed is None:
            return None
        if self.published == 0:
            return 0.0 if self.computed == 0 else None
        return self.computed / self.published - 1


@dataclass
class Table:
    """A reproduced table: numbers, and which of them the terminal shows (`shown`: quantity -> (heading, factor))."""

    name: str
    title: str
    keys: tuple[str, ...]
    shown: Mapping[str, tuple[str, float]]
    numbers: list[Number] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    extra: dict[str, Any] = field(default_factory=dict)
    """What a plot needs beside the numbers: bins of a histogram."""
    _index: dict[tuple[tuple[str, ...], str, str], Number] = field(default_factory=dict, repr=False)

    def add(self, keys: Iterable[str], quantity: str, unit: str, published: float | None, computed: float | None,
            provenance: str, accounting: str = "") -> None:
        """Append a number; `keys` in the order of the table's."""
        named = dict(zip(self.keys, keys, strict=True))
        self.numbers.append(Number(named, quantity, unit, published, computed, provenance,
                                   "" if computed is None else accounting))

    def rows(self) -> list[tuple[str, ...]]:
        """The keys of each row once, in order."""
        return list(dict.fromkeys(tuple(n.keys.values()) for n in self.numbers))

    def accountings(self) -> list[str]:
        """Accountings of the computed numbers, in order."""
        return list(dict.fromkeys(n.accounting for n in self.numbers if n.accounting))

    def get(self, keys: tuple[str, ...], quantity: str, accounting: str = "") -> Number | None:
        """The number of a row; a quoted one answers for every accounting."""
        if len(self._index) != len(self.numbers):
            self._index = {(tuple(n.keys.values()), n.quantity, n.accounting): n for n in self.numbers}
        return self._index.get((keys, quantity, accounting)) or self._index.get((keys, quantity, ""))

    def csv(self) -> str:
        """One line a number: the keys, then `COLUMNS`. Numbers have all their digits; a missing one is empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow((*self.keys, *COLUMNS))
        for n in self.numbers:
            cells = ("" if v is None else repr(float(v)) for v in (n.published, n.computed, n.error))
            published, computed, error = cells
            writer.writerow((*n.keys.values(), n.quantity, n.unit, n.accounting, published, computed, error,
                             n.provenance))
        return out.getvalue()

    def to_dict(self) -> dict[str, Any]:
        """Plain data for `--json`."""
        return {"title": self.title, "notes": self.notes, "numbers": [
            {**n.keys, "quantity": n.quantity, "unit": n.unit, "accounting": n.accounting, "published": n.published,
             "computed": n.computed, "relative_error": n.error, "provenance": n.provenance} for n in self.numbers]}


def joined(*kinds: str) -> str:
    """The provenance of a number made from numbers of these kinds: all of them, but for `exact` beside a trace.

    A fitted number in a ratio counts as matched.
    """
    found = {"matched" if kind == "fitted" else kind for part in kinds for kind in part.split("+")}
    if found & {"matched", "synthetic"}:
        found.discard("exact")
    return "+".join(kind for kind in PROVENANCE if kind in found)


def ratio_of(above: Number, below: Number) -> tuple[float | None, float | None, str]:
    """(published, computed, provenance) of a ratio. A quoted part is used for the computed ratio too."""
    def divided(a: float | None, b: float | None) -> float | None:
        return None if a is None or not b else a / b

    def ours(n: Number) -> float | None:
        return n.published if n.provenance == "quoted" else n.computed

    quoted = above.provenance == below.provenance == "quoted"
    computed = None if quoted else divided(ours(above), ours(below))
    return divided(above.published, below.published), computed, joined(above.provenance, below.provenance)


def mean(values: Iterable[float | None], *, geometric: bool) -> float | None:
    """Mean of values, or None if one is missing or there are none."""
    import math

    found = list(values)
    given = [v for v in found if v is not None]
    if not given or len(given) < len(found):
        return None
    if geometric:
        return math.exp(sum(math.log(v) for v in given) / len(given))
    return sum(given) / len(given)
