"""The sample of a language model without pictures: token ids from its tokenizer, from an array, or random ones."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from .checkpoint import Checkpoint
from .errors import ExportError
from .samples import Request, token_ids
from .tokens import random_text

if TYPE_CHECKING:
    import torch

__all__ = ["text_sample", "tokenize"]

MADE_UP_TOKENS = 32
"""Length of a random prompt where none is given."""


def text_sample(checkpoint: Checkpoint, request: Request) -> tuple[dict[str, torch.Tensor], str]:
    """({"input_ids": int64 [1, T]}, where they come from). ExportError for options of models that see."""
    import torch

    for name in ("image", "video", "pixels", "frames"):
        if getattr(request, name) is not None:
            raise ExportError(f"--{name} is given, but {checkpoint.model_class.__name__} takes text only",
                              code="export.options", hint="give --prompt, --tokens or --length")
    given = [name for name in ("prompt", "tokens", "length") if getattr(request, name) is not None]
    if len(given) > 1:
        raise ExportError(f"--{given[0]} and --{given[1]} are both given, expected one of them", code="export.options")
    if request.prompt is not None:
        ids, source = tokenize(checkpoint.processor("AutoTokenizer"), request.prompt), "tokenizer"
        if not len(ids):
            raise ExportError("the prompt has no tokens", code="export.prompt", where=str(checkpoint.directory))
    elif request.tokens is not None:
        ids, source = token_ids(request.tokens, checkpoint.config.get_text_config().vocab_size), "array"
    else:
        generator = torch.Generator().manual_seed(request.seed)
        count = request.length or MADE_UP_TOKENS
        ids, source = np.array(random_text(checkpoint.config, count, generator)), f"made up, seed {request.seed}"
    return {"input_ids": torch.from_numpy(ids.astype(np.int64)[None])}, f"{len(ids)} tokens, {source}"


def tokenize(tokenizer: Any, text: str, *, chat: bool = True) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Token ids [T] of a text. chat: the tokenizer's chat template, if it has one, is put around it."""
    if chat and getattr(tokenizer, "chat_template", None):
        text = str(tokenizer.apply_chat_template([{"role": "user", "content": text}], tokenize=False,
                                                 add_generation_prompt=True))
        ids = tokenizer(text, add_special_tokens=False)["input_ids"]
    else:
        ids = tokenizer(text)["input_ids"]
    return np.array(ids, np.int64)
