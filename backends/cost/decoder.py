"""A decoder layer as the cost models see it: its products, and the work that the published accounting leaves out."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from focusc.backends.cost.accounting import Accounting, Quirk
from focusc.backends.cost.arithmetic import Floats, Numbers, ceil
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import Ints, Shape
from focusc.backends.cost.result import OPS, Ledger
from focusc.isa.machine import Array

__all__ = ["ADDED", "LINEAR", "Product", "book_gemm", "count_dense", "products", "rows_with_text",
           "text_rows", "vector_work", "write_result"]

B = ELEMENT_BYTES


@dataclass(frozen=True)
class Product:
    """One linear layer: depth k, columns n, the site it reads and the one it feeds ("" for none)."""

    op: str
    site: str
    k: int
    n: int
    feeds: str = ""


LINEAR = OPS[:3] + OPS[4:8]


def products(shape: Shape) -> tuple[Product, ...]:
    """The seven linear layers of a decoder layer, in order."""
    query, keys = shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    return (
        Product("q_proj", "q_proj", shape.width, query, "query"),
        Product("k_proj", "q_proj", shape.width, keys),
        Product("v_proj", "q_proj", shape.width, keys),
        Product("o_proj", "o_proj", query, shape.width, "gate_proj"),
        Product("gate_proj", "gate_proj", shape.width, shape.ffn, "down_proj"),
        Product("up_proj", "gate_proj", shape.width, shape.ffn, "down_proj"),
        Product("down_proj", "down_proj", shape.ffn, shape.width, "q_proj"),
    )


def text_rows(shape: Shape, accounting: Accounting) -> int:
    """Text tokens that the accounting charges."""
    return 0 if Quirk.IMAGE_TOKENS_ONLY in accounting else shape.text_tokens


def rows_with_text(shape: Shape, accounting: Accounting) -> int:
    """Rows of the sequence before any pruning."""
    return shape.visual_tokens + text_rows(shape, accounting)


def count_dense(ledger: Ledger, shape: Shape, rows: int) -> None:
    """Multiply-accumulates of the dense decoder: causal attention as half a square (published, rounded down)."""
    for p in products(shape):
        ledger.dense_macs[:, OPS.index(p.op)] += rows * p.n * p.k
    ledger.dense_macs[:, OPS.index("attention")] += 2 * (rows * rows * shape.head_size * shape.heads // 2)


def write_result(ledger: Ledger, accounting: Accounting, op: str, size: Numbers) -> None:
    """DRAM bytes of a product's result, booked where it is written.

    With vector work, the gate stays on the chip for its product with up, and what `o_proj` and `down_proj` add to the
    residual stream is written by the normalisation that reads it.
    """
    if Quirk.NO_VECTOR_WORK not in accounting:
        if op == "gate_proj":
            return
        if op in ADDED:
            op = "norm"
    ledger.move(op, "output", write=size)


ADDED = ("o_proj", "down_proj")
"""Products whose result is added to the residual stream."""


def book_gemm(ledger: Ledger, accounting: Accounting, op: str, m: Ints, k: Ints | int, n: Ints | int,
              share: Floats | float, tiles: tuple[int, int], array: Array, *,
              weight_reads: Floats | None = None) -> None:
    """Bytes of a dense product (m, k, n) on the weight-stationary array, times `share` (cost_model section 1).

    `tiles` are the rows and columns of an output tile; `weight_reads` replaces the number of times the weights are
    read.
    """
    reads = ceil(m, tiles[0]) if weight_reads is None else weight_reads
    columns, cycles = ceil(np.asarray(n), tiles[1]), ceil(m * k * n, array.macs_per_cycle)
    read, weights, out = share * (m * k * columns * B), share * (k * n * reads * B), share * (m * n * B)
    ledger.move(op, "activation", read=read)
    ledger.touch(op, "activation", read=share * (cycles * array.rows * B), write=read)
    ledger.move(op, "weights", read=weights)
    ledger.touch(op, "weights", read=weights, write=weights)
    write_result(ledger, accounting, op, out)
    ledger.touch(op, "output", read=out, write=share * (cycles * array.cols * B))


# Units of the vector unit that one element passes, by kind; the same assumptions as `sfu.uses` of the descriptions.
NORM = {"mul": 3, "add": 1}  # square and sum; scale by row; scale by column
ROPE = {"mul": 2, "add": 2}
GATED = {"mul": 6, "add": 4, "exp": 1}  # silu(gate) * up
RESIDUAL = {"add": 1}
SOFTMAX = {"mul": 1, "add": 3, "exp": 1}  # scale; maximum, subtract, sum; exponential


def vector_cycles(ledger: Ledger, hardware: Accelerator, op: str, elements: Numbers,
                  uses: dict[str, int]) -> Floats:
    """Cycles of the vector unit: the slowest kind of unit; every kind is at work for its own share."""
    slowest = np.zeros(ledger.layers)
    for unit, times in uses.items():
        cycles = np.asarray(elements, np.float64) * times / getattr(hardware.sfu, unit)
        ledger.work(op, unit, cycles)
        slowest = np.maximum(slowest, cycles)
    return slowest


def vector_work(ledger: Ledger, shape: Shape, hardware: Accelerator, accounting: Accounting, before: Ints, after: Ints,
                scores: Floats, panels: Floats, gather: Numbers = 0.0) -> None:
    """Vector work and the traffic of the residual stream, unless the accounting leaves them out.

    `before` and `after`: rows of attention and of the feed-forward block in each layer. `scores`: elements of the score
    matrices that are computed; `panels`: rows x key panels, each of which rescales a row of the result; `gather`:
    cycles of the similarity concentrator behind the normalisations. Epilogues and softmax run beside the array, so only
    what is longer stalls it; the two normalisations stand alone.
    """
    if Quirk.NO_VECTOR_WORK in accounting:
        return
    array = {op: ledger.compute[:, OPS.index(op)].copy() for op in OPS}

    def beside(op: str, cycles: Floats) -> None:
        ledger.stall(op, "vector", cycles - array[op])

    d, q, kv = shape.width, shape.heads * shape.head_size, shape.kv_heads * shape.head_size
    beside("q_proj", vector_cycles(ledger, hardware, "q_proj", before * q, ROPE))
    beside("k_proj", vector_cycles(ledger, hardware, "k_proj", before * kv, ROPE))
    softmax = vector_cycles(ledger, hardware, "attention", scores, SOFTMAX)
    rescale = vector_cycles(ledger, hardware, "attention", panels * shape.head_size, {"mul": 1})
    beside("attention", softmax + rescale)
    beside("o_proj", vector_cycles(ledger, hardware, "o_proj", before * d, RESIDUAL))
    beside("up_proj", vector_cycles(ledger, hardware, "up_proj", after * shape.ffn, GATED))
    beside("down_proj", vector_cycles(ledger, hardware, "down_proj", after * d, RESIDUAL))
    for op, rows in (("o_proj", before), ("down_proj", after)):
        ledger.move(op, "residual", read=rows * d * B, write=rows * d * B)
        ledger.touch(op, "activation", read=rows * d * B, write=rows * d * B)
    alone = vector_cycles(ledger, hardware, "norm", (before + after) * d, NORM)
    ledger.stall("norm", "vector", alone)
    ledger.stall("norm", "gather", gather - alone)
    ledger.move("norm", "residual", read=(before + after) * d * B)
    ledger.touch("norm", "activation", read=(before + after) * d * B, write=(before + after) * d * B)
