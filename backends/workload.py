"""Workloads as data: the sizes of a vision-language model and of one prefill, in a frozen record read from TOML.

A workload is enough to build the model as IR without weights (`focusc.backends.prefill`), to charge it in a cost model
and to make or check a trace for it. Shipped ones are the files of `backends/workloads/`; any other TOML file will do.
"""

from __future__ import annotations

import dataclasses
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_type_hints

from focusc.backends.toml_text import key_lines
from focusc.ir.concentration.layout import Layout
from focusc.ir.concentration.schedule import PUBLISHED, Schedule, budget, parse
from focusc.ir.diagnostics import CompileError, Loc, fail, suggest

__all__ = ["VisionTower", "Workload", "load_workload", "parse_workload", "shipped", "variants"]

VECTOR = 32
"""Columns of a slot."""
_LARGEST_FILE = 1 << 20
_MOST = 1 << 24
"""Bound of every size: what is larger is a slip of the keyboard, and would overflow products of three sizes."""


@dataclass(frozen=True)
class VisionTower:
    """A vision transformer run once per frame: `tokens` patches of `patch` x `patch` pixels, three colours.

    `gated` says that the feed-forward block is
    gate, up and down (SwiGLU) instead of up and down (GELU).
    """

    layers: int
    width: int
    heads: int
    head_size: int
    ffn: int
    tokens: int
    patch: int = 14
    gated: bool = False

    def __post_init__(self) -> None:
        _positive(self, "vision.", ("layers", "width", "heads", "head_size", "ffn", "tokens", "patch"))
        if self.width % self.heads:
            raise _bad("vision.heads", self.heads, f"a divisor of vision.width = {self.width}")


@dataclass(frozen=True)
class Workload:
    """One prefill of a decoder-only model; sizes in elements and tokens.

    The sequence is `text_before` text tokens, `visual_tokens` visual ones (before any pruning), then the rest of the
    `text_tokens`, which ask the question. `grid` and `strides` place the visual tokens as in `ir.Layout`; strides left
    out are those of a dense grid. `schedule` is what SEC prunes (`published:FAMILY` or `layer:share` pairs, "" for
    nothing), `threshold` the cosine above which SIC links. `vocab` 0: the model ends with its last hidden row.
    Raises CompileError (`workload.*`) that names the key, the value found and the values allowed.
    """

    name: str
    layers: int
    width: int
    heads: int
    kv_heads: int
    ffn: int
    visual_tokens: int
    grid: tuple[int, int, int]
    text_tokens: int
    head_size: int = 0
    strides: tuple[int, int, int] = (0, 0, 0)
    text_before: int = 0
    vocab: int = 0
    qkv_bias: bool = False
    rope_theta: float = 10000.0
    norm_eps: float = 1e-6
    schedule: str = ""
    threshold: float = 0.9
    vision: VisionTower | None = None
    source: str = field(default="", compare=False)

    def __post_init__(self) -> None:
        if not re.fullmatch(r"[\w.+-]{1,64}", self.name):
            raise _bad("name", self.name, "1 to 64 letters, digits, dots, dashes, pluses or underscores")
        _positive(self, "", ("layers", "width", "heads", "kv_heads", "ffn"))
        if self.width % self.heads:
            near = [h for h in range(1, self.width + 1) if self.width % h == 0]
            close = min(near, key=lambda h: abs(h - self.heads))
            raise _bad("heads", self.heads, f"a divisor of width = {self.width}, for example {close}")
        if self.heads % self.kv_heads:
            raise _bad("kv_heads", self.kv_heads, f"a divisor of heads = {self.heads}")
        if not self.head_size:
            object.__setattr__(self, "head_size", self.width // self.heads)
        _positive(self, "", ("head_size",))
        if self.head_size % 2:
            raise _bad("head_size", self.head_size, "an even number: rotary positions turn pairs")
        _positive(self, "", ("text_tokens",))
        for key in ("visual_tokens", "text_before", "vocab"):
            if not 0 <= getattr(self, key) <= _MOST:
                raise _bad(key, getattr(self, key), f"0 to {_MOST}")
        if not self.rope_theta > 1:
            raise _bad("rope_theta", self.rope_theta, "more than 1")
        if not 0 < self.norm_eps < 1:
            raise _bad("norm_eps", self.norm_eps, "between 0 and 1")
        if not -1 <= self.threshold <= 2:
            raise _bad("threshold", self.threshold, "a cosine (above 1 nothing is merged)")
        if not self.visual_tokens:
            if any(self.grid) or self.schedule:
                raise _bad("visual_tokens", 0, "at least 1 where there is a grid or a schedule")
            return
        if self.text_before >= self.text_tokens:
            raise _bad("text_before", self.text_before, f"less than text_tokens = {self.text_tokens}: text must follow "
                       "the visual tokens, since it guides the pruning")
        _, h, w = self.grid
        if self.strides == (0, 0, 0):
            object.__setattr__(self, "strides", (h * w, w, 1))
        try:
            self.layout  # noqa: B018  the layout checks itself
        except CompileError as error:
            raise fail("workload.grid", error.diagnostics[0].message, hint=error.diagnostics[0].hint) from None
        try:
            self.prunings  # noqa: B018
        except CompileError as error:
            raise fail("workload.schedule", error.diagnostics[0].message, hint=error.diagnostics[0].hint) from None

    # -- derived ------------------------------------------------------------------------------------------------------
    @property
    def layout(self) -> Layout:
        """The token layout of the whole sequence."""
        return Layout.parse({"visual": (self.text_before, self.visual_tokens), "grid": self.grid,
                             "strides": self.strides, "query": self.text_after})

    @property
    def text_after(self) -> int:
        """Text tokens behind the visual span: the query."""
        return self.text_tokens - self.text_before

    @property
    def tokens(self) -> int:
        """Length of the sequence."""
        return self.text_tokens + self.visual_tokens

    @property
    def frames(self) -> int:
        """Frames of the grid."""
        return self.grid[0]

    @property
    def q_width(self) -> int:
        """Columns of Q, and of the attention's output."""
        return self.heads * self.head_size

    @property
    def kv_width(self) -> int:
        """Columns of K, and of V."""
        return self.kv_heads * self.head_size

    @property
    def prunings(self) -> Schedule:
        """The schedule as (layer, share) pairs."""
        return parse(self.schedule, self.layers) if self.schedule else ()

    def retained(self) -> list[tuple[int, int]]:
        """Visual tokens of each layer: (before, after) its pruning.

        Projections and attention of a layer see the first number, its feed-forward block the second.
        """
        shares, present, out = dict(self.prunings), self.visual_tokens, []
        for layer in range(self.layers):
            before = present
            if layer in shares:
                present = budget(self.visual_tokens, shares[layer], present)
            out.append((before, present))
        return out

    def with_frames(self, frames: int) -> Workload:
        """The same model on another number of frames. CompileError if the layout is not one frame after another."""
        per_frame = self.strides[0]
        if not self.visual_tokens or self.visual_tokens != self.frames * per_frame:
            raise fail("workload.frames", f"workload {self.name} has {self.visual_tokens} visual tokens on a grid of "
                       f"{'x'.join(map(str, self.grid))}; it is no clip of {per_frame} tokens a frame",
                       hint="take a video workload, or write a TOML file with the grid you want")
        if not 1 <= frames <= _MOST // per_frame:
            raise fail("workload.frames", f"found {frames} frames, expected 1 to {_MOST // per_frame}")
        return dataclasses.replace(self, grid=(frames, *self.grid[1:]), visual_tokens=frames * per_frame)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as in the TOML file."""
        plain = {key: list(value) if isinstance(value, tuple) else value for key, value in
                 dataclasses.asdict(self).items()}
        return {key: value for key, value in plain.items() if value is not None}


def shipped() -> tuple[str, ...]:
    """Names of the workloads that come with the package, sorted."""
    files = resources.files("focusc.backends.workloads").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_workload(name_or_path: str | Path, variant: str = "") -> Workload:
    """A shipped workload by name, or any TOML file; `variant` picks one of its `[variants.NAME]` tables.

    Raises CompileError: `workload.unknown` (neither a name nor a file), `workload.toml`, `workload.key` (unknown or
    missing key), `workload.type`, `workload.variant`, or what `Workload` finds; each with the file and the line.
    """
    text, where = _read(str(name_or_path))
    return parse_workload(text, where, variant)


def variants(name_or_path: str | Path) -> tuple[str, ...]:
    """Names of the variants of a workload file."""
    text, where = _read(str(name_or_path))
    return tuple(_table(text, where).get("variants", {}))


def parse_workload(text: str, where: str, variant: str = "") -> Workload:
    """A workload from TOML text; `where` names it in errors. Errors as `load_workload`."""
    data = _table(text, where)
    lines = key_lines(text)
    found: dict[str, dict[str, Any]] = data.pop("variants", {})
    if not isinstance(found, dict) or not all(isinstance(v, dict) for v in found.values()):
        raise fail("workload.type", "variants is not a table of tables", Loc(where, lines.get("variants", 1), 1))
    if variant:
        if variant not in found:
            raise fail("workload.variant", f"there is no variant {variant!r}", Loc(where),
                       hint=suggest(variant, found, "there are"))
        lines.update({key.removeprefix(f"variants.{variant}."): line for key, line in lines.items()
                      if key.startswith(f"variants.{variant}.")})
        data = {**data, **found[variant]}

    def at(key: str) -> Loc:
        return Loc(where, lines.get(key, lines.get(key.rpartition(".")[0], 1)), 1)

    tower = data.pop("vision", None)
    if tower is not None:
        if not isinstance(tower, dict):
            raise fail("workload.type", f"vision is {tower!r}, expected a table [vision]", at("vision"))
        data["vision"] = _record(VisionTower, tower, "vision.", at)
    return _record(Workload, data, "", at)


def _read(name: str) -> tuple[str, str]:
    """(text, name for messages) of a shipped workload or of a file."""
    if name in shipped():
        return (resources.files("focusc.backends.workloads").joinpath(f"{name}.toml").read_text("utf-8"),
                f"{name}.toml")
    path = Path(name)
    if not path.is_file():
        raise fail("workload.unknown", f"no workload {name!r}: neither a shipped one nor a file",
                   hint=suggest(name, shipped(), "shipped:"))
    try:
        if path.stat().st_size > _LARGEST_FILE:
            raise fail("workload.toml", f"larger than {_LARGEST_FILE} bytes; expected a few KiB", Loc(name))
        return path.read_bytes().decode("utf-8"), name
    except (OSError, UnicodeDecodeError) as error:
        raise fail("workload.toml", f"cannot be read as UTF-8 text: {error}", Loc(name)) from None


def _table(text: str, where: str) -> dict[str, Any]:
    try:
        return tomllib.loads(text)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise fail("workload.toml", f"not TOML: {error}", Loc(where)) from None


def _record(cls: Any, data: Mapping[str, Any], prefix: str, at: Any) -> Any:
    """An instance of a dataclass from a table: unknown, missing and ill-typed keys are errors with their line."""
    fields = {f.name: f for f in dataclasses.fields(cls)}
    hints = get_type_hints(cls)
    for key in data:
        if key not in fields:
            raise fail("workload.key", f"{prefix}{key} is not a key of a workload", at(prefix + key),
                       hint=suggest(key, fields) or suggest(key, fields, "there are"))
    missing = [f.name for f in fields.values() if f.name not in data and f.default is dataclasses.MISSING]
    if missing:
        raise fail("workload.key", f"{', '.join(prefix + key for key in missing)} missing", at(prefix[:-1]))
    values = {key: _typed(prefix + key, value, hints[key], at) for key, value in data.items()}
    try:
        return cls(**values)
    except CompileError as error:
        found = error.diagnostics[0]
        key = found.message.split(" ", 1)[0]  # messages begin with the key, or the code ends in it
        known = key.removeprefix(prefix) in fields
        raise fail(found.code, found.message, at(key if known else found.code.removeprefix("workload.")),
                   hint=found.hint) from None


def _typed(key: str, value: Any, kind: Any, at: Any) -> Any:
    """`value` as the field's type, or CompileError."""
    if kind in (int, bool, str) and type(value) is kind:
        return value
    if kind is float and type(value) in (int, float):
        return float(value)
    if kind == tuple[int, int, int]:
        if isinstance(value, list) and len(value) == 3 and all(type(v) is int for v in value):
            return tuple(value)
        raise fail("workload.type", f"{key} is {value!r}, expected three whole numbers", at(key))
    if isinstance(value, VisionTower):
        return value
    words = {int: "a whole number", float: "a number", str: "a text", bool: "true or false"}
    raise fail("workload.type", f"{key} is {value!r}, expected {words.get(kind, 'a table')}", at(key))


def _positive(record: Any, prefix: str, keys: tuple[str, ...]) -> None:
    for key in keys:
        if not 1 <= getattr(record, key) <= _MOST:
            raise _bad(prefix + key, getattr(record, key), f"1 to {_MOST}")


def _bad(key: str, found: object, allowed: str) -> CompileError:
    """`workload.value`: the key, what it holds, what it may hold."""
    return fail("workload.value", f"{key} is {found!r}, expected {allowed}")


FAMILIES = tuple(PUBLISHED)
"""Families with a published schedule."""
