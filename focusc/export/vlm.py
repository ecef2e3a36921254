"""A transformers model to ONNX: its prefill with a sample, as one static graph, checked on onnxruntime.

A vision-language model, or a language model alone, whose graph has no visual tokens and whose metadata says so.

    from focusc.export.vlm import export_vlm
    print(export_vlm("llava-onevision-7b/", "model.onnx", request=Request(image=Path("cat.png"))))
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ExportError
from .layout import TEXT_ONLY, Layout, to_metadata
from .metadata import PRODUCER, WEIGHTS
from .onnx_export import TOLERANCE
from .samples import Request

if TYPE_CHECKING:
    import torch

    from .prefill import Prefill

__all__ = ["Request", "VlmReport", "export_vlm"]

OPSETS = (20, 23)
"""20 writes attention and norms as their parts, 23 keeps Attention and RMSNormalization as nodes."""


@dataclass(frozen=True)
class VlmReport:
    """What was written, from what, and how well it agrees with torch. Seconds by step; bytes on disk. `layout` is None
    for a model that does not see.

    max_abs, max_rel: largest difference of the logits on onnxruntime, absolute and over the largest logit, the larger
    of two samples: the one traced and one with other pixels and other text. None without weights.
    """

    path: Path
    model: str
    layout: Layout | None
    layout_source: str
    sample: str
    opset: int
    nodes: int
    ops: dict[str, int]
    parameters: int
    file_bytes: int
    recorded: dict[str, int]
    versions: dict[str, str]
    max_abs: float | None
    max_rel: float | None
    seconds: dict[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        layout = self.layout
        agreement = "no weights, so nothing to compare" if self.max_abs is None else (
            f"torch against onnxruntime: max error {self.max_abs:.1e}, relative {self.max_rel:.1e}, on the traced and "
            "on another sample")
        where = "no visual tokens" if layout is None else (
            f"visual {layout.start},{layout.length} grid {'x'.join(map(str, layout.grid))} "
            f"strides {','.join(map(str, layout.strides))} query {layout.query}")
        steps = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in self.seconds.items())
        return "\n".join([
            f"{self.path}: {self.model}, opset {self.opset}, {self.nodes} nodes, {self.parameters:,} parameters, "
            f"{self.file_bytes / 1e6:.1f} MB",
            f"  layout   {where} ({self.layout_source})",
            f"  sample   {self.sample}; {sum(self.recorded.values())} values recorded at {len(self.recorded)} places",
            f"  parity   {agreement}",
            f"  with     {', '.join(f'{name} {version}' for name, version in self.versions.items())}",
            f"  time     {steps}",
        ])


def export_vlm(source: str | Path, output: str | Path, *, request: Request | None = None, opset: int = 23,
               random_weights: int | None = None, weights: bool = True,
               progress: Callable[[str, int, int], None] = lambda *_: None) -> VlmReport:
    """Export a checkpoint directory, a config.json or a GGUF file to `output`; OUTPUT.data holds the weights, OUTPUT's
    stem with .npz the sample's graph inputs.

    random_weights: seed of an untrained instance. weights=False: shapes only, OUTPUT.data is a hole. Raises ExportError
    (see docs/errors.md, `export.*`) or OSError; nothing is written unless everything agrees.
    """
    from .checkpoint import open_checkpoint
    from .graph import convert, op_counts, quiet, save_beside, write
    from .samples import sample_of
    from .tokens import find_layout

    output = Path(output)
    request = request or Request(seed=random_weights or 0)
    if opset not in OPSETS:
        raise ExportError(f"opset is {opset}, expected {' or '.join(map(str, OPSETS))}", code="export.opset")
    if random_weights is not None and not weights:
        raise ExportError("--random-weights and --no-weights exclude each other", code="export.options")
    if not output.parent.is_dir():
        raise FileNotFoundError(2, "no such folder", str(output.parent))
    clock = _Clock(progress, 5)
    clock.step("load")
    checkpoint = open_checkpoint(source)
    sample, sample_source = sample_of(checkpoint, request)
    layout, layout_source = find_layout(checkpoint.config, sample) if checkpoint.visual else (None, "text only")
    if weights:
        model = checkpoint.load() if random_weights is None else checkpoint.random(random_weights)
    else:
        model = checkpoint.shapes()
    clock.step("trace")
    prefill, program = _trace(model, checkpoint.model_class.__name__, sample)
    clock.step("convert")
    graph = convert(program, list(prefill.inputs), "logits", opset)
    _check_static(graph)
    metadata = {**(TEXT_ONLY if layout is None else to_metadata(layout)),
                PRODUCER: f"focusc export {checkpoint.model_type}"}
    if not weights:
        metadata[WEIGHTS] = "absent"
    with save_beside(output) as folder:
        clock.step("write")
        write(graph, folder / output.name, metadata)
        wanted = [str(value.name) for value in graph.graph.inputs]
        _write_sample(folder / f"{output.stem}.npz", {n: v for n, v in prefill.inputs.items() if n in wanted})
        clock.step("compare")
        with quiet():
            errors = _parity(prefill, folder / output.name, checkpoint.config) if weights else (None, None)
        size = sum(file.stat().st_size for file in folder.iterdir() if weights or file.suffix != ".data")
    clock.step("")
    return VlmReport(
        output, checkpoint.model_class.__name__, layout, layout_source, sample_source, opset, len(graph.graph),
        op_counts(graph), sum(p.numel() for p in model.parameters()), size, prefill.recorded, _versions(), *errors,
        clock.seconds)


class _Clock:
    """Seconds by step, and progress."""

    def __init__(self, progress: Callable[[str, int, int], None], steps: int) -> None:
        self.seconds: dict[str, float] = {}
        self._progress, self._steps = progress, steps
        self._name, self._started = "", time.perf_counter()

    def step(self, name: str) -> None:
        now = time.perf_counter()
        if self._name:
            self.seconds[self._name] = now - self._started
        self._name, self._started = name, now
        self._progress(name, len(self.seconds), self._steps)


def _trace(model: Any, name: str,
           sample: Mapping[str, torch.Tensor]) -> tuple[Prefill, torch.export.ExportedProgram]:
    from .graph import quiet
    from .partial import DataDependent
    from .prefill import Prefill

    prefill = Prefill(model, sample)
    try:
        with quiet():
            return prefill, prefill.trace()
    except DataDependent as error:
        raise ExportError(f"{name} cannot be traced: {error}", code="export.data-dependent", where=error.site,
                          hint="such a step has no static graph; export the parts around it, or another model "
                          "class") from error
    except Exception as error:
        from .partial import site_of

        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        raise ExportError(f"{name} cannot be traced: {type(error).__name__}: {first}", code="export.trace",
                          where=site_of(error)) from error


def _check_static(graph: Any) -> None:
    from .graph import static_shapes

    for name, shape in static_shapes(graph).items():
        if not all(isinstance(size, int) for size in shape):
            raise ExportError(f"{name} has the shape {shape}; shapes must be static", code="export.trace")


def _write_sample(path: Path, inputs: Mapping[str, torch.Tensor]) -> None:
    arrays: dict[str, Any] = {name: value.numpy() for name, value in inputs.items()}
    np.savez(path, **arrays)


def _parity(prefill: Prefill, path: Path, config: Any) -> tuple[float, float]:
    """Largest absolute and relative difference on the traced sample and on one with other pixels and other text."""
    import onnxruntime

    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    wanted = {value.name for value in session.get_inputs()}
    worst = (0.0, 0.0)
    for inputs in (prefill.inputs, _varied(prefill.inputs, config)):
        got = np.asarray(session.run(["logits"], {n: v.numpy() for n, v in inputs.items() if n in wanted})[0])
        expected = prefill(*inputs.values()).numpy()
        error = float(np.abs(got - expected).max())
        relative = error / (float(np.abs(expected).max()) or 1.0)
        if not relative <= TOLERANCE:
            kind = "the traced sample" if inputs is prefill.inputs else "pixels and text other than the traced ones"
            raise ExportError(f"onnxruntime differs from torch by {relative:.1e} (relative) on {kind}, more than "
                              f"{TOLERANCE:.0e}", code="export.parity", hint="please report it with the model's config")
        worst = max(worst[0], error), max(worst[1], relative)
    return worst


def _varied(inputs: Mapping[str, torch.Tensor], config: Any) -> dict[str, torch.Tensor]:
    """Other values of the same layout: mirrored pixels, and text tokens in reverse order."""
    import torch

    from .tokens import placeholder_ids

    ids = inputs["input_ids"].clone()
    text = torch.ones_like(ids, dtype=torch.bool)
    for token in placeholder_ids(config).values():
        text &= ids != token
    ids[text] = ids[text].flip(0)
    return {name: value.flip(-1) * 0.9 for name, value in inputs.items() if name != "input_ids"} | {"input_ids": ids}


def _versions() -> dict[str, str]:
    from importlib.metadata import version

    return {name: version(name) for name in ("transformers", "torch", "onnx", "onnxscript", "onnxruntime")}
