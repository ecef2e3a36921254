"""Finding the decoder layers of a module by what is connected to what, never by names.

A decoder layer is a causal attention over the sequence that holds the visual span, the linears that feed it, the
output projection and the residual add behind it, and the MLP between that add and the next.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from focusc.ir.concentration.layout import Layout
from focusc.ir.core import Module, Op, Value
from focusc.ir.diagnostics import fail
from focusc.ir.types import ConcentratedType, TensorType

LINEAR, ATTENTION, ADD = "nn.linear", "nn.attention", "tensor.add"
Use = tuple[Op, int]
"""An op and the number of one of its operands."""


@dataclass(frozen=True)
class DecoderLayer:
    """One layer: its attention, the linears around it, and the two residual adds."""

    index: int
    attention: Op
    qkv: tuple[Op, ...]
    o_proj: tuple[Op, ...]
    attention_add: Op
    gate_up: tuple[Op, ...]
    down: tuple[Op, ...]
    mlp_add: Op

    @property
    def heads(self) -> int:
        """Query heads."""
        return int(self.attention.attrs["heads"])

    @property
    def head_size(self) -> int:
        """Columns of a head."""
        return shape(operand(self.attention, 0))[-1] // self.heads

    @property
    def linears(self) -> tuple[Op, ...]:
        """All GEMMs with weights, in order of execution."""
        return (*self.qkv, *self.o_proj, *self.gate_up, *self.down)

    def site(self, name: str) -> tuple[Use, ...]:
        """Where the activation of a site is read."""
        ops = {
            "qkv_in": self.qkv,
            "query": (self.attention,),
            "o_in": self.o_proj,
            "mlp_in": self.gate_up,
            "down_in": self.down,
        }[name]
        return tuple((op, 0) for op in ops)

    @property
    def hidden(self) -> Value:
        """The residual stream as it enters the layer."""
        behind = ancestors(self.o_proj[0].result)
        for value in self.attention_add.operands:
            if value is not None and value.op not in behind and not constant(value):
                return value
        return operand(self.attention_add, 0)


def shape(value: Value) -> tuple[int, ...]:
    """Shape of a tensor or concentrated value."""
    assert isinstance(value.type, (TensorType, ConcentratedType))
    return value.type.shape


def operand(op: Op, index: int) -> Value:
    """A required operand."""
    value = op.operands[index]
    assert value is not None
    return value


def constant(value: Value) -> bool:
    """True for a weight or another constant."""
    return value.op is not None and value.op.name == "tensor.constant"


def ancestors(value: Value) -> set[Op]:
    """The op of `value` and what it is computed from, back to the nearest attention or two-sided add."""
    found: set[Op] = set()
    stack = [value]
    while stack:
        op = stack.pop().op
        if op is None or op in found:
            continue
        found.add(op)
        if _joins(op):
            continue
        if op.name != ATTENTION:
            stack += sources(op)
    return found


def sources(op: Op) -> list[Value]:
    """Operands that the rows of the result are made of; the token lists of sec.* and sic.* only say which rows."""
    data = op.operands[:1] if op.name.startswith(("sec.", "sic.")) else op.operands
    return [v for v in data if v is not None]


def _joins(op: Op) -> bool:
    """True for an add of two activations; one with a constant is a bias."""
    return op.name == ADD and not any(constant(v) for v in op.operands if v is not None)


def linears_behind(value: Value) -> list[Op]:
    """The nearest linears that `value` is computed from."""
    return _nearest(value.op, lambda op: [v.op for v in sources(op)])


def linears_after(start: Iterable[Op], stop: Callable[[Op], bool]) -> list[Op]:
    """The nearest linears computed from the results of `start`; ops for which `stop` holds are not crossed."""
    found: list[Op] = []
    for op in start:
        for linear in _nearest(op, lambda o: [u for v in o.results for u in v.users if not stop(u)], skip=op):
            if linear not in found:
                found.append(linear)
    return found


def _nearest(start: Op | None, follow: Callable[[Op], list[Op | None]], skip: Op | None = None) -> list[Op]:
    found: list[Op] = []
    seen: set[Op] = set()
    stack = [start]
    while stack:
        op = stack.pop()
        if op is None or op in seen:
            continue
        seen.add(op)
        if op.name == LINEAR and op is not skip:
            found.append(op)
        elif op.name == "tensor.matmul" and op is not skip:
            raise fail(
                "concentrate.structure",
                "a decoder layer holds a bare tensor.matmul, expected nn.linear and nn.attention",
                op.loc,
                hint="run the fusion passes first (fuse-nn)",
            )
        else:
            stack += reversed(follow(op))
    return found


def residual_add(value: Value) -> Op | None:
    """The first add of two activations that `value` runs into, through ops that keep one row for each token."""
    for _ in range(32):
        users = [u for u in value.users if u.name != "return"]
        adds = [u for u in users if _joins(u)]
        if adds:
            return adds[0]
        if len(users) != 1 or len(users[0].results) != 1 or users[0].name in (LINEAR, ATTENTION):
            return None
        value = users[0].result
    return None


def is_decoder_attention(op: Op, layout: Layout | None) -> bool:
    """A causal attention of a whole sequence with itself; with a layout, one that can hold the visual span."""
    if op.name != ATTENTION or not op.attrs["causal"]:
        return False
    rows, keys = shape(operand(op, 0))[-2], shape(operand(op, 1))[-2]
    return rows == keys and rows > 1 and (layout is None or rows > layout.start)


def find_decoder_layers(module: Module) -> list[DecoderLayer]:
    """The decoder layers in order, in a module of level `nn`, concentrated or not. CompileError if a causal attention
    is not surrounded as in a decoder layer, or if there is none."""
    layout = Layout.of(module) if module.attrs.get("layout") else None
    found = [op for op in module.body.ops if is_decoder_attention(op, layout)]
    if not found:
        raise fail(
            "concentrate.structure",
            f"module {module.name} has no causal attention over a sequence, so there are no "
            "decoder layers to concentrate",
            hint="run the fusion passes first (fuse-nn)",
        )
    return [_layer(i, op) for i, op in enumerate(found)]


def _layer(index: int, attention: Op) -> DecoderLayer:
    def need(found: list[Op] | Op | None, what: str) -> None:
        if not found:
            raise fail(
                "concentrate.structure",
                f"decoder layer {index}: {what}",
                attention.loc,
                hint="a layer is expected to be norm, q/k/v, attention, output projection, residual add, norm, MLP, "
                "residual add",
            )

    qkv: list[Op] = []
    for i in range(3):
        behind = linears_behind(operand(attention, i))
        need(behind, f"the {'qkv'[i]} operand of its attention does not come from a linear")
        qkv += [op for op in behind if op not in qkv]
    o_proj = linears_after([attention], lambda u: u.name == ATTENTION or u.name.startswith("sec."))
    need(o_proj, "no linear follows its attention")
    add = residual_add(o_proj[0].result)
    need(add, "no residual add follows its output projection")
    assert add is not None
    gate_up = linears_after([add], _joins)
    need(gate_up, "no MLP follows its first residual add")
    down = linears_after(gate_up, _joins)
    need(down, "its MLP has no second linear")
    mlp_add = residual_add(down[0].result)
    need(mlp_add, "no residual add follows its MLP")
    assert mlp_add is not None
    return DecoderLayer(index, attention, tuple(qkv), tuple(o_proj), add, tuple(gate_up), tuple(down), mlp_add)
