"""Cost of CMC: rows like those of a reference frame are skipped, found by a video codec's motion search (section 3)."""

from __future__ import annotations

import math

import numpy as np

from focusc.backends.cost.accounting import Accounting, Quirk
from focusc.backends.cost.arithmetic import Floats, array_cycles, ceil
from focusc.backends.cost.attention import causal_share, useful_share
from focusc.backends.cost.decoder import count_dense, products, rows_with_text, text_rows, vector_work, write_result
from focusc.backends.cost.hardware import ELEMENT_BYTES, Accelerator
from focusc.backends.cost.interface import CodecSparsity, Shape
from focusc.backends.cost.options import Options
from focusc.backends.cost.result import OPS, Ledger
from focusc.isa.errors import IsaError

B = ELEMENT_BYTES


class _Codec:
    """The clip in groups of frames, and the array behind the codec."""

    def __init__(self, ledger: Ledger, shape: Shape, hardware: Accelerator, accounting: Accounting,
                 options: Options) -> None:
        self.ledger, self.shape, self.hardware = ledger, shape, hardware
        self.accounting, self.model = accounting, options.array
        self.frames = shape.grid[0]
        self.patches, left = divmod(shape.visual_tokens, max(self.frames, 1))
        if not self.frames or left:
            raise IsaError("cost.workload", f"{shape.visual_tokens} visual tokens are no whole number of tokens for "
                           f"each of {self.frames} frames; the codec compares frames", where=shape.name)
        assert hardware.codec is not None
        self.codec = hardware.codec
        self.groups = int(ceil(self.frames, self.codec.frames_per_group))
        self.text = text_rows(shape, accounting)

    def rows(self, sparsity: float) -> float:
        """Rows that are computed; a fraction as published."""
        kept = self.shape.visual_tokens * (1 - sparsity)
        return (kept if Quirk.FRACTIONAL_ROWS in self.accounting else float(round(kept))) + self.text

    def cycles(self, k: int, n: int, sparsity: float) -> float:
        """Array cycles: one pass a group of frames with the mean rows; or every row, in tiles that fit the buffer."""
        array, kept = self.hardware.array, self.shape.visual_tokens * (1 - sparsity) + self.text
        if Quirk.ROUNDED_ROWS in self.accounting:
            rows, passes = float(int(kept + self.groups - 1) // self.groups * self.groups), self.groups
        else:
            rows = float(round(kept))
            passes = self.groups * int(ceil(-(-int(rows) // self.groups), self.hardware.tiles.m))
        once = array_cycles(array, rows, passes, self.model)
        return float(once) * int(ceil(n, array.cols)) * int(ceil(k, array.rows))

    def search(self, op: str, k: int, times: float = 1.0, share: Floats | float = 1.0, *,
               first: bool = False) -> Floats:
        """Bytes of a codec pass over `times` inputs of depth k; returns its cycles, unless they are free.

        Every token is compared with all tokens of its group's reference frame. `first`: in the first layer alone.
        """
        ledger, length = self.ledger, self.shape.visual_tokens
        where = np.ones(ledger.layers) * times * share
        if first:
            where[1:] = 0
        read = where * (length * k * B)
        ledger.move(op, "activation", read=read)
        ledger.touch(op, "activation", read=where * (self.frames * self.patches**2 * k), write=read)
        if Quirk.CODEC_FREE in self.accounting:
            return np.zeros(ledger.layers)
        differences = where * ((self.frames - self.groups) * self.patches**2 * k)
        cycles = differences / (self.codec.engines * self.codec.lanes)
        ledger.work(op, "codec", cycles)
        return cycles

    def book(self, op: str, k: int, n: int, sparsity: float, share: Floats | float = 1.0, *,
             panels: bool = False) -> None:
        """Bytes of a product, times `share`; `panels`: the weights are keys or values."""
        array, tiles, m = self.hardware.array, self.hardware.tiles, self.rows(sparsity)
        group = self.shape.heads // self.shape.kv_heads
        if panels and Quirk.KV_PER_HEAD not in self.accounting:
            reads = -(-round(m * group) // tiles.m) / group
        else:
            reads = (m + tiles.m - 1) // tiles.m
        columns, cycles = int(ceil(n, tiles.n)), (m * k * n + array.macs_per_cycle - 1) // array.macs_per_cycle
        read, weights, out = share * (m * k * columns * B), share * (n * k * reads * B), share * (n * m * B)
        self.ledger.move(op, "activation", read=read)
        self.ledger.move(op, "weights", read=weights)
        write_result(self.ledger, self.accounting, op, out)
        self.ledger.touch(op, "activation", read=share * (cycles * array.rows * B), write=read)
        self.ledger.touch(op, "weights", read=weights, write=weights)
        self.ledger.touch(op, "output", read=out, write=share * (cycles * array.cols * B))


def fill(ledger: Ledger, shape: Shape, trace: CodecSparsity, hardware: Accelerator, accounting: Accounting,
         options: Options) -> None:
    """Charge every operation to the ledger."""
    codec = _Codec(ledger, shape, hardware, accounting, options)
    length, rows = rows_with_text(shape, accounting), codec.rows(trace.linear)
    for p in products(shape):
        cycles = codec.cycles(p.k, p.n, trace.linear)
        ledger.run(p.op, cycles, macs=rows * p.n * p.k)
        codec.book(p.op, p.k, p.n, trace.linear)
        every = Quirk.CODEC_EVERY_OP in accounting
        if p.op == "q_proj" or (every and p.op not in ("k_proj", "v_proj")):
            ledger.stall(p.op, "codec", codec.search(p.op, p.k, first=not every) - cycles)
    count_dense(ledger, shape, length)
    _attention(codec, trace, length)
    d, h = shape.head_size, shape.heads
    left = [length * (1 - share) for share in (trace.linear, trace.query, trace.score)]
    inputs = [p.k * left[0] * B for p in products(shape)] + [d * h * left[1] * B + length * h * left[2] * B]
    ledger.activation_bytes = float(math.floor(ledger.layers * sum(inputs)))


def _attention(codec: _Codec, trace: CodecSparsity, length: int) -> None:
    """Queries and score rows each have their own table. Whole score rows are compared, so they go to DRAM and back."""
    ledger, shape, hardware, accounting = codec.ledger, codec.shape, codec.hardware, codec.accounting
    d, h, op, half = shape.head_size, shape.heads, "attention", Quirk.CAUSAL_HALF in accounting
    whole = np.full(ledger.layers, length, np.int64)
    tile = min(hardware.tiles.m, -(-length // codec.groups))
    share = causal_share(whole, tile, hardware.array.cols, accounting)
    products_ = (codec.cycles(d, length, trace.query), codec.cycles(length, d, trace.score))
    queries, scores = codec.rows(trace.query), codec.rows(trace.score)
    if half:
        cycles = sum(products_) * h // 2
        macs = h * queries * d * length // 2 + h * scores * d * length // 2
    else:
        cycles = sum(products_) * h * share
        macs = (queries + scores) * h * d * length * useful_share(whole, accounting)
    ledger.run(op, cycles, macs=macs)
    codec.book(op, d, length, trace.query, h * share, panels=True)
    codec.book(op, length, d, trace.score, h * share, panels=True)
    if not half:
        rest = (1 - share) * h * scores * d * B
        ledger.move(op, "output", write=rest)
        ledger.touch(op, "output", read=rest)
    full = share if half else 1.0  # a codec pass reads all queries, but only the scores that are computed
    search = codec.search(op, d, h, full) + codec.search(op, length, h, share)
    rows = np.full(ledger.layers, round(codec.rows(trace.linear)), np.int64)
    vector_work(ledger, shape, hardware, accounting, rows, rows, share * queries * length * h, np.zeros(ledger.layers))
    waited = ledger.stalls["vector"][:, OPS.index(op)]
    ledger.stall(op, "codec", search - cycles - waited)
