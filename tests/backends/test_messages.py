"""Messages of code generation, which tile-level text from elsewhere can provoke, and of hardware descriptions."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import pytest

from focusc.backends import compile_module, load_hardware
from focusc.backends.hardware import parse_hardware
from focusc.ir import parse
from tests.messages import check_message

FOCUS = load_hardware("focus")
HEAD = """module "m"(%x: tensor<4x32xf32>) -> ("y") {level = "tile"} {
  %b = tile.bind(%x) {shape = [4, 32], dtype = "f16", address = -1} : buffer<4x32xf16, rows>
  tile.fence() {channels = ["act", "store"]} loc("node" "layers.0")
  %o = tile.buffer() {OUT} : buffer<4x32xf16, rows>
  %c0 = tile.affine() {coef = [], const = 0} : index
  %c4 = tile.affine() {coef = [], const = 4} : index
  %c32 = tile.affine() {coef = [], const = 32} : index
""".replace("{OUT}", '{shape = [4, 32], dtype = "f16", layout = "rows", first = 0, m = 0, label = "o", address = -1}')
TAIL = """  %y = tile.read(%o) {shape = [4, 32], dtype = "f32"} : tensor<4x32xf32>
  return(%y)
}
"""
LOAD = "  %{} = tile.load(%b, %c0, %c0, %c4, %c32) {{max_rows = 4, max_cols = 32}} : stream<4x32, dense>\n"
TILE = "  %{} = tile.from_stream(%{}) : tile<4x32>\n"
ADD = '  %{} = tile.binary(%{}, %{}) {{fn = "add"}} : tile<4x32>\n'
STORE = "  tile.store(%{}, %o, %c0, %c0)\n"
COPY = LOAD.format("s") + TILE.format("t", "s") + STORE.format("t")


def generated(body: str) -> Callable[[], object]:
    return lambda: compile_module(parse(HEAD + body + TAIL), FOCUS)


def many_tiles() -> str:
    """More tiles that are needed at once than there are descriptors."""
    extents = "max_rows = 4, max_cols = 32"
    fills = [f"  %f{i} = tile.fill(%c4, %c32) {{value = {i}.0, {extents}}} : tile<4x32>\n" for i in range(40)]
    sums = [ADD.format(f"s{i}", f"s{i - 1}" if i else "f39", f"f{i}") for i in range(39)]
    return "".join(fills) + "".join(sums) + STORE.format("s38")


HOST_CALL = """module "m"(%x: tensor<4x32xf32>) -> ("y") {
  %y = host.call(%x) {nodes = []} { ^(%a: tensor<4x32xf32>):
    %b = tensor.cumsum(%a) {axis = 0} : tensor<4x32xf32>
    yield(%b)
  } : tensor<4x32xf32> loc("scan" "layers.0")
  return(%y)
}
"""
LOOP = """  tile.for(%c4) {total = 4, step = 2, first = 1} { ^(%it: index, %off: index, %len: index):
    yield()
  }
"""


def linear(weight: str) -> Callable[[], object]:
    text = f"""module "m"(%x: tensor<4x2xf32>) -> ("y") {{
  %w = tensor.constant() {{value = {weight}}} : tensor<2x2xf32> loc("w" "layers.0.weight")
  %y = nn.linear(%x, %w, _) {{epilogue = "none"}} : tensor<4x2xf32> loc("product" "layers.0")
  return(%y)
}}
"""
    return lambda: compile_module(parse(text), FOCUS)


CASES: dict[str, Callable[[], object]] = {
    "codegen.host": lambda: compile_module(parse(HOST_CALL), FOCUS),
    "codegen.op": generated(COPY + "  %z = tensor.exp(%x) : tensor<4x32xf32>\n"),
    "codegen.stream": generated(
        LOAD.format("s") + COPY.replace("%s", "%r") + TILE.format("u", "s") + STORE.format("u")
    ),
    "codegen.stream-left": generated(COPY + LOAD.format("r")),
    "codegen.loop": generated(LOOP),
    "codegen.tiles": generated(many_tiles()),
    "codegen.range-whole": generated(
        "  %i = tensor.constant() {value = dense<1x2xi64, [5, 1099511627776]>} : tensor<1x2xi64>\n"
        '  %j = tile.bind(%i) {shape = [1, 2], dtype = "i32", address = -1} : buffer<1x2xi32, rows>\n' + COPY
    ),
    "codegen.range": linear("dense<2x2xf32, [1.0, 2.0, 1e+06, 4.0]>"),
    "codegen.weights": linear('absent<2x2xf32, "layers.0.weight">'),
}


@pytest.mark.parametrize("name", CASES)
def test_message(name: str, request: pytest.FixtureRequest) -> None:
    check_message(name, CASES[name], request)


def description(old: str, new: str) -> Callable[[], object]:
    text = resources.files("focusc.backends").joinpath("focus/focus.toml").read_text(encoding="utf-8")
    assert old in text
    return lambda: parse_hardware(text.replace(old, new, 1), "mine.toml")


def test_hardware_descriptions(request: pytest.FixtureRequest) -> None:
    check_message("hardware.toml", lambda: parse_hardware("[array]\nrows = = 4\n", "mine.toml"), request)
    lines = r"(?<=line )\d+"
    check_message("hardware.description", description("importance_entries", "importance_entrys"), request, hide=lines)
    check_message("hardware.description-table", description("[sfu.uses]", "[sfu.use]"), request, hide=lines)
    nested = description("add = { add = 1 }", "add = { ad = 1 }")
    check_message("hardware.description-nested", nested, request, hide=lines)
    check_message("hardware.unknown", lambda: load_hardware("focuss"), request)


def test_tile_level_text_without_accounts_compiles() -> None:
    assert compile_module(parse(HEAD + COPY + TAIL), FOCUS).meta["nodes"][0]["node"] == "node"
