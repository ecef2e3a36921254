"""The two accountings and what lies between them: every quirk of the published figures, declared once.

`PUBLISHED` has all quirks and reproduces the published tables; `CORRECTED` has none. Any set in between is an
`Accounting` too, so the effect of one quirk is measured by leaving it out: `python -m focusc.backends.cost.quirks`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Final

from focusc.isa.errors import IsaError

__all__ = ["CORRECTED", "PUBLISHED", "Accounting", "Quirk"]

ALL: Final = ("systolic", "adaptiv", "cmc", "focus")


class Quirk(Enum):
    """One habit of the published accounting: (name, accelerators it touches, what is published, what is corrected)."""

    def __init__(self, label: str, models: tuple[str, ...], published: str, corrected: str) -> None:
        self.label = label
        self.models = models
        self.published = published
        self.corrected = corrected

    IMAGE_TOKENS_ONLY = (
        "image-tokens-only", ALL,
        "text tokens are left out", "text tokens are rows of every product, never merged or pruned")
    ROUNDED_ROWS = (
        "rounded-rows", ("systolic", "cmc", "focus"),
        "all row tiles have the mean rows: rounded up (systolic), or down so that remainders are free (cmc, focus)",
        "every row is charged once, in tiles of at most m rows")
    FRACTIONAL_ROWS = (
        "fractional-rows", ("adaptiv", "cmc"),
        "the rows left after merging are a fraction, and so are tiles and bytes", "rows are rounded to whole ones")
    CAUSAL_HALF = (
        "causal-half", ALL,
        "causal attention costs half of everything, of reading queries and writing results too",
        "row tiles stop at the last key that they may see; queries and results count in full")
    SV_AS_QK = (
        "sv-as-qk", ("systolic",),
        "the product with V is charged as a second product with K", "it has the keys as depth and the head as columns")
    SCORES_IN_DRAM = (
        "scores-in-dram", ("systolic", "adaptiv", "focus"),
        "the score matrix is written to DRAM and read back", "online softmax, in row tiles that fit the output buffer")
    KV_PER_HEAD = (
        "kv-per-head", ALL,
        "every query head reads its own K and V",
        "the rows of the heads of a group are stacked in one tile and share one read of K and V")
    NO_BANDWIDTH = (
        "no-bandwidth", ALL, "DRAM is as fast as needed", "an operation takes at least its bytes at the bandwidth")
    NO_VECTOR_WORK = (
        "no-vector-work", ALL,
        "softmax, normalisation, rotary embedding, residuals and activations take no time and no traffic",
        "they occupy the vector unit; the residual stream is read and written")
    PEAK_SRAM_POWER = (
        "peak-sram-power", ALL,
        "buffers draw their peak power all the time", "bytes times access energy, plus leakage")
    SUMS_UNREAD = (
        "sums-unread", ALL,
        "partial sums are written, never read to be added to", "every write of a partial sum is a read too")
    CORE_ALWAYS_ON = (
        "core-always-on", ALL,
        "all logic draws its rated power all the time", "rated power while at work, the idle fraction of it otherwise")
    SPARE_BUFFERS = (
        "spare-buffers", ("systolic",),
        "the dense array keeps the three buffers of the similarity concentrator", "it does not")
    DENSE_MACS = (
        "dense-macs", ("systolic",), "the MACs of the dense rows are 0", "they are counted")
    PADDED_DEPTH = (
        "padded-depth", ("adaptiv",),
        "the depth of a product is padded to 256, that of attention too",
        "a product takes as many cycles as it is deep")
    MERGE_EVERY_OP = (
        "merge-every-op", ("adaptiv",),
        "the merge unit reads and scans the unmerged input of every product",
        "tokens are merged once, before the first layer")
    UNMERGED_KEYS = (
        "unmerged-keys", ("adaptiv",),
        "merged tokens still count as keys and values", "merged tokens are gone")
    CODEC_FREE = (
        "codec-free", ("cmc",),
        "the motion search takes no time", "it runs beside the array at its own pace; what is longer stalls")
    CODEC_EVERY_OP = (
        "codec-every-op", ("cmc",),
        "the input of every product but K and V passes the codec", "the table for linear layers is made once")
    QUERY_TILES_BY_UNIQUE = (
        "query-tiles-by-unique", ("focus",),
        "the unique vectors of the queries are packed into full tiles",
        "a tile holds the unique vectors of its own rows")
    QK_CHARGED_ONCE = (
        "qk-charged-once", ("focus",),
        "bytes of the product with K: one head for all 28, since the trace has one slice", "all heads")
    NEGATIVE_TOKENS = (
        "negative-tokens", ("focus",),
        "tokens of the queries are slots minus pruned tokens, mostly negative", "tokens minus pruned tokens")
    SCORES_CONCENTRATED = (
        "scores-concentrated", ("focus",),
        "the scores pass the similarity concentrator: bytes of its buffers and a compressed copy in DRAM",
        "they do not")
    SCATTER_ALL_KEYS = (
        "scatter-all-keys", ("focus",),
        "scores are scattered to all keys before pruning, masked ones too", "to the keys that the array computes")
    STALLS_PER_OP = (
        "stalls-per-op", ("focus",),
        "scatter is compared with the array once per operation", "in every pass: time lost in one tile stays lost")
    GATHER_WHOLE_TILES = (
        "gather-whole-tiles", ("focus",),
        "the gather takes m rows and 96 columns for every tile", "it takes the rows and columns that there are")
    TAIL_PER_OP = (
        "tail-per-op", ("focus",),
        "every operation ends with the gather of a full tile", "of its last tile, where it gathers at all")
    GATHER_KV = (
        "gather-kv", ("focus",), "K and V are concentrated on their way out", "they are written as they are")
    OUTPUT_BY_INPUT = (
        "output-by-input", ("focus",),
        "a result is compressed as much as the input of its product; gate and up are both written",
        "as much as the site that it feeds; the product of gate and up is written once")
    NO_METADATA = (
        "no-metadata", ("focus",),
        "similarity maps are free in DRAM",
        "4 bytes a tile and slot, 2 a row and slot, written and read with the vectors")
    SEC_FREE = (
        "sec-free", ("focus",),
        "importance, top-k and compaction are free", "scores of the query rows, sorting, moving the kept rows")
    IDLE_SIC_CHARGED = (
        "idle-sic-charged", ("focus",),
        "without similarity the SIC still scatters, gathers and reads its tables", "it does nothing")


@dataclass(frozen=True)
class Accounting:
    """A name and the quirks in force: `quirk in accounting`."""

    name: str
    quirks: frozenset[Quirk]

    def __contains__(self, quirk: Quirk) -> bool:
        return quirk in self.quirks

    def without(self, *quirks: Quirk) -> Accounting:
        """This accounting less some quirks."""
        return Accounting(f"{self.name} without {', '.join(q.label for q in quirks)}", self.quirks - set(quirks))

    def adding(self, *quirks: Quirk) -> Accounting:
        """This accounting and some quirks."""
        return Accounting(f"{self.name} with {', '.join(q.label for q in quirks)}", self.quirks | set(quirks))

    @staticmethod
    def named(name: str) -> Accounting:
        """`published` or `corrected`. Raises IsaError(`cost.accounting`)."""
        for accounting in (PUBLISHED, CORRECTED):
            if accounting.name == name:
                return accounting
        raise IsaError("cost.accounting", f"there is no accounting {name!r}; there are published and corrected")


PUBLISHED: Final = Accounting("published", frozenset(Quirk))
CORRECTED: Final = Accounting("corrected", frozenset())
