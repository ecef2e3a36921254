"""Segments that the host runs: what the accelerator has no unit for, as ONNX models over tensors in DRAM.

A program holds its segments as data. Nothing here runs one: the emulator hands a segment's inputs to a callable that
its user supplies, and the instruction `host` says when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import Fault, IsaError
from focusc.isa.symbol import ITEM_BYTES, Symbol

__all__ = ["MAX_SEGMENTS", "HostNode", "HostRun", "HostSegment", "check_segments", "stored"]

MAX_SEGMENTS = 1 << 16
"""Segments that the instruction `host` can name."""
HostRun = Callable[[int, Mapping[str, NDArray[Any]]], Mapping[str, NDArray[Any]]]
"""Runs a segment: (its number, its inputs as they are stored) to its outputs by name, in any type that fits."""
LARGEST = {"f16": 65504.0, "f32": float(np.finfo(np.float32).max)}
WHOLE: dict[str, Any] = {"i32": np.int32, "i8": np.int8}


@dataclass(frozen=True, slots=True)
class HostNode:
    """One op of a segment: where it came from, why the accelerator does not run it, and its multiply-accumulates."""

    op: str
    node: str = ""
    path: str = ""
    code: str = ""
    message: str = ""
    hint: str = ""
    macs: int = 0


@dataclass(frozen=True)
class HostSegment:
    """One segment. `inputs` and `outputs` are tensors in the arena, named as in `model`, a serialised ONNX model.

    An empty `model` has the segment's size and place but no meaning: the program can be timed, not executed.
    """

    inputs: tuple[Symbol, ...]
    outputs: tuple[Symbol, ...]
    nodes: tuple[HostNode, ...]
    model: bytes = b""

    @property
    def macs(self) -> int:
        """Multiply-accumulates of one execution."""
        return sum(node.macs for node in self.nodes)


def check_segments(segments: Sequence[HostSegment], low: int, high: int) -> None:
    """IsaError unless every tensor lies in the arena [low, high) and has a name of its own in its segment."""
    if len(segments) > MAX_SEGMENTS:
        raise IsaError("program.host", f"{len(segments)} host segments, expected at most {MAX_SEGMENTS}")
    for number, segment in enumerate(segments):
        names: set[str] = set()
        for symbol in (*segment.inputs, *segment.outputs):
            if symbol.name in names:
                raise IsaError("program.host", f"host segment {number}: tensor {symbol.name} is named twice")
            names.add(symbol.name)
            if symbol.dtype not in ("f16", "f32", "i32", "i8"):
                raise IsaError("program.host", f"host segment {number}: tensor {symbol.name} is {symbol.dtype}, "
                               "expected f16, f32, i32 or i8")
            if symbol.address % ITEM_BYTES[symbol.dtype]:
                raise IsaError("program.host", f"host segment {number}: tensor {symbol.name} at {symbol.address:#x} is "
                               f"not aligned to its {ITEM_BYTES[symbol.dtype]}-byte elements")
            if symbol.address < low or symbol.address + symbol.bytes > high:
                raise IsaError("program.host", f"host segment {number}: tensor {symbol.name} ({symbol.bytes} bytes at "
                               f"{symbol.address:#x}) lies outside the arena [{low:#x}, {high:#x})")


def stored(symbol: Symbol, value: Any) -> tuple[NDArray[Any], int]:
    """A segment's output in the type that the program stores, flat, and the number of values that were clipped.

    What is finite stays so: a value beyond the range of f16 becomes the largest that there is. The lowest and the
    largest f32 do not count as clipped: models write them as the fill of a mask, which stays one. Fault for another
    shape, another kind of type, and whole numbers that the type does not hold.
    """
    array = np.asarray(value)
    if tuple(array.shape) != symbol.shape:
        raise Fault("run.host", f"the host gave {symbol.name} the shape {list(array.shape)}, expected "
                    f"{list(symbol.shape)}")
    if symbol.dtype in WHOLE:
        if array.dtype.kind not in "iub":
            raise Fault("run.host", f"the host gave {symbol.name} the type {array.dtype}, expected whole numbers")
        range_ = np.iinfo(WHOLE[symbol.dtype])
        if array.size and not range_.min <= int(array.min()) <= int(array.max()) <= range_.max:
            raise Fault("run.host", f"{symbol.name} has values {int(array.min())}..{int(array.max())}, which "
                        f"{symbol.dtype} does not hold")
        return np.ascontiguousarray(array, WHOLE[symbol.dtype]).reshape(-1), 0
    if array.dtype.kind != "f":
        raise Fault("run.host", f"the host gave {symbol.name} the type {array.dtype}, expected floats")
    flat = np.ascontiguousarray(array).reshape(-1)
    most = LARGEST[symbol.dtype]
    beyond = np.isfinite(flat) & (np.abs(flat) > most)
    count = int(np.count_nonzero(beyond & (np.abs(flat) != np.finfo(np.float32).max)))
    return np.ascontiguousarray(np.where(beyond, np.copysign(most, flat), flat), np.float32), count

