"""How the ops of the tensor dialect are written in ONNX: most are one operator."""

from __future__ import annotations

from focusc.host.graph import ELEMENTS, Site, rule

SAME = {
    "add": "Add",
    "sub": "Sub",
    "mul": "Mul",
    "div": "Div",
    "max": "Max",
    "min": "Min",
    "pow": "Pow",
    "neg": "Neg",
    "abs": "Abs",
    "sign": "Sign",
    "sqrt": "Sqrt",
    "reciprocal": "Reciprocal",
    "exp": "Exp",
    "log": "Log",
    "sigmoid": "Sigmoid",
    "tanh": "Tanh",
    "erf": "Erf",
    "cos": "Cos",
    "sin": "Sin",
    "floor": "Floor",
    "ceil": "Ceil",
    "round": "Round",
    "equal": "Equal",
    "greater": "Greater",
    "greater_equal": "GreaterOrEqual",
    "less": "Less",
    "less_equal": "LessOrEqual",
    "and": "And",
    "or": "Or",
    "xor": "Xor",
    "not": "Not",
    "bitwise_and": "BitwiseAnd",
    "bitwise_or": "BitwiseOr",
    "bitwise_xor": "BitwiseXor",
    "bitwise_not": "BitwiseNot",
    "isnan": "IsNaN",
    "where": "Where",
    "matmul": "MatMul",
}
"""Ops without attributes that are one operator over the same operands."""


@rule(*(f"tensor.{name}" for name in SAME))
def same(s: Site, *xs: str) -> str:
    return s.add(SAME[s.op.name.split(".")[1]], *xs)


@rule("tensor.mod")
def mod(s: Site, x: str, y: str) -> str:
    """ONNX has floats with the sign of x only."""
    if s.op.attrs["fmod"] or s.dtype(0).startswith("i"):
        return s.add("Mod", x, y, fmod=int(s.op.attrs["fmod"]))
    return s.add("Sub", x, s.add("Mul", s.add("Floor", s.add("Div", x, y)), y))


@rule("tensor.gelu")
def gelu(s: Site, x: str) -> str:
    return s.add("Gelu", x, approximate=s.op.attrs["approximate"])


@rule("tensor.cast")
def cast(s: Site, x: str) -> str:
    return s.add("Cast", x, to=ELEMENTS[s.op.attrs["to"]])


@rule("tensor.constant")
def constant(s: Site) -> str:
    return s.graph.constant(s.op.attrs["value"].array, s.result.dtype)


@rule("tensor.range")
def range_(s: Site) -> str:
    return s.graph.constant(type(s.op).evaluate(**s.op.keywords()), s.result.dtype)


@rule("tensor.trilu")
def trilu(s: Site, x: str) -> str:
    """onnxruntime has no kernel for i32."""
    k, upper = s.graph.constant(s.op.attrs["k"], "i64"), int(s.op.attrs["upper"])
    if s.dtype(0) == "i32":
        return s.graph.cast(s.add("Trilu", s.graph.cast(x, "i64"), k, upper=upper), "i32")
    return s.add("Trilu", x, k, upper=upper)


@rule("tensor.reduce_sum", "tensor.reduce_mean", "tensor.reduce_max", "tensor.reduce_min", "tensor.reduce_prod")
def reduce(s: Site, x: str) -> str:
    axes = s.op.attrs.get("axes") or range(s.type(0).rank)
    kind = s.op.name.split("_")[1].capitalize()
    return s.add(f"Reduce{kind}", x, s.graph.ints(list(axes)), keepdims=int(s.op.attrs["keepdims"]))


@rule("tensor.argmax")
def argmax(s: Site, x: str) -> str:
    """onnxruntime has no kernel for i64, and none of its kernels sees bools; `top_k` keeps ties in order as well."""
    axis = s.op.attrs["axis"]
    if s.dtype(0) not in ("i64", "bool"):
        return s.add("ArgMax", x, axis=axis, keepdims=int(s.op.attrs["keepdims"]))
    whole = s.graph.cast(x, "i64") if s.dtype(0) == "bool" else x
    found = s.graph.outputs("TopK", [whole, s.graph.ints([1])], 2, axis=axis, largest=1, sorted=1)[1]
    return found if s.op.attrs["keepdims"] else s.add("Squeeze", found, s.graph.ints([axis]))


@rule("tensor.top_k")
def top_k(s: Site, x: str) -> list[str]:
    a = s.op.attrs
    count = s.graph.ints([a["k"]])
    return s.graph.outputs("TopK", [x, count], 2, axis=a["axis"], largest=int(a["largest"]), sorted=1)


@rule("tensor.softmax")
def softmax(s: Site, x: str) -> str:
    return s.add("Softmax", x, axis=s.op.attrs["axis"])


@rule("tensor.cumsum")
def cumsum(s: Site, x: str) -> str:
    a = s.op.attrs
    axis = s.graph.constant(a["axis"], "i64")
    return s.add("CumSum", x, axis, exclusive=int(a["exclusive"]), reverse=int(a["reverse"]))


@rule("tensor.transpose")
def transpose(s: Site, x: str) -> str:
    return s.add("Transpose", x, perm=list(s.op.attrs["perm"]))


@rule("tensor.reshape")
def reshape(s: Site, x: str) -> str:
    return s.reshape(x, s.result.shape)


@rule("tensor.slice")
def slice_(s: Site, x: str) -> str:
    a = s.op.attrs
    axes = a.get("axes") or range(len(a["starts"]))
    steps = a.get("steps") or [1] * len(a["starts"])
    return s.add("Slice", x, *(s.graph.ints(list(v)) for v in (a["starts"], a["ends"], axes, steps)))


@rule("tensor.concat")
def concat(s: Site, *xs: str) -> str:
    return s.add("Concat", *xs, axis=s.op.attrs["axis"])


@rule("tensor.expand")
def expand(s: Site, x: str) -> str:
    return s.add("Expand", x, s.graph.ints(s.result.shape))


@rule("tensor.tile")
def tile(s: Site, x: str) -> str:
    return s.add("Tile", x, s.graph.ints(s.op.attrs["repeats"]))


@rule("tensor.pad")
def pad(s: Site, x: str) -> str:
    a = s.op.attrs
    fill = s.graph.constant(a["value"], s.dtype(0)) if a["mode"] == "constant" else ""
    return s.add("Pad", x, s.graph.ints(a["pads"]), *([fill] if fill else []), mode=a["mode"])


@rule("tensor.gather")
def gather(s: Site, x: str, indices: str) -> str:
    return s.add("Gather", x, indices, axis=s.op.attrs["axis"])


@rule("tensor.gather_elements")
def gather_elements(s: Site, x: str, indices: str) -> str:
    return s.add("GatherElements", x, indices, axis=s.op.attrs["axis"])


@rule("tensor.gather_nd")
def gather_nd(s: Site, x: str, indices: str) -> str:
    return s.add("GatherND", x, s.graph.cast(indices, "i64"), batch_dims=s.op.attrs["batch_dims"])


@rule("tensor.scatter_nd")
def scatter_nd(s: Site, x: str, indices: str, updates: str) -> str:
    return s.add("ScatterND", x, s.graph.cast(indices, "i64"), updates, reduction=s.op.attrs["reduction"])


@rule("tensor.conv")
def conv(s: Site, x: str, w: str, bias: str | None) -> str:
    a = s.op.attrs
    windows = {name: list(a[name]) or None for name in ("strides", "pads", "dilations")}
    return s.add("Conv", x, w, *([bias] if bias else []), group=a["group"], **windows)


@rule("tensor.average_pool")
def average_pool(s: Site, x: str) -> str:
    a = s.op.attrs
    windows = {name: list(a[name]) or None for name in ("strides", "pads")}
    return s.add("AveragePool", x, kernel_shape=a["kernel"], count_include_pad=int(a["count_include_pad"]), **windows)


@rule("tensor.max_pool")
def max_pool(s: Site, x: str) -> str:
    a = s.op.attrs
    windows = {name: list(a[name]) or None for name in ("strides", "pads", "dilations")}
    return s.add("MaxPool", x, kernel_shape=a["kernel"], **windows)
