"""Loading hardware descriptions by name and by path."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

import pytest

from focusc.backends.hardware import TARGETS, load_hardware, parse_hardware
from focusc.isa.errors import IsaError

FOCUS = resources.files("focusc.backends").joinpath("focus", "focus.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize("name", TARGETS)
def test_shipped_targets_load_under_their_own_name(name: str) -> None:
    assert load_hardware(name).name == name


def test_the_targets_differ_only_in_concentrators() -> None:
    focus, dense = load_hardware("focus"), load_hardware("systolic")
    assert focus.sic.present and focus.sec.present and not dense.sic.present and not dense.sec.present
    assert focus.array == dense.array and focus.dram == dense.dram and focus.sfu == dense.sfu
    extra = set(focus.components) - set(dense.components)
    assert extra == {name for name in focus.components if name[:3] in ("sic", "sec")}
    assert [b.bytes for _, b in focus.buffers.items()] == [b.bytes for _, b in dense.buffers.items()]


def test_every_table_names_its_source() -> None:
    machine = load_hardware("focus")
    sources = [machine.source, machine.array.source, machine.sfu.source, machine.dram.source, machine.energy.source]
    sources += [c.source for c in machine.components.values()] + [b.source for _, b in machine.buffers.items()]
    assert all("Focus" in s or "assumption" in s for s in sources)


def test_a_file_loads_like_the_shipped_text(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(FOCUS, encoding="utf-8")
    assert load_hardware(path) == load_hardware("focus")


def test_an_unknown_name_lists_the_targets() -> None:
    with pytest.raises(IsaError) as caught:
        load_hardware("tpu")
    assert caught.value.code == "hardware.unknown"
    assert "focus, systolic" in caught.value.render()


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("rows = 32", "rows = '32'", "array.rows: found '32'"),
        ("rows = 32", "row = 32", "array.row: unknown key"),
        ("add = { add = 1 }", "add = { sub = 1 }", "sfu.uses.add.sub: unknown key"),
    ],
)
def test_findings_carry_the_line(old: str, new: str, expected: str) -> None:
    line = FOCUS[: FOCUS.index(old)].count("\n") + 1
    with pytest.raises(IsaError) as caught:
        parse_hardware(FOCUS.replace(old, new, 1), "x.toml")
    finding = next(text for text in caught.value.message.splitlines() if expected in text)
    assert f"line {line})" in finding


def test_a_missing_key_points_at_its_table() -> None:
    with pytest.raises(IsaError, match=r"array.rows: missing.*in array, line"):
        parse_hardware(FOCUS.replace("rows = 32", "", 1), "x.toml")


@pytest.mark.parametrize("text", ["[array", "a = ", "[" * 5000, "x = 1979-01-01"])
def test_text_that_is_no_description_is_refused(text: str) -> None:
    with pytest.raises(IsaError):
        parse_hardware(text, "x.toml")


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", b" " * (2 << 20)])
def test_files_that_are_no_text_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.toml"
    path.write_bytes(content)
    with pytest.raises(IsaError) as caught:
        load_hardware(path)
    assert caught.value.code == "hardware.toml"
