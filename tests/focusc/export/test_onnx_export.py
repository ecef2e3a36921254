"""Export: parity with torch, static shapes, metadata, readable names, and files that are whole or absent."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest

from focusc.export import ExportError, ExportReport, Layout, export
from focusc.export import onnx_export as module
from focusc.export.layout import from_metadata
from focusc.ir import CompileError

if TYPE_CHECKING:
    import onnx


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[ExportReport, onnx.ModelProto]:
    import onnx

    report = export("demo", tmp_path_factory.mktemp("export") / "demo.onnx", random_weights=3)
    return report, onnx.load(report.path)


Exported = tuple[ExportReport, "onnx.ModelProto"]


def test_parity_is_measured_and_printed(exported: Exported) -> None:
    report, _ = exported
    assert 0 < report.max_rel < 1e-5
    assert "torch against onnxruntime: max error" in str(report)


def test_parity_on_inputs_the_trace_never_saw(exported: Exported) -> None:
    """Nothing that depends on data is baked in."""
    import onnxruntime
    import torch

    from focusc.models import demo
    from focusc.models.demo.data import samples

    model = demo.load(random_weights=3)
    session = onnxruntime.InferenceSession(exported[0].path)
    for item in samples("transient", 3):
        (got,) = session.run(["logits"], {"pixel_values": item.pixel_values, "input_ids": item.input_ids})
        with torch.no_grad():
            expected = model(torch.from_numpy(item.pixel_values), torch.from_numpy(item.input_ids)).numpy()
        np.testing.assert_allclose(np.asarray(got), expected, atol=2e-5)


def test_signature_is_static(exported: Exported) -> None:
    shapes = {v.name: [d.dim_value for d in v.type.tensor_type.shape.dim]
              for v in (*exported[1].graph.input, *exported[1].graph.output)}
    assert shapes == {"pixel_values": [8, 3, 48, 48], "input_ids": [1, 301], "logits": [1, 64]}
    assert exported[0].opset == 20


def test_layout_is_in_the_metadata(exported: Exported) -> None:
    props = {p.key: p.value for p in exported[1].metadata_props}
    assert from_metadata(props) == exported[0].layout == Layout(3, 288, (8, 6, 6), (36, 6, 1), 10)
    assert props["focusc.producer"] == "focusc export demo"


def test_weights_keep_their_torch_names(exported: Exported) -> None:
    from focusc.models import demo

    names = {t.name.removesuffix(".T") for t in exported[1].graph.initializer}
    matrices = {n for n, p in demo.load(random_weights=3).named_parameters() if p.ndim >= 2}
    assert matrices <= names


def test_nodes_keep_their_module_path_and_no_machine_path(exported: Exported) -> None:
    key = "pkg.torch.onnx.name_scopes"
    scopes = [p.value for n in exported[1].graph.node for p in n.metadata_props if p.key == key]
    assert any("layers.5.mlp.down_proj" in s for s in scopes)
    assert os.fsencode(str(Path(module.__file__).parents[2])) not in exported[0].path.read_bytes()


def test_unknown_model_and_old_opset(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no model 'demmo'; there are demo"):
        export("demmo", tmp_path / "x.onnx")
    with pytest.raises(ExportError, match="opset is 17, expected at least 20"):
        export("demo", tmp_path / "x.onnx", opset=17)
    with pytest.raises(FileNotFoundError, match="no folder"):
        export("demo", tmp_path / "missing" / "x.onnx")


def test_write_replaces_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "demo.onnx"
    target.write_bytes(b"old")

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(module.os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        module.write_atomically(target, b"new")
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


def test_disagreement_with_torch_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_parity", lambda *_: (1.0, 0.5))
    with pytest.raises(ExportError, match=r"differs from torch by 5\.0e-01"):
        export("demo", tmp_path / "demo.onnx", random_weights=3)
    assert not list(tmp_path.iterdir())


def test_any_module_exports(tmp_path: Path) -> None:
    import torch

    class Tiny(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.Embedding(8, 32)
            self.head = torch.nn.Linear(32, 8, bias=False)

        def forward(self, pixels: torch.Tensor, input_ids: torch.Tensor) -> torch.Tensor:
            x = torch.cat([pixels.mean(1)[None], self.embed(input_ids[:, 4:])], dim=1)
            return self.head(x.mean(1))

    inputs = {"pixels": torch.randn(4, 3, 32), "input_ids": torch.arange(6)[None]}
    source = module.Exportable("tiny", Tiny(), inputs, ("logits",), Layout(0, 4, (1, 2, 2), (4, 2, 1), 2))
    assert export(source, tmp_path / "tiny.onnx").parameters == 2 * 8 * 32
    wrong = module.Exportable("tiny", Tiny(), inputs, ("logits",), Layout(0, 4, (1, 2, 2), (4, 2, 1), 3))
    with pytest.raises(CompileError, match="query is 3 rows, but 2 of the 6 rows follow"):
        export(wrong, tmp_path / "wrong.onnx")
