"""From a traced program to an ONNX file: optimised with its weights set aside, so that they keep torch's names.

The optimiser folds constants; a weight that is folded loses its name, and one that does not exist (`--no-weights`)
cannot be folded. So weights are absent while it runs. Afterwards the transposes that linear layers put on their weights
are applied to the stored tensors, which are then called NAME.T.
"""

from __future__ import annotations

import logging
import os
import re
import shutil
import tempfile
import warnings
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .errors import ExportError

if TYPE_CHECKING:
    from collections.abc import Iterator

    import onnx_ir
    import torch

__all__ = ["convert", "op_counts", "save_beside", "quiet"]

SCOPES = "pkg.torch.onnx.name_scopes"
INLINE_BYTES = 1024
"""Smaller tensors stay in the .onnx file."""


@contextmanager
def quiet() -> Iterator[None]:
    """Without the deprecations and notes of torch and onnxscript: nothing a user can act on."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "onnx_ir", "onnxscript", "transformers")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def convert(program: torch.export.ExportedProgram, inputs: Sequence[str], output: str, opset: int) -> onnx_ir.Model:
    """The optimised ONNX model; weights without values (see `Checkpoint.shapes`) have `const_value` None."""
    import torch
    from onnxscript.optimizer import optimize_ir
    from onnxscript.rewriter import onnx_fusions

    with quiet():
        try:
            exported = torch.onnx.export(program, dynamo=True, opset_version=opset, optimize=False, verbose=False,
                                         input_names=list(inputs), output_names=[output])
        except Exception as error:                       # torch.onnx raises types of its own, without a common base
            raise _unconvertible(program, error) from error
        assert exported is not None
        model = exported.model
        weights = set(program.graph_signature.parameters)
        absent = {name for name in weights if not has_values(program.state_dict[name])}
        held = {}
        for name, value in model.graph.initializers.items():
            if name in weights:
                held[name] = value.const_value
                value.const_value = None
        optimize_ir(model)
        onnx_fusions.fuse(model)
        for name, value in model.graph.initializers.items():
            if name in held and name not in absent:
                value.const_value = held[name]
        _fold_transposes(model, weights)
        _tidy(model)
    return model


def _unconvertible(program: torch.export.ExportedProgram, error: Exception) -> ExportError:
    """Names the operator that has no ONNX form, and the model code that calls it."""
    found = re.search(r"No ONNX function found for <OpOverload\(op='([\w.]+)'", str(error))
    if found is None:
        first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
        return ExportError(f"torch.onnx.export fails: {first.strip()}", code="export.convert")
    operator = found[1]
    node = next((n for n in program.graph.nodes if str(n.target).startswith(operator)), None)
    trace = str(node.meta.get("stack_trace", "")) if node is not None else ""
    frames = re.findall(r'File ".*?([^/"]+/[^/"]+\.py)", line (\d+), in (\w+)', trace)
    site = "{}:{} in {}".format(*frames[-1]) if frames else ""
    return ExportError(f"the operator {operator} has no ONNX form", code="export.operator", where=site,
                       hint="the model needs an operator that ONNX lacks; another model class may do without")


def has_values(parameter: torch.Tensor) -> bool:
    """False for a parameter that is one number expanded to a shape."""
    return parameter.numel() <= 1 or any(parameter.stride())


def _fold_transposes(model: onnx_ir.Model, weights: Collection[str]) -> None:
    """Apply each Transpose of a weight to the weight itself; the original stays if something else uses it."""
    import onnx_ir as ir

    graph = model.graph
    for node in list(graph):
        weight = node.inputs[0] if node.op_type == "Transpose" else None
        if weight is None or weight.name not in weights or not weight.is_initializer():
            continue
        axes = node.attributes.get_ints("perm", list(range(len(weight.shape or ())))[::-1])
        new = graph.initializers.get(f"{weight.name}.T")
        if new is None:
            shape = ir.Shape([weight.shape[axis] for axis in axes])  # type: ignore[index]
            new = ir.Value(name=f"{weight.name}.T", shape=shape, type=weight.type)
            if weight.const_value is not None:
                new.const_value = _transposed(weight.const_value, tuple(axes), new.name or "")
            graph.register_initializer(new) if new.const_value is not None else graph.initializers.add(new)
        node.outputs[0].replace_all_uses_with(new, replace_graph_outputs=True)
        graph.remove(node, safe=True)
        if not weight.uses():
            graph.initializers.pop(str(weight.name))


def _transposed(tensor: onnx_ir.TensorProtocol, axes: tuple[int, ...], name: str) -> onnx_ir.TensorProtocol:
    import onnx_ir as ir

    sizes = tensor.shape.numpy()

    def values() -> ir.TensorProtocol:
        return ir.tensor(np.ascontiguousarray(tensor.numpy().transpose(axes)), name=name)

    return ir.LazyTensor(values, dtype=tensor.dtype, shape=ir.Shape([sizes[a] for a in axes]), name=name)


def _tidy(model: onnx_ir.Model) -> None:
    """Drop what names this machine: stack traces. Module paths stay. Drop inputs that nothing reads."""
    for node in model.graph:
        for key in [k for k in node.metadata_props if k.startswith("pkg.") and k not in (SCOPES, "namespace")]:
            del node.metadata_props[key]
    for value in list(model.graph.inputs):
        if not value.uses():
            model.graph.inputs.remove(value)
    model.graph.metadata_props.clear()


def op_counts(model: onnx_ir.Model) -> dict[str, int]:
    """Number of nodes by op type, most frequent first."""
    return dict(Counter(node.op_type for node in model.graph).most_common())


@contextmanager
def save_beside(path: Path) -> Iterator[Path]:
    """A folder beside `path` whose files move to the place of `path` when the block ends, the one named like it last.

    Whatever goes wrong, the folder vanishes and no file of the target's is touched.
    """
    folder = Path(tempfile.mkdtemp(prefix=f".{path.name}.", dir=path.parent))
    try:
        yield folder
        umask = os.umask(0)
        os.umask(umask)
        for file in sorted(folder.iterdir(), key=lambda f: f.name == path.name):
            os.chmod(file, 0o666 & ~umask)
            os.replace(file, path.parent / file.name)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def write(model: onnx_ir.Model, path: Path, metadata: Mapping[str, str]) -> None:
    """Write `path` and its external data PATH.data. Weights without values become a hole in that file: it is as long
    as the weights are and occupies no disk."""
    import onnx_ir as ir

    model.producer_name = "focusc"
    model.metadata_props.update(metadata)
    data = path.name + ".data"
    absent = [value for value in model.graph.initializers.values() if value.const_value is None]
    if not absent:
        ir.save(model, path, external_data=data, size_threshold_bytes=INLINE_BYTES)
        return
    offset = 0
    for value in absent:
        dtype, shape = value.dtype, value.shape
        assert dtype is not None and shape is not None
        length = int(np.prod(shape.numpy()) * dtype.itemsize)
        value.const_value = ir.ExternalTensor(data, offset, length, dtype, shape=shape, name=value.name or "",
                                              base_dir=path.parent)
        offset += -(-length // 4096) * 4096
    with open(path.parent / data, "wb") as file:
        file.truncate(offset)
    ir.save(model, path)


def static_shapes(model: onnx_ir.Model) -> dict[str, Any]:
    """Shapes of the graph's inputs and outputs by name, symbolic dimensions as text."""
    return {str(v.name): [d if isinstance(d, int) else str(d) for d in (v.shape or ())]
            for v in (*model.graph.inputs, *model.graph.outputs)}
