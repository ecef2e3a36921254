"""The generated reference pages are those of the declarations."""

import subprocess
import sys
from pathlib import Path

import pytest

from focusc.ir import reference as ops

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("page", "module"), [("ir.md", "focusc.ir.reference"), ("passes.md", "focusc.backends.reference")]
)
def test_page_is_up_to_date(page: str, module: str) -> None:
    """In a process of its own: other tests declare ops, passes and aliases besides."""
    done = subprocess.run([sys.executable, "-m", module, "--check", str(ROOT / "docs" / page)], cwd=ROOT)
    assert done.returncode == 0, f"run `python -m {module}`"


def test_every_op_has_a_section() -> None:
    text = (ROOT / "docs" / "ir.md").read_text(encoding="utf-8")
    assert all(f"\n### {name}\n" in text for name in ops.declared())
