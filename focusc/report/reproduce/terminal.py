"""Reproduced tables on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Group, RenderableType
from rich.text import Text

from focusc.report.reproduce.figures import PROVENANCE, Number, Table
from focusc.report.tables import table as empty

__all__ = ["MARKS", "legend", "table_text"]

MARKS: Final = {"exact": "=", "matched": "~", "fitted": "f", "synthetic": "s", "quoted": "q"}
"""What follows a number on the terminal, by its provenance."""


def table_text(table: Table) -> RenderableType:
    """One table an accounting: published, ours with its mark, and the difference in per cent; then the notes."""
    parts: list[RenderableType] = []
    for accounting in table.accountings() or [""]:
        title = f"{table.title}  [{table.name}]  {accounting} accounting"
        quantities = [q for q in table.shown if any(n.quantity == q for n in table.numbers)]
        columns: list[str] = []
        for quantity in quantities:
            heading = table.shown[quantity][0].replace(" (", "\n(")  # units below names keep columns narrow
            computed = any(n.quantity == quantity and n.computed is not None for n in table.numbers)
            columns += [heading, "ours", "%"] if computed else [heading]
        made = empty(title, *table.keys, *columns, left=len(table.keys))
        before: tuple[str, ...] = ()
        for key in table.rows():
            cells: list[str] = []
            for quantity in quantities:
                computed = any(n.quantity == quantity and n.computed is not None for n in table.numbers)
                cells += _cells(table.get(key, quantity, accounting), table.shown[quantity][1], computed)
            if any(cells):
                made.add_row(*_named(key, before), *cells)
                before = key
        parts.append(made)
    parts += [Text(note, "dim") for note in table.notes]
    return Group(*parts, Text(""))


def _named(key: tuple[str, ...], before: tuple[str, ...]) -> list[str]:
    """The keys of a row, those that repeat the row above left out."""
    same = next((i for i, pair in enumerate(zip(key, before)) if pair[0] != pair[1]), 0)
    return ["" if i < same else name for i, name in enumerate(key)]


def _cells(n: Number | None, factor: float, computed: bool) -> list[str]:
    if n is None:
        return ["", "", ""] if computed else [""]
    mark = "".join(MARKS[part] for part in n.provenance.split("+"))
    published = "" if n.published is None else four(n.published * factor)
    if not computed:
        return [f"{published} {mark}"]
    if n.computed is None:
        return [f"{published} {mark}", "", ""]
    return [published, f"{four(n.computed * factor)} {mark}", percent(n.error)]


def four(value: float) -> str:
    """Four digits or more, without exponents."""
    size = abs(value)
    if size == 0:
        return "0"
    digits = next((d for d, limit in ((4, 1), (3, 10), (2, 100), (1, 1e4)) if size < limit), 0)
    return f"{value:,.{digits}f}"


def percent(error: float | None) -> str:
    """A relative error; `0` up to the last of 16 digits."""
    if error is None:
        return ""
    return "0" if abs(error) < 1e-12 else f"{100 * error:+.2f}" if abs(error) >= 5e-5 else f"{100 * error:+.0e}"


def legend(tables: Sequence[Table]) -> RenderableType:
    """What the marks mean, those that occur."""
    used = {part for table in tables for n in table.numbers for part in n.provenance.split("+")}
    return Text("\n".join(f"{MARKS[name]}  {name}: {text}" for name, text in PROVENANCE.items() if name in used))
