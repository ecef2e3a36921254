"""One model under several concentration methods: accuracy, sparsity, cycles, energy and traffic side by side."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from focusc.driver.arrays import read_npz
from focusc.driver.compiler import Compilation, compile_model
from focusc.driver.errors import InputError
from focusc.driver.execution import Runner, mean_costs
from focusc.driver.load import load_model
from focusc.driver.options import METHODS, CompileOptions
from focusc.driver.progress import Progress, silent

if TYPE_CHECKING:
    from focusc.ir import Module

Array = np.ndarray[Any, np.dtype[Any]]

REFERENCE = "onnxruntime"


@dataclass(frozen=True)
class Sample:
    """Inputs by name; the right answer (a token number) if it is known; text for people."""

    inputs: dict[str, Array]
    answer: int | None = None
    text: str = ""


@dataclass
class Column:
    """What one method gave, sample by sample."""

    method: str
    answers: list[int] = field(default_factory=list)
    stats: list[dict[str, Any]] = field(default_factory=list)


def compare(
    model: str | os.PathLike[str],
    *,
    samples: int = 20,
    inputs: str | os.PathLike[str] | None = None,
    methods: Sequence[str] = METHODS,
    config: str | os.PathLike[str] | None = None,
    array: str = "pipelined",
    progress: Progress = silent,
) -> dict[str, Any]:
    """A row per method (and one for onnxruntime), as plain data; `focusc compare` prints it.

    Samples come from `inputs` (an .npz whose arrays have a leading sample axis, with `answer` if known) or from the
    evaluation that the model's metadata names. The first method is the base of speed-up, energy and agreement.
    """
    for method in methods:
        if method not in METHODS:
            raise InputError(
                "compare.method", f"found {method!r}, expected some of {', '.join(METHODS)}", where="--methods"
            )
    options = CompileOptions.load(config)
    source = load_model(model, options.layout)
    if Path(model).suffix != ".onnx":
        raise InputError(
            "model.kind", "expected an ONNX model: onnxruntime gives the answers to compare with", str(model)
        )
    todo = list(given_samples(inputs, samples) if inputs is not None else held_out(model, samples))
    where = os.fspath(inputs if inputs is not None else model)
    check_samples(todo, source, where)
    # first, because it is quick and refuses what the model cannot take
    expected = reference_column(model, todo)
    compiled: dict[str, Compilation] = {}
    for index, method in enumerate(methods):
        progress(f"compile {method}", index, len(methods))
        chosen = {**options.concentrate, "method": method}
        compiled[method] = compile_model(source, options.model_copy(update={"concentrate": chosen}))
    columns = [expected, *run_columns(compiled, todo, array, progress)]
    return table(columns, todo, Path(model).name, compiled[methods[0]].machine.name, array)


def held_out(model: str | os.PathLike[str], count: int) -> Iterator[Sample]:
    """The first `count` held-out questions of the model, if it is one that we exported."""
    from focusc.export.evaluation import evaluation_of

    evaluation = evaluation_of(metadata(model))
    if evaluation is None:
        raise InputError(
            "compare.samples",
            "the model's metadata names no questions to ask",
            where=os.fspath(model),
            hint="give --inputs IN.npz, arrays with a leading sample axis and `answer` if known",
        )
    for question in evaluation.questions(count):
        yield Sample(question.inputs, question.answer, question.text)


def metadata(model: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of an ONNX file; its weights are not read."""
    import onnx

    from focusc.driver.files import existing

    proto = onnx.load(str(existing(model, "ONNX model")), load_external_data=False)
    return {item.key: item.value for item in proto.metadata_props}


def given_samples(path: str | os.PathLike[str], count: int) -> Iterator[Sample]:
    """The first `count` samples of an .npz file."""
    arrays = read_npz(path)
    answers = arrays.pop("answer", None)
    if answers is not None and answers.dtype.kind not in "iu":
        raise InputError(
            "compare.samples", f"`answer` is {answers.dtype}, expected token numbers (integers)", where=os.fspath(path)
        )
    lengths = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if (
        not arrays
        or len({*lengths.values()}) != 1
        or not max(lengths.values())
        or (answers is not None and answers.shape != (max(lengths.values()),))
    ):
        raise InputError(
            "compare.samples",
            f"leading axes are {lengths}; expected one sample axis common to all, of at least one sample",
            where=os.fspath(path),
        )
    for index in range(min(count, next(iter(lengths.values())))):
        yield Sample(
            {name: array[index] for name, array in arrays.items()}, None if answers is None else int(answers[index])
        )


def check_samples(samples: Sequence[Sample], module: Module, where: str) -> None:
    """InputError unless every input of `module` is there with its shape and kind of numbers, none of them NaN."""
    from focusc.ir.types import DTYPES, TensorType

    expected = {arg.name: arg.type for arg in module.args if isinstance(arg.type, TensorType)}
    shown = ", ".join(f"{name}: {type.dtype}{list(type.shape)}" for name, type in expected.items())
    hint = f"a leading sample axis before each input: {shown}"
    for sample in samples:
        for name, type in expected.items():
            value = sample.inputs.get(name)
            if value is None:
                raise InputError("input.missing", f"input {name!r} is missing", where, hint)
            if value.shape != type.shape:
                found = f"{list(value.shape)}, expected {list(type.shape)}"
                raise InputError("input.shape", f"a sample of input {name!r} has shape {found}", where, hint)
            if _kind(value.dtype) != _kind(np.dtype(DTYPES[type.dtype])):
                raise InputError("input.type", f"input {name!r} is {value.dtype}, expected {type.dtype}", where, hint)
            if value.dtype.kind == "f" and not np.isfinite(value).all():
                raise InputError("input.value", f"input {name!r} holds NaN or infinity", where)


def _kind(dtype: np.dtype[Any]) -> str:
    return "i" if dtype.kind == "u" else dtype.kind


def reference_column(model: str | os.PathLike[str], samples: Sequence[Sample]) -> Column:
    """The answers of onnxruntime in float32."""
    session = reference(model)
    column = Column(REFERENCE)
    for sample in samples:
        outputs = session(sample.inputs)
        column.answers.append(top1(outputs))
        size = _logits(outputs).shape[-1]
        if sample.answer is not None and not 0 <= sample.answer < size:
            raise InputError("compare.samples", f"`answer` holds {sample.answer}, expected token numbers 0..{size - 1}")
    return column


def reference(model: str | os.PathLike[str]) -> Any:
    """A function inputs -> outputs by name that runs the ONNX file on onnxruntime (CPU)."""
    import onnxruntime

    quiet, calm = onnxruntime.SessionOptions(), onnxruntime.RunOptions()
    quiet.log_severity_level = calm.log_severity_level = 4  # what it logs as an error, it also raises
    try:
        session = onnxruntime.InferenceSession(os.fspath(model), quiet, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions have no common base
        raise _refusal(error, "the model", model) from None
    names = [output.name for output in session.get_outputs()]
    dtypes = {item.name: _ORT_DTYPES.get(item.type) for item in session.get_inputs()}

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        for name in inputs:
            if name not in dtypes:
                raise InputError(
                    "input.unknown", f"the model has no input {name!r}", hint=f"inputs: {', '.join(dtypes)}"
                )
        given = {name: np.asarray(value, dtypes[name]) for name, value in inputs.items()}
        try:
            found = session.run(names, given, calm)
        except Exception as error:
            raise _refusal(error, "the inputs", model) from None
        return {name: np.asarray(value) for name, value in zip(names, found, strict=True)}

    return run


_ORT_DTYPES = {"tensor(double)": np.float64, "tensor(float)": np.float32, "tensor(float16)": np.float16,
               "tensor(int64)": np.int64, "tensor(int32)": np.int32, "tensor(bool)": np.bool_}  # fmt: skip
"""Element types in which onnxruntime wants inputs; others are passed as they are."""


def _refusal(error: Exception, what: str, model: str | os.PathLike[str]) -> InputError:
    text = str(error).strip().splitlines() or [type(error).__name__]
    return InputError("compare.samples", f"onnxruntime refuses {what}: {text[0]}", where=os.fspath(model))


def run_columns(
    compiled: Mapping[str, Compilation], samples: Sequence[Sample], array: str, progress: Progress = silent
) -> list[Column]:
    """Emulate every sample under every method."""
    columns: list[Column] = []
    for method, compilation in compiled.items():
        runner, column = Runner(compilation.program, compilation.machine), Column(method)
        known = {symbol.name for symbol in compilation.program.symbols if symbol.kind == "input"}
        for index, sample in enumerate(samples):
            progress(f"emulate {method}", index, len(samples))
            # an input that the model does not use was dropped at import; float64 ones were taken as f32
            inputs = {n: a.astype(np.float32) if a.dtype == np.float64 else a for n, a in sample.inputs.items()}
            result = runner.run({n: a for n, a in inputs.items() if n in known}, array=array)
            column.answers.append(top1(result.outputs))
            column.stats.append(result.stats)
        columns.append(column)
    return columns


def table(columns: Sequence[Column], samples: Sequence[Sample], model: str, target: str, array: str) -> dict[str, Any]:
    """The rows of `focusc compare` from the columns; the first one with costs is the base."""
    base = next(column for column in columns if column.stats)
    base_costs = mean_costs(base.stats)
    rows: list[dict[str, Any]] = []
    for column in columns:
        row: dict[str, Any] = {"method": "dense" if column.method == "none" else column.method}
        known = [
            (found, sample.answer)
            for found, sample in zip(column.answers, samples, strict=True)
            if sample.answer is not None
        ]
        if known:
            share = sum(found == answer for found, answer in known) / len(known)
            row["accuracy"] = share
            row["accuracy_error"] = math.sqrt(share * (1 - share) / len(known))
        agree = [found == other for found, other in zip(column.answers, base.answers, strict=True)]
        row["agreement"] = sum(agree) / len(agree)
        if column.stats:
            costs = mean_costs(column.stats)
            row.update(costs)
            row["speedup"] = base_costs["cycles"] / costs["cycles"]
            row["energy_ratio"] = base_costs["energy_mj"] / costs["energy_mj"]
            row["host"] = column.stats[-1]["host"]
        rows.append(row)
    named = "dense" if base.method == "none" else base.method
    return {"model": model, "target": target, "base": named, "array": array, "samples": len(samples), "rows": rows}


def top1(outputs: Mapping[str, Array]) -> int:
    """The most likely token at the last position of the output `logits`, or of the only output."""
    logits = _logits(outputs)
    return int(logits.reshape(-1, logits.shape[-1])[-1].argmax())


def _logits(outputs: Mapping[str, Array]) -> Array:
    logits = outputs.get("logits")
    if logits is None and len(outputs) == 1:
        logits = next(iter(outputs.values()))
    if logits is None or not logits.size or logits.ndim < 1:
        raise InputError(
            "compare.samples",
            f"the outputs are {', '.join(outputs)}; expected one named logits (... x vocabulary), or a single one",
        )
    return logits
