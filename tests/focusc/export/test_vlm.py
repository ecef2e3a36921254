"""Export of small instances: what each option gives, and bad input. test_families.py goes through the families."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from focusc.export.checkpoint import TESTED, open_checkpoint
from focusc.export.errors import ExportError
from focusc.export.instances import write_config
from focusc.export.vlm import Request, export_vlm
from tests.arrays import save_arrays

if TYPE_CHECKING:
    import onnx

def load(path: Path) -> onnx.ModelProto:
    import onnx

    return onnx.load(path)


def metadata(path: Path) -> dict[str, str]:
    return {p.key: p.value for p in load(path).metadata_props}


def test_opset_20_has_the_parts(tmp_path: Path) -> None:
    config = write_config("llava_onevision", tmp_path / "config.json")
    report = export_vlm(config, tmp_path / "model.onnx", opset=20, random_weights=0)
    assert report.max_rel is not None and report.max_rel < 1e-4
    assert not {"Attention", "RMSNormalization"} & set(report.ops)
    assert {"Softmax", "ReduceMean", "Pow"} <= set(report.ops)
    assert "onnxruntime: max error" in str(report)
    assert f"transformers {TESTED}" in str(report)


def test_shapes_only_gives_the_same_graph(tmp_path: Path) -> None:
    """The same nodes without weights: buffers, and so rotary tables, are computed all the same."""
    config = write_config("qwen2_5_vl", tmp_path / "config.json")
    request = Request(frames=4)
    full = export_vlm(config, tmp_path / "full.onnx", request=request, random_weights=0)
    hollow = export_vlm(config, tmp_path / "hollow.onnx", request=request, weights=False)
    assert hollow.max_rel is None
    assert hollow.ops == full.ops
    assert metadata(hollow.path)["focusc.weights"] == "absent"

    def constants(path: Path) -> dict[str, Any]:
        import onnx

        proto = onnx.load(path, load_external_data=False)
        return {t.name: onnx.numpy_helper.to_array(t) for t in proto.graph.initializer
                if not t.external_data and not t.name.startswith("model.") and t.name != "lm_head.weight.T"}

    mine, theirs = constants(hollow.path), constants(full.path)
    for name, value in mine.items():
        if name in theirs:
            np.testing.assert_array_equal(value, theirs[name], err_msg=name)
    assert len(mine.keys() & theirs.keys()) > 10
    data = tmp_path / "hollow.onnx.data"
    assert data.stat().st_size > 4 * full.parameters * 0.9
    assert data.stat().st_blocks == 0, "the weights' file is a hole"


Refused = Callable[..., ExportError]


@pytest.fixture
def refused(refusals: list[ExportError]) -> Refused:
    """The ExportError of an export, with its code checked; nothing may be written."""

    def refuse(code: str, source: Path, out: Path, **options: Any) -> ExportError:
        before = set(out.parent.iterdir())
        with pytest.raises(ExportError) as caught:
            export_vlm(source, out, **options)
        assert caught.value.code == code, str(caught.value)
        assert set(out.parent.iterdir()) == before
        refusals.append(caught.value)
        return caught.value

    return refuse


def test_a_family_that_is_not_listed(tmp_path: Path, refused: Refused) -> None:
    """Aya Vision from arrays: exported by the same means, its layout guessed from the placeholders."""
    vision = {"model_type": "siglip_vision_model", "vision_use_head": False, "hidden_size": 32, "intermediate_size": 64,
              "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7}
    text = {"model_type": "cohere2", "hidden_size": 128, "intermediate_size": 128, "num_hidden_layers": 2,
            "num_attention_heads": 4, "num_key_value_heads": 2, "vocab_size": 128, "pad_token_id": 2,
            "layer_types": ["full_attention", "full_attention"]}
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "aya_vision", "vision_config": vision, "text_config": text,
                                  "image_token_index": 120, "image_token_id": 120, "alignment_intermediate_size": 64}))
    np.save(tmp_path / "ids.npy", np.array([5, 6, *[120] * 8, 7, 8, 9]))
    pixels = np.random.default_rng(0).standard_normal((2, 3, 28, 28)).astype(np.float32)
    np.savez(tmp_path / "pixels.npz", pixel_values=pixels)
    report = export_vlm(config, tmp_path / "model.onnx", random_weights=0,
                        request=Request(tokens=tmp_path / "ids.npy", pixels=tmp_path / "pixels.npz"))
    assert report.max_rel is not None and report.max_rel < 1e-4
    assert report.layout is not None
    assert (report.layout.grid, report.layout.query) == ((2, 2, 2), 3)
    assert "guessed" in report.layout_source
    message = refused("export.sample", config, tmp_path / "other.onnx", random_weights=0)
    assert "no inputs can be made up for model type 'aya_vision'" in str(message)


def test_what_is_no_model(tmp_path: Path, refused: Refused) -> None:
    out = tmp_path / "model.onnx"
    empty = tmp_path / "empty"
    empty.mkdir()
    refused("export.directory", empty, out)
    refused("export.directory", tmp_path / "nothing", out)
    for wrong in (b"{not json", b"\xff\xfe", b"[" * 9999, b"[]", b'{"model_type": ["llava"]}'):
        (empty / "config.json").write_bytes(wrong)
        refused("export.config" if b"llava" not in wrong else "export.model-type", empty, out)
    (empty / "config.json").write_text('{"hidden_size": 1}')
    refused("export.config", empty, out)
    (empty / "config.json").write_text('{"model_type": "llava_twovision"}')
    assert "no model of type 'llava_twovision'" in str(refused("export.model-type", empty, out))
    (empty / "config.json").write_text('{"model_type": "bert"}')
    refused("export.architecture", empty, out, random_weights=0)
    refused("export.opset", empty, out, opset=18)


def test_missing_weights(tmp_path: Path, refused: Refused) -> None:
    out = tmp_path / "model.onnx"
    write_config("smolvlm", tmp_path / "config.json")
    assert "model.safetensors" in str(refused("export.shard", tmp_path, out))
    shards = {"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(shards))
    (tmp_path / "model-1.safetensors").write_bytes(b"")
    assert "1 of 2 weight files are missing, the first is model-2" in str(refused("export.shard", tmp_path, out))
    (tmp_path / "model-2.safetensors").write_bytes(b"")
    refused("export.load", tmp_path, out)
    for wrong in ("{", "[]", '{"weight_map": ["model-1.safetensors"]}', '{"weight_map": {"a": 1}}', "[" * 9999):
        (tmp_path / "model.safetensors.index.json").write_text(wrong)
        refused("export.shard", tmp_path, out)


def arrays(folder: Path, ids: list[int], pixels: Mapping[str, np.ndarray]) -> Request:
    np.save(folder / "ids.npy", np.array(ids))
    save_arrays(folder / "pixels.npz", pixels)
    return Request(tokens=folder / "ids.npy", pixels=folder / "pixels.npz")


def test_tokens_and_pixels_that_do_not_fit(tmp_path: Path, refused: Refused) -> None:
    out, config = tmp_path / "model.onnx", write_config("smolvlm", tmp_path / "config.json")
    given = {"pixel_values": np.zeros((1, 1, 3, 28, 28), np.float32)}
    request = arrays(tmp_path, [1, 2, 3], given)
    refused("export.no-visual-tokens", config, out, random_weights=0, request=request)
    request = arrays(tmp_path, [1, 120, 120, 120, 3], given)
    assert "3 visual placeholders, the pixels make 4" in str(
        refused("export.visual-count", config, out, random_weights=0, request=request))
    request = arrays(tmp_path, [1, 120, 120, 120, 120], given)
    refused("export.no-query", config, out, random_weights=0, request=request)
    request = arrays(tmp_path, [1, 120, 120, 120, 120, 3], {"images": given["pixel_values"]})
    assert "takes no argument 'images'" in str(
        refused("export.arrays", config, out, random_weights=0, request=request))
    archive = bytearray((tmp_path / "pixels.npz").read_bytes())
    archive[60] ^= 0xFF
    (tmp_path / "pixels.npz").write_bytes(archive)
    refused("export.arrays", config, out, random_weights=0, request=request)
    (tmp_path / "ids.npy").write_bytes(b"no array")
    refused("export.arrays", config, out, random_weights=0, request=request)


@pytest.mark.parametrize("options", [
    {"image": Path("a.png"), "video": Path("b.mp4")}, {"pixels": Path("a.npz")}, {"frames": 0},
])
def test_options_that_exclude_each_other(options: dict[str, Any]) -> None:
    with pytest.raises(ExportError) as caught:
        Request(**options)
    assert caught.value.code == "export.options"


def test_disagreement_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, refused: Refused) -> None:
    import focusc.export.vlm as module

    monkeypatch.setattr(module, "TOLERANCE", 0.0)
    config = write_config("idefics3", tmp_path / "config.json")
    error = refused("export.parity", config, tmp_path / "model.onnx", random_weights=0)
    assert "differs from torch" in str(error)


def test_tied_weights_and_buffers_of_shapes_only(tmp_path: Path) -> None:
    import torch

    checkpoint = open_checkpoint(write_config("minicpmv4_6", tmp_path / "config.json"))
    hollow, full = checkpoint.shapes(), checkpoint.random(0)
    buffers = dict(full.named_buffers())
    assert buffers.keys() == dict(hollow.named_buffers()).keys()
    for name, value in hollow.named_buffers():
        torch.testing.assert_close(value, buffers[name], msg=name)
    shapes = {name: p.shape for name, p in full.named_parameters()}
    assert {name: p.shape for name, p in hollow.named_parameters()} == shapes
    assert sum(p.untyped_storage().nbytes() for p in hollow.parameters()) < 1000
