"""The machine: every figure that timing, energy and code generation may know, as one frozen, strict, hashed object.

A description is data (TOML); `Machine.from_dict` refuses unknown keys, missing keys, wrong types and impossible values,
all of them at once, each with its key path, the value found and what is allowed. Units are in the key names
(`bytes`, `_hz`, `_mm2`, `_mw`, `_cycles`, `_pj_per_byte`, `_ua_per_mhz`). Derived figures are properties, never stored.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated, Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from focusc.isa.errors import IsaError, suggest

Positive = Annotated[int, Field(gt=0)]
NonNegative = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Source = Annotated[str, Field(min_length=3, description="where a table's figures come from, or 'assumption: why'")]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Array(_Table):
    """Weight-stationary array: `rows` along K (the vector size), `cols` along N; f16 operands, f32 accumulation."""

    rows: Annotated[int, Field(gt=0, le=1024)]
    cols: Annotated[int, Field(gt=0, le=1024)]
    source: Source

    @property
    def macs_per_cycle(self) -> int:
        """Multiply-accumulates a cycle with every cell at work."""
        return self.rows * self.cols

    @property
    def overhead_cycles(self) -> int:
        """Weight load, fill and drain of one isolated pass: 2R + C - 3 (cost_model section 0; ScaleSim's total)."""
        return 2 * self.rows + self.cols - 3

    @property
    def skew_cycles(self) -> int:
        """Cycles from the last row's entry to its last result; the rest of the overhead is the weight load."""
        return self.rows + self.cols - 3


class Macro(_Table):
    """One memory-compiler macro of `words` x `bits`."""

    words: Positive
    bits: Positive
    area_mm2: NonNegative
    read_ua_per_mhz: NonNegative
    write_ua_per_mhz: NonNegative
    leak_ua: NonNegative

    @property
    def bytes(self) -> float:
        """Capacity in bytes."""
        return self.words * self.bits / 8


class Buffer(_Table):
    """One on-chip buffer: the bytes the design uses of it and the macros that make it up (name -> count)."""

    bytes: Positive
    element_bytes: Annotated[int, Field(ge=1, le=8)]
    macros: dict[str, Positive]
    source: Source


class Buffers(_Table):
    """The seven buffers; staging and partial-sum sizes include their double-buffering."""

    activation: Buffer
    weights: Buffer
    partial: Buffer
    output: Buffer
    layouter: Buffer
    map: Buffer
    table: Buffer

    def items(self) -> tuple[tuple[str, Buffer], ...]:
        """(name, buffer) in declaration order."""
        return tuple((name, getattr(self, name)) for name in type(self).model_fields)


BUFFERS: tuple[str, ...] = tuple(Buffers.model_fields)
SFU_UNITS: tuple[str, ...] = ("exp", "mul", "add", "recip", "sqrt")


class Uses(_Table):
    """How often one element of a vector operation passes through each kind of unit."""

    exp: Annotated[int, Field(ge=0, le=64)] = 0
    mul: Annotated[int, Field(ge=0, le=64)] = 0
    add: Annotated[int, Field(ge=0, le=64)] = 0
    recip: Annotated[int, Field(ge=0, le=64)] = 0
    sqrt: Annotated[int, Field(ge=0, le=64)] = 0

    @model_validator(mode="after")
    def _some_unit(self) -> Uses:
        if not any(getattr(self, unit) for unit in SFU_UNITS):
            raise ValueError("an operation must use at least one unit")
        return self


class Sfu(_Table):
    """Special-function unit: lanes per unit kind and the units one element of each operation (`uses`) needs."""

    exp: Positive
    mul: Positive
    add: Positive
    recip: Positive
    sqrt: Positive
    pipeline_cycles: Annotated[int, Field(ge=0, le=1000)]
    uses: dict[str, Uses]
    source: Source


class Sic(_Table):
    """Similarity concentrator: compare rate at the output, scatter accumulators behind the array."""

    present: bool
    compare_cycles_per_candidate: Positive
    lanes: Positive
    scatter_accumulators: Positive
    scatter_lanes: Positive
    source: Source


class Sec(_Table):
    """Semantic concentrator: row-parallel max units and the streaming top-k sorter."""

    present: bool
    max_units: Positive
    topk_entries_per_cycle: Positive
    importance_entries: Positive
    source: Source


class Dram(_Table):
    """Main memory: one channel shared by both load channels, the store engine and the concentrators."""

    bytes_per_s: Annotated[int, Field(ge=1_000_000)]
    latency_cycles: Annotated[int, Field(ge=0, le=1_000_000)]
    pj_per_byte: NonNegative
    source: Source


class Component(_Table):
    """A logic block: `count` instances of (mm2, mW at the clock of the description), at work when `engine` is."""

    count: Positive
    area_mm2: NonNegative
    power_mw: NonNegative
    engine: Literal["array", "exp", "mul", "add", "recip", "sqrt", "compare", "norm", "average", "scatter", "fold"]
    source: Source


class EnergyModel(_Table):
    """Assumptions of the energy model that are not figures of the design."""

    idle_fraction: Annotated[float, Field(ge=0, le=1)]
    source: Source


class Machine(_Table):
    """A complete hardware description."""

    format: Literal[1]
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$")]
    description: str
    clock_hz: Annotated[int, Field(ge=1_000_000, le=20_000_000_000)]
    voltage_v: Annotated[float, Field(ge=0.1, le=5)]
    queue_depth: Annotated[int, Field(ge=1, le=4096)]
    source: Source
    array: Array
    buffers: Buffers
    macros: dict[str, Macro]
    macros_source: Source
    sfu: Sfu
    sic: Sic
    sec: Sec
    dram: Dram
    components: dict[str, Component]
    energy: EnergyModel

    @model_validator(mode="after")
    def _consistent(self) -> Machine:
        problems = macro_problems(self.buffers.items(), self.macros)
        slice_bytes = 2 * self.array.rows * self.array.cols * 2
        if self.buffers.weights.bytes < slice_bytes:
            problems.append(
                f"buffers.weights.bytes: found {self.buffers.weights.bytes}, expected at least {slice_bytes}"
                " (two array-sized f16 weight slices)"
            )
        if self.buffers.output.bytes % 64:
            problems.append(f"buffers.output.bytes: found {self.buffers.output.bytes}, expected a multiple of 64")
        if problems:
            raise ValueError("; ".join(problems))
        return self

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str = "hardware description") -> Machine:
        """Build from nested plain data. Raises IsaError(`hardware.description`) naming every offending key."""
        try:
            return cls.model_validate(dict(data))
        except ValidationError as error:
            lines = [explain(item, cls) for item in error.errors()]
            raise IsaError(
                "hardware.description",
                "\n".join(lines),
                where=where,
                hint="units are in the key names; compare with the description of the target `focus`",
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """Canonical plain data: declaration order, JSON types only; `from_dict(to_dict())` is equal."""
        return self.model_dump(mode="json")

    @property
    def digest(self) -> str:
        """blake2b-128 (hex) of the canonical JSON of `to_dict()`."""
        return digest_of(self.to_dict())

    @property
    def bytes_per_cycle(self) -> float:
        """DRAM bytes a core cycle."""
        return self.dram.bytes_per_s / self.clock_hz

    def buffer_area_mm2(self, name: str) -> float:
        """Area of one buffer's macros."""
        return sum(self.macros[m].area_mm2 * n for m, n in getattr(self.buffers, name).macros.items())

    def buffer_leak_mw(self, name: str) -> float:
        """Leakage of one buffer in mW: uA x V / 1000."""
        macros: dict[str, int] = getattr(self.buffers, name).macros
        return sum(self.macros[m].leak_ua * n for m, n in macros.items()) * self.voltage_v / 1e3

    def buffer_peak_mw(self, name: str) -> float:
        """Peak power in mW as published: leakage plus mean of read and write at the clock (cost_model section 5)."""
        macros: dict[str, int] = getattr(self.buffers, name).macros
        both = sum((self.macros[m].read_ua_per_mhz + self.macros[m].write_ua_per_mhz) * n for m, n in macros.items())
        return self.buffer_leak_mw(name) + both / 2 * self.clock_hz / 1e6 * self.voltage_v / 1e3

    def buffer_access_pj_per_byte(self, name: str) -> tuple[float, float]:
        """(read, write) energy in pJ a byte.

        One access of a macro costs uA/MHz x V pJ and moves `bits`/8 bytes; a buffer of different macros takes the mean
        over its macros' bytes, as if every byte were equally used.
        """
        macros: dict[str, int] = getattr(self.buffers, name).macros
        total = sum(self.macros[m].bytes * n for m, n in macros.items())

        def mean(figure: str) -> float:
            # per byte (1 / (bits/8)) times the macro's share of the bytes: what remains is its words
            return sum(getattr(self.macros[m], figure) * self.macros[m].words * n for m, n in macros.items()) / total

        return mean("read_ua_per_mhz") * self.voltage_v, mean("write_ua_per_mhz") * self.voltage_v

    @property
    def area_mm2(self) -> float:
        """Logic and buffers."""
        logic = sum(c.area_mm2 * c.count for c in self.components.values())
        return logic + sum(self.buffer_area_mm2(name) for name in BUFFERS)

    @property
    def power_mw(self) -> float:
        """Peak on-chip power: logic at its rated power and buffers at theirs."""
        logic = sum(c.power_mw * c.count for c in self.components.values())
        return logic + sum(self.buffer_peak_mw(name) for name in BUFFERS)

    @property
    def buffer_bytes(self) -> int:
        """Sum of the on-chip buffers."""
        return sum(buffer.bytes for _, buffer in self.buffers.items())


def macro_problems(buffers: Iterable[tuple[str, Buffer]], macros: Mapping[str, Macro]) -> list[str]:
    """Findings on buffers whose macros are not declared, or hold fewer bytes than the design uses."""
    problems: list[str] = []
    for name, buffer in buffers:
        unknown = [macro for macro in buffer.macros if macro not in macros]
        if unknown or not buffer.macros:
            problems.append(f"buffers.{name}.macros: found {unknown}, expected some of {sorted(macros)}")
        elif sum(macros[m].bytes * n for m, n in buffer.macros.items()) < buffer.bytes:
            problems.append(f"buffers.{name}.bytes: found {buffer.bytes}, more than its macros hold")
    return problems


def digest_of(description: Mapping[str, Any]) -> str:
    """blake2b-128 (hex) of a canonical description, as `Machine.to_dict` gives it."""
    text = json.dumps(description, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def explain(item: Mapping[str, Any], description: type[BaseModel]) -> str:
    """One line for one pydantic finding in a `description`: key path, what was found, what is allowed."""
    path = ".".join(str(part) for part in item["loc"]) or "description"
    kind: str = item["type"]
    context: Mapping[str, Any] = item.get("ctx") or {}
    if kind == "missing":
        return f"{path}: missing; it has no default"
    if kind == "extra_forbidden":
        *tables, key = item["loc"]
        return f"{path}: unknown key; {suggest(str(key), _keys(description, tables), 'there are')}"
    if kind == "value_error":
        text = str(context.get("error", item["msg"]))
        return f"{path}: {text}" if item["loc"] else text
    expected: str = str(item["msg"]).removeprefix("Input should be ").removeprefix("a valid ")
    found = repr(item["input"])
    if isinstance(item["input"], str) and kind.startswith(("int", "float")):
        expected += " as a plain number (the unit is part of the key)"
    return f"{path}: found {found if len(found) <= 60 else found[:57] + '...'}, expected {expected}"


def _keys(description: type[BaseModel], tables: Sequence[object]) -> list[str]:
    """Keys of the table at the path `tables` of a description."""
    found: Any = description
    for name in tables:
        if fields := getattr(found, "model_fields", None):
            found = fields[name].annotation
            if type(None) in get_args(found):  # an optional table
                found = get_args(found)[0]
        else:
            found = get_args(found)[1]  # dict[str, table]
    return list(found.model_fields)
