"""The token layout in an ONNX file: metadata_props `focusc.visual`, `focusc.grid`, `focusc.strides`, `focusc.query`.

A model without visual tokens has `focusc.visual` = "none" alone, which is not the same as a file that says nothing.

What a layout is and what it must hold is `focusc.ir.concentration.layout`; here it is written and read. torch-free.
"""

from __future__ import annotations

from collections.abc import Mapping

from focusc.export.metadata import PREFIX
from focusc.ir.concentration.layout import FACTS, Layout
from focusc.ir.diagnostics import UNKNOWN, Loc

__all__ = ["TEXT_ONLY", "Layout", "from_metadata", "text_only", "to_metadata"]


TEXT_ONLY = {PREFIX + "visual": "none"}
"""What the metadata of a model without visual tokens says."""


def text_only(props: Mapping[str, str]) -> bool:
    """True if metadata_props say that the model has no visual tokens."""
    return TEXT_ONLY.items() <= props.items()


def to_metadata(layout: Layout) -> dict[str, str]:
    """As metadata_props entries, numbers with commas: {"focusc.visual": "3,288", ...}."""
    return {PREFIX + fact: ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
            for fact, value in layout.facts().items()}


def from_metadata(props: Mapping[str, str], loc: Loc = UNKNOWN) -> Layout | None:
    """The layout in metadata_props, whose other entries are ignored; None if they hold no fact of one, or say that no
    token is visual.

    Raises CompileError `layout.*` at `loc`.
    """
    facts = {fact: props[PREFIX + fact] for fact in FACTS if PREFIX + fact in props}
    return Layout.parse(facts, loc) if facts and not text_only(props) else None
