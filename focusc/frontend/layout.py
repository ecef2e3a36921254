"""The token layout of a model file: from its `focusc.*` metadata or from the caller, checked against the graph."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from focusc.export.layout import from_metadata, text_only
from focusc.ir.concentration.layout import Layout
from focusc.ir.diagnostics import Loc


def find_layout(given: Layout | Mapping[str, Any] | None, metadata: Mapping[str, str], file: str) -> Layout | None:
    """The layout as the caller gave it, else the one in the metadata of `file`, else None.

    Raises CompileError `layout.*`, at `file` if that is where the layout is from.
    """
    if given is None:
        return from_metadata(metadata, Loc(file=file))
    return given if isinstance(given, Layout) else Layout.parse(given)


def layout_attribute(found: Layout | None, metadata: Mapping[str, str]) -> dict[str, Any] | None:
    """What a module's attribute `layout` holds: the facts, nothing ({}) if the file says that it has no visual tokens,
    None (no such attribute) if nothing is known."""
    if found is None:
        return {} if text_only(metadata) else None
    return found.facts()


def check_against_sequences(layout: Layout, rows: Collection[int], file: str) -> None:
    """Raise CompileError unless some attention of the graph has exactly the layout's tokens as rows.

    `rows` are the row counts of the attentions that may be the decoder's; a graph without any cannot be checked.
    """
    if rows and layout.end + layout.query not in rows:
        layout.fit(max(rows), Loc(file=file))
