"""The keys of an ONNX file's metadata_props that are ours; each starts with `focusc.`. torch-free."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

from focusc.ir.concentration.layout import FACTS
from focusc.ir.diagnostics import Loc, fail

__all__ = ["KEYS", "PREFIX", "PRODUCER", "WEIGHTS", "check_keys"]

PREFIX = "focusc."
PRODUCER = PREFIX + "producer"
"""`focusc export NAME`."""
WEIGHTS = PREFIX + "weights"
"""`absent`: the values of the weights mean nothing."""
KEYS = (*(PREFIX + fact for fact in FACTS), PRODUCER, WEIGHTS)


def check_keys(keys: Iterable[str], file: str) -> None:
    """CompileError `onnx.metadata` for a key in our name that we do not know.

    Ignoring it would lose what it says: a misspelt layout fact, or whatever a later version needs to have understood.
    """
    for key in keys:
        if key.startswith(PREFIX) and key not in KEYS:
            names = [known.removeprefix(PREFIX) for known in KEYS]
            close = get_close_matches(key.removeprefix(PREFIX), names, 1)
            raise fail("onnx.metadata", f"metadata key {key!r} is not one of focusc's; there are {', '.join(KEYS)}",
                       Loc(file=file), hint=f"did you mean {PREFIX + close[0]!r}?" if close else
                       "keys of other tools must not begin with `focusc.`; a later version of focusc may know this one")
