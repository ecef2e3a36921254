# ruff: noqa: E501  (golden messages and small programs read better on one line)
"""Containers: exact round trips, unknown sections, and files that nobody should trust."""

from __future__ import annotations

import json
import os
import struct
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from focusc.isa import (
    AsmError,
    DebugEntry,
    FormatError,
    Insn,
    IsaError,
    Program,
    Symbol,
    assemble,
    container,
    load,
    save,
)
from focusc.isa.files import atomic_open, atomic_write
from focusc.isa.host import HostNode, HostSegment
from focusc.isa.insns import Halt, Host, LdAct, St, Tile, VFill
from focusc.isa.objdump import objdump
from focusc.isa.sections import pack_json
from tests.isa.helpers import HARDWARE
from tests.isa.strategies import CLASSES, insns

TEXT = st.text(st.characters(categories=("L", "N", "P", "Zs")), min_size=1, max_size=12)
JSON = st.recursive(st.none() | st.booleans() | st.integers(-(1 << 53), 1 << 53) | st.floats(allow_nan=False, allow_infinity=False)
                    | TEXT, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3), max_leaves=6)
BODY = st.lists(insns([c for c in CLASSES if c.mnemonic not in ("loop", "endl", "halt", "host")]), max_size=6)


@st.composite
def segments(draw: st.DrawFn, base: int, arena: int) -> HostSegment:
    """A host segment of any tensors in the arena, with any bytes for a model."""
    tensors: dict[str, list[Symbol]] = {"input": [], "output": []}
    for name in draw(st.lists(TEXT.filter(str.isprintable), max_size=3, unique=True)):
        kind, dtype = draw(st.sampled_from(["input", "output"])), draw(st.sampled_from(["f16", "f32", "i32"]))
        at = -(-draw(st.integers(base, base + arena)) // 4) * 4
        room = (base + arena - at) // {"f16": 2, "f32": 4, "i32": 4}[dtype]
        if room >= 0:
            tensors[kind].append(Symbol(name, kind, dtype, (draw(st.integers(0, room)),), at))
    nodes = draw(st.lists(st.builds(HostNode, TEXT, TEXT, TEXT, TEXT, TEXT, TEXT, st.integers(0, 1 << 40)), max_size=2))
    return HostSegment(tuple(tensors["input"]), tuple(tensors["output"]), tuple(nodes), draw(st.binary(max_size=200)))


@st.composite
def programs(draw: st.DrawFn) -> Program:
    const, arena = draw(st.binary(max_size=200)), draw(st.integers(0, 500))
    base = -(-len(const) // 64) * 64
    host = draw(st.lists(segments(base, arena), max_size=2))
    calls = [Host(draw(st.integers(0, len(host) - 1))) for _ in range(draw(st.integers(0, 2)))] if host else []
    body: list[Insn] = [*draw(BODY), *calls, Halt()]
    names = draw(st.lists(TEXT.filter(lambda t: t.isprintable()), max_size=3, unique=True))
    symbols = []
    for name in names:
        kind, dtype = draw(st.sampled_from(["input", "output", "scratch", "const"])), draw(st.sampled_from(["f16", "u8", "i32"]))
        low, high = (0, len(const)) if kind == "const" else (base, base + arena)
        at = draw(st.integers(low, high))
        room = (high - at) // {"f16": 2, "u8": 1, "i32": 4}[dtype]
        symbols.append(Symbol(name, kind, dtype, (draw(st.integers(0, room)),), at))
    debug = draw(st.lists(st.builds(DebugEntry, TEXT, TEXT, TEXT, TEXT), max_size=3))
    index = [draw(st.integers(-1, len(debug) - 1)) for _ in body]
    name = draw(st.from_regex(r"[a-z][a-z0-9_.-]{0,20}", fullmatch=True))
    return Program(body, const, symbols, arena, name, {**HARDWARE, "name": name, "description": draw(TEXT)},
                   draw(st.dictionaries(TEXT, JSON, max_size=2)), debug, index, draw(st.dictionaries(TEXT, JSON, max_size=2)),
                   host=host)


FOLDER = settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@FOLDER
@given(program=programs(), external=st.booleans())
def test_round_trip(program: Program, external: bool, tmp_path: Path) -> None:
    a, b = tmp_path / "a.fbin", tmp_path / "b.fbin"
    name = "weights.bin" if external else None
    save(program, a, external=name)
    found = load(a)
    assert found == program
    save(found, b, external=name)
    assert a.read_bytes() == b.read_bytes()


def sample() -> Program:
    text = [Tile(1, 0, 4, 8, 8), VFill(1, 1.5), St(1, 128, 16), LdAct(0, 1, 8, 0), St("s", 192, 0), Halt()]
    return Program(text, bytes(range(100)), [Symbol("y", "output", "f16", (4, 8), 128), Symbol("w", "const", "u8", (100,), 0)],
                   80, "focus", HARDWARE, {"buffers": []},
                   [DebugEntry("nn.linear", "/Add", "model.layers.0", "nn.linear"), DebugEntry("", "/Mul", "", "")],
                   [0, 0, 0, -1, 1, -1], {"sites": [{"layer": 0, "site": "qkv_in", "tokens": 4, "retained": 4, "slots": 1}]})


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    path = tmp_path_factory.mktemp("c") / "s.fbin"
    save(sample(), path)
    return path.read_bytes()


def opened(data: bytes, folder: Path) -> Program:
    path = folder / "t.fbin"
    path.write_bytes(data)
    return load(path)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_damaged_file_is_refused_or_the_same(data: st.DataObject, image: bytes, tmp_path: Path) -> None:
    """Flipped bits, cut ends, appended bytes: FormatError, or (in the padding) the very same program."""
    kind = data.draw(st.sampled_from(["flip", "cut", "add"]))
    if kind == "flip":
        damaged = bytearray(image)
        for bit in data.draw(st.lists(st.integers(0, 8 * len(image) - 1), min_size=1, max_size=3)):
            damaged[bit // 8] ^= 1 << bit % 8
    elif kind == "cut":
        damaged = bytearray(image[:data.draw(st.integers(0, len(image) - 1))])
    else:
        damaged = bytearray(image + data.draw(st.binary(min_size=1, max_size=9)))
    try:
        assert opened(bytes(damaged), tmp_path) == sample()
    except FormatError as error:
        assert error.render().count("\n") <= 1 and "t.fbin" in error.render()


def resealed(image: bytes, change: Any) -> bytes:
    """The image with sections rewritten by `change(name, content)` and every checksum made right again."""
    header = list(container._HEADER.unpack_from(image, 0))
    entries, parts = [], []
    offset = -(-(128 + 64 * header[2]) // 64) * 64
    for number in range(header[2]):
        name, flags, zero, start, size, _ = container._ENTRY.unpack_from(image, 128 + 64 * number)
        content = change(name.rstrip(b"\0").decode(), image[start:start + size])
        if isinstance(content, tuple):
            content, flags = content
        entries.append((name, flags, zero, offset, len(content), container._digest(content)))
        parts.append((offset, content))
        offset = -(-(offset + len(content)) // 64) * 64
    return seal(header, entries, parts)


def seal(header: list[Any], entries: list[Any], parts: list[tuple[int, bytes]]) -> bytes:
    header[2], header[3] = len(entries), max((at + len(content) for at, content in parts), default=128)
    table = b"".join(container._ENTRY.pack(*entry) for entry in entries)
    header[4] = bytes(16)
    header[4] = container._digest(container._HEADER.pack(*header), table)
    out = bytearray(header[3])
    out[:128 + len(table)] = container._HEADER.pack(*header) + table
    for at, content in parts:
        out[at:at + len(content)] = content
    return bytes(out)


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.sampled_from(["text", "symbols", "hardware", "plan", "debug", "debugindex", "meta", "const"]),
       content=st.binary(max_size=80) | JSON.map(pack_json), data=st.data())
def test_hostile_contents_with_right_checksums(name: str, content: bytes, data: st.DataObject, image: bytes,
                                               tmp_path: Path) -> None:
    flags = data.draw(st.sampled_from([1, 3])) if name == "const" else 1
    try:
        opened(resealed(image, lambda n, old: (content, flags) if n == name else old), tmp_path)
    except FormatError as error:
        assert error.code.startswith("container.")


SYMBOLS: list[tuple[Any, str | None]] = [
    ({"arena_bytes": -1, "symbols": []}, "arena_bytes is -1, expected an integer in 0..281474976710656"),
    ({"arena_bytes": 1 << 60, "symbols": []}, f"arena_bytes is {1 << 60}, expected an integer in 0..281474976710656"),
    ({"arena_bytes": 64, "symbols": [["y", "output", "f16", [1 << 40, 1 << 40], 128]]}, None),
    ({"arena_bytes": 64, "symbols": [["y", "output", "f99", [1], 128]]}, "symbol y: type is 'f99', expected one of f16, bf16, f32, "
                                                                        "i8, u8, u16, i32"),
    ({"arena_bytes": 64, "symbols": [["y", "output", "f16", [1] * 99, 128]]}, "symbol y: 99 dimensions"),
    ({"arena_bytes": 64, "symbols": [[1, 2]]}, "symbol 0 is not [name, kind, dtype, shape, address]"),
    ({"arena_bytes": 64, "symbols": [["y", "output", "f16", [True], 128]]}, "extent of y is True, expected an integer in "
                                                                          "0..281474976710656"),
]


@pytest.mark.parametrize(("value", "message"), SYMBOLS)
def test_symbols_are_checked(value: Any, message: str | None, image: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        opened(resealed(image, lambda n, old: json.dumps(value).encode() if n == "symbols" else old), tmp_path)
    assert message is None or caught.value.message == message


def test_deep_json_and_long_numbers_do_not_hurt(image: bytes, tmp_path: Path) -> None:
    for content in (b"[" * 100_000, b'{"a":' * 50_000, b'{"a":' + b"9" * 100_000 + b"}", b'{"a":NaN}', b"\xff\xfe"):
        with pytest.raises(FormatError) as caught:
            opened(resealed(image, lambda n, old, c=content: c if n == "meta" else old), tmp_path)
        assert caught.value.code == "container.content" and len(caught.value.render()) < 400


WRONG = (5, "x", [1], {"a": [1]}, None)
SITE = {"layer": 0, "site": "qkv_in", "tokens": 4, "retained": 4, "slots": 1}
BUFFER = {"name": "x", "offset": 0, "bytes": 64, "from": 0, "to": 1}
FIELDS = [
    *(("meta", {key: value}, key) for key in ("sites", "nodes") for value in WRONG),
    *(("meta", {key: value}, key) for key in ("model", "concentrate") for value in (5, None, ["x"])),
    *(("meta", {"layout": value}, "layout") for value in (5, "x", [1], None)),
    *(("meta", {"unused_inputs": value}, "unused_inputs") for value in (5, "x", {}, None, ["x", 3])),
    *(("meta", {"sites": [{**SITE, key: value}]}, f"sites[0].{key}") for key in SITE for value in (None, [1], 1.5, -1)),
    *(("meta", {"sites": [{k: v for k, v in SITE.items() if k != key}]}, key) for key in SITE),
    ("meta", {"sites": [SITE, {**SITE, "m": 0}]}, "sites[1].m"),
    *(("meta", {"nodes": [{key: value}]}, f"nodes[0].{key}") for key in ("op", "node", "path", "region", "macs_dense",
                                                                       "useful") for value in (None, [1], True)),
    ("meta", {"nodes": [{"useful": 1e300}]}, "nodes[0].useful"),
    *(("plan", {"buffers": value}, "buffers") for value in WRONG),
    *(("plan", {"buffers": [{**BUFFER, key: value}]}, f"buffers[0].{key}") for key in BUFFER for value in (None, [1])),
    *(("plan", {"buffers": [{k: v for k, v in BUFFER.items() if k != key}]}, key) for key in BUFFER),
]


@pytest.mark.parametrize(("name", "value", "field"), FIELDS, ids=lambda item: str(item)[:60])
def test_metadata_of_wrong_types_is_refused_by_name(name: str, value: Any, field: str, image: bytes,
                                                    tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        opened(resealed(image, lambda n, old: json.dumps(value).encode() if n == name else old), tmp_path)
    assert (caught.value.code, caught.value.section) == ("container.content", name) and field in caught.value.message
    with pytest.raises(AsmError) as assembled:
        assemble(f".{name} {json.dumps(value)}\nhalt\n")
    assert (assembled.value.code, assembled.value.message) == ("asm.json", caught.value.message)


def test_unknown_optional_sections_are_skipped_and_required_ones_refused(tmp_path: Path) -> None:
    save(sample(), tmp_path / "a.fbin", extra={"notes": b"hello"})
    assert load(tmp_path / "a.fbin") == sample()
    image = (tmp_path / "a.fbin").read_bytes()
    with pytest.raises(FormatError) as caught:
        opened(resealed(image, lambda n, old: (old, 1) if n == "notes" else old), tmp_path)
    assert caught.value.code == "container.required" and "section notes" in caught.value.render()


@pytest.mark.parametrize(("at", "value", "code"), [
    (0, b"\x7fELF", "container.magic"), (8, struct.pack("<I", 2), "container.version"),
    (12, struct.pack("<I", 1 << 30), "container.sections"), (16, struct.pack("<Q", 9), "container.size"),
    (16, struct.pack("<Q", 1 << 40), "container.truncated"), (24, bytes(16), "container.checksum")])
def test_header_errors(at: int, value: bytes, code: str, image: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        opened(image[:at] + value + image[at + len(value):], tmp_path)
    assert caught.value.code == code and caught.value.hint is not None


def test_table_entries_are_checked(image: bytes, tmp_path: Path) -> None:
    header = list(container._HEADER.unpack_from(image, 0))
    entries = [list(container._ENTRY.unpack_from(image, 128 + 64 * i)) for i in range(header[2])]
    parts = [(e[3], image[e[3]:e[3] + e[4]]) for e in entries]
    for column, row, value in ((3, 0, 1), (3, 0, 0), (3, 1, entries[0][3]), (4, 0, 1 << 60), (3, 0, (1 << 64) - 64), (2, 0, 1),
                               (1, 0, 64), (0, 1, b"text"), (0, 1, b"\xff\xff")):
        changed = [list(e) for e in entries]
        changed[row][column] = value
        with pytest.raises(FormatError):
            opened(seal(list(header), changed, parts), tmp_path)
    for missing in ("text", "symbols", "hardware", "const"):
        rest = [i for i, e in enumerate(entries) if e[0].rstrip(b"\0") != missing.encode()]
        with pytest.raises(FormatError) as caught:
            opened(seal(list(header), [entries[i] for i in rest], [parts[i] for i in rest]), tmp_path)
        assert caught.value.code == "container.missing" and caught.value.section == missing


def test_illegal_words_are_refused_on_loading(image: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        opened(resealed(image, lambda n, old: b"\xfe" + old[1:] if n == "text" else old), tmp_path)
    assert caught.value.message == "pc 0: no instruction has opcode 0xfe"


def test_hardware_must_match_its_digest(image: bytes, tmp_path: Path) -> None:
    with pytest.raises(FormatError) as caught:
        opened(resealed(image, lambda n, old: b'{"name":"other"}' if n == "hardware" else old), tmp_path)
    assert caught.value.code == "container.hardware"


@pytest.mark.parametrize(("changes", "target", "code", "message"), [
    ({"buffers": {}}, "focus", "container.hardware", "buffers.output: missing; it has no default"),
    ({"colour": 1}, "focus", "container.hardware", "colour: unknown key"),
    ({"clock_hz": "500 MHz"}, "focus", "container.hardware", "clock_hz: found '500 MHz', expected"),
    ({"name": "other"}, "focus", "container.target", "target 'focus', its hardware description is of 'other'"),
    ({}, "", "container.target", "target '', its hardware description is of 'focus'"),
])
def test_hardware_must_be_a_description_of_the_target(changes: dict[str, object], target: str, code: str, message: str,
                                                      tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program = sample()
    program.hardware, program.target = {**program.hardware, **changes}, target
    with pytest.raises(FormatError) as caught:
        save(program, tmp_path / "a.fbin")
    assert caught.value.code == code and message in caught.value.message and not os.listdir(tmp_path)
    with monkeypatch.context() as patch:  # a file that another tool wrote
        patch.setattr(container, "_check_hardware", lambda *_: None)
        save(program, tmp_path / "a.fbin")
    with pytest.raises(FormatError) as caught:
        load(tmp_path / "a.fbin")
    assert caught.value.code == code and message in caught.value.message and caught.value.section == "hardware"


@pytest.mark.parametrize("name", ["../etc/passwd", "/etc/passwd", "a\\b", "..", "", "c:x"])
def test_external_constants_stay_beside_the_file(name: str, image: bytes, tmp_path: Path) -> None:
    content = json.dumps({"bytes": 1, "digest": "", "file": name}).encode()
    with pytest.raises(FormatError) as caught:
        opened(resealed(image, lambda n, old: (content, 3) if n == "const" else old), tmp_path)
    assert caught.value.message.startswith("external file")


def test_external_constants_are_checked(tmp_path: Path) -> None:
    path, weights = tmp_path / "a.fbin", tmp_path / "w.bin"
    save(sample(), path, external="w.bin")
    assert weights.read_bytes() == bytes(range(100)) and len(path.read_bytes()) < 9000
    for damage, message in ((lambda: weights.write_bytes(b"x"), "has 1 bytes, expected 100"),
                            (lambda: weights.write_bytes(bytes(100)), "checksum of w.bin is wrong"),
                            (lambda: weights.unlink(), "is not beside the container")):
        damage()
        with pytest.raises(FormatError) as caught:
            load(path)
        assert message in caught.value.render()


def test_constants_are_mapped_not_copied(tmp_path: Path) -> None:
    save(sample(), tmp_path / "a.fbin")
    const = load(tmp_path / "a.fbin").const
    assert not const.flags.owndata and not const.flags.writeable and const.ctypes.data % 64 == 0


def test_saving_is_atomic(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a.fbin"
    save(sample(), path)
    before = path.read_bytes()
    with pytest.raises(RuntimeError), atomic_open(path) as handle:
        handle.write(b"half")
        raise RuntimeError
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.fbin"]
    monkeypatch.setattr(os, "fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(IsaError) as caught:
        atomic_write(path, b"new")
    assert caught.value.code == "file.write" and "No space left on device" in caught.value.render()
    assert path.read_bytes() == before and os.listdir(tmp_path) == ["a.fbin"]


def test_writing_where_one_cannot(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    for target in (tmp_path / "none" / "a", tmp_path / "folder"):
        with pytest.raises(IsaError) as caught:
            atomic_write(target, b"x")
        assert caught.value.code == "file.write" and str(target) in caught.value.render()
    assert os.listdir(tmp_path) == ["folder"] and not os.listdir(tmp_path / "folder")


def test_what_cannot_be_written_is_said() -> None:
    for program, code in ((Program([Halt()], target="x" * 65), "container.target"),
                          (Program([Halt()], target="focus", hardware=HARDWARE, meta={"a": float("nan")}), "container.json"),
                          (Program([Halt()], target="focus", hardware=HARDWARE, meta={"a": np.float32(1)}), "container.json")):
        with pytest.raises(IsaError) as caught:
            save(program, "never.fbin")
        assert caught.value.code == code
    assert not os.path.exists("never.fbin")


OBJDUMP = """\
headers

format     fbin version 1, little-endian, 8 sections, {size} bytes
target     focus
hardware   focus, digest {digest}
text       6 instructions, 192 bytes
engines    lda 1, seq 2, st 2, vec 1
constants  100 bytes at 0x0
arena      80 bytes at 0x80
sites      1 concentration sites
debug      2 source nodes

symbols

address  bytes  kind    type  shape  name
    0x0    100  const   u8    100    w
   0x80     64  output  f16   4x8    y

disassembly

; model.layers.0 [/Add] nn.linear
;   nn.linear
0: tile t1, off=0, rows=4, cols=8, pitch=8
1: v.fill t1, 1.5
2: st t1, [y], stride=16
; (no source)
3: ld.act [w], rows=1, cols=8, stride=0
; [/Mul]
4: st s, [0xc0], stride=0
; (no source)
5: halt
"""


def test_objdump_is_stable(image: bytes, tmp_path: Path) -> None:
    path = tmp_path / "a.fbin"
    path.write_bytes(image)
    text = objdump(path, header=True, symbol=True, source=True)
    assert text == OBJDUMP.format(digest=sample().hardware_digest, size=len(image))
    assert objdump(path, section=True).splitlines()[2:4] == [
        "name        offset  bytes  flags     blake2b-128",
        f"text         0x280    192  required  {container._digest(sample().text.tobytes()).hex()}"]
