"""The demo model's word tokenizer: a closed vocabulary, numpy only."""

from __future__ import annotations

import numpy as np

__all__ = ["ANSWERS", "COLOURS", "PAD", "PREFIX", "QUERY", "SHAPES", "VIDEO", "VOCAB", "VOCAB_SIZE", "decode",
           "encode_query", "prompt_ids", "token_id"]

COLOURS = ("red", "green", "blue", "yellow", "purple", "cyan")
SHAPES = ("circle", "square", "triangle", "star")
PAD, VIDEO = "<pad>", "<video>"
PREFIX = ("<bos>", "video", ":")
"""Text before the visual span."""
QUERY = 10
"""Length of the text after the visual span, in tokens; shorter questions are padded at their front."""
ANSWERS = (*COLOURS, *SHAPES, "left", "right", "up", "down", "0", "1", "2", "3", "yes", "no")
_WORDS = ("what", "colour", "shape", "is", "was", "the", "a", "small", "object", "objects", "which", "way", "does",
          "move", "how", "many", "are", "there", "larger", "of", "came", "first", "or", "one", "?")
VOCAB = (PAD, VIDEO, *PREFIX, *ANSWERS, *_WORDS)
VOCAB_SIZE = 64
"""Rows of the embedding and of the head: the vocabulary rounded up to a multiple of 32."""

_IDS = {word: i for i, word in enumerate(VOCAB)}
assert len(_IDS) == len(VOCAB) <= VOCAB_SIZE


def token_id(word: str) -> int:
    """The id of one word; ValueError names a word outside the vocabulary."""
    try:
        return _IDS[word]
    except KeyError:
        raise ValueError(f"{word!r} is not in the demo model's vocabulary of {len(VOCAB)} words") from None


def encode_query(text: str) -> np.ndarray:
    """Ids of a question, int64 [QUERY], padded at the front; ValueError when it is too long or has unknown words."""
    words = text.replace("?", " ?").split()
    if len(words) > QUERY:
        raise ValueError(f"the question has {len(words)} tokens, the model takes at most {QUERY}: {text!r}")
    return np.array([token_id(PAD)] * (QUERY - len(words)) + [token_id(w) for w in words], dtype=np.int64)


def prompt_ids(text: str, visual: int) -> np.ndarray:
    """The whole prompt, int64 [1, 3 + visual + QUERY]: prefix, `visual` placeholders, question."""
    ids = [token_id(w) for w in PREFIX] + [token_id(VIDEO)] * visual
    return np.concatenate([np.array(ids, dtype=np.int64), encode_query(text)])[None]


def decode(ids: np.ndarray | list[int] | int) -> str:
    """Words of `ids` joined by spaces, padding left out; rows beyond the vocabulary read `<unused>`."""
    flat = np.atleast_1d(np.asarray(ids)).ravel()
    words = [VOCAB[i] if 0 <= i < len(VOCAB) else "<unused>" for i in map(int, flat)]
    return " ".join(w for w in words if w != PAD)
