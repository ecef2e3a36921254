"""Dropping rows of the sequence: everything computed from a compacted residual stream gets the new number of rows.

The stream's axis is tracked from op to op; an operand from elsewhere that has one row for each token (rotary tables,
features added in deeper layers) is compacted with the same rows. Types stay static.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from focusc.ir.concentration.neighbours import shape
from focusc.ir.core import Op, Value
from focusc.ir.diagnostics import CompileError, fail
from focusc.ir.rewrite import Rewriter
from focusc.ir.types import TensorType, TokensType

VECTOR_WISE = frozenset({"nn.linear", "nn.layer_norm", "nn.rms_norm"})
"""Ops that turn each vector of the last axis into one, whatever the axes before it are."""
ROW_WISE = frozenset(
    {
        "nn.attention",
        "sic.gather",
        "sic.scatter",
        "nn.rope",
    }
)
"""Ops whose results have the rows of their first operand, on the axis before the last."""
ELEMENT_WISE = frozenset({"nn.gelu", "nn.silu", "nn.swiglu"}) | frozenset(
    f"tensor.{name}"
    for name in (
        "add",
        "sub",
        "mul",
        "div",
        "pow",
        "neg",
        "sqrt",
        "reciprocal",
        "exp",
        "log",
        "sigmoid",
        "tanh",
        "erf",
        "cos",
        "sin",
        "abs",
        "max",
        "min",
        "where",
        "cast",
        "gelu",
    )
)


class Compaction:
    """One drop of rows: `rows` (tokens<after of before>) are kept; text rows from `tail` on all stay."""

    def __init__(self, rewriter: Rewriter, rows: Value, tail: int) -> None:
        assert isinstance(rows.type, TokensType)
        self.rewriter, self.rows, self.tail = rewriter, rows, tail
        self.after, self.before = rows.type.count, rows.type.of
        self.axis: dict[Value, int] = {}
        self.compacted: dict[tuple[Value, int], Value] = {}
        self.positions: Value | None = None

    def apply(self, stream: Value) -> Value:
        """Compact `stream` [.., rows, D] for all its users behind the definition of `rows`, and follow the rows on."""
        select = self.rows.owner
        block = select.parent
        behind = block.ops[block.ops.index(select) + 1 :]
        users = [op for op in behind if op in set(stream.users)]
        if not users:
            return stream
        new = self.rewriter.insert_before(users[0], "sec.compact", stream, self.rows, axis=-2).result
        new.name = stream.name
        self.rewriter.replace_uses(stream, new, only=users)
        self.axis[new] = len(shape(new)) - 2
        for op in behind:
            if any(v in self.axis for v in op.operands) and not op.spec.terminator:
                self._step(op)
        return new

    def _step(self, op: Op) -> None:
        handler: Callable[[Op, int], int] | None = None
        if op.name in ROW_WISE:
            handler = self._row_wise
        elif op.name in ELEMENT_WISE:
            handler = self._element_wise
        elif op.name in VECTOR_WISE:
            handler = self._vector_wise
        else:
            handler = {
                "tensor.reshape": self._reshape,
                "tensor.transpose": self._transpose,
                "tensor.slice": self._slice,
                "tensor.concat": self._concat,
                "tensor.gather": self._gather,
                "tensor.softmax": self._keep,
                "tensor.reduce_mean": self._reduce,
                "tensor.reduce_sum": self._reduce,
                "tensor.reduce_max": self._reduce,
            }.get(op.name)
        if handler is None:
            raise self._unsupported(op)
        first = next(v for v in op.operands if v in self.axis)
        assert first is not None
        axis = handler(op, self.axis[first])
        try:
            self.rewriter.refresh(op)
        except CompileError as e:
            raise e.at(op.loc, f"{op.name}: after dropping tokens: ") from None
        if axis >= 0:
            for value in op.results:
                self.axis[value] = axis

    def _unsupported(self, op: Op, why: str = "") -> CompileError:
        return fail(
            "concentrate.unsupported",
            f"tokens are dropped before {op.name}{why or ', which mixes or reorders rows'}; "
            "concentration cannot follow the rows through it",
            op.loc,
            hint="run the fusion passes first, or prune in layers behind it",
        )

    def _bring(self, op: Op, index: int, axis: int) -> None:
        """Let operand `index` of `op`, if it has the old rows on `axis`, read its compacted form."""
        value = op.operands[index]
        if value is None or value in self.axis or not isinstance(value.type, TensorType):
            return
        if not 0 <= axis < value.type.rank or value.type.shape[axis] != self.before:
            return
        key = (value, axis)
        if key not in self.compacted:
            at = axis - value.type.rank
            self.compacted[key] = self.rewriter.insert_before(op, "sec.compact", value, self.rows, axis=at).result
        self.rewriter.set_operand(op, index, self.compacted[key])

    def _row_wise(self, op: Op, axis: int) -> int:
        for i, value in enumerate(op.operands):
            if value is not None and op.name in ("nn.rope", "nn.attention") and value not in self.axis:
                self._bring(op, i, len(shape(value)) - 2)
        if op.name == "nn.attention":
            if op.attrs["window"] and op.operands[4] is None:  # it counts the tokens that were there
                self.rewriter.set_operand(op, 4, self._kept_positions(op))
            mask = op.operands[3]
            if mask is not None:
                self._bring(op, 3, len(shape(mask)) - 1)
        rank = len(shape(op.results[0]))
        if axis != rank - 2:
            raise self._unsupported(op, f" along axis {axis} of {rank}")
        return axis

    def _kept_positions(self, op: Op) -> Value:
        """Where the rows that stay stood before any were dropped, [after, 1]."""
        if self.positions is None:
            stood = np.arange(self.before, dtype=np.float32)[:, None]
            every = self.rewriter.builder_before(op).constant(stood, name="positions")
            self.positions = self.rewriter.insert_before(op, "sec.compact", every, self.rows, axis=-2).result
        return self.positions

    def _vector_wise(self, op: Op, axis: int) -> int:
        rank = len(shape(op.results[0]))
        if op.operands[0] not in self.axis or axis == rank - 1:
            raise self._unsupported(op, f" along axis {axis} of {rank}")
        return axis

    def _element_wise(self, op: Op, axis: int) -> int:
        rank = len(shape(op.results[0]))
        first = next(v for v in op.operands if v in self.axis)
        assert first is not None
        from_end = axis - len(shape(first))
        for i, value in enumerate(op.operands):
            if value is not None and value not in self.axis:
                self._bring(op, i, len(shape(value)) + from_end)
        return rank + from_end

    def _keep(self, op: Op, axis: int) -> int:
        if op.attrs.get("axis", -1) % len(shape(op.results[0])) == axis:
            raise self._unsupported(op)
        return axis

    def _concat(self, op: Op, axis: int) -> int:
        self._keep(op, axis)
        for i in range(len(op.operands)):
            self._bring(op, i, axis)
        return axis

    def _reduce(self, op: Op, axis: int) -> int:
        rank = len(shape(op.operands[0])) if op.operands[0] is not None else 0
        axes = [a % rank for a in op.attrs["axes"]]
        if axis in axes:
            raise self._unsupported(op)
        return axis if op.attrs.get("keepdims", True) else axis - sum(a < axis for a in axes)

    def _transpose(self, op: Op, axis: int) -> int:
        return [p % len(op.attrs["perm"]) for p in op.attrs["perm"]].index(axis)

    def _reshape(self, op: Op, axis: int) -> int:
        """The axis of the result that holds exactly the rows: as many elements before it as before."""
        source = shape(op.operands[0])  # type: ignore[arg-type]
        target = list(shape(op.results[0]))
        before = _product(source[:axis])
        for i, extent in enumerate(target):
            if extent == self.before and _product(target[:i]) == before:
                target[i] = self.after
                self.rewriter.set_attr(op, shape=tuple(target))
                return i
        raise self._unsupported(op, f" from {list(source)} to {target}, which splits or joins the rows")

    def _slice(self, op: Op, axis: int) -> int:
        """A slice along the rows must be all of them, lie before the visual span's end, or in the text behind it."""
        rank = len(shape(op.results[0]))
        axes = [a % rank for a in op.attrs["axes"]]
        if axis not in axes:
            return axis
        i = axes.index(axis)
        starts, ends = list(op.attrs["starts"]), list(op.attrs["ends"])
        step = (op.attrs.get("steps") or [1] * len(axes))[i]
        start, end = (min(max(v + self.before if v < 0 else v, 0), self.before) for v in (starts[i], ends[i]))
        gone = self.before - self.after
        if (start, end, step) == (0, self.before, 1):
            starts[i], ends[i], kept = 0, self.after, axis
        elif start >= self.tail and step == 1:
            starts[i], ends[i], kept = start - gone, end - gone, -1
        else:
            raise self._unsupported(op, f" [{start}:{end}:{step}] of {self.before} rows, which reads visual tokens")
        self.rewriter.set_attr(op, starts=tuple(starts), ends=tuple(ends))
        return kept

    def _gather(self, op: Op, axis: int) -> int:
        """Row numbers known at compile time, all in the text behind the visual span, move down."""
        data, index = op.operands[0], op.operands[1]
        if (
            data is None
            or index is None
            or data not in self.axis
            or index.op is None
            or index.op.name != "tensor.constant"
        ):
            raise self._unsupported(op)
        along = op.attrs.get("axis", 0) % len(shape(data))
        rank = len(shape(index))
        if along != axis:
            return axis + (rank - 1 if along < axis else 0)
        found = index.op.attrs["value"].array
        rows = found + self.before * (found < 0)
        if rows.size and rows.min() < self.tail:
            raise self._unsupported(op, " of visual rows")
        b = self.rewriter.builder_before(op)
        self.rewriter.set_operand(op, 1, b.constant((rows - (self.before - self.after)).astype(found.dtype)))
        return -1


def _product(extents: tuple[int, ...] | list[int]) -> int:
    out = 1
    for extent in extents:
        out *= extent
    return out
