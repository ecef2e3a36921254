"""A transformers model from a local directory, a config or a GGUF file: its weights, random ones, or none at all.

A model is one that sees, or a language model alone: a decoder of text.

Nothing is downloaded, and no code of the checkpoint is executed.
"""

from __future__ import annotations

import json
import os
import struct
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .errors import ExportError

__all__ = ["TESTED", "Checkpoint", "open_checkpoint"]

TESTED = "5.23.0"
"""The transformers version that the tests run with, beside torch 2.13.0."""


@dataclass(frozen=True)
class Checkpoint:
    """A config with the directory it came from; `gguf` is the name of the file that holds everything, if one does."""

    directory: Path
    config: Any
    model_class: Any
    gguf: str | None = None

    @property
    def model_type(self) -> str:
        """`model_type` of config.json."""
        return str(self.config.model_type)

    @property
    def visual(self) -> bool:
        """True for a model that sees pictures or clips, False for a language model alone."""
        return getattr(self.config, "vision_config", None) is not None

    def load(self) -> Any:
        """The model with its own weights, as float32."""
        shards = [self.gguf] if self.gguf else _shards(self.directory)
        missing = [name for name in shards if not (self.directory / name).is_file()]
        if missing:
            raise ExportError(f"{len(missing)} of {len(shards)} weight files are missing, the first is {missing[0]}",
                              code="export.shard", where=str(self.directory),
                              hint="copy the whole checkpoint, or give --random-weights SEED or --no-weights")
        return _guarded(self.directory, lambda: self.model_class.from_pretrained(
            self.directory, config=self.config, local_files_only=True, attn_implementation="sdpa", dtype="float32",
            **self._gguf()))

    def processor(self, auto: str) -> Any:
        """What transformers' class `auto` (`AutoProcessor`, `AutoTokenizer`) makes of the checkpoint's files."""
        import transformers

        loader = getattr(transformers, auto)
        with silent_transformers():
            try:
                return loader.from_pretrained(self.directory, local_files_only=True, **self._gguf())
            except MemoryError:
                raise
            except Exception as error:                   # of any library below: all mean that the files are unfit
                first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
                arrays = "--tokens and --pixels instead of --image or --video" if self.visual else "--tokens instead"
                raise ExportError(f"the checkpoint's {auto.removeprefix('Auto').lower()} cannot be loaded: {first}",
                                  code="export.processor", where=str(self.directory),
                                  hint=f"give {arrays}") from error

    def random(self, seed: int) -> Any:
        """An instance with random float32 weights, the same for the same seed."""
        import torch

        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return _guarded(self.directory, lambda: self.model_class._from_config(
                self.config, attn_implementation="sdpa", dtype=torch.float32))

    def shapes(self) -> Any:
        """An instance whose parameters have shapes and no memory; its buffers, which the trace computes with, are real.

        A parameter is one stored number, expanded to the shape; `has_values` tells it from others.
        """
        import torch

        with torch.device("meta"):
            model = _guarded(self.directory, lambda: self.model_class._from_config(
                self.config, attn_implementation="sdpa", dtype=torch.float32))
        for module in model.modules():
            module._is_hf_initialized = False
            for name, buffer in module._buffers.items():
                if buffer is not None:
                    module._buffers[name] = torch.zeros_like(buffer, device="cpu")
        with torch.no_grad():
            model.initialize_weights()                   # fills the buffers; on the meta device the rest costs nothing
        hollow: dict[int, torch.nn.Parameter] = {}       # tied parameters stay tied
        for module in model.modules():
            for name, parameter in module._parameters.items():
                if parameter is not None:
                    module._parameters[name] = hollow.setdefault(id(parameter), torch.nn.Parameter(
                        torch.zeros(1, dtype=parameter.dtype).expand(parameter.shape), requires_grad=False))
        return model

    def _gguf(self) -> dict[str, str]:
        """What tells a loader of transformers where to look, beside the directory."""
        return {"gguf_file": self.gguf} if self.gguf else {}


def open_checkpoint(path: str | os.PathLike[str]) -> Checkpoint:
    """The config of a checkpoint directory, a config.json or a GGUF file, with the class that its architecture names.

    ExportError: no such file, not a model, a model type that transformers does not have, or one that neither sees nor
    continues text.
    """
    path = Path(path)
    if path.suffix == ".gguf" and path.is_file():
        return _open_gguf(path)
    file = path / "config.json" if path.is_dir() else path
    hint = "give a Hugging Face checkpoint directory, a config.json, a .gguf file, or `demo`"
    if not path.exists():
        raise ExportError("there is no such directory or config file", code="export.directory", where=str(path),
                          hint=hint)
    if not file.is_file():
        raise ExportError("the directory has no config.json", code="export.directory", where=str(path), hint=hint)
    table = read_json(file, "export.config")
    if not isinstance(table, dict) or "model_type" not in table:
        raise ExportError("the config has no model_type", code="export.config", where=str(file),
                          hint="give the config.json of a transformers model")
    import_transformers()
    from transformers import AutoConfig
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = str(table["model_type"])
    if kind not in CONFIG_MAPPING:
        import transformers

        raise ExportError(f"transformers {transformers.__version__} has no model of type {kind!r}",
                          code="export.model-type", where=str(file),
                          hint="models that bring their own code are not executed; export them to ONNX elsewhere")
    config = _guarded(file, lambda: AutoConfig.from_pretrained(file.parent, local_files_only=True)
                      if file.name == "config.json" else CONFIG_MAPPING[kind].from_dict(table))
    return Checkpoint(file.parent, config, _model_class(config, kind, str(file)))


def read_json(file: Path, code: str) -> Any:
    """What a JSON file of the checkpoint holds; ExportError `code` if it is none."""
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ExportError(f"the file cannot be read: {error.strerror}", code=code, where=str(file)) from None
    except (ValueError, RecursionError) as error:
        raise ExportError(f"the file is not JSON: {error}", code=code, where=str(file)) from None


def _open_gguf(path: Path) -> Checkpoint:
    """The config that a GGUF file holds beside its weights; only these bytes are read, and nothing is executed."""
    import accelerate  # noqa: F401  (a missing package is reported by its name)
    import gguf  # noqa: F401

    with open(path, "rb") as file:
        magic, version = file.read(4), file.read(4)
    if magic != b"GGUF":
        raise ExportError(f"the file begins with {magic!r}, expected b'GGUF'", code="export.gguf", where=str(path))
    if len(version) == 4 and (number := int.from_bytes(version, "little")) not in (2, 3):
        raise ExportError(f"the file is of GGUF version {number}, expected 2 or 3", code="export.gguf", where=str(path))
    import_transformers()
    from transformers import AutoConfig

    try:
        config = _guarded(path,
                          lambda: AutoConfig.from_pretrained(path.parent, gguf_file=path.name, local_files_only=True))
    except ExportError as error:
        if not _is_damage(error.__cause__):
            raise
        raise ExportError("the file is cut or damaged: its header does not fit its bytes", code="export.gguf",
                          where=str(path), hint="compare its size with the original's; fetch it again") from error
    return Checkpoint(path.parent, config, _model_class(config, str(config.model_type), str(path)), path.name)


def _is_damage(error: BaseException | None) -> bool:
    """Whether reading a GGUF header failed on its bytes, and not on a model that transformers does not have.

    A header that its reader cannot decode is tried as a config.json, which ends as OSError.
    """
    if error is None:
        return False
    raised_in = traceback.extract_tb(error.__traceback__)[-1].filename
    return isinstance(error, struct.error | UnicodeDecodeError | OSError) or raised_in.endswith("reader.py")


def import_transformers() -> None:
    """Import transformers, also beside a torchvision whose binary operators do not load.

    torchvision from the package registry is built for CUDA. Beside a CPU build of torch its operators do not load, and
    its import fails for want of two of them. Video processors need none: declaring the two lets it be imported.
    """
    import importlib.util
    import sys

    import torch

    found = importlib.util.find_spec("torchvision")
    if found is not None and "torchvision" not in sys.modules:
        try:
            for folder in found.submodule_search_locations or ():
                for library in Path(folder).glob("_C.*"):
                    torch.ops.load_library(library)
        except OSError:
            for name in ("nms", "qnms"):
                if not hasattr(torch.ops.torchvision, name):
                    torch.library.define(f"torchvision::{name}",
                                         "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
    import transformers  # noqa: F401  (a missing package is reported by its name)


def _model_class(config: Any, kind: str, where: str) -> Any:
    import transformers
    from transformers.models.auto.modeling_auto import (
        MODEL_FOR_CAUSAL_LM_MAPPING,
        MODEL_FOR_CAUSAL_LM_MAPPING_NAMES,
        MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING,
    )

    visual = getattr(config, "vision_config", None) is not None
    mapping = MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING if visual else MODEL_FOR_CAUSAL_LM_MAPPING
    names = getattr(config, "architectures", None) or []
    found = getattr(transformers, names[0], None) if names else None
    if found is None and type(config) in mapping:
        found = mapping[type(config)]
    # an encoder may be in the mapping of decoders for the sake of one use; it is one only if its config says so
    decoder = visual or (getattr(found, "__name__", "") in MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.values()
                         and getattr(config, "is_decoder", True) is not False and not config.is_encoder_decoder)
    if found is None or not decoder:
        name = names[0] if names else kind
        raise ExportError(f"{name} neither sees pictures nor continues text", code="export.architecture", where=where,
                          hint="the config needs a vision_config with an image-text-to-text architecture, or the "
                          "architecture of a causal language model")
    return found


def _shards(directory: Path) -> list[str]:
    """Names of the weight files that the checkpoint says it has."""
    for index in ("model.safetensors.index.json", "pytorch_model.bin.index.json"):
        file = directory / index
        if file.is_file():
            table = read_json(file, "export.shard")
            shards = table.get("weight_map") if isinstance(table, dict) else None
            if not isinstance(shards, dict) or not all(isinstance(name, str) for name in shards.values()):
                raise ExportError("the index has no weight_map from tensors to files", code="export.shard",
                                  where=str(file), hint="copy the whole checkpoint again")
            return sorted(set(shards.values()))
    present = [name for name in ("model.safetensors", "pytorch_model.bin") if (directory / name).is_file()]
    return present[:1] or ["model.safetensors"]


def _guarded(where: Path, build: Any) -> Any:
    """The result of a transformers constructor or loader; its refusals become messages."""
    with silent_transformers():
        try:
            return build()
        except MemoryError:
            raise
        except Exception as error:                       # of any library below: all mean that the files are unfit
            first = next((line for line in str(error).splitlines() if line.strip()), type(error).__name__)
            raise ExportError(f"transformers refuses it: {first.strip()}", code="export.load",
                              where=str(where)) from error


@contextmanager
def silent_transformers() -> Iterator[None]:
    """No progress bars and warnings while transformers works; errors are raised all the same."""
    import importlib

    from transformers.utils import logging

    gguf: Any = importlib.import_module("transformers.modeling_gguf_pytorch_utils")
    level = logging.get_verbosity()
    bars, bar = logging.is_progress_bar_enabled(), gguf.tqdm
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    gguf.tqdm = lambda items, **_: items                 # the one bar that does not ask
    try:
        yield
    finally:
        gguf.tqdm = bar
        logging.set_verbosity(level)
        if bars:
            logging.enable_progress_bar()
