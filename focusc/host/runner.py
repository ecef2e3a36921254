"""Running a program's host segments with onnxruntime. Their models come from a file that nobody vouches for."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import Fault
from focusc.isa.program import Program
from focusc.isa.symbol import Symbol

if TYPE_CHECKING:
    import onnx
    import onnxruntime

KINDS = {"f16": "f", "f32": "f", "i32": "iu", "i8": "b"}
"""What a tensor of a program may be in a segment's model, as numpy's kinds of types."""
ATTRIBUTE_TYPES = ("FLOAT", "INT", "STRING", "TENSOR", "FLOATS", "INTS", "STRINGS", "TENSORS")
"""What attributes may be. The other types hold graphs, types and sparse tensors, which can point to files too."""
ATTRIBUTE_FIELDS = ("name", "doc_string", "type", "f", "i", "s", "t", "floats", "ints", "strings", "tensors")


class HostSegments:
    """Runs the segments of one program, for the emulator. A model is checked and loaded when it is first run.

    Refused (Fault `host.model`): what is no ONNX model, operators of other domains than ONNX's own, functions, control
    flow, sparse constants, data in other files, inputs and outputs other than the program's. `seconds` is the time
    spent in onnxruntime.
    """

    def __init__(self, program: Program) -> None:
        self.program = program
        self.seconds = 0.0
        self._sessions: dict[int, tuple[onnxruntime.InferenceSession, dict[str, Any]]] = {}

    def __call__(self, number: int, inputs: Mapping[str, NDArray[Any]]) -> dict[str, NDArray[Any]]:
        """Run segment `number` on its stored inputs."""
        if number not in self._sessions:
            self._sessions[number] = self._load(number)
        session, types = self._sessions[number]
        names = [symbol.name for symbol in self.program.host[number].outputs]
        feed = {name: np.asarray(value).astype(types[name]) for name, value in inputs.items()}
        began = time.perf_counter()
        try:
            found = session.run(names, feed)
        except Exception as error:  # onnxruntime's exceptions share no base
            raise Fault("host.run", f"onnxruntime fails in host segment {number}: {_line(error)}") from None
        self.seconds += time.perf_counter() - began
        return dict(zip(names, (np.asarray(value) for value in found), strict=True))

    def _load(self, number: int) -> tuple[onnxruntime.InferenceSession, dict[str, Any]]:
        import onnxruntime

        segment = self.program.host[number]
        model = _parsed(number, segment.model)
        _check_graph(number, model)
        types = _check_values(number, segment.inputs, model.graph.input, "input")
        _check_values(number, segment.outputs, model.graph.output, "output")
        # what was checked and nothing else: bytes that two parsers could read in two ways are left out
        model.DiscardUnknownFields()
        checked = model.SerializeToString()
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 4
        try:
            return onnxruntime.InferenceSession(checked, options, providers=["CPUExecutionProvider"]), types
        except Exception as error:
            raise _refused(number, f"onnxruntime does not load it: {_line(error)}") from None


def _refused(number: int, what: str) -> Fault:
    return Fault(
        "host.model",
        f"the ONNX model of host segment {number} cannot be run: {what}",
        hint="the file is damaged or was not made by focusc; compile the model again",
    )


def _line(error: Exception) -> str:
    return str(error).splitlines()[0][:200] if str(error) else type(error).__name__


def _parsed(number: int, data: bytes) -> onnx.ModelProto:
    import onnx
    from google.protobuf.message import DecodeError

    try:
        return onnx.ModelProto.FromString(data)
    except DecodeError:
        raise _refused(number, "it is no ONNX model") from None


def _check_graph(number: int, model: onnx.ModelProto) -> None:
    """Only ONNX's own operators, without control flow, and all data inside."""
    import onnx

    allowed = {onnx.AttributeProto.AttributeType.Value(name) for name in ATTRIBUTE_TYPES}
    if model.functions or any(use.domain not in ("", "ai.onnx") for use in model.opset_import):
        raise _refused(number, "it has functions or operators of another domain than ONNX's")
    for node in model.graph.node:
        if node.domain not in ("", "ai.onnx"):
            raise _refused(number, f"operator {node.op_type} of domain {node.domain}")
        for attribute in node.attribute:
            # by type and by field: onnxruntime might go by either
            fields = [field.name for field, _ in attribute.ListFields() if field.name not in ATTRIBUTE_FIELDS]
            if fields or attribute.type not in allowed:
                what = ", ".join(fields) or f"type {attribute.type}"
                raise _refused(number, f"operator {node.op_type} has an attribute with {what}, which no segment has")
            _check_inside(number, (*([attribute.t] if attribute.HasField("t") else []), *attribute.tensors))
    _check_inside(number, model.graph.initializer)
    if model.graph.sparse_initializer:
        raise _refused(number, "it has sparse constants")


def _check_inside(number: int, tensors: Sequence[onnx.TensorProto]) -> None:
    import onnx

    for tensor in tensors:
        if tensor.data_location != onnx.TensorProto.DEFAULT or tensor.external_data:
            raise _refused(number, f"constant {tensor.name[:60]!r} lies in another file")


def _check_values(
    number: int, symbols: Sequence[Symbol], infos: Sequence[onnx.ValueInfoProto], what: str
) -> dict[str, Any]:
    """numpy types of the model's inputs or outputs by name, which are those of the program."""
    from onnx import helper

    if [info.name for info in infos] != [symbol.name for symbol in symbols]:
        raise _refused(
            number,
            f"its {what}s are {', '.join(i.name for i in infos)[:80] or 'none'}, the program has "
            f"{', '.join(s.name for s in symbols)[:80] or 'none'}",
        )
    found: dict[str, Any] = {}
    for symbol, info in zip(symbols, infos, strict=True):
        type_ = info.type.tensor_type
        shape = tuple(d.dim_value if d.HasField("dim_value") else -1 for d in type_.shape.dim)
        try:
            dtype = helper.tensor_dtype_to_np_dtype(type_.elem_type)
        except KeyError:
            dtype = np.dtype(object)
        if shape != symbol.shape or dtype.kind not in KINDS[symbol.dtype]:
            raise _refused(
                number,
                f"{what} {symbol.name} is {dtype}{list(shape)}, the program has {symbol.dtype}{list(symbol.shape)}",
            )
        found[symbol.name] = dtype
    return found
