"""The passes behind `tile` refuse a module that did not go through it; a program without meta has no dense MACs."""

from __future__ import annotations

import pytest

import focusc.backends.compiler  # noqa: F401 (registers the passes)
from focusc.ir import CompileError, PassManager, parse
from focusc.report.tables import _macs

IR = """module "m"(%x: tensor<2x3xf32>) -> ("y") {
  %y = tensor.exp(%x) : tensor<2x3xf32>
  return(%y)
}
"""


@pytest.mark.parametrize("name", ["plan-memory", "place-fences"])
def test_an_untiled_module_is_refused(name: str) -> None:
    with pytest.raises(CompileError, match=rf"pass\.level.*{name} works on the tile level"):
        PassManager(name).run(parse(IR))


def test_macs_without_a_dense_figure() -> None:
    assert "dense" not in _macs({"macs": 258e6, "macs_dense": 0, "sparsity": 0.0})
    assert "sparsity 50" in _macs({"macs": 5, "macs_dense": 10, "sparsity": 0.5})
