"""Every variant of docs/families.md from its config to answers of the emulator, each stage against the one before.

The rungs are those of `benchmarks/families.py`, which goes through both opsets; here variants take turns.
"""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import onnx
import pytest
from rich.console import Console

from focusc.driver import concentration_sites, ops
from focusc.export.instances import INSTANCES, Instance, write_config
from focusc.export.layout import from_metadata
from focusc.export.vlm import Request, VlmReport, export_vlm
from focusc.report.tables import ops_table, sites_table
from tests.golden_text import compare_golden

ROOT = Path(__file__).parents[3]
sys.path.insert(0, str(ROOT / "benchmarks"))  # as a script there finds the modules beside it

from benchmarks import families as ladder  # noqa: E402

LAYOUTS = {
    "llava_onevision-image": ((4, 70), (1, 6, 9), (4, 9, 1), 6),
    "llava_onevision-video": ((4, 8), (2, 2, 2), (4, 2, 1), 7),
    "llava_next_video-video": ((4, 8), (2, 2, 2), (4, 2, 1), 6),
    "qwen2_vl-image": ((4, 16), (1, 4, 4), (16, 4, 1), 6),
    "qwen2_vl-video": ((4, 32), (2, 4, 4), (16, 4, 1), 6),
    "qwen2_5_vl-video": ((4, 32), (2, 4, 4), (16, 4, 1), 6),
    "smolvlm-video": ((4, 10), (2, 2, 2), (6, 2, 1), 6),
    "idefics3-image": ((4, 4), (1, 2, 2), (4, 2, 1), 6),
    "minicpmv4_6-video": ((4, 10), (2, 2, 2), (6, 2, 1), 6),
    "qwen3_vl-video": ((4, 34), (2, 4, 4), (18, 4, 1), 6),
    "internvl-video": ((4, 10), (2, 2, 2), (6, 2, 1), 6),
    "llava-image": ((4, 16), (1, 4, 4), (16, 4, 1), 6),
    "paligemma-image": ((4, 16), (1, 4, 4), (16, 4, 1), 6),
    "gemma3-video": ((4, 10), (2, 2, 2), (6, 2, 1), 6),
}
"""Visual span, grid, strides and query of the made-up samples: 4 tokens of text before, 6 behind."""
SITES = ("qkv_in", "query", "o_in", "mlp_in", "down_in")
LACKING = {
    "idefics3-image": {(0, "query"), (1, "query")},  # heads of 16
    "minicpmv4_6-video": {(0, "query"), (0, "prune")},  # layer 0 is linear attention
}
"""Layers and sites that a variant cannot have."""
OPSET = {instance.name: (23, 20)[i % 2] for i, instance in enumerate(INSTANCES)}


def exported(instance: Instance, folder: Path) -> VlmReport:
    config = write_config(instance.model_type, folder / "config.json")
    out = folder / f"{instance.name}.onnx"
    return export_vlm(config, out, opset=OPSET[instance.name], request=Request(frames=instance.frames),
                      random_weights=0)


def printed(table: object) -> str:
    console = Console(width=180, color_system=None, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(table)
    return "\n".join(line.rstrip() for line in console.export_text().splitlines()) + "\n"


@pytest.mark.slow
@pytest.mark.parametrize("instance", INSTANCES, ids=[i.name for i in INSTANCES])
def test_family(instance: Instance, tmp_path: Path, request: pytest.FixtureRequest) -> None:
    report = exported(instance, tmp_path)
    check_export(report, instance)
    samples = ladder.samples_of(report.path, 2)
    interpreted = ladder.interpreter_rung(report.path, samples)
    assert interpreted.reached, interpreted
    check_sites(report.path, instance)
    compare_golden(f"families/{instance.name}.txt", described(report.path), request)
    for rung in (ladder.dense_rung, ladder.focus_rung):
        done = rung(report.path, samples)
        assert done.reached, (rung.__name__, done.found)


def described(path: Path) -> str:
    """What `focusc ops` prints of operators, and `focusc ops --sites` of sites."""
    return printed(ops_table(ops(path), "unsupported")) + printed(sites_table(concentration_sites(path)))


def check_export(report: VlmReport, instance: Instance) -> None:
    assert report.max_rel is not None and 0 < report.max_rel < 1e-4
    layout = report.layout
    assert layout is not None
    assert ((layout.start, layout.length), layout.grid, layout.strides, layout.query) == LAYOUTS[instance.name]
    assert from_metadata({p.key: p.value for p in onnx.load(report.path).metadata_props}) == layout
    assert report.recorded, "the placeholder positions at least are recorded"
    check_files(report)
    page = (ROOT / "docs" / "families.md").read_text(encoding="utf-8")
    for operator in report.ops:
        assert f"| {operator} |" in page, f"run python docs/list_families.py: {instance.name} has {operator}"


def check_files(report: VlmReport) -> None:
    """Static shapes, weights outside with torch's names, a sample that fits, no machine path, nothing else left."""
    path = report.path
    proto = onnx.load(path)
    shapes = {v.name: tuple(d.dim_value for d in v.type.tensor_type.shape.dim)
              for v in (*proto.graph.input, *proto.graph.output)}
    assert all(size > 0 for shape in shapes.values() for size in shape)
    assert shapes.pop("logits") == (1, 128)
    sample = np.load(path.with_suffix(".npz"))
    assert {name: sample[name].shape for name in sample.files} == shapes
    assert sorted(f.name for f in path.parent.iterdir() if f.name.startswith(path.stem)) == [
        f"{path.stem}.npz", path.name, f"{path.name}.data"]
    weights = {t.name for t in proto.graph.initializer if t.name.removesuffix(".T").endswith(".weight")}
    assert any(name.endswith("layers.1.mlp.down_proj.weight.T") for name in weights)
    assert not any(t.name.startswith("val_") and np.prod(t.dims) > 4096 for t in proto.graph.initializer)
    assert str(ROOT).encode() not in path.read_bytes()
    assert str(path.parent).encode() not in path.read_bytes()


def check_sites(path: Path, instance: Instance) -> None:
    """Five SIC sites in each of the two layers, and prunings, but for what is known to be impossible."""
    found = concentration_sites(path)
    lacking = LACKING.get(instance.name, set())
    out = {(s["layer"], s["site"]): s["why"] for s in found if s["kind"] == "none"}
    # few tokens: a share of the deeper layer may keep them all, which is no lack of the layer
    assert {place for place, why in out.items() if place[1] != "prune" or " keeps " not in why} == lacking
    assert {(s["layer"], s["site"]) for s in found if s["kind"] == "sic"} == {
        (layer, site) for layer in (0, 1) for site in SITES} - lacking
    assert any(s["kind"] == "sec" for s in found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["qwen2_vl-image", "smolvlm-video"])
def test_a_shuffled_graph_has_the_same_sites(name: str, tmp_path: Path) -> None:
    """Nodes in another order with other names, operands of commutative nodes swapped."""
    from tests.focusc.frontend.test_structure import shuffled

    instance = next(i for i in INSTANCES if i.name == name)
    path = exported(instance, tmp_path).path
    other = tmp_path / "shuffled.onnx"
    onnx.save(shuffled(onnx.load(path), 0), str(other))
    keys = ("layer", "kind", "site", "rows", "columns", "why")
    plain, mixed = ([[s[key] for key in keys] for s in concentration_sites(p)] for p in (path, other))
    assert sorted(map(str, mixed)) == sorted(map(str, plain))
    samples = ladder.samples_of(path, 1)
    wanted, found = (ladder.run_pipeline(ladder.load_model(p), ladder.FRONT).module for p in (path, other))
    assert sorted(op.name for op in found.walk()) == sorted(op.name for op in wanted.walk())
    a, b = (ladder.Executor(m)(samples[0].inputs)["logits"] for m in (wanted, found))
    assert np.abs(a - b).max() <= 1e-5 * np.abs(a).max()
