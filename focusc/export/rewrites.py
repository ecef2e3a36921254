"""Forms that have a static graph, for torch calls whose mask or repetition count is known while tracing.

Each function takes (func, args, kwargs) of a torch call with traced data, and returns its result, or NotImplemented if
the call can be traced as it is. Positions of a known mask become slices and concatenations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeGuard

import torch
from torch._subclasses.fake_tensor import FakeTensor
from torch.utils._python_dispatch import _disable_current_modes

__all__ = ["REWRITES", "untraced"]


@contextmanager
def untraced() -> Iterator[None]:
    """Calls on known tensors run for real and leave no trace."""
    with _disable_current_modes(), torch._C.DisableTorchFunction(), torch.no_grad():
        yield


def _known(value: object) -> TypeGuard[torch.Tensor]:
    return isinstance(value, torch.Tensor) and not isinstance(value, FakeTensor)


def _known_mask(value: object) -> TypeGuard[torch.Tensor]:
    return _known(value) and value.dtype in (torch.bool, torch.uint8)


def _positions(mask: torch.Tensor) -> list[int]:
    with untraced():
        return mask.reshape(-1).nonzero().reshape(-1).tolist()


def _runs(positions: list[int]) -> list[tuple[int, int]]:
    """Maximal runs [first, end) of ascending positions."""
    runs: list[tuple[int, int]] = []
    for position in positions:
        if runs and runs[-1][1] == position:
            runs[-1] = (runs[-1][0], position + 1)
        else:
            runs.append((position, position + 1))
    return runs


def _merge(rows: torch.Tensor, positions: list[int], source: torch.Tensor) -> torch.Tensor:
    """`rows` [R, ...] with `source`'s rows, in order, at the given positions: slices and one concatenation."""
    pieces: list[torch.Tensor] = []
    done = taken = 0
    for first, end in _runs(positions):
        if first > done:
            pieces.append(rows[done:first])
        pieces.append(source[taken:taken + end - first])
        done, taken = end, taken + end - first
    if done < rows.shape[0]:
        pieces.append(rows[done:])
    return torch.cat(pieces) if len(pieces) > 1 else pieces[0]


def _take(rows: torch.Tensor, positions: list[int]) -> torch.Tensor:
    """The given rows of `rows`: all of them, slices, or a gather if there are many runs."""
    if positions == list(range(rows.shape[0])):
        return rows
    runs = _runs(positions)
    if 0 < len(runs) <= 4:
        pieces = [rows[first:end] for first, end in runs]
        return torch.cat(pieces) if len(pieces) > 1 else pieces[0]
    with untraced():
        index = torch.tensor(positions, dtype=torch.int64)
    return rows.index_select(0, index)


def _masked_rows(data: torch.Tensor, mask: torch.Tensor) -> tuple[list[int], int] | None:
    """(positions among the rows of data flattened to [rows, width], width): the mask must not vary within a row."""
    with untraced():
        if mask.ndim == data.ndim and mask.shape[-1] in (1, data.shape[-1]):
            first = mask[..., 0]
            if not bool((mask == first[..., None]).all()):
                return None
            width = data.shape[-1]
        else:
            first, width = mask, 1
        rows = first.expand(data.shape[:-1] if width > 1 or mask.ndim == data.ndim else data.shape)
        return rows.reshape(-1).nonzero().reshape(-1).tolist(), width


def masked_scatter(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Image features into the text's embeddings."""
    arguments = dict(zip(("input", "mask", "source"), args, strict=False)) | kwargs
    data, mask, source = arguments.get("input"), arguments.get("mask"), arguments.get("source")
    if not _known_mask(mask) or data is None or source is None:
        return NotImplemented
    found = _masked_rows(data, mask)
    if found is None:
        return NotImplemented
    positions, width = found
    if not positions:
        return data.clone()
    filler = source.reshape(-1, width)
    return _merge(data.reshape(-1, width), positions, filler[:len(positions)]).reshape(data.shape)


def getitem(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`x[mask]`, `x[:, mask]` with a known mask; `x[:, order]` with a known list of positions."""
    data, index = args[0], args[1]
    indices = index if isinstance(index, tuple) else (index,)
    masks = [i for i in indices if _known_mask(i)]
    chosen = [(axis, i) for axis, i in enumerate(indices) if isinstance(i, torch.Tensor)]
    if not masks and len(chosen) == 1 and all(i is chosen[0][1] or i == slice(None) for i in indices):
        axis, order = chosen[0]
        if _known(order) and order.ndim == 1 and order.dtype in (torch.int64, torch.int32):
            with untraced():
                order = torch.where(order < 0, order + data.shape[axis], order)
            return data.index_select(axis, order)
    if not masks:
        return NotImplemented
    if len(masks) > 1 or any(isinstance(i, torch.Tensor) and not _known_mask(i) for i in indices):
        return NotImplemented
    mask = masks[0]
    before = indices[:next(k for k, i in enumerate(indices) if i is mask)]
    after = indices[len(before) + 1:]
    if any(i != slice(None) for i in before) or any(i is Ellipsis for i in (*before, *after)):
        return NotImplemented
    axis = len(before)
    flat = data.flatten(axis, axis + mask.ndim - 1) if mask.ndim > 1 else data
    moved = flat.transpose(0, axis) if axis else flat
    taken = _take(moved, _positions(mask))
    result = taken.transpose(0, axis) if axis else taken
    return result[(*[slice(None)] * (axis + 1), *after)] if after else result


def setitem(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`x[mask] = y`, `x[mask, :] = y` with a known mask over the leading axes."""
    data, given, value = args[0], args[1], args[2]
    indices: tuple[Any, ...] = given if isinstance(given, tuple) else (given,)
    index = indices[0] if indices else None
    if not _known_mask(index) or any(i != slice(None) for i in indices[1:]):
        return NotImplemented
    positions = _positions(index)
    if not positions:
        return None
    shape = (-1, *data.shape[index.ndim:])
    rows = data.reshape(shape)
    filler = value if isinstance(value, torch.Tensor) else torch.full((), value, dtype=data.dtype)
    filler = filler.to(data.dtype).expand(len(positions), *data.shape[index.ndim:])
    data.copy_(_merge(rows, positions, filler).reshape(data.shape))
    return None


def masked_select(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """All elements under a known mask."""
    arguments = dict(zip(("input", "mask"), args, strict=False)) | kwargs
    data, mask = arguments["input"], arguments["mask"]
    if not _known_mask(mask):
        return NotImplemented
    with untraced():
        mask = mask.expand(data.shape)
    return _take(data.reshape(-1), _positions(mask))


def repeat_interleave(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """Known repetition counts along one axis become a gather; one count for all, an expansion."""
    arguments = dict(zip(("input", "repeats", "dim"), args, strict=False)) | kwargs
    data, repeats, dim = arguments["input"], arguments.get("repeats"), arguments.get("dim")
    flat = data.reshape(-1) if dim is None else data
    axis = 0 if dim is None else dim % data.ndim
    if isinstance(repeats, int):
        shape = list(flat.shape)
        wide = flat.unsqueeze(axis + 1).expand(*shape[:axis + 1], repeats, *shape[axis + 1:])
        return wide.reshape(*shape[:axis], shape[axis] * repeats, *shape[axis + 1:])
    if not _known(repeats):
        return NotImplemented
    with untraced():
        counts = repeats.expand(flat.shape[axis])
        index = torch.arange(flat.shape[axis]).repeat_interleave(counts)
    return flat.index_select(axis, index)


def solve_triangular(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """x of (I + N) x = b for a strictly triangular N, which is nilpotent: (I + N)^-1 = (I - N)(I + N^2)(I + N^4) ...

    ONNX has no solver. The factors are applied to b one by one; after log2(size) of them the power of N is zero.
    """
    arguments = dict(zip(("A", "B"), args, strict=False)) | kwargs
    system, right = arguments["A"], arguments["B"]
    if not arguments.get("unitriangular") or not arguments.get("left", True):
        return NotImplemented
    size = system.shape[-1]
    power = -(system.triu(1) if arguments["upper"] else system.tril(-1))
    result = right + power @ right
    reach = 2
    while reach < size:
        power = power @ power
        result = result + power @ result
        reach *= 2
    return result


REWRITES: dict[str, Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]] = {
    "masked_scatter": masked_scatter,
    "__getitem__": getitem,
    "__setitem__": setitem,
    "masked_select": masked_select,
    "repeat_interleave": repeat_interleave,
    "linalg_solve_triangular": solve_triangular,
}
