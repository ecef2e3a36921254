"""Accelerators as the cost models see them: array, tiles, buffers made of macros, logic, DRAM; from TOML.

The targets that compile (`focus`, `systolic`) are described for the emulator as `isa.machine.Machine`; the accelerator
is derived from it, so that no figure is written twice. `adaptiv` and `cmc` exist for comparison only and have a
description of their own, with the key `model`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from focusc.backends.hardware import TARGETS, parse_description, read_description
from focusc.isa.errors import IsaError
from focusc.isa.machine import (
    SFU_UNITS,
    Array,
    Buffer,
    Dram,
    EnergyModel,
    Machine,
    Macro,
    Sec,
    Sic,
    explain,
    macro_problems,
)

__all__ = ["ACCELERATORS", "Accelerator", "Codec", "Logic", "Merger", "Tiles", "VectorUnit", "load_accelerator",
           "parse_accelerator"]

Model: TypeAlias = Literal["focus", "systolic", "adaptiv", "cmc"]
ACCELERATORS: Final = ("focus", "systolic", "adaptiv", "cmc")
"""Accelerators that ship with a description."""
CONCENTRATOR_BUFFERS: Final = ("layouter", "map", "table")
"""Buffers of the similarity concentrator alone."""
ELEMENT_BYTES: Final = 2
"""f16 operands, as all published tables have them."""

Size = Annotated[int, Field(gt=0, le=1 << 24)]
Figure = Annotated[float, Field(ge=0, le=1e6, allow_inf_nan=False)]
Source = Annotated[str, Field(min_length=3)]


class _Table(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Tiles(_Table):
    """Rows m, columns n and depth k of the operand tiles that the buffers stage."""

    m: Size
    n: Size
    k: Size
    source: Source


class Logic(_Table):
    """A logic block: `count` instances of (mm2, mW at the clock), at work when `engine` is."""

    count: Size
    area_mm2: Figure
    power_mw: Figure
    engine: Literal["array", "exp", "mul", "add", "recip", "sqrt", "compare", "norm", "average", "scatter", "fold",
                    "merge", "codec"]
    source: Source


class VectorUnit(_Table):
    """Lanes of the special-function unit."""

    exp: Size
    mul: Size
    add: Size
    recip: Size
    sqrt: Size
    source: Source


class Merger(_Table):
    """AdapTiV's token merging engine: elements compared a cycle."""

    elements_per_cycle: Size
    source: Source


class Codec(_Table):
    """CMC's motion search: `engines` x `lanes` absolute differences a cycle, frames in groups with one reference."""

    engines: Size
    lanes: Size
    frames_per_group: Size
    source: Source


class Accelerator(_Table):
    """A complete description for the cost models; units are in the key names."""

    format: Literal[1]
    model: Model
    name: Annotated[str, Field(pattern=r"^[a-z][a-z0-9_.-]*$")]
    description: str
    clock_hz: Annotated[int, Field(ge=1_000_000, le=20_000_000_000)]
    voltage_v: Annotated[float, Field(ge=0.1, le=5)]
    capacity_bytes: Size
    """On-chip buffers as the design counts them; the macros may hold more."""
    source: Source
    macros_source: Source
    array: Array
    tiles: Tiles
    buffers: dict[str, Buffer]
    macros: dict[str, Macro]
    sfu: VectorUnit
    dram: Dram
    energy: EnergyModel
    components: dict[str, Logic]
    merger: Merger | None = None
    codec: Codec | None = None
    sic: Sic | None = None
    sec: Sec | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Accelerator:
        problems = macro_problems(self.buffers.items(), self.macros)
        t = self.tiles
        for name, rows, cols in (("activation", t.m, t.k), ("weights", t.k, t.n), ("output", t.m, t.n)):
            need = 2 * rows * cols * ELEMENT_BYTES
            if name not in self.buffers:
                problems.append(f"buffers.{name}: missing; it has no default")
            elif self.buffers[name].bytes < need:
                problems.append(f"buffers.{name}.bytes: found {self.buffers[name].bytes}, expected at least {need} (a "
                                f"tile of {rows} x {cols} f16, double-buffered)")
        if self.capacity_bytes > self.macro_bytes:
            problems.append(f"capacity_bytes: found {self.capacity_bytes}, more than all macros hold "
                            f"({self.macro_bytes:.0f})")
        for part, model in (("merger", "adaptiv"), ("codec", "cmc")):
            if (getattr(self, part) is None) == (self.model == model):
                there = "missing" if self.model == model else f"found, but model {self.model} has none"
                problems.append(f"{part}: {there}")
        if problems:
            raise ValueError("\n".join(problems))
        return self

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], where: str) -> Accelerator:
        """From plain data: an analytic description (it has the key `model`) or one of a compile target.

        Raises IsaError(`hardware.description`) naming every offending key.
        """
        machine = None if "model" in data else Machine.from_dict(data, where)
        try:
            return cls.model_validate(dict(data)) if machine is None else cls.from_machine(machine, where)
        except ValidationError as error:
            lines = [explain(item, cls) for item in error.errors()]
            raise IsaError("hardware.description", "\n".join(lines), where=where,
                           hint="units are in the key names; compare with the shipped adaptiv.toml or cmc.toml"
                           ) from None

    @classmethod
    def from_machine(cls, machine: Machine, where: str = "hardware description") -> Accelerator:
        """The accelerator of a compile target; its tiles are the largest that its buffers stage twice.

        For the published buffers these are the published tiles, m = 1024, n = 96, k = 32. Raises
        IsaError(`hardware.description`) if they stage none.
        """
        k = machine.array.rows
        buffers = dict(machine.buffers.items())
        m, n = (buffers[name].bytes // (2 * k * ELEMENT_BYTES) for name in ("activation", "weights"))
        for name, size, what in (("activation", m, "rows"), ("weights", n, "columns")):
            if not size:
                raise IsaError("hardware.description", f"buffers.{name}.bytes: found {buffers[name].bytes}, too small "
                               f"to stage {what} of {k} f16 twice", where=where)
        while 2 * m * n * ELEMENT_BYTES > buffers["output"].bytes and m > 1:
            m //= 2
        concentrates = machine.sic.present or machine.sec.present
        return cls(
            format=1, model="focus" if concentrates else "systolic", name=machine.name,
            description=machine.description, clock_hz=machine.clock_hz, voltage_v=machine.voltage_v,
            capacity_bytes=machine.buffer_bytes, source=machine.source, macros_source=machine.macros_source,
            array=machine.array, tiles=Tiles(m=m, n=n, k=k, source="derived: the largest tiles that are staged twice"),
            buffers=buffers, macros=machine.macros,
            sfu=VectorUnit(**{unit: getattr(machine.sfu, unit) for unit in SFU_UNITS}, source=machine.sfu.source),
            dram=machine.dram, energy=machine.energy,
            components={name: Logic(**part.model_dump()) for name, part in machine.components.items()},
            sic=machine.sic if machine.sic.present else None, sec=machine.sec if machine.sec.present else None,
        )

    @property
    def macro_bytes(self) -> float:
        """Bytes that all macros hold."""
        return sum(self.macros[m].bytes * n for b in self.buffers.values() for m, n in b.macros.items()
                   if m in self.macros)

    @property
    def bytes_per_cycle(self) -> float:
        """DRAM bytes a cycle."""
        return self.dram.bytes_per_s / self.clock_hz

    def spare_buffers(self) -> tuple[str, ...]:
        """Buffers that serve a unit this accelerator does not have (the dense baseline was published with them)."""
        return tuple(name for name in CONCENTRATOR_BUFFERS if self.model == "systolic" and name in self.buffers)

    def buffer_figures(self, name: str) -> BufferFigures:
        """Area, leakage, peak power and access energy of one buffer's macros.

        Peak power as published: leakage plus the mean of read and write at the clock (cost_model section 5). An access
        costs uA/MHz x V pJ a word; a buffer of different macros takes the mean over its bytes.
        """
        parts = [(self.macros[m], n) for m, n in self.buffers[name].macros.items()]
        leak = sum(m.leak_ua * n for m, n in parts) * self.voltage_v / 1e3
        both = sum((m.read_ua_per_mhz + m.write_ua_per_mhz) * n for m, n in parts)
        held = sum(m.bytes * n for m, n in parts)
        return BufferFigures(
            area_mm2=sum(m.area_mm2 * n for m, n in parts),
            leak_mw=leak,
            peak_mw=leak + both / 2 * self.clock_hz / 1e6 * self.voltage_v / 1e3,
            read_pj_per_byte=sum(m.read_ua_per_mhz * m.words * n for m, n in parts) / held * self.voltage_v,
            write_pj_per_byte=sum(m.write_ua_per_mhz * m.words * n for m, n in parts) / held * self.voltage_v,
        )

    @property
    def logic_mw(self) -> float:
        """Rated power of all logic."""
        return sum(part.count * part.power_mw for part in self.components.values())


@dataclass(frozen=True, slots=True)
class BufferFigures:
    """Figures of one buffer; energies are of one byte."""

    area_mm2: float
    leak_mw: float
    peak_mw: float
    read_pj_per_byte: float
    write_pj_per_byte: float


def load_accelerator(name_or_path: str | Path) -> Accelerator:
    """A shipped accelerator by name (`ACCELERATORS`), or any description in TOML. Errors as `load_hardware`."""
    return parse_accelerator(*read_description(name_or_path, ACCELERATORS))


def parse_accelerator(text: str, where: str) -> Accelerator:
    """An accelerator from TOML text; `where` names it in errors. Errors as `load_hardware`."""
    return parse_description(text, where, Accelerator.from_dict)


assert set(TARGETS) < set(ACCELERATORS)
