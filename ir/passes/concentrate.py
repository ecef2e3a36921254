"""Concentration of the visual tokens of a decoder: SEC pruning, SIC merging, and the controls to compare them with.

Source: arXiv 2512.14661.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from itertools import product
from typing import Any

from focusc.ir.concentration import schedule as schedules
from focusc.ir.concentration.compaction import Compaction
from focusc.ir.concentration.layout import Layout
from focusc.ir.concentration.structure import DecoderLayer, find_decoder_layers, operand, shape
from focusc.ir.core import Module, Op, Value
from focusc.ir.diagnostics import fail
from focusc.ir.ops.sic import SITES
from focusc.ir.passes.manager import Stats, defpass
from focusc.ir.rewrite import Rewriter

METHODS = ("none", "sec", "sic", "focus")
CHOICES = {
    "method": METHODS,
    "boundary": ("linear", "grid"),
    "chase": ("root", "published"),
    "importance": ("attention", "random", "uniform", "inverse"),
    "links": ("cosine", "random", "none"),
}


@defpass(
    "concentrate",
    changes_values=True,
    layers="decoder layers",
    gathers="activations concentrated (SIC)",
    prunings="layers that drop tokens (SEC)",
    kept="visual tokens after the last layer",
    dropped="visual tokens dropped in all",
)
def concentrate(
    module: Module,
    stats: Stats,
    *,
    method: str = "focus",
    schedule: str = "published:llava-video",
    threshold: float = 0.9,
    block: tuple[int, ...] = (2, 2, 2),
    boundary: str = "linear",
    chase: str = "root",
    vector: int = 32,
    m: int = 1024,
    sites: tuple[str, ...] = SITES,
    importance: str = "attention",
    links: str = "cosine",
    seed: int = 0,
    frames: int = 1,
    patches: int = 1,
) -> Module:
    """Prune visual tokens by importance (SEC) and merge similar 32-vectors of those that stay (SIC).

    `method` is none, sec, sic or focus (both). `schedule` lists layer:share pairs, `[1:0.5,3:0.2]`, or is
    `published:FAMILY` (llava-video, llava-onevision, llava-onevision-mvbench, minicpm-v, qwen2.5-vl), whose layer i of
    n goes to layer floor(i * depth / n) of this decoder; where several meet, the smallest share stays. The demo takes
    the default, as any model does that brings no schedule of its own: docs/concentration.md says why. A cosine above
    `threshold` links two vectors; candidates come from a `block` of frames, rows, columns, within tiles of `m` tokens.
    `boundary` grid forbids candidates across the picture's edge; `chase` published cuts long chains as the published
    code does. `sites` are the activations to concentrate: qkv_in, query, o_in, mlp_in, down_in. Controls: `importance`
    random, uniform or inverse; `links` random (same number) or none; `frames`, `patches` k keep every k-th frame, every
    k-th row and column of patches, before the first layer. `seed` fixes the random ones.
    """
    given: dict[str, Any] = {
        "method": method,
        "boundary": boundary,
        "chase": chase,
        "importance": importance,
        "links": links,
    }
    for name, value in given.items():
        if value not in CHOICES[name]:
            raise fail("concentrate.option", f"{name} is {value!r}, expected {', '.join(CHOICES[name])}")
    _check_options(threshold, block, vector, m, sites, frames, patches, seed)
    if method == "none" and frames == patches == 1:
        return module
    if "concentrate" in module.attrs:
        raise fail(
            "concentrate.twice", f"module {module.name} is concentrated already", hint="start from the module before"
        )
    layout = Layout.of(module)
    out = module.clone()
    layers = find_decoder_layers(out)
    rows = shape(operand(layers[0].attention, 0))[-2]
    layout.fit(rows)
    pairs = schedules.parse(schedule, len(layers)) if method in ("sec", "focus") else ()
    sic = {
        "threshold": threshold,
        "block": tuple(block),
        "boundary": boundary,
        "chase": chase,
        "vector": vector,
        "m": m,
        "links": links,
        "seed": seed,
    }
    work = _Work(Rewriter(out), layout, rows, stats, importance, seed, sic)
    if method in ("sic", "focus"):
        work.sites = tuple(s for s in SITES if s in sites)
        _check_heads(layers, vector, work.sites)
    if frames > 1 or patches > 1:
        work.downsample(layers[0], frames, patches)
    shares = dict(pairs)
    for layer in layers:
        work.gather(layer, ("qkv_in", "query", "o_in"))
        if layer.index in shares:
            work.prune(layer, shares[layer.index])
        work.gather(layer, ("mlp_in", "down_in"))
    stats["layers"] = len(layers)
    stats["kept"] = work.present
    stats["dropped"] = layout.length - work.present
    out.attrs["concentrate"] = {
        "method": method,
        "schedule": pairs,
        "rows": rows,
        "sites": work.sites,
        "importance": importance,
        "frames": frames,
        "patches": patches,
        **sic,
    }
    return out


def _check_options(
    threshold: float,
    block: tuple[int, ...],
    vector: int,
    m: int,
    sites: tuple[str, ...],
    frames: int,
    patches: int,
    seed: int,
) -> None:
    for site in sites:
        if site not in SITES:
            raise fail("concentrate.site", f"site {site!r} is unknown", hint=f"sites: {', '.join(SITES)}")
    for name, value in (("m", m), ("vector", vector), ("frames", frames), ("patches", patches)):
        if value < 1:
            raise fail("concentrate.option", f"{name} is {value}, expected at least 1")
    if seed < 0:
        raise fail("concentrate.option", f"seed is {seed}, expected at least 0")
    if len(block) != 3 or any(type(b) is not int or b < 1 for b in block):
        raise fail(
            "concentrate.option", f"block is {list(block)}, expected three whole numbers >= 1: frames, rows, columns"
        )
    if not -1 <= threshold <= 2:
        raise fail("concentrate.option", f"threshold is {threshold:g}, expected a cosine (above 1 nothing is merged)")


def _check_heads(layers: list[DecoderLayer], vector: int, sites: tuple[str, ...]) -> None:
    for layer in layers:
        if "query" in sites and layer.head_size % vector:
            others = ",".join(s for s in sites if s != "query")
            raise fail(
                "concentrate.head-size",
                f"decoder layer {layer.index} has heads of {layer.head_size} columns, not a "
                f"multiple of the {vector}-wide vectors: at site query one vector would straddle two heads, and Q*K^T "
                "could not skip it",
                layer.attention.loc,
                hint=f"leave the site out: sites=[{others}]",
            )


@dataclass
class _Work:
    """The module under change, and what of the sequence is present at the point reached."""

    rewriter: Rewriter
    layout: Layout
    rows: int
    stats: Stats
    importance: str
    seed: int
    sic: dict[str, Any]
    sites: tuple[str, ...] = ()
    present: int = field(init=False)
    positions: Value | None = None

    def __post_init__(self) -> None:
        self.present = self.layout.length

    def gather(self, layer: DecoderLayer, sites: tuple[str, ...]) -> None:
        """Concentrate the activations of these sites, each once, for the GEMMs that read them."""
        for site in sites:
            if site not in self.sites:
                continue
            readers: dict[Value, list[tuple[Op, int]]] = {}
            for op, index in layer.site(site):
                readers.setdefault(operand(op, index), []).append((op, index))
            for value, uses in readers.items():
                block = uses[0][0].parent
                assert block is not None
                first = min((op for op, _ in uses), key=block.ops.index)
                with_loc = self.rewriter.insert_before(
                    first,
                    "sic.gather",
                    value,
                    self.positions,
                    visual_start=self.layout.start,
                    visual_len=self.present,
                    grid=self.layout.grid,
                    strides=self.layout.strides,
                    layer=layer.index,
                    site=site,
                    **self.sic,
                )
                for op, index in uses:
                    self.rewriter.set_operand(op, index, with_loc.result)
                self.stats["gathers"] += 1

    def prune(self, layer: DecoderLayer, alpha: float) -> None:
        """Drop tokens behind this layer's attention and residual add."""
        keep = schedules.budget(self.layout.length, alpha, self.present)
        if keep == self.present:
            return
        attention = layer.attention
        q, k = operand(attention, 0), operand(attention, 1)
        block = attention.parent
        assert block is not None
        behind = block.ops[block.ops.index(attention) + 1]
        b = self.rewriter.builder_before(behind)
        with b.from_op(attention):
            importance = b.emit(
                "sec.importance",
                q,
                k,
                heads=attention.attrs["heads"],
                kv_heads=attention.attrs["kv_heads"],
                scale=attention.attrs["scale"],
                query=self.layout.query,
                visual_start=self.layout.start,
                visual_len=self.present,
                importance=self.importance,
                seed=self.seed,
                layer=layer.index,
                keep=keep if self.importance == "uniform" else 0,
            )
            select = b.create(
                "sec.select",
                importance,
                self.positions,
                k=keep,
                visual_start=self.layout.start,
                visual_len=self.present,
                rows=self.rows,
                layer=layer.index,
            )
        self._drop(select, layer.attention_add.result, keep)
        self.stats["prunings"] += 1

    def downsample(self, layer: DecoderLayer, frames: int, patches: int) -> None:
        """Keep the middle of every run of `frames` frames, and `patches` rows and columns, before the first layer."""
        kept = [
            range(k // 2 if k // 2 < n else 0, n, k)
            for n, k in zip(self.layout.grid, (frames, patches, patches), strict=True)
        ]
        points = [sum(x * s for x, s in zip(point, self.layout.strides, strict=True)) for point in product(*kept)]
        hidden = layer.hidden
        first = hidden.op
        block = layer.attention.parent
        assert block is not None
        behind = block.ops[block.ops.index(first) + 1] if first is not None else block.ops[0]
        subset = self.rewriter.insert_before(
            behind,
            "sec.subset",
            positions=tuple(sorted(points)),
            visual_start=self.layout.start,
            visual_len=self.present,
            rows=self.rows,
        )
        self._drop(subset, hidden, len(points))

    def _drop(self, select: Op, stream: Value, keep: int) -> None:
        tail = self.layout.start + self.present
        Compaction(self.rewriter, select.results[0], tail).apply(stream)
        self.rows -= self.present - keep
        self.present, self.positions = keep, select.results[1]
