# ruff: noqa: E501  (golden messages and small programs read better on one line)
"""Small hand-written programs against numpy."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from focusc.isa import Addr, Insn, R
from focusc.isa.insns import (
    Addi,
    CfgConvIn,
    CfgConvWin,
    CfgLayout,
    CfgPos,
    CfgSic,
    Endl,
    Fence,
    Fwd,
    LdAct,
    LdConc,
    LdIdx,
    LdPatch,
    LdWgt,
    Li,
    Loop,
    Mma,
    Sic,
    St,
    StIdx,
    Tile,
    VAdd,
    VAddi,
    VBlend,
    VCopy,
    VDiv,
    VErf,
    VExp,
    VExps,
    VFill,
    VGelu,
    VGelue,
    VGeluQuick,
    VLd,
    VLog,
    VMask,
    VMax,
    VMaxi,
    VMin,
    VMini,
    VMul,
    VMuli,
    VNeg,
    VRecip,
    VRmax,
    VRot,
    VRsqrt,
    VRsum,
    VRsumsq,
    VSel,
    VSigmoid,
    VSilu,
    VSqrt,
    VSub,
    VTanh,
)
from focusc.isa.program import conc_block
from tests.isa.helpers import Layout, close, run

F32 = np.float32


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> np.ndarray:
    return (np.random.default_rng(seed).standard_normal(shape) * scale).astype(np.float16)


def gemm(m: Layout, rows: int, k: int, n: int, tile_n: int, tile_k: int, x: int, y: int) -> list[Insn]:
    """y = x @ w, looping over whole column tiles and over k; the tail columns come after the loop."""
    def column(at: Addr, out: Addr, width: int) -> list[Insn]:
        text: list[Insn] = [Tile(1, 0, rows, width, width)]
        for k0 in range(0, k, tile_k):
            part = min(tile_k, k - k0)
            text += [LdAct(x + 2 * k0, rows, part, 2 * k),
                     LdWgt(Addr(at.base, at.offset + 2 * n * k0), part, width, 2 * n), Mma(1, part, k0 > 0)]
        return [*text, St(1, out, 2 * n)]

    whole, tail = divmod(n, tile_n)
    text: list[Insn] = [Li(1, m["w"]), Li(2, y), Loop(whole), *column(Addr(1), Addr(2), tile_n), Addi(1, 1, 2 * tile_n),
                        Addi(2, 2, 2 * tile_n), Endl()]
    return text + (column(Addr(1), Addr(2), tail) if tail else [])


@pytest.mark.parametrize(("rows", "k", "n"), [(70, 100, 110), (1, 1, 1), (33, 64, 96), (310, 192, 200)])
def test_gemm_with_tails(rows: int, k: int, n: int) -> None:
    w, x = normal(k, n, seed=1, scale=k ** -0.5), normal(rows, k)
    m = Layout(w=w)
    at, out = m.add("x", "input", x.shape), m.add("y", "output", (rows, n))
    result = run(m.program(gemm(m, rows, k, n, 48, 64, at, out)), {"x": x})
    close(result.outputs["y"], x.astype(F32) @ w.astype(F32), 1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_online_softmax_attention(causal: bool) -> None:
    rows, keys, width, block = 20, 40, 32, 16
    q, k, v = normal(rows, width), normal(keys, width, seed=1), normal(keys, width, seed=2)
    m = Layout()
    at = {name: m.add(name, "input", data.shape) for name, data in (("q", q), ("k", k), ("v", v))}
    out = m.add("o", "output", (rows, width))
    # t1 scores, t2 running maximum, t3 new maximum, t4 sum, t5 accumulator, t6 correction, t7 row maximum of the block
    text: list[Insn] = [Tile(2, 8192, rows, 1, 1), Tile(3, 8320, rows, 1, 1), Tile(4, 8448, rows, 1, 1),
                        Tile(6, 8576, rows, 1, 1), Tile(5, 4096, rows, width, width), VFill(2, -1e30), VFill(4, 0.0),
                        VFill(5, 0.0)]
    for start in range(0, keys, block):
        part = min(block, keys - start)
        text += [Tile(1, 0, rows, part, part), LdAct(at["q"], rows, width, 2 * width),
                 LdWgt(at["k"] + 2 * width * start, width, part, 2 * width, trans=1), Mma(1, width),
                 VMuli(1, 1, width ** -0.5)]
        if causal:
            text.append(VMask(1, keys - rows, start))
        text += [VCopy(3, 2), VRmax(3, 1, acc=1), VExps(6, 2, 3), VCopy(2, 3), VExps(1, 1, 3), VMul(4, 4, 6),
                 VRsum(4, 1, acc=1), VMul(5, 5, 6), Fwd(1), LdWgt(at["v"] + 2 * width * start, part, width, 2 * width),
                 Mma(5, part, acc=1)]
    text += [VRecip(4, 4), VMul(5, 5, 4), St(5, out, 2 * width)]
    result = run(m.program(text), {"q": q, "k": k, "v": v})
    scores = q.astype(F32) @ k.astype(F32).T * width ** -0.5
    if causal:
        scores = np.where(np.arange(keys)[None] > np.arange(rows)[:, None] + keys - rows, -np.inf, scores)
    weights = np.exp(scores - scores.max(1, keepdims=True))
    close(result.outputs["o"], weights / weights.sum(1, keepdims=True) @ v.astype(F32))


def test_concentrated_gemm_with_padded_last_slot_and_slot_range() -> None:
    rows, k, n = 24, 80, 40
    x, w = normal(rows, k), normal(k, n, seed=1, scale=0.1)
    x[12:] = x[:12]  # the second frame repeats the first
    m = Layout(w=w)
    at, y, z = m.add("x", "input", x.shape), m.add("y", "output", (rows, n)), m.add("z", "output", (rows, n))
    block, size = m.room(3 * conc_block(rows)), conc_block(rows)
    text = [CfgLayout(2, 3, 4, 12, 4, 1), CfgSic(2, 2, 2, threshold=0.9), CfgPos(0, rows, 0, 1), Tile(1, 0, rows, k, k),
            Tile(2, 16384, rows, n, n), LdAct(at, rows, k, 2 * k), VLd(1), Sic(1, block, rows, 0), Fence(act=1),
            LdConc(block, rows, 3, rows), LdWgt(m["w"], k, n, 2 * n), Mma(2, k), St(2, y, 2 * n),
            LdConc(block + size, rows, 1, rows), LdWgt(m["w"] + 64 * n, 32, n, 2 * n), Mma(2, 32), St(2, z, 2 * n)]
    result = run(m.program(text), {"x": x})
    assert (result.counts.unique[0] <= 12).all()
    close(result.outputs["y"], x.astype(F32) @ w.astype(F32))
    close(result.outputs["z"], x[:, 32:64].astype(F32) @ w[32:64].astype(F32))


def test_embedding_and_scatter_by_index() -> None:
    table = normal(50, 24)
    ids, places = np.array([7, 0, 49, 7, 3]), np.array([4, 0, 2, 1, 3])
    m = Layout(table=table)
    at, to = m.add("ids", "input", (5,), "i32"), m.add("places", "input", (5,), "i32")
    y, z = m.add("y", "output", (5, 24)), m.add("z", "output", (5, 24))
    text = [LdIdx(m["table"], at, 5, 24, 48, 50), St("s", y, 48), LdIdx(m["table"], at, 5, 24, 48, 50),
            StIdx("s", z, to, 48, 5), Fence(act=1), LdIdx(y, at, 1, 24, 0, 50), Tile(1, 0, 1, 24, 24), VLd(1)]
    result = run(m.program(text), {"ids": ids, "places": places}).outputs
    assert (result["y"] == table[ids]).all()
    assert (result["z"][places] == table[ids]).all()


@pytest.mark.parametrize(("shape", "kernel", "stride", "pad"), [
    ((2, 3, 1, 8, 8), (1, 2, 2), (1, 2, 2), (0, 0, 0)), ((1, 2, 4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 1, 0)),
    ((3, 1, 1, 4, 4), (1, 3, 3), (1, 1, 1), (0, 1, 1))])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_patches_are_im2col(shape: Any, kernel: Any, stride: Any, pad: Any, dtype: str) -> None:
    x = normal(*shape)
    out = [(shape[2 + i] + 2 * pad[i] - kernel[i]) // stride[i] + 1 for i in range(3)]
    rows, k = shape[0] * math.prod(out), shape[1] * math.prod(kernel)
    padded = np.pad(x, [(0, 0), (0, 0), *((p, p) for p in pad)])
    view = np.lib.stride_tricks.sliding_window_view(padded, kernel, (2, 3, 4))[:, :, ::stride[0], ::stride[1], ::stride[2]]
    expected = view.transpose(0, 2, 3, 4, 1, 5, 6, 7).reshape(rows, k)
    m = Layout()
    at, y = m.add("x", "input", shape, dtype), m.add("y", "output", (rows, k))
    first = rows // 3
    _, c, d, h, w = shape
    text: list[Insn] = [CfgConvIn(c, d, h, w, dtype), CfgConvWin(*kernel, *stride, *pad, *out)]
    for row0, count in ((0, first), (first, rows - first)):
        text += [LdPatch(at, row0, count, k), St("s", y + 2 * k * row0, 2 * k)]
    assert (run(m.program(text), {"x": x}).outputs["y"] == expected).all()


UNARY = {
    VExp: np.exp, VRecip: lambda a: 1 / a, VRsqrt: lambda a: 1 / np.sqrt(np.abs(a) + 1), VTanh: np.tanh, VNeg: np.negative,
    VSilu: lambda a: a / (1 + np.exp(-a)), VSigmoid: lambda a: 1 / (1 + np.exp(-a)),
    VGelu: lambda a: 0.5 * a * (1 + np.tanh(math.sqrt(2 / math.pi) * (a + 0.044715 * a ** 3))),
    VGelue: lambda a: 0.5 * a * (1 + np.vectorize(math.erf)(a / math.sqrt(2))),
    VGeluQuick: lambda a: a / (1 + np.exp(-1.702 * a)), VErf: np.vectorize(math.erf), VSqrt: np.sqrt, VLog: np.log,
}
POSITIVE = (VRsqrt, VSqrt, VLog)


def vector_program(text: Sequence[Insn], rows: int, cols: int, **tiles: tuple[int, ...]) -> Any:
    """Tiles t1 = a (input), t2 = b (input), t3 = d (output y), f32 in memory."""
    m = Layout()
    a, b = m.add("a", "input", (rows, cols), "f32"), m.add("b", "input", tiles.get("b", (rows, cols)), "f32")
    y = m.add("y", "output", tiles.get("y", (rows, cols)), "f32")
    high, wide = m.symbols[1].shape
    to_rows, to_cols = m.symbols[2].shape
    head = [Tile(1, 0, rows, cols, cols + 3), Tile(2, 64 * 400, high, wide, wide),
            Tile(3, 64 * 800, to_rows, to_cols, to_cols),
            LdAct(a, rows, cols, 4 * cols, "f32"), VLd(1), LdAct(b, high, wide, 4 * wide, "f32"), VLd(2)]
    return m.program([*head, *text, St(3, y, 4 * to_cols, "f32")])


@pytest.mark.parametrize("cls", UNARY, ids=lambda c: c.mnemonic)
def test_unary(cls: Any) -> None:
    a = np.linspace(-12, 12, 13 * 21, dtype=F32).reshape(13, 21)
    a[a == 0] = 0.5
    text = [VMax(1, 1, 2), cls(3, 1)] if cls in POSITIVE else [cls(3, 1)]
    b = np.full_like(a, 0.25)
    given = np.maximum(a, b) if cls in POSITIVE else a
    expected = 1 / np.sqrt(given) if cls is VRsqrt else UNARY[cls](given.astype(np.float64))
    found = run(vector_program(text, 13, 21), {"a": a, "b": b}).outputs["y"]
    np.testing.assert_allclose(found, expected, rtol=3e-6, atol=2e-6)


@pytest.mark.parametrize("shape", [(6, 12), (1, 12), (6, 1), (6, 4), (1, 3), (1, 1)])
@pytest.mark.parametrize(("cls", "function"), [
    (VAdd, np.add), (VSub, np.subtract), (VMul, np.multiply), (VMax, np.maximum), (VMin, np.minimum), (VDiv, np.divide),
    (VExps, lambda a, b: np.exp(a - b))])
def test_binary_broadcasts(cls: Any, function: Any, shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0.5, 2, (6, 12)).astype(F32), rng.uniform(0.5, 2, shape).astype(F32)
    found = run(vector_program([cls(3, 1, 2)], 6, 12, b=shape), {"a": a, "b": b}).outputs["y"]
    np.testing.assert_allclose(found, function(a, np.tile(b, (6 // shape[0], 12 // shape[1]))), rtol=1e-6)


def test_copy_repeats_and_streams_are_taken_in_order() -> None:
    a, b = np.arange(12, dtype=F32).reshape(2, 6), np.array([[1, 2, 3]], F32)
    assert (run(vector_program([VCopy(3, 2)], 2, 6, b=(1, 3)), {"a": a, "b": b}).outputs["y"] == [[1, 2, 3] * 2] * 2).all()
    m = Layout()
    at, y = m.add("a", "input", (2, 6)), m.add("y", "output", (2, 6))
    text = [Tile(3, 0, 2, 6, 6), LdAct(at, 2, 6, 12), LdAct(at + 12, 1, 6, 12), VSub(3, "s", "s"), St(3, y, 12)]
    assert (run(m.program(text), {"a": a}).outputs["y"] == a - a[1]).all()


@pytest.mark.parametrize(("cls", "value", "function"), [
    (VAddi, 0.1, np.add), (VMuli, -3.0, np.multiply), (VMaxi, 0.25, np.maximum), (VMini, 0.25, np.minimum)])
def test_scalar_immediates(cls: Any, value: float, function: Any) -> None:
    a = np.linspace(-1, 1, 20, dtype=F32).reshape(4, 5)
    found = run(vector_program([cls(3, 1, value)], 4, 5), {"a": a, "b": a}).outputs["y"]
    assert (found == function(a, F32(value))).all()


@pytest.mark.parametrize(("cls", "function"), [
    (VRsum, lambda a: a.sum(1)), (VRmax, lambda a: a.max(1)), (VRsumsq, lambda a: (a * a).sum(1))])
@pytest.mark.parametrize("acc", [0, 1])
def test_row_reductions(cls: Any, function: Any, acc: int) -> None:
    a = np.random.default_rng(0).integers(-9, 9, (5, 30)).astype(F32)
    found = run(vector_program([VFill(3, 2.0)] * acc + [cls(3, 1, acc)], 5, 30, y=(5, 1)), {"a": a, "b": a}).outputs["y"]
    expected = function(a)
    if acc:
        expected = np.maximum(expected, 2) if cls is VRmax else expected + 2
    assert (found[:, 0] == expected).all()


@pytest.mark.parametrize("shape", [(4, 6), (1, 6), (4, 1), (1, 3)])
def test_blend_keeps_what_the_mask_names(shape: tuple[int, int]) -> None:
    a = np.random.default_rng(0).integers(-1, 2, (4, 6)).astype(F32)
    b = np.arange(10, 10 + shape[0] * shape[1], dtype=F32).reshape(shape)
    text: list[Insn] = [VFill(3, -7.0), VBlend(3, 1, 2)]
    wide = np.broadcast_to(np.tile(b, (1, 6 // shape[1])), (4, 6))
    found = run(vector_program(text, 4, 6, b=shape), {"a": a, "b": b}).outputs["y"]
    assert (found == np.where(a != 0, F32(-7), wide)).all()


@pytest.mark.parametrize("interleaved", [0, 1])
@pytest.mark.parametrize("d", [1, 3])
def test_rotate(interleaved: int, d: int) -> None:
    a = np.random.default_rng(0).standard_normal((3, 24)).astype(F32)
    heads = a.reshape(3, 3, 8)
    if interleaved:
        expected = np.stack([-heads[..., 1::2], heads[..., ::2]], -1).reshape(3, 24)
    else:
        expected = np.concatenate([-heads[..., 4:], heads[..., :4]], -1).reshape(3, 24)
    text = [VRot(d, 1, 8, interleaved), *([VCopy(3, 1)] if d == 1 else [])]
    assert (run(vector_program(text, 3, 24), {"a": a, "b": a}).outputs["y"] == expected).all()


@pytest.mark.parametrize(("row0", "col0"), [(0, 0), (5, 2), (-3, 0), (0, -4), (100, 0)])
@pytest.mark.parametrize("window", [0, 1, 3, 50, 103])
@pytest.mark.parametrize("inf", [0, 1])
def test_mask(row0: int, col0: int, window: int, inf: int) -> None:
    a = np.ones((6, 9), F32)
    text: list[Insn] = [VCopy(3, 1), VMask(3, row0, col0, inf, window), VExps(3, 3, 2)]  # exp of what is hidden is 0
    found = run(vector_program(text, 6, 9), {"a": a, "b": a}).outputs["y"]
    behind = row0 + np.arange(6)[:, None] - (col0 + np.arange(9)[None])
    seen = (behind >= 0) & (behind < window) if window else behind >= 0
    assert (found == np.where(seen, F32(1), F32(0))).all()


def test_a_hidden_score_is_the_most_negative_number_or_infinite() -> None:
    a = np.ones((2, 3), F32)
    for inf, hidden in ((0, F32(-3.4028235e38)), (1, F32(-np.inf))):
        program = vector_program([VCopy(3, 1), VMask(3, 0, 0, inf)], 2, 3)
        found = run(program, {"a": a, "b": a}).outputs["y"]
        assert (found == np.where(np.tri(2, 3, dtype=bool), a, hidden)).all()


@pytest.mark.parametrize("shape", [(6, 9), (1, 9), (6, 1), (1, 1), (6, 3)])
def test_select_keeps_where_the_second_source_is_positive(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    a, b = normal(6, 9), rng.integers(-1, 2, shape).astype(F32)
    m = Layout()
    at, keep, y = (m.add(n, kind, s, "f32") for n, kind, s in
                   (("a", "input", (6, 9)), ("b", "input", shape), ("y", "output", (6, 9))))
    text = [Tile(1, 0, 6, 9, 9), LdAct(at, 6, 9, 36, "f32"), LdAct(keep, *shape, 4 * shape[1], "f32"), VSel(1, "s", "s"),
            St(1, y, 36, "f32")]
    found = run(m.program(text), {"a": a, "b": b}).outputs["y"]
    wide = np.tile(b, (1, 9 // shape[1]))
    assert (found == np.where(wide > 0, a, F32(-3.4028235e38))).all()


@pytest.mark.parametrize("dtype", ["f16", "bf16", "i8", "f32"])
def test_storage_types_round_to_nearest_even(dtype: str) -> None:
    a = np.array([[1.5, 2.5, -2.5, 300.0, -300.0, 1 + 2 ** -9, 1 + 3 * 2 ** -9, 0.1]], F32)
    m = Layout()
    at, b, y = m.add("a", "input", (1, 8), "f32"), m.room(64), m.add("y", "output", (1, 8), "f32")
    text = [LdAct(at, 1, 8, 0, "f32"), St("s", b, 0, dtype), Fence(act=1), LdAct(b, 1, 8, 0, dtype), St("s", y, 0, "f32")]
    found = run(m.program(text), {"a": a}).outputs["y"][0]
    bf16 = [1.5, 2.5, -2.5, 300.0, -300.0, 1.0, 1.0078125, 0.10009765625]
    expected = {"f16": a[0].astype(np.float16).astype(F32), "bf16": bf16, "i8": [2, 2, -2, 127, -128, 1, 1, 0], "f32": a[0]}
    assert found.tolist() == list(expected[dtype])


def test_a_load_keeps_its_data_when_memory_is_overwritten_before_it_is_used() -> None:
    x = normal(4, 8)
    m = Layout()
    at, y = m.add("x", "input", (4, 8)), m.add("y", "output", (4, 8))
    text = [Tile(1, 0, 4, 8, 8), VFill(1, 9.0), LdAct(at, 4, 8, 16), Fence(store=1), St(1, at, 16), St("s", y, 16)]
    assert (run(m.program(text), {"x": x}).outputs["y"] == x).all()


def test_loop_registers_reach_every_operand_kind() -> None:
    x = normal(6, 8)
    m = Layout()
    at, y = m.add("x", "input", (6, 8)), m.add("y", "output", (6, 8))
    text = [Li(1, 1), Li(2, 0), Li(4, 16), Loop(6), Tile(1, R(2, 64), R(1), R(0, 8), R(1, 7)),
            LdAct(Addr(2, at), R(1), R(1, 7), R(4)), VLd(1), St(1, Addr(2, y), R(4)), Addi(2, 2, 16), Addi(3, 3, 64), Endl()]
    text[4] = Tile(1, R(3, 64), R(1), R(0, 8), R(1, 7))
    assert (run(m.program(text), {"x": x}).outputs["y"] == x).all()
