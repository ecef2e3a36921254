"""torch -> ONNX: the whole prefill as one static graph, with its token layout, checked on onnxruntime.

    from focusc.export import export
    print(export("demo", "demo.onnx"))
"""

from __future__ import annotations

import importlib
import logging
import os
import tempfile
import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from .errors import ExportError
from .layout import Layout, to_metadata
from .metadata import PRODUCER

if TYPE_CHECKING:
    import onnx
    import torch

__all__ = ["ADAPTERS", "ExportError", "ExportReport", "Exportable", "available", "export"]

ADAPTERS = ("demo",)
"""Names of the modules beside this one that offer `exportable(random_weights) -> Exportable`."""
TOLERANCE = 1e-4
"""Largest accepted difference from torch, relative to the largest output magnitude."""


@dataclass(frozen=True)
class Exportable:
    """A torch module with what its export needs: example inputs by name (in the order of forward's arguments), output
    names, and the token layout."""

    name: str
    module: torch.nn.Module
    inputs: dict[str, torch.Tensor]
    outputs: tuple[str, ...]
    layout: Layout


@dataclass(frozen=True)
class ExportReport:
    """What was written and how well it agrees with torch on onnxruntime. `parameters` counts the torch module's.

    max_abs: largest absolute difference over all outputs; max_rel: that, over the largest magnitude torch gave.
    """

    path: Path
    opset: int
    nodes: int
    parameters: int
    file_bytes: int
    layout: Layout
    max_abs: float
    max_rel: float

    def __str__(self) -> str:
        return (f"{self.path}: opset {self.opset}, {self.nodes} nodes, {self.parameters:,} parameters, "
                f"{self.file_bytes / 1e6:.1f} MB; torch against onnxruntime: max error {self.max_abs:.1e}, "
                f"relative {self.max_rel:.1e}")


def available() -> tuple[str, ...]:
    """Names that `export` knows."""
    return ADAPTERS


def _resolve(model: str | Exportable, random_weights: int | None) -> Exportable:
    if not isinstance(model, str):
        return model
    if model not in ADAPTERS:
        raise ExportError(f"no model {model!r}; there are {', '.join(ADAPTERS)}")
    return importlib.import_module(f"{__package__}.{model}").exportable(random_weights)


def _trace(model: Exportable, opset: int) -> onnx.ModelProto:
    """Trace with example inputs; shapes become static."""
    import torch

    program = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")                  # torch's own deprecations; nothing a user can act on
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)
        try:
            program = torch.onnx.export(model.module.eval(), tuple(model.inputs.values()), dynamo=True,
                                        opset_version=opset, input_names=list(model.inputs),
                                        output_names=list(model.outputs), verbose=False, optimize=True)
        except Exception as error:
            raise ExportError(f"torch.onnx.export cannot trace {model.name}: {error}") from error
    if program is None:
        raise ExportError(f"torch.onnx.export returned nothing for {model.name}")
    return program.model_proto


def _tidy(proto: onnx.ModelProto, module: torch.nn.Module) -> None:
    """Give folded weights their torch names back, and drop torch's stack traces.

    Folding transposes a linear layer's weight and calls it `val_17`: it becomes `decoder.q_proj.weight.T`. Stack traces
    hold the paths of this machine; node names and module paths (`pkg.torch.onnx.name_scopes`, `namespace`) stay.
    """
    from onnx import numpy_helper

    names: dict[tuple[tuple[int, ...], bytes], str] = {}
    for name, value in module.named_parameters():
        array = value.detach().numpy()
        names.setdefault((array.shape, array.tobytes()), name)
        if array.ndim == 2:
            names.setdefault((array.T.shape, np.ascontiguousarray(array.T).tobytes()), name + ".T")
    used = {t.name for t in proto.graph.initializer}
    renamed: dict[str, str] = {}
    for tensor in proto.graph.initializer:
        if len(tensor.dims) >= 1 and tensor.name.startswith("val_"):
            array = numpy_helper.to_array(tensor)
            name = names.get((array.shape, array.tobytes()))
            if name and name not in used:
                renamed[tensor.name] = name
                used.add(name)
                tensor.name = name
    for node in proto.graph.node:
        for i, name in enumerate(node.input):
            node.input[i] = renamed.get(name, name)
        kept = [p for p in node.metadata_props if p.key != "pkg.torch.onnx.stack_trace"]
        if len(kept) < len(node.metadata_props):
            del node.metadata_props[:]
            node.metadata_props.extend(kept)
    for value in proto.graph.value_info:
        value.name = renamed.get(value.name, value.name)


def _check_static(proto: onnx.ModelProto) -> None:
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, dim in enumerate(value.type.tensor_type.shape.dim):
            if not dim.HasField("dim_value"):
                raise ExportError(f"{value.name} has a dynamic axis {axis} ({dim.dim_param or 'unnamed'}); shapes must "
                                  "be static")


def _parity(model: Exportable, data: bytes) -> tuple[float, float]:
    """Largest absolute and relative difference between torch and onnxruntime on the example inputs."""
    import onnxruntime
    import torch

    session = onnxruntime.InferenceSession(data, providers=["CPUExecutionProvider"])
    wanted = {i.name for i in session.get_inputs()}
    got = session.run(list(model.outputs), {k: v.numpy() for k, v in model.inputs.items() if k in wanted})
    with torch.no_grad():
        result = model.module.eval()(*model.inputs.values())
    expected = [z.numpy() for z in (result if isinstance(result, tuple | list) else (result,))]
    errors = [(float(np.abs(np.asarray(a) - b).max()), float(np.abs(b).max()))
              for a, b in zip(got, expected, strict=True)]
    return max(e for e, _ in errors), max(e / (size or 1.0) for e, size in errors)


def write_atomically(path: Path, data: bytes) -> None:
    """Write beside `path`, then rename: whatever goes wrong, `path` is whole or untouched and nothing else stays."""
    path = Path(path)
    handle, part = tempfile.mkstemp(prefix=path.name + ".", suffix=".part", dir=path.parent)
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(data)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(part, 0o666 & ~umask)                   # mkstemp makes it private
        os.replace(part, path)
    except BaseException:
        os.unlink(part)
        raise


def export(model: str | Exportable, path: Path | str, *, opset: int = 20,
           random_weights: int | None = None) -> ExportReport:
    """Export a model's prefill to `path` as ONNX and compare it with torch.

    `model` is a name from `available()` or an Exportable; `random_weights` seeds an untrained instance instead. Raises
    ExportError (unknown model, opset below 20, untraceable, dynamic shapes, more than TOLERANCE from torch),
    CompileError (`layout.*`), or OSError from writing. Nothing is written unless everything agrees.
    """
    import onnx

    path = Path(path)
    if opset < 20:
        raise ExportError(f"opset is {opset}, expected at least 20")
    if not path.parent.is_dir():
        raise FileNotFoundError(f"no folder {path.parent} to write {path.name} into")
    source = _resolve(model, random_weights)
    if "input_ids" in source.inputs:
        source.layout.fit(source.inputs["input_ids"].shape[-1])
    proto = _trace(source, opset)
    _tidy(proto, source.module)
    proto.producer_name = "focusc"
    props = {p.key: p.value for p in proto.metadata_props} | to_metadata(source.layout)
    onnx.helper.set_model_props(proto, props | {PRODUCER: f"focusc export {source.name}"})
    _check_static(proto)
    onnx.checker.check_model(proto, full_check=True)
    data = proto.SerializeToString()
    max_abs, max_rel = _parity(source, data)
    if not max_rel <= TOLERANCE:
        raise ExportError(f"{source.name} on onnxruntime differs from torch by {max_rel:.1e} (relative), more than "
                          f"{TOLERANCE:.0e}")
    write_atomically(path, data)
    version = next(o.version for o in proto.opset_import if not o.domain)
    parameters = sum(p.numel() for p in source.module.parameters())
    return ExportReport(path, version, len(proto.graph.node), parameters, len(data), source.layout, max_abs, max_rel)
