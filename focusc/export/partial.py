"""Partial evaluation while torch.export traces: what follows from token ids, grids and masks becomes a constant.

A transformers forward pass takes Python values from tensors (`tolist`, `item`, boolean indexing, grid helpers, mask
builders, rotary indices). Each is recorded from the sample inputs and replayed in the same pass:

* *known* tensors are ordinary ones: buffers, grids, masks, everything computed from them. Calls on known tensors alone
  run outside the trace, so their results, rotary tables included, enter the graph as constants.
* *traced* tensors are graph inputs, weights and all that depends on them. A graph input, and what moves its values
  without computing, has a *twin*: the sample's value. A comparison, index or Python value taken from a twin is known.
* a Python value of a traced tensor without a twin depends on the model's arithmetic: `DataDependent`, with its place.

No code of transformers is edited. `patched` tells it for the time of the trace that it runs eagerly, and restores.
"""

from __future__ import annotations

import linecache
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch._subclasses.fake_tensor import (
    DataDependentOutputException,
    DynamicOutputShapeException,
    FakeTensor,
)
from torch.fx.experimental.symbolic_shapes import GuardOnDataDependentSymNode
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_leaves, tree_map_only
from torch.utils.weak import WeakIdKeyDictionary

from .rewrites import REWRITES, untraced

__all__ = ["DataDependent", "PartialEvaluation", "patched", "site_of"]

PYTHON_VALUES = frozenset({
    "item", "tolist", "numpy", "__bool__", "__int__", "__float__", "__index__", "__contains__", "__array__", "equal",
    "allclose", "is_nonzero",
})
"""Functions that turn values into Python objects or decide by them."""

MOVES = frozenset({
    "clone", "contiguous", "detach", "to", "type", "type_as", "long", "int", "view", "reshape", "flatten", "unflatten",
    "unsqueeze", "squeeze", "expand", "expand_as", "repeat", "permute", "transpose", "movedim", "__getitem__", "narrow",
    "select", "split", "chunk", "unbind", "__iter__", "cat", "concat", "stack", "hstack", "where", "masked_fill",
    "index_select", "pad", "clamp", "roll", "flip", "t", "__get__",
})
"""Functions whose whole-number results still carry token ids: they stay in the graph, because ids are an input."""


SHAPED_LIKE = frozenset({
    "zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full", "new_empty",
    "new_tensor",
})
"""Functions that read only the shape and type of their tensor: their results are known."""


SHAPED_BY = frozenset({"expand_as", "view_as", "reshape_as", "type_as", "to"})
"""Functions that read values of their first tensor and only the shape or type of another."""


class DataDependent(ValueError):
    """The model takes a Python value from a tensor that depends on its arithmetic; `site` is where it does so."""

    def __init__(self, function: str, site: str, detail: str = "") -> None:
        super().__init__(f"{function} at {site} depends on values that the model computes{detail}")
        self.function = function
        self.site = site


_TOOLS = (str(Path(torch.__file__).parent), str(Path(__file__).parent))


def call_site() -> str:
    """`package/file.py:line in function: code` of the innermost frame outside torch and this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_code.co_filename.startswith(_TOOLS):
        frame = frame.f_back
    return _described(frame.f_code.co_filename, frame.f_lineno, frame.f_code.co_name)


def site_of(error: BaseException) -> str:
    """The same of an exception's traceback; empty if it never was in model code."""
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        if not frame.f_code.co_filename.startswith(_TOOLS) and "/models/" in frame.f_code.co_filename:
            found = _described(frame.f_code.co_filename, line, frame.f_code.co_name)
    return found


def _described(file: str, line: int, function: str) -> str:
    path = Path(file)
    for root in ("site-packages", "dist-packages"):
        if root in path.parts:
            path = Path(*path.parts[path.parts.index(root) + 1:])
    if path.is_absolute():
        path = Path(*path.parts[-2:])
    return f"{path.as_posix()}:{line} in {function}: {linecache.getline(file, line).strip()}"


@contextmanager
def patched() -> Iterator[None]:
    """Let model code believe that it runs eagerly: torch's compile flags are off, fake tensors pass for real ones.

    transformers skips causal masks, for example, only when it is not being traced. Restored whatever happens.
    """
    from transformers.utils import import_utils

    changes: list[tuple[Any, str, Any]] = [
        (torch.compiler, "_is_compiling_flag", False),
        (torch.compiler, "_is_exporting_flag", False),
        (import_utils, "is_fake_tensor", lambda _: False),
    ]
    before = [(owner, name, getattr(owner, name)) for owner, name, _ in changes]
    try:
        for owner, name, value in changes:
            setattr(owner, name, value)
        yield
    finally:
        for owner, name, value in before:
            setattr(owner, name, value)


@contextmanager
def _compiling() -> Iterator[None]:
    """torch's own functions see the flags that torch.export set."""
    flags = torch.compiler._is_compiling_flag, torch.compiler._is_exporting_flag
    torch.compiler._is_compiling_flag = torch.compiler._is_exporting_flag = True
    try:
        yield
    finally:
        torch.compiler._is_compiling_flag, torch.compiler._is_exporting_flag = flags


def is_traced(tensor: torch.Tensor) -> bool:
    """True for a tensor that stands for a node of the graph being traced."""
    return isinstance(tensor, FakeTensor)


def _blank(tensor: torch.Tensor) -> torch.Tensor:
    """An ordinary tensor of the same shape and type, its values not set."""
    shape, dtype = tuple(tensor.shape), tensor.dtype
    with untraced():
        return torch.empty(shape, dtype=dtype)


def _in_place(name: str) -> bool:
    dunder = name.startswith("__") and name.endswith("__")
    return name == "__setitem__" or (dunder and name[2] == "i" and name[3:-2] in _AUGMENTED) or (
        not dunder and name.endswith("_"))


_AUGMENTED = frozenset({"add", "sub", "mul", "truediv", "floordiv", "and", "or", "xor", "mod", "pow"})


class PartialEvaluation(TorchFunctionMode):
    """The mode under which a model's forward runs while it is traced.

    twins: traced graph inputs and the sample's values. constants: traced stand-ins of buffers and the real buffers.
    `recorded` counts, by call site, the values of the sample that were baked into the graph.
    """

    def __init__(self, twins: Mapping[torch.Tensor, torch.Tensor],
                 constants: Mapping[torch.Tensor, torch.Tensor]) -> None:
        super().__init__()
        self.recorded: dict[str, int] = {}
        self._constants: dict[tuple[Any, ...], tuple[torch.Tensor, torch.Tensor]] = {}
        self._twins = WeakIdKeyDictionary(dict(twins))
        self._replaced = WeakIdKeyDictionary(dict(constants))

    def __torch_function__(self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (),
                           kwargs: dict[str, Any] | None = None) -> Any:
        named = kwargs or {}
        args, named = tree_map_only(torch.Tensor, lambda t: self._replaced.get(t, t), (args, named))
        name = getattr(func, "__name__", str(func))
        if name in SHAPED_BY and args and self._has_value(args[0]):
            args = (args[0], *tree_map_only(FakeTensor, _blank, args[1:]))
            named = tree_map_only(FakeTensor, _blank, named)
        traced = [t for t in tree_leaves((args, named)) if isinstance(t, torch.Tensor) and is_traced(t)]
        if not traced:
            return self._run(func, args, named)
        known = all(t in self._twins for t in traced)
        if name in PYTHON_VALUES:
            if not known:
                raise DataDependent(name, call_site())
            self._record()
            return self._run(func, *self._real(args, named))
        if name in SHAPED_LIKE:
            return self._run(func, *tree_map_only(FakeTensor, _blank, (args, named)))
        if _in_place(name):
            return self._write(func, name, args, named, known)
        if known:
            return self._settle(func, name, args, named)
        return self._trace(func, name, args, named)

    def _has_value(self, tensor: object) -> bool:
        return isinstance(tensor, torch.Tensor) and (not is_traced(tensor) or tensor in self._twins)

    # ---- the three ways to run a call

    @staticmethod
    def _run(func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """On known values, outside the trace."""
        with untraced():
            return func(*args, **kwargs)

    def _trace(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Into the graph; known tensors become constants of it."""
        args, kwargs = tree_map_only(torch.Tensor, self._shared, (args, kwargs))
        try:
            with _compiling():
                rewritten = REWRITES[name](func, args, kwargs) if name in REWRITES else NotImplemented
                result = func(*args, **kwargs) if rewritten is NotImplemented else rewritten
        except (DataDependentOutputException, DynamicOutputShapeException, GuardOnDataDependentSymNode) as error:
            raise DataDependent(name, call_site()) from error
        for tensor in tree_leaves(result):
            if isinstance(tensor, torch.Tensor) and any(isinstance(size, torch.SymInt) for size in tensor.shape):
                raise DataDependent(name, call_site(), ": the shape of its result is not known")
        return result

    def _shared(self, tensor: torch.Tensor) -> torch.Tensor:
        """The same constant for equal views of one known tensor: layers take their own views of one rotary table."""
        if is_traced(tensor):
            return tensor
        with untraced():
            key = (tensor.untyped_storage().data_ptr(), tensor.storage_offset(), tuple(tensor.shape), tensor.stride(),
                   tensor.dtype, tensor._version)
            if key not in self._constants:               # a copy, since the model may write into its tensor later
                self._constants[key] = (tensor, tensor.clone())
        return self._constants[key][1]

    def _settle(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """On twins: known results where values are decided upon, a traced result with its twin where they move on."""
        real = self._run(func, *self._real(args, kwargs))
        leaves = [t for t in tree_leaves(real) if isinstance(t, torch.Tensor)]
        if not leaves:
            return real
        if not any(t.is_floating_point() or (name in MOVES and t.dtype != torch.bool) for t in leaves):
            self._record()
            return real
        try:
            result = self._trace(func, name, args, kwargs)
        except DataDependent:
            self._record()
            return real
        for tensor, twin in zip(tree_leaves(result), tree_leaves(real), strict=True):
            if isinstance(tensor, torch.Tensor) and is_traced(tensor):
                self._twins[tensor] = twin
        return result

    def _write(self, func: Callable[..., Any], name: str, args: tuple[Any, ...], kwargs: dict[str, Any],
               known: bool) -> Any:
        """In place: a known target becomes traced from here on; a twin is written as well, or forgotten."""
        target = args[0]
        if not is_traced(target):
            if target._is_view():
                raise DataDependent(name, call_site(), ", and writes them into a part of a constant")
            promoted = self._trace(torch.clone, "clone", (target,), {})
            if known:
                self._twins[promoted] = target.clone()
            self._replaced[target] = promoted
            args = (promoted, *args[1:])
            target = promoted
        if known:
            self._run(func, *self._real(args, kwargs))
        elif target in self._twins:
            del self._twins[target]
        return self._trace(func, name, args, kwargs)

    def _real(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return tree_map_only(torch.Tensor, lambda t: self._twins.get(t, t), (args, kwargs))

    def _record(self) -> None:
        site = call_site()
        self.recorded[site] = self.recorded.get(site, 0) + 1
