"""Opening an ONNX file safely: checked, functions inlined, shapes inferred, weights left where they are."""

from __future__ import annotations

import ast
from dataclasses import dataclass, field
from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError

from focusc.export.metadata import WEIGHTS, check_keys
from focusc.frontend import rules  # noqa: F401  (registers the rules)
from focusc.frontend.bodies import DEFAULT_DOMAINS, OLDEST, expand_bodies
from focusc.frontend.errors import bad_model
from focusc.frontend.registry import RULES
from focusc.frontend.weights import STORED, ExternalFiles, is_external
from focusc.ir.diagnostics import Loc

OPSETS = range(OLDEST, 29)
"""Versions of the default operator set that the import rules were written for."""


@dataclass(frozen=True, slots=True)
class ModelFile:
    """An opened model. `proto` holds no external data; `files` delivers it."""

    path: Path
    proto: onnx.ModelProto
    opset: int
    files: ExternalFiles
    metadata: dict[str, str] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The file's name, as messages give it."""
        return self.path.name


def open_model(path: str | Path) -> ModelFile:
    """Read, check and shape-infer a model. Raises CompileError `onnx.*` with the first reason that stops all else."""
    path = Path(path)
    name = path.name
    try:
        proto = onnx.load(str(path), load_external_data=False)
    except FileNotFoundError:
        raise bad_model("onnx.missing", f"the file {name!r} does not exist", file=name,
                        hint="check the path, or write a model with `focusc export`") from None
    except OSError as error:
        raise bad_model("onnx.read", f"the file cannot be read: {error.strerror or error}", file=name) from None
    except (DecodeError, ValueError):
        raise bad_model("onnx.read", "the file is not an ONNX model (protobuf cannot decode it)", file=name,
                        hint="the file is truncated, or not ONNX; export it again") from None
    opset = _opset(proto, name)
    metadata = {p.key: p.value for p in proto.metadata_props}
    check_keys(metadata, name)
    files = ExternalFiles(path.resolve().parent, name, absent=metadata.get(WEIGHTS) == "absent")
    for tensor in proto.graph.initializer:
        if is_external(tensor) and tensor.data_type in STORED:
            files.bytes_of(tensor)
    _check(path, name)
    if proto.functions:
        proto = onnx.inliner.inline_local_functions(proto)
    expand_bodies(proto.graph, opset, RULES)
    try:
        proto = onnx.shape_inference.infer_shapes(proto, data_prop=True)
    except Exception as error:  # onnx raises several unrelated types; each means that the shapes contradict
        raise bad_model("onnx.checker", f"shape inference fails: {_one_line(error)}", file=name) from None
    return ModelFile(path, proto, opset, files, metadata)


def location(node: onnx.NodeProto, index: int, file: str) -> Loc:
    """Node name (or type and position, if it has none) and the torch module path that the exporter recorded."""
    metadata = {p.key: p.value for p in node.metadata_props}
    scopes = metadata.get("pkg.torch.onnx.name_scopes", "")
    return Loc(file=file, node=node.name or f"{node.op_type}_{index}", module_path=_module_path(scopes))


def _module_path(scopes: str) -> str:
    """The innermost module of `['', 'model', 'model.layers.0', 'linear_3']`, whose last entry is the traced call."""
    try:
        names = ast.literal_eval(scopes) if scopes else []
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return ""
    if not isinstance(names, list) or not all(isinstance(n, str) for n in names):
        return ""
    return next((n for n in reversed(names[:-1]) if n), "")


def _opset(proto: onnx.ModelProto, name: str) -> int:
    versions = [o.version for o in proto.opset_import if o.domain in DEFAULT_DOMAINS]
    if not versions:
        raise bad_model("onnx.opset", "the model imports no version of the ONNX operator set", file=name,
                        hint="the file is empty, or not an ONNX model")
    if versions[0] not in OPSETS:
        raise bad_model("onnx.opset", f"the model uses opset {versions[0]}; expected {OPSETS.start} to "
                        f"{OPSETS.stop - 1}", file=name, hint="export with opset_version=23, or convert with "
                        "onnx.version_converter")
    return versions[0]


def _check(path: Path, name: str) -> None:
    """onnx's own full check, path based so that external data is not loaded."""
    try:
        onnx.checker.check_model(str(path), full_check=True)
    except Exception as error:  # ValidationError, InferenceError, and others by version: all mean a broken model
        raise bad_model("onnx.checker", f"onnx.checker refuses the model: {_one_line(error)}", file=name,
                        hint="this is a fault of the file; export it again or repair the named node") from None


def _one_line(error: Exception) -> str:
    """onnx's message without its line breaks, at a readable length."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text if len(text) <= 300 else text[:297] + "..."
