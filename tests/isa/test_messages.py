# ruff: noqa: E501  (small programs read better on one line)
"""Messages of containers, programs and assembly text as golden texts; faults have theirs in test_isa_strict."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusc.isa import Program, Symbol, assemble, decode, encode, load, save
from focusc.isa.emulator import Emulator
from focusc.isa.files import atomic_write
from focusc.isa.host import HostSegment
from focusc.isa.insns import Endl, Fence, Halt, Loop, Tile
from focusc.isa.sequencer import expand
from tests.isa.helpers import HARDWARE
from tests.isa.test_isa_concentrate import sic_program
from tests.isa.test_isa_container import image as image  # the fixture
from tests.isa.test_isa_container import resealed, sample
from tests.messages import check_message
from tests.reference_concentration import Window


def section(name: str, content: Any) -> Callable[[bytes], bytes]:
    """The image with one section replaced and its checksums made right again."""
    return lambda image: resealed(image, lambda n, old: content(old) if n == name and callable(content) else content if n == name else old)


def at(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda image: image[:offset] + value + image[offset + len(value) :]


SIZES = r"(?<=offset 0x)[0-9a-f]{3,}|(?<=the file has )\d+"
"""Offsets and sizes that change with the hardware description in the file."""

DAMAGED: dict[str, Callable[[bytes], bytes]] = {
    "container.magic": at(0, b"\x7fELF"),
    "container.version": at(8, struct.pack("<I", 2)),
    "container.sections": at(12, struct.pack("<I", 1 << 30)),
    "container.size": at(16, struct.pack("<Q", 9)),
    "container.truncated": lambda image: image[:100],
    "container.checksum": lambda image: image[:-1] + bytes([image[-1] ^ 1]),
    "container.checksum-header": at(24, bytes(16)),
    "container.content": section("meta", b"{not json"),
    "container.content-meta": section("meta", b'{"sites":5}'),
    "container.debug": section("debugindex", bytes(7)),
    "container.external": section("const", (json.dumps({"bytes": 1, "digest": "", "file": "w.bin"}).encode(), 3)),
    "container.hardware": section("hardware", b'{"name":"other"}'),
    "container.program": section("text", lambda old: old[-32:] + old[:-32]),
    "container.text": section("text", lambda old: old + b"\0"),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_containers(name: str, image: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.fbin").write_bytes(DAMAGED[name](image))
    check_message(name, lambda: load("a.fbin"), request, hide=SIZES)


def unknown_section() -> None:
    save(sample(), "a.fbin", extra={"notes": b"hello"})
    data = Path("a.fbin").read_bytes()
    Path("a.fbin").write_bytes(resealed(data, lambda n, old: (old, 1) if n == "notes" else old))
    load("a.fbin")


def test_containers_of_other_tools(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    check_message("container.required", unknown_section, request, hide=SIZES)
    check_message("container.section", lambda: save(sample(), "b.fbin", extra={"a name that is too long": b""}), request)
    (tmp_path / "folder").mkdir()
    check_message("container.read", lambda: load("folder"), request)
    check_message("file.write", lambda: atomic_write(Path("folder"), b"x"), request)
    check_message("container.json", lambda: save(Program([Halt()], target="focus", hardware=HARDWARE, meta={"a": float("nan")}), "c.fbin"), request)
    check_message("container.target", lambda: save(Program([Halt()], target="x" * 65), "c.fbin"), request)


def test_positions(request: pytest.FixtureRequest) -> None:
    positions = [3, 2]
    found = sic_program(2, 32, positions, Window((1, 1, 9), (9, 9, 1)))
    inputs = {"x": np.ones((2, 32), np.float16), "pos": np.array(positions)}
    check_message("run.positions", executed(found, inputs), request)
    check_message("program.constants", executed(Program([Halt()], const_bytes=4, hardware=HARDWARE)), request)


def missing(image: bytes) -> bytes:
    """Without the section `symbols`: its entry is renamed, so that it is an optional unknown one."""
    from tests.isa.test_isa_container import container, seal

    header = list(container._HEADER.unpack_from(image, 0))
    entries = [list(container._ENTRY.unpack_from(image, 128 + 64 * i)) for i in range(header[2])]
    kept = [e for e in entries if e[0].rstrip(b"\0") != b"symbols"]
    return seal(header, kept, [(e[3], image[e[3] : e[3] + e[4]]) for e in kept])


def test_a_missing_section(image: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.fbin").write_bytes(missing(image))
    check_message("container.missing", lambda: load("a.fbin"), request)


PROGRAMS: dict[str, Callable[[], Program]] = {
    "program.arena": lambda: Program([Halt()], arena_bytes=-1),
    "program.const": lambda: Program([Halt()], b"123", const_bytes=4),
    "program.debug": lambda: Program([Halt()], debug_index=[0, 0]),
    "program.host": lambda: Program([Halt()], host=[HostSegment((Symbol("x0", "input", "f16", (9,), 0),), (), ())]),
    "program.symbol": lambda: Program([Halt()], symbols=[Symbol("x", "input", "f16", (9,), 0)], arena_bytes=8),
    "program.symbol-name": lambda: Program([Halt()], symbols=[Symbol("", "input", "f16", (9,), 0)]),
    "program.text": lambda: Program(np.zeros((2, 3), np.uint64)),
}


def executed(program: Program, inputs: dict[str, Any] | None = None) -> Callable[[], object]:
    return lambda: Emulator(program).run(inputs or {})


@pytest.mark.parametrize("name", PROGRAMS)
def test_programs(name: str, request: pytest.FixtureRequest) -> None:
    check_message(name, PROGRAMS[name], request)


def test_execution(request: pytest.FixtureRequest) -> None:
    check_message("program.hardware", executed(Program([Halt()], hardware={})), request)
    check_message("run.memory", executed(Program([Halt()], arena_bytes=1 << 47, hardware=HARDWARE)), request)
    loop = Program([Loop(1 << 20), Fence(act=1, wgt=0, store=0), Endl(), Halt()])
    check_message("run.trace", lambda: expand(loop, max_bytes=1 << 20), request)
    words = encode([Tile(1, 0, 4, 8, 8)])
    lane, bits = next((i, int(a ^ b)) for i, (a, b) in enumerate(zip(words[0], encode([Tile(2, 0, 4, 8, 8)])[0])) if a != b)
    words[0, lane] |= np.uint64(31 * (bits // 3))  # t31, which names the stream
    check_message("text.operand", lambda: decode(words), request)


ASSEMBLY = {
    "asm.model": '.host {"inputs":[],"outputs":[],"nodes":[]}\n.host_model "no base64!"',
    "asm.arena": ".arena 999999999999999999\nhalt",
    "asm.string": '.debug "\\q", "", "", ""\nhalt',
    "asm.version": ".fasm 2\nhalt",
    "asm.zero": ".zero 99999999999999\nhalt",
}


@pytest.mark.parametrize("name", ASSEMBLY)
def test_assembly(name: str, request: pytest.FixtureRequest) -> None:
    check_message(name, lambda: assemble(ASSEMBLY[name], file="a.fasm"), request)
