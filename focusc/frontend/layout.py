"""The token layout of a model file: from its `focusc.*` metadata or from the caller, checked against the graph.

The facts and their rules are `focusc.export.layout.TokenLayout`; here they become the module attribute `layout`
({visual: (v0, L), grid: (F, H, W), strides: (..), query: Q}) and their errors become diagnostics (`layout.<fact>`).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from focusc.export.layout import PREFIX, LayoutError, TokenLayout
from focusc.ir.diagnostics import CompileError, Diagnostic, Loc

HINT = ("give focusc.visual, focusc.grid and focusc.query (focusc.strides if rows or frames end with extra tokens) in "
        "the model's metadata, as flags or in a TOML file")


def parse_layout(metadata: Mapping[str, str], file: str = "") -> TokenLayout | None:
    """The layout in a model's metadata_props, or None if there is none. Raises CompileError (`layout.*`)."""
    if not any(PREFIX + fact in metadata for fact in ("visual", "grid", "strides", "query")):
        return None
    try:
        return TokenLayout.from_metadata(metadata)
    except LayoutError as error:
        raise _diagnose(error, file) from None


def check_layout(given: TokenLayout | Mapping[str, Any], file: str = "") -> TokenLayout:
    """The layout as the caller gave it: a TokenLayout, or a mapping of facts as text or numbers."""
    if isinstance(given, TokenLayout):
        return given
    try:
        return TokenLayout.from_facts(given)
    except LayoutError as error:
        raise _diagnose(error, file) from None


def check_against_sequences(layout: TokenLayout, rows: Collection[int], file: str = "") -> None:
    """Raise CompileError unless some attention of the graph has exactly the layout's tokens as rows.

    `rows` are the row counts of the attentions that may be the decoder's; a graph without any cannot be checked.
    """
    if not rows or layout.visual_end + layout.query in rows:
        return
    try:
        layout.check(max(rows))
    except LayoutError as error:
        raise _diagnose(error, file) from None


def as_attribute(layout: TokenLayout) -> dict[str, Any]:
    """The layout as a module attribute."""
    return {"visual": (layout.visual_start, layout.visual_len), "grid": layout.grid, "strides": layout.strides,
            "query": layout.query}


def _diagnose(error: LayoutError, file: str) -> CompileError:
    message = str(error).removeprefix("layout.")
    return CompileError(Diagnostic(f"layout.{error.fact}", message, Loc(file=file), hint=HINT))
