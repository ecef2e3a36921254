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
from focusc.ir.concentration.neighbours import operand, shape
from focusc.ir.concentration.structure import PRUNE, DecoderLayer, find_decoder_layers
from focusc.ir.core import Module, Op, Value
from focusc.ir.diagnostics import CompileError, fail, suggest
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
    left_out="sites and prunings that a layer does not have, that are not possible, or that would drop nothing",
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
    sites: tuple[str, ...] = (),
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
    code does. `sites` are the activations to concentrate: qkv_in, query, o_in, mlp_in, down_in; without them, all of
    them wherever a layer has them. Sites named, and layers of a schedule spelled out, must be possible; what was chosen
    for the user and is not is left out, or moves to a later layer, and `left_out` in the module's attribute
    `concentrate` says why. Controls: `importance` random, uniform or inverse; `links` random (same number) or none;
    `frames`, `patches` k keep every k-th frame, every k-th row and column of patches, before the first layer. `seed`
    fixes the random ones.
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
    plan = _Plan(schedule if method in ("sec", "focus") else "", tuple(sites), importance, seed, frames, patches, sic)
    if method in ("sic", "focus"):
        plan.sites = tuple(s for s in SITES if not sites or s in sites)
    out = None
    while out is None:  # again with fewer prunings, as long as one cannot be followed through the model
        out = _attempt(module, plan, stats)
    out.attrs["concentrate"] = {
        "method": method,
        "schedule": plan.shares,
        "rows": plan.rows,
        "sites": plan.sites,
        "importance": importance,
        "frames": frames,
        "patches": patches,
        **sic,
        **({"left_out": tuple(plan.left_out)} if plan.left_out else {}),
    }
    return out


@dataclass
class _Plan:
    """What is to be done, and what turned out to be impossible: (layer, site or prune, why)."""

    schedule: str
    named: tuple[str, ...]
    importance: str
    seed: int
    frames: int
    patches: int
    sic: dict[str, Any]
    sites: tuple[str, ...] = ()
    rows: int = 0
    shares: schedules.Schedule = ()
    unfollowed: dict[int, str] = field(default_factory=dict[int, str])
    left_out: list[tuple[int, str, str]] = field(default_factory=list[tuple[int, str, str]])

    @property
    def automatic(self) -> bool:
        """True if the schedule is a published one, scaled to the model: its layers are nobody's choice."""
        return self.schedule.startswith("published:")

    def settle(self, layers: list[DecoderLayer]) -> None:
        """Fix the layers that prune. One that cannot leaves its share to the next layer that can."""
        pairs = schedules.parse(self.schedule, len(layers)) if self.schedule else ()
        reasons = [layer.missing.get(PRUNE) or self.unfollowed.get(layer.index) for layer in layers]
        shares: dict[int, float] = {}
        for index, alpha in pairs:
            why = reasons[index]
            if why is None:
                shares[index] = alpha
                continue
            if not self.automatic:
                raise fail(
                    "concentrate.structure",
                    f"decoder layer {index} cannot prune: {why}",
                    layers[index].first.loc,
                    hint="name other layers in the schedule",
                )
            able = next((i for i in range(index, len(layers)) if reasons[i] is None), None)
            if able is not None:
                shares[able] = alpha  # in ascending order, so the smallest share stays
            where = "no later layer can" if able is None else f"layer {able} prunes instead"
            self.left_out.append((index, PRUNE, f"{why}; {where}"))
        self.shares = tuple(sorted(shares.items()))

    def possible(self, layer: DecoderLayer, site: str) -> bool:
        """Whether a site of a layer is to be concentrated. CompileError if it was named and cannot."""
        if site not in self.sites:
            return False
        why, wide = layer.missing.get(site), self.sic["vector"]
        straddles = why is None and site == "query" and layer.head_size % wide != 0
        if straddles:
            why = (
                f"its heads have {layer.head_size} columns, not a multiple of the {wide}-wide vectors: one vector "
                "would straddle two heads, and Q*K^T could not skip it"
            )
        if why is None:
            return True
        if site in self.named:
            others = ",".join(s for s in self.sites if s != site)
            hint = f"leave the site out: sites=[{others}], or name none"
            if straddles:
                raise fail(
                    "concentrate.head-size",
                    f"decoder layer {layer.index} has no site query to concentrate: {why}",
                    layer.first.loc,
                    hint=hint,
                )
            raise fail(
                "concentrate.structure",
                f"decoder layer {layer.index} has no site {site} to concentrate: {why}",
                layer.first.loc,
                hint=hint,
            )
        self.left_out.append((layer.index, site, why))
        return False


def _attempt(module: Module, plan: _Plan, stats: Stats) -> Module | None:
    """The concentrated module; None, with `plan.unfollowed` longer, if a pruning chosen for the user failed."""
    layout = Layout.of(module)
    out = module.clone()
    layers = find_decoder_layers(out)
    first = next(layer.attention for layer in layers if layer.attention is not None)
    plan.rows = shape(operand(first, 0))[-2]
    layout.fit(plan.rows)
    plan.left_out.clear()
    plan.settle(layers)
    work = _Work(Rewriter(out), layout, plan.rows, plan)
    if plan.frames > 1 or plan.patches > 1:
        work.downsample(layers[0], plan.frames, plan.patches)
    shares = dict(plan.shares)
    for layer in layers:
        work.gather(layer, SITES if layer.parallel else ("qkv_in", "query", "o_in"))
        if layer.index in shares:
            try:
                work.prune(layer, shares[layer.index])
            except CompileError as error:
                found = error.diagnostics[0]
                if not plan.automatic or found.code != "concentrate.unsupported":
                    raise
                plan.unfollowed[layer.index] = found.message
                return None
        work.gather(layer, () if layer.parallel else ("mlp_in", "down_in"))
    stats["layers"] = len(layers)
    stats["gathers"], stats["prunings"] = work.gathers, work.prunings
    stats["left_out"] = len(plan.left_out)
    stats["kept"] = work.present
    stats["dropped"] = layout.length - work.present
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
            raise fail("concentrate.site", f"site {site!r} is unknown", hint=suggest(str(site), SITES, "sites:"))
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


@dataclass
class _Work:
    """The module under change, and what of the sequence is present at the point reached."""

    rewriter: Rewriter
    layout: Layout
    rows: int
    plan: _Plan
    gathers: int = 0
    prunings: int = 0
    present: int = field(init=False)
    positions: Value | None = None

    def __post_init__(self) -> None:
        self.present = self.layout.length

    def gather(self, layer: DecoderLayer, sites: tuple[str, ...]) -> None:
        """Concentrate the activations of these sites, each once, for the GEMMs that read them."""
        for site in sites:
            if not self.plan.possible(layer, site):
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
                    **self.plan.sic,
                )
                for op, index in uses:
                    self.rewriter.set_operand(op, index, with_loc.result)
                self.gathers += 1

    def prune(self, layer: DecoderLayer, alpha: float) -> None:
        """Drop tokens behind this layer's attention and residual add."""
        keep = schedules.budget(self.layout.length, alpha, self.present)
        if keep == self.present:
            all_ = "the one token there is" if keep == 1 else f"all {keep} tokens there are"
            self.plan.left_out.append((layer.index, PRUNE, f"a share of {alpha:g} keeps {all_}"))
            return
        attention, stream = layer.attention, layer.stream_after_attention
        assert attention is not None and stream is not None
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
                *attention.operands[3:],
                heads=attention.attrs["heads"],
                kv_heads=attention.attrs["kv_heads"],
                scale=attention.attrs["scale"],
                causal=attention.attrs["causal"],
                window=attention.attrs["window"],
                query=self.layout.query,
                visual_start=self.layout.start,
                visual_len=self.present,
                importance=self.plan.importance,
                seed=self.plan.seed,
                layer=layer.index,
                keep=keep if self.plan.importance == "uniform" else 0,
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
        self._drop(select, stream, keep)
        self.prunings += 1

    def downsample(self, layer: DecoderLayer, frames: int, patches: int) -> None:
        """Keep the middle of every run of `frames` frames, and `patches` rows and columns, before the first layer."""
        kept = [
            range(k // 2 if k // 2 < n else 0, n, k)
            for n, k in zip(self.layout.grid, (frames, patches, patches), strict=True)
        ]
        points = [sum(x * s for x, s in zip(point, self.layout.strides, strict=True)) for point in product(*kept)]
        hidden = layer.hidden
        first = hidden.op
        block = layer.first.parent
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
