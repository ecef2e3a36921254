"""Element by element: arithmetic, comparison, logic, conversion."""

from __future__ import annotations

import numpy as np

from focusc.frontend.node import Node, dtype, rank, shape
from focusc.frontend.registry import RuleFunction, rule
from focusc.frontend.weights import IMPORTED, WIDENED, type_name
from focusc.ir import Value

UNARY = {"Neg": "neg", "Sqrt": "sqrt", "Reciprocal": "reciprocal", "Exp": "exp", "Log": "log", "Sigmoid": "sigmoid",
         "Tanh": "tanh", "Erf": "erf", "Cos": "cos", "Sin": "sin", "Abs": "abs", "Not": "not", "Sign": "sign",
         "Floor": "floor", "Ceil": "ceil", "Round": "round", "IsNaN": "isnan"}
BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div", "Equal": "equal", "Greater": "greater",
          "Less": "less", "GreaterOrEqual": "greater_equal", "LessOrEqual": "less_equal", "And": "and",
          "Or": "or", "Xor": "xor"}


def _same(op: str, arity: int) -> RuleFunction:
    def apply(n: Node) -> Value:
        return n.emit(op, *(n.x(i) for i in range(arity)))

    return apply


for _onnx, _ir in UNARY.items():
    rule(_onnx)(_same(f"tensor.{_ir}", 1))
for _onnx, _ir in BINARY.items():
    rule(_onnx)(_same(f"tensor.{_ir}", 2))


@rule("Pow")
def power(n: Node) -> Value:
    """x ** y, in the type of x."""
    return n.emit("tensor.pow", n.x(0), n.cast(n.x(1), dtype(n.x(0))))


@rule("Max", "Min", "Sum", "Mean")
def variadic(n: Node) -> Value:
    """Folded from the left over any number of inputs."""
    op = {"Max": "tensor.max", "Min": "tensor.min"}.get(n.op_type, "tensor.add")
    total = n.x(0)
    for i in range(1, len(n.inputs)):
        total = n.emit(op, total, n.x(i))
    return n.mul(total, n.scalar(1 / len(n.inputs), total)) if n.op_type == "Mean" else total


@rule("Mod")
def mod(n: Node) -> Value:
    """Remainder, with the sign of the divisor, or of the dividend if fmod."""
    return n.emit("tensor.mod", n.x(0), n.x(1), fmod=bool(n.attr("fmod", 0)))


@rule("Where")
def where(n: Node) -> Value:
    """a where the condition holds, else b."""
    return n.emit("tensor.where", n.x(0), n.x(1), n.x(2))


@rule("Relu")
def relu(n: Node) -> Value:
    """max(x, 0)."""
    return n.emit("tensor.max", n.x(), n.scalar(0, n.x()))


@rule("Clip")
def clip(n: Node) -> Value:
    """min(max(x, low), high), each bound optional."""
    x = n.x(0)
    for index, op in ((1, "tensor.max"), (2, "tensor.min")):
        bound = n.get(index)
        x = x if bound is None else n.emit(op, x, bound)
    return x


@rule("Softplus")
def softplus(n: Node) -> Value:
    """log(1 + exp(x)) as max(x, 0) + log(1 + exp(-|x|)), which cannot overflow."""
    x = n.x()
    small = n.emit("tensor.exp", n.emit("tensor.neg", n.emit("tensor.abs", x)))
    return n.add(n.emit("tensor.max", x, n.scalar(0, x)), n.emit("tensor.log", n.add(small, n.scalar(1, x))))


@rule("Swish", since=24)
def swish(n: Node) -> Value:
    """x * sigmoid(alpha * x)."""
    x, alpha = n.x(), float(n.attr("alpha", 1.0))
    inner = x if alpha == 1.0 else n.mul(x, n.scalar(alpha, x))
    return n.mul(x, n.emit("tensor.sigmoid", inner))


@rule("Gelu", since=20)
def gelu(n: Node) -> Value:
    """Gaussian error linear unit, exact or by tanh."""
    return n.emit("tensor.gelu", n.x(), approximate=n.attr("approximate", "none"))


@rule("Cast")
def cast(n: Node) -> Value:
    """Conversion; every floating target becomes f32."""
    return _convert(n, n.x(), int(n.attr("to")))


@rule("CastLike")
def cast_like(n: Node) -> Value:
    """Conversion to the type of the second input."""
    return n.cast(n.x(0), dtype(n.x(1)))


def _convert(n: Node, x: Value, to: int) -> Value:
    n.check(to in IMPORTED, f"a target type among {', '.join(type_name(k) for k in IMPORTED)}", type_name(to))
    if to in WIDENED:
        n.note(f"cast to {type_name(to).lower()} is taken as f32")
    return n.cast(x, IMPORTED[to])


@rule("Identity")
def identity(n: Node) -> Value:
    """The input itself."""
    return n.x()


@rule("Dropout")
def dropout(n: Node) -> tuple[Value, Value | None]:
    """The input itself: in inference nothing is dropped, and the mask, if it is wanted, keeps everything."""
    if n.has(2):
        n.check(not bool(n.const(2, "training_mode").reshape(-1)[0]), "training_mode off", "training_mode on",
                hint="export the model in evaluation mode")
    return n.x(), n.constant(np.ones(shape(n.x()), bool)) if n.wants(1) else None


@rule("IsInf")
def is_inf(n: Node) -> Value:
    """True at infinities, of the signs that the node asks for."""
    x = n.x()
    both = n.attr("detect_positive", 1) and n.attr("detect_negative", 1)
    sign = 1 if n.attr("detect_positive", 1) else -1
    if not n.attr("detect_positive", 1) and not n.attr("detect_negative", 1):
        return n.constant(np.zeros(shape(x), bool))
    return n.emit("tensor.equal", n.emit("tensor.abs", x) if both else x, n.scalar(sign * np.inf, x))


@rule("BitwiseAnd", "BitwiseOr", "BitwiseXor", "BitwiseNot")
def bitwise(n: Node) -> Value:
    """Logic bit by bit on integers; on bools it is plain logic."""
    kind = n.op_type.removeprefix("Bitwise").lower()
    operands = [n.x(i) for i in range(1 if kind == "not" else 2)]
    prefix = "" if dtype(operands[0]) == "bool" else "bitwise_"
    return n.emit(f"tensor.{prefix}{kind}", *operands)


@rule("CumSum")
def cumsum(n: Node) -> Value:
    """Running sum along a constant axis."""
    axis = n.axis(n.ints(1, "the axis")[0], rank(n.x()))
    return n.emit("tensor.cumsum", n.x(), axis=axis, exclusive=bool(n.attr("exclusive", 0)),
                  reverse=bool(n.attr("reverse", 0)))


@rule("Trilu")
def trilu(n: Node) -> Value:
    """Upper or lower triangle of the last two axes."""
    k = n.ints(1, "the diagonal")[0] if n.has(1) else 0
    return n.emit("tensor.trilu", n.x(), k=k, upper=bool(n.attr("upper", 1)))
