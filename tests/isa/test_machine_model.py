"""The hardware model: strictness, derived figures, canonical form."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from focusc.backends.hardware import load_hardware
from focusc.isa.errors import IsaError
from focusc.isa.machine import Machine, digest_of
from tests.unchecked import unchecked


def plain(name: str = "focus") -> dict[str, Any]:
    return copy.deepcopy(load_hardware(name).to_dict())


@pytest.mark.parametrize(
    ("name", "area", "power"), [("focus", 3.2054806629, 736.369335), ("systolic", 3.1191549172, 720.474489)]
)
def test_area_and_power_are_the_published_ones(name: str, area: float, power: float) -> None:
    machine = load_hardware(name)
    assert machine.area_mm2 == pytest.approx(area, rel=1e-12)
    assert machine.power_mw == pytest.approx(power, rel=1e-12)


def test_buffers_add_up_to_the_published_734_kib() -> None:
    assert load_hardware("focus").buffer_bytes == 734 * 1024


@pytest.mark.parametrize(
    ("buffer", "milliwatts"),
    [("activation", 33.05448), ("weights", 3.924531), ("partial", 33.05448), ("output", 119.46528),
     ("layouter", 33.44976), ("map", 0.727218), ("table", 16.52724)],
)
def test_buffer_peak_power_matches_the_published_breakdown(buffer: str, milliwatts: float) -> None:
    assert load_hardware("focus").buffer_peak_mw(buffer) == pytest.approx(milliwatts, rel=1e-12)


def test_access_energy_is_current_times_voltage_per_word() -> None:
    read, write = load_hardware("focus").buffer_access_pj_per_byte("activation")
    assert read == pytest.approx(9.3 * 0.81 / 16)
    assert write == pytest.approx(10.1 * 0.81 / 16)


def test_mixed_macros_take_the_mean_over_their_bytes() -> None:
    read, _ = load_hardware("focus").buffer_access_pj_per_byte("output")
    assert read == pytest.approx((9.3 / 16 * 256 + 8.3 / 16 * 128) / 384 * 0.81)


def test_dram_gives_137_bytes_a_cycle() -> None:
    assert load_hardware("focus").bytes_per_cycle == pytest.approx(137.438953472)


def test_plain_form_round_trips_and_decides_the_digest() -> None:
    machine = load_hardware("focus")
    again = Machine.from_dict(machine.to_dict())
    assert again == machine
    assert again.digest == machine.digest == digest_of(machine.to_dict())
    changed = plain()
    changed["queue_depth"] = 17
    assert Machine.from_dict(changed).digest != machine.digest
    assert load_hardware("systolic").digest != machine.digest


def test_the_machine_is_frozen() -> None:
    with pytest.raises(Exception, match="frozen"):
        unchecked(load_hardware("focus")).queue_depth = 3


CASES: list[tuple[tuple[str, ...], Any, str]] = [
    (("array", "rows"), "32", "array.rows: found '32', expected integer as a plain number"),
    (("array", "rows"), 0, "array.rows: found 0, expected greater than 0"),
    (("array", "rows"), True, "array.rows: found True"),
    (("array", "depth"), 4, "array.depth: unknown key; there are rows, cols, source"),
    (("clock_hz",), 500, "clock_hz: found 500, expected greater than or equal to 1000000"),
    (("clock_hz",), "500 MHz", "clock_hz: found '500 MHz'"),
    (("dram", "pj_per_byte"), float("nan"), "dram.pj_per_byte: found nan, expected a finite number"),
    (("dram", "pj_per_byte"), -1.0, "dram.pj_per_byte: found -1.0"),
    (("sic", "present"), 1, "sic.present: found 1, expected boolean"),
    (("name",), "Focus!", "name: found 'Focus!'"),
    (("format",), 2, "format: found 2"),
    (("sfu", "uses", "add"), {}, "sfu.uses.add: "),
    (("buffers", "output", "bytes"), 1 << 30, "buffers.output.bytes: found 1073741824, more than its macros hold"),
    (("buffers", "output", "bytes"), 393_215, "expected a multiple of 64"),
    (("buffers", "weights", "bytes"), 64, "expected at least 4096"),
    (("buffers", "map", "macros"), {"9x9": 1}, "buffers.map.macros: found ['9x9']"),
    (("components", "array", "engine"), "gpu", "components.array.engine: found 'gpu'"),
    (("energy", "idle_fraction"), 1.5, "energy.idle_fraction: found 1.5"),
]


@pytest.mark.parametrize(("path", "value", "message"), CASES)
def test_a_wrong_figure_is_named_with_its_path(path: tuple[str, ...], value: Any, message: str) -> None:
    data = plain()
    table = data
    for key in path[:-1]:
        table = table[key]
    table[path[-1]] = value
    with pytest.raises(IsaError) as caught:
        Machine.from_dict(data, "mine.toml")
    assert caught.value.code == "hardware.description"
    assert message in caught.value.render()
    assert caught.value.render().startswith("mine.toml: ")


def _tables(data: dict[str, Any], path: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    out: list[tuple[str, ...]] = []
    for key, value in data.items():
        if path in (("macros",), ("components",)) or path[-1:] in (("uses",), ("macros",)):
            continue  # free names: their absence is another finding
        out.append((*path, key))
        if isinstance(value, dict):
            out.extend(_tables(value, (*path, key)))
    return out


@pytest.mark.parametrize("path", [p for p in _tables(plain()) if p[:2] != ("sfu", "uses")], ids=".".join)
def test_every_key_is_required(path: tuple[str, ...]) -> None:
    data = plain()
    table = data
    for key in path[:-1]:
        table = table[key]
    del table[path[-1]]
    with pytest.raises(IsaError, match="missing"):
        Machine.from_dict(data)


def test_all_findings_come_at_once() -> None:
    data = plain()
    data["array"]["rows"] = -1
    data["dram"]["latency"] = 1
    del data["sec"]
    with pytest.raises(IsaError) as caught:
        Machine.from_dict(data)
    assert len(caught.value.message.splitlines()) == 3
