"""The generated reference pages are those of the declarations."""

from pathlib import Path

import pytest

from focusc.backends import reference as passes
from focusc.ir import reference as ops

DOCS = Path(__file__).parent.parent / "docs"


@pytest.mark.parametrize(("page", "text"), [("ir.md", ops.reference), ("passes.md", passes.reference)])
def test_page_is_up_to_date(page: str, text: object) -> None:
    assert callable(text)
    assert (DOCS / page).read_text(encoding="utf-8") == text(), (
        f"run `python -m focusc.{'ir' if page == 'ir.md' else 'backends'}.reference`"
    )


def test_every_op_has_a_section() -> None:
    text = (DOCS / "ir.md").read_text(encoding="utf-8")
    assert all(f"\n### {name}\n" in text for name in ops.declared())
