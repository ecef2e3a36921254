"""The interpreter: runs a module of any level from the ops' own `evaluate`.

A module is planned once (values numbered, attributes bound, last uses found) and then run; an array is dropped after
its last use. An op with regions gets one callable per region: it takes the block arguments and returns the yielded
values as a tuple.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, cast

import numpy as np

from focusc.ir.core import Block, Module, Op, Value
from focusc.ir.diagnostics import CompileError, fail
from focusc.ir.types import DTYPES, IndexType, TensorType, TokensType, Type

Observer = Callable[[Op, tuple[Any, ...]], None]

MAX_BYTES = 1 << 36
"""Largest value that the interpreter will allocate."""


class _Step:
    """One op, ready to run."""

    __slots__ = ("drop", "fn", "inputs", "op", "outputs")

    def __init__(self, op: Op, fn: Callable[..., Any], inputs: list[int], outputs: list[int]) -> None:
        self.op, self.fn, self.inputs, self.outputs = op, fn, inputs, outputs
        self.drop: list[int] = []


class Executor:
    """A planned module. `Executor(m)(inputs)` can be called many times; do not change `m` in between."""

    def __init__(self, module: Module, observer: Observer | None = None) -> None:
        self.module = module
        self.observer = observer
        self._slots: dict[Value, int] = {}
        self._slot_home: list[Block] = []
        self._steps, self._ends = self._plan(module.body)
        self._env: list[Any] = []

    def __call__(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """Run on named inputs; returns the named outputs."""
        module = self.module
        given = set(inputs)
        wanted = {a.name for a in module.args}
        if given != wanted:
            raise fail("run.inputs", f"inputs are {sorted(given)}, the module takes {sorted(wanted)}")
        env: list[Any] = [None] * (len(self._slots) + 1)
        self._env = env
        for arg in module.args:
            env[self._slots[arg]] = bind_input(arg.name, arg.type, inputs[arg.name])
        try:
            with np.errstate(all="ignore"):  # overflow to inf and 0/0 to nan are what the ops mean
                self._run(self._steps)
            return {name: env[slot] for name, slot in zip(module.outputs, self._ends, strict=True)}
        finally:
            self._env = []

    def _slot(self, value: Value, block: Block) -> int:
        self._slots[value] = len(self._slots)
        self._slot_home.append(block)
        return self._slots[value]

    def _plan(self, block: Block) -> tuple[list[_Step], list[int]]:
        """Steps and the slots of the terminator's operands."""
        for arg in block.args:
            self._slot(arg, block)
        steps: list[_Step] = []
        ends: list[int] = []
        last: dict[int, int] = {}
        for op in block.ops:
            absent = -1
            slots = [self._slots[v] if v is not None else absent for v in op.operands]
            read = list(slots)
            keywords = op.keywords()
            if op.regions:
                keywords["regions"] = tuple(self._region(r, read) for r in op.regions)
            if op.spec.terminator:
                ends = slots
                for slot in slots:
                    last.pop(slot, None)
                continue
            for value in op.results:
                _refuse_absurd(op, value.type)
            fn = type(op).evaluate
            assert fn is not None
            outputs = [self._slot(v, block) for v in op.results]
            for slot in (*read, *outputs):
                if slot >= 0 and self._slot_home[slot] is block:
                    last[slot] = len(steps)
            steps.append(_Step(op, partial(fn, **keywords) if keywords else fn, slots, outputs))
        for slot, index in last.items():
            steps[index].drop.append(slot)
        return steps, ends

    def _region(self, block: Block, read: list[int]) -> Callable[..., tuple[Any, ...]]:
        first = len(self._slots)
        steps, ends = self._plan(block)
        arguments = [self._slots[a] for a in block.args]
        for inner in block.walk():
            read += [self._slots[v] for v in inner.operands if v is not None and self._slots[v] < first]

        def run(*values: Any) -> tuple[Any, ...]:
            env = self._env
            for slot, value in zip(arguments, values, strict=True):
                env[slot] = value
            self._run(steps)
            return tuple(env[s] for s in ends)

        return run

    def _run(self, steps: list[_Step]) -> None:
        env = self._env
        observer = self.observer
        step = None
        try:
            for step in steps:
                got = step.fn(*[env[i] for i in step.inputs])
                outputs = step.outputs
                values = () if not outputs else cast("tuple[Any, ...]", got) if isinstance(got, tuple) else (got,)
                for slot, value in zip(outputs, values, strict=True):
                    env[slot] = value
                if observer is not None:
                    observer(step.op, values)
                for slot in step.drop:
                    env[slot] = None
        except CompileError as e:
            assert step is not None
            raise e.at(step.op.loc, f"while executing {step.op.name}{_indexed_by(step.op, e)}: ") from None
        except (ValueError, TypeError, IndexError, ZeroDivisionError, OverflowError, MemoryError) as e:
            assert step is not None
            raise fail("run.failed", f"while executing {step.op.name}: {type(e).__name__}: {e}", step.op.loc) from e


def interpret(module: Module, inputs: Mapping[str, Any], observer: Observer | None = None) -> dict[str, Any]:
    """Run `module` on named inputs; `observer(op, results)` sees every op after it ran."""
    return Executor(module, observer)(inputs)


def bind_input(name: str, type_: Type, value: Any) -> Any:
    """Check one input against its type; CompileError names the input, what it is and what was expected."""
    if isinstance(type_, IndexType):
        return int(value)
    if isinstance(type_, TokensType):
        type_ = TensorType((type_.count,), "i32")
    if not isinstance(type_, TensorType):
        return value
    array = np.asarray(value)
    if not array.dtype.isnative:
        array = array.astype(array.dtype.newbyteorder("="))
    if array.shape != type_.shape or array.dtype != DTYPES[type_.dtype]:
        raise fail(
            "run.input",
            f"input {name!r} is {array.dtype}{list(array.shape)}, expected {DTYPES[type_.dtype]}{list(type_.shape)}",
        )
    return array


def _indexed_by(op: Op, error: CompileError) -> str:
    """For an index out of range: the module's input that the op's index operand is, seen through reshapes and casts."""
    if error.diagnostics[0].code != "run.index":
        return ""
    for value in op.operands:
        while value is not None and value.op is not None and value.op.name in ("tensor.reshape", "tensor.cast"):
            value = value.op.operands[0]
        if value is not None and value.op is None and isinstance(value.type, TensorType) and value.type.dtype[0] == "i":
            return f" with input {value.name!r}"
    return ""


def _refuse_absurd(op: Op, type_: Type) -> None:
    if isinstance(type_, TensorType) and type_.nbytes > MAX_BYTES:
        raise fail(
            "run.size",
            f"{op.name}: a value of type {type_} has {type_.nbytes} bytes, more than the "
            f"interpreter's limit of {MAX_BYTES}",
            op.loc,
        )
