"""The prefill of a transformers model: sample in, last token's logits out; run eagerly, or traced with its sample.

Only `input_ids` and floating-point media are inputs of the graph. Grids, sizes, masks and token types are facts about
the layout: they are fixed to the sample's values (see `partial`).
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch

from .partial import DataDependent, PartialEvaluation, is_traced, patched

__all__ = ["Prefill", "split_sample"]

TOKEN_TYPES = "mm_token_type_ids"


def split_sample(sample: Mapping[str, Any]) -> tuple[dict[str, torch.Tensor], dict[str, Any]]:
    """(graph inputs, fixed arguments): floating-point pixels and, last, the token ids; and all the rest."""
    media = {name: value for name, value in sample.items() if name.startswith("pixel_values")
             and isinstance(value, torch.Tensor) and value.is_floating_point()}
    fixed = {name: value for name, value in sample.items() if name not in media and name != "input_ids"}
    return media | {"input_ids": sample["input_ids"]}, fixed


class Prefill:
    """A model with its sample. `inputs` are the graph's, in order; `recorded` counts baked values by call site."""

    def __init__(self, model: Any, sample: Mapping[str, torch.Tensor]) -> None:
        self.model = model.eval()
        accepted = inspect.signature(type(model).forward).parameters
        self.inputs, self._fixed = split_sample(sample)
        self._options: dict[str, Any] = {"use_cache": False, "return_dict": True}
        if "logits_to_keep" in accepted:
            self._options["logits_to_keep"] = 1
        self.recorded: dict[str, int] = {}

    def __call__(self, *values: torch.Tensor) -> torch.Tensor:
        """Logits [batch, vocabulary] of the last position, computed by the unmodified model."""
        with torch.no_grad():
            return self._forward(values)

    def _forward(self, values: tuple[torch.Tensor, ...]) -> torch.Tensor:
        arguments = dict(zip(self.inputs, values, strict=True)) | self._fixed | self._options
        return type(self.model).forward(self.model, **arguments).logits[:, -1]

    def trace(self) -> torch.export.ExportedProgram:
        """The graph, traced with the sample.

        Raises DataDependent if a Python value depends on the model's arithmetic; the model is left as it was.
        """
        real = tuple(self.inputs.values())
        samples = tuple(value.clone() for value in real)  # a model may write into its inputs
        buffers = dict(self.model.named_buffers(remove_duplicate=False))

        def forward(*values: torch.Tensor) -> torch.Tensor:
            twins = {value: twin for value, twin in zip(values, samples, strict=True) if is_traced(value)}
            constants = {buffer: buffers[name] for name, buffer in self.model.named_buffers(remove_duplicate=False)
                         if is_traced(buffer)}
            mode = PartialEvaluation(twins, constants)
            with patched(), mode:
                logits = self._forward(values)
            self.recorded = mode.recorded
            return logits

        try:
            with self._replaced_forward(forward), torch.no_grad():
                return torch.export.export(self.model, real, strict=False)
        except Exception as error:
            cause: BaseException | None = error
            while cause is not None and not isinstance(cause, DataDependent):
                cause = cause.__cause__ or cause.__context__
            if cause is not None:
                raise cause from None
            raise

    @contextmanager
    def _replaced_forward(self, forward: Any) -> Iterator[None]:
        self.model.forward = forward
        try:
            yield
        finally:
            del self.model.forward
