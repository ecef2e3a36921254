"""Traces from masks: for each site two boolean arrays [layer, head, token, slot], `SITE.mask_zero` (the sub-vector is
zero, as all of a pruned token's are) and `SITE.mask_similar` (it is linked to an earlier one), in one `.npz`.
"""

from __future__ import annotations

import os

import numpy as np

from focusc.backends.trace import SITES, Trace
from focusc.backends.trace_file import read_arrays
from focusc.ir.diagnostics import CompileError, Loc, fail

__all__ = ["KINDS", "import_masks"]

KINDS = ("mask_zero", "mask_similar")
_HINT = "one bool array [layer, head, token, slot] for each of " + ", ".join(
    f"{site}.{kind}" for site in SITES[:1] for kind in KINDS) + " and so on for " + ", ".join(SITES[1:])


def import_masks(path: str | os.PathLike[str], *, workload: str = "", m: int = 1024) -> Trace:
    """The trace of masks in a file. A token all of whose vectors are zero is pruned; a zero vector of another token is
    unique of itself. Tiles are runs of `m` retained tokens. CompileError `trace.*` names the array that is wrong.
    """
    where = Loc(os.fspath(path))
    arrays = read_arrays(path)
    names = [f"{site}.{kind}" for site in SITES for kind in KINDS]
    for name in names:
        if name not in arrays:
            raise fail("trace.masks", f"{name}: the array is missing", where, hint=_HINT)
    strange = sorted(set(arrays) - set(names))
    if strange:
        raise fail("trace.masks", f"{strange[0]}: not a mask", where, hint=_HINT)
    _check(arrays, where)
    layers, _, tokens, _ = arrays[names[0]].shape
    heads = np.array([arrays[f"{site}.mask_zero"].shape[1] for site in SITES], np.int64)
    slots = np.array([arrays[f"{site}.mask_zero"].shape[3] for site in SITES], np.int64)
    shape = (layers, len(SITES))
    retained, zeros, similars = (np.zeros(shape, np.int64) for _ in range(3))
    parts: list[np.ndarray] = []
    for layer in range(layers):
        for column, site in enumerate(SITES):
            # [head, token, slot] -> [token, head x slot], heads side by side as in the activation
            zero, similar = (np.moveaxis(arrays[f"{site}.{kind}"][layer], 0, 1).reshape(tokens, -1) for kind in KINDS)
            similar = similar & ~zero
            kept = ~zero.all(axis=1)
            retained[layer, column] = int(kept.sum())
            zeros[layer, column], similars[layer, column] = int(zero.sum()), int(similar.sum())
            if not kept.any():
                raise fail("trace.retained", f"{site}.mask_zero[layer {layer}]: all tokens are pruned, expected at "
                           "least one to stay", where)
            own = ~similar[kept]
            parts.append(np.add.reduceat(own, np.arange(0, len(own), m), axis=0, dtype=np.int64).reshape(-1))
    source = {"kind": "imported", "file": os.path.basename(os.fspath(path))}
    try:
        return Trace(workload, tokens, m, heads, slots, retained, zeros, similars,
                     np.concatenate(parts).astype(np.int32), source=source, where=os.fspath(path))
    except CompileError as error:
        found = error.diagnostics[0]
        raise fail(found.code, found.message, where, hint="the masks contradict each other or the m-tiles of "
                   f"{m} tokens (--m)") from None


def _check(arrays: dict[str, np.ndarray], where: Loc) -> None:
    first = arrays[f"{SITES[0]}.mask_zero"]
    for site in SITES:
        zero = arrays[f"{site}.mask_zero"]
        for kind in KINDS:
            name = f"{site}.{kind}"
            found = arrays[name]
            if found.dtype != np.bool_ or found.ndim != 4 or 0 in found.shape:
                raise fail("trace.shape", f"{name}: found {found.dtype}{list(found.shape)}, expected "
                           "bool[layer, head, token, slot]", where)
            if found.shape != zero.shape:
                raise fail("trace.shape", f"{name}: found {list(found.shape)}, expected {list(zero.shape)} as "
                           f"{site}.mask_zero", where)
            if found.shape[0] != first.shape[0] or found.shape[2] != first.shape[2]:
                raise fail("trace.shape", f"{name}: found {found.shape[0]} layers of {found.shape[2]} tokens, expected "
                           f"{first.shape[0]} of {first.shape[2]} as {SITES[0]}.mask_zero", where)
        if site != "query" and bool((zero & arrays[f"{site}.mask_similar"]).any()):
            at = np.argwhere(zero & arrays[f"{site}.mask_similar"])[0]
            raise fail("trace.masks", f"{site}.mask_similar{at.tolist()}: the vector is zero too; expected at most one "
                       "of the two", where)
