"""The container `.fbin`: header, section table, checksummed sections.

Layout (little-endian). Header, 128 bytes: magic[8], version u32, sections u32, file bytes u64, checksum[16] of header
and table (taken with these bytes zero), hardware digest[16], zero[8], target name[64] UTF-8. Table, 64 bytes an entry:
name[16] ASCII, flags u32 (1 required, 2 external, 4 absent), zero u32, offset u64, size u64, checksum[16], zero[8].
Sections start at multiples of 64. Checksums are blake2b-128. Unknown sections are skipped unless they are required. The
constants are flagged external where they lie in a file of their own, and absent (4) where only their size is known:
then the section is the JSON object {"bytes": n}. A program with parts that the host runs also has the required sections
host (their tensors, source nodes and reasons) and hostmodels (their ONNX models, one behind the other).

A container is untrusted: every bound and checksum is verified before use, JSON is validated field by field, constants
are memory-mapped, and nothing in the file is executed.
"""

from __future__ import annotations

import hashlib
import mmap
import os
import struct
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from focusc.isa.errors import FormatError, IsaError
from focusc.isa.files import atomic_open
from focusc.isa.predecode import predecode
from focusc.isa.program import Program, align, hardware_digest
from focusc.isa.sections import (
    SECTIONS,
    check_meta,
    check_plan,
    host_row,
    pack_json,
    read_absent,
    read_debug,
    read_external,
    read_host,
    read_object,
    read_symbols,
)

__all__ = ["MAGIC", "VERSION", "Section", "load", "read_sections", "save"]

MAGIC = b"\x89FBIN\r\n\x1a"
VERSION = 1
_HEADER = struct.Struct("<8sIIQ16s16s8x64s")
_ENTRY = struct.Struct("<16sIIQQ16s8x")
_REQUIRED, _EXTERNAL, _ABSENT = 1, 2, 4
_MAX_SECTIONS = 256


@dataclass(frozen=True, slots=True)
class Section:
    """One entry of the section table."""

    name: str
    flags: int
    offset: int
    size: int
    checksum: bytes

    @property
    def required(self) -> bool:
        return bool(self.flags & _REQUIRED)

    @property
    def external(self) -> bool:
        return bool(self.flags & _EXTERNAL)

    @property
    def absent(self) -> bool:
        return bool(self.flags & _ABSENT)


@dataclass(frozen=True, slots=True)
class Header:
    """The fixed part of a container."""

    version: int
    size: int
    target: str
    digest: str


def _digest(*parts: bytes | bytearray | memoryview | NDArray[np.uint8]) -> bytes:
    state = hashlib.blake2b(digest_size=16)
    for part in parts:
        raw = part.data if isinstance(part, np.ndarray) else memoryview(part)
        view = raw.cast("B") if len(part) else memoryview(b"")
        # In pieces, so that hashing mapped constants does not hold them all in memory.
        for start in range(0, len(view), 1 << 24):
            state.update(view[start:start + (1 << 24)])
    return state.digest()


# ---------------------------------------------------------------- writing


def save(program: Program, path: str | os.PathLike[str], *, external: str | None = None,
         extra: dict[str, bytes] | None = None) -> None:
    """Write a container atomically; the same program always gives the same bytes.

    `external` puts the constants in a file of that name beside the container. `extra` adds optional sections of the
    caller's. IsaError if the program cannot be written.
    """
    target = Path(path)
    encoded = program.target.encode()
    if len(encoded) > 64 or b"\0" in encoded:
        raise IsaError("container.target", f"the target name {program.target!r} is longer than 64 bytes or holds NUL")
    _check_hardware(program.hardware, program.target)
    const = np.ascontiguousarray(program.const, np.uint8)
    content: bytes | NDArray[np.uint8] = const
    flags = _REQUIRED
    if not program.has_constants:
        content = pack_json({"bytes": program.const_bytes})
        flags |= _ABSENT
    elif external is not None:
        if Path(external).name != external or external in ("", ".", "..") or external == target.name:
            raise IsaError("container.external", f"external constants {external!r}: expected a plain file name, "
                           "not that of the container")
        with atomic_open(target.with_name(external)) as handle:
            handle.write(const.data)
        content = pack_json({"bytes": len(const), "digest": _digest(const).hex(), "file": external})
        flags |= _EXTERNAL
    body: list[tuple[str, int, bytes | NDArray[np.uint8]]] = [
        ("text", _REQUIRED, np.ascontiguousarray(program.text, "<u8").reshape(-1).view(np.uint8)),
        ("symbols", _REQUIRED, pack_json({
            "arena_bytes": program.arena_bytes,
            "symbols": [[s.name, s.kind, s.dtype, list(s.shape), s.address] for s in program.symbols]})),
        ("hardware", _REQUIRED, pack_json(program.hardware)),
        ("plan", 0, pack_json(program.plan)),
        ("debug", 0, pack_json([[e.ir, e.node, e.path, e.nn_op] for e in program.debug])),
        ("debugindex", 0, np.ascontiguousarray(program.debug_index, "<i4").view(np.uint8)),
        ("meta", 0, pack_json(program.meta)),
    ]
    if program.host:
        body += [
            ("host", _REQUIRED, pack_json({"segments": [host_row(segment) for segment in program.host],
                                           "bytes": [len(segment.model) for segment in program.host]})),
            ("hostmodels", _REQUIRED, b"".join(segment.model for segment in program.host)),
        ]
    for name, data in (extra or {}).items():
        if name in SECTIONS or not name.isascii() or not 0 < len(name) <= 16:
            raise IsaError("container.section", f"extra section {name!r}: expected a new ASCII name of 1 to 16 bytes")
        body.append((name, 0, data))
    body.append(("const", flags, content))  # last, so that tools can read everything else from the file's beginning
    offset = align(_HEADER.size + _ENTRY.size * len(body))
    entries = b""
    places: list[tuple[int, bytes | NDArray[np.uint8]]] = []
    for name, flag, data in body:
        entries += _ENTRY.pack(name.encode(), flag, 0, offset, len(data), _digest(data))
        places.append((offset, data))
        offset = align(offset + len(data))
    end = places[-1][0] + len(places[-1][1])
    digest = bytes.fromhex(program.hardware_digest)
    checksum = _digest(_HEADER.pack(MAGIC, VERSION, len(body), end, bytes(16), digest, encoded), entries)
    with atomic_open(target) as handle:
        handle.write(_HEADER.pack(MAGIC, VERSION, len(body), end, checksum, digest, encoded) + entries)
        for start, data in places:
            handle.write(bytes(start - handle.tell()))
            handle.write(data.data if isinstance(data, np.ndarray) else data)


# ---------------------------------------------------------------- reading


def _map(handle: BinaryIO, size: int) -> memoryview:
    """The file's bytes, mapped read-only (an empty file cannot be mapped)."""
    return memoryview(mmap.mmap(handle.fileno(), 0, access=mmap.ACCESS_READ)) if size else memoryview(b"")


def _open(path: Path) -> memoryview:
    try:
        with open(path, "rb") as handle:
            return _map(handle, os.fstat(handle.fileno()).st_size)
    except (OSError, ValueError) as error:
        raise FormatError("container.read", f"cannot read: {getattr(error, 'strerror', None) or error}",
                          file=str(path)) from None


def read_sections(path: str | os.PathLike[str]) -> tuple[Header, list[Section], memoryview]:
    """Header, section table and the mapped file, with bounds and header checksum verified; FormatError otherwise."""
    file = Path(path)
    data = _open(file)
    name = str(file)
    if len(data) < 8 or bytes(data[:8]) != MAGIC:
        text = bytes(data[:8]) == b"" and "the file is empty" or "the file does not start with the magic of a .fbin"
        raise FormatError("container.magic", text, file=name, offset=0,
                          hint="compile a model with `focusc compile`, or assemble text with `focusc asm`")
    if len(data) < _HEADER.size:
        raise FormatError("container.truncated", f"the file ends inside the header, after {len(data)} bytes", file=name)
    _, version, count, size, checksum, digest, raw_target = _HEADER.unpack_from(data, 0)
    if version != VERSION:
        raise FormatError("container.version", f"container version {version}, this tool reads {VERSION}", file=name,
                          offset=8, hint="use the focusc that wrote it, or compile again")
    if size != len(data):
        raise FormatError("container.truncated" if len(data) < size else "container.size",
                          f"the file has {len(data)} bytes, its header says {size}", file=name, offset=16)
    end = _HEADER.size + count * _ENTRY.size
    if count > _MAX_SECTIONS or end > size:
        raise FormatError("container.sections", f"{count} sections do not fit", file=name, offset=12)
    bare = bytearray(data[:_HEADER.size])
    bare[24:40] = bytes(16)
    if _digest(bare, data[_HEADER.size:end]) != checksum:
        raise FormatError("container.checksum", "the checksum of header and section table is wrong", file=name,
                          offset=24, hint="the file is damaged; copy or compile it again")
    try:
        target = raw_target.rstrip(b"\0").decode()
    except UnicodeDecodeError:
        raise FormatError("container.target", "the target name is not UTF-8", file=name, offset=64) from None
    sections: list[Section] = []
    for number in range(count):
        at = _HEADER.size + number * _ENTRY.size
        raw, flags, zero, offset, length, check = _ENTRY.unpack_from(data, at)
        try:
            label = raw.rstrip(b"\0").decode("ascii")
        except UnicodeDecodeError:
            raise FormatError("container.section", f"name of section {number} is not ASCII", file=name,
                              offset=at) from None
        if offset % 64 or offset < end or offset + length > size or zero or flags & ~(
                _REQUIRED | _EXTERNAL | _ABSENT) or flags & _EXTERNAL and flags & _ABSENT:
            raise FormatError("container.section", f"entry says bytes {offset:#x}..{offset + length:#x}, flags "
                              f"{flags:#x}; sections are 64-byte aligned inside {end:#x}..{size:#x}", section=label,
                              offset=at, file=name)
        if any(s.name == label for s in sections):
            raise FormatError("container.section", "the section appears twice", section=label, offset=at, file=name)
        if label not in SECTIONS and flags & _REQUIRED:
            raise FormatError("container.required", "the section is required and unknown to this tool", section=label,
                              offset=at, file=name, hint="the file needs a newer focusc")
        sections.append(Section(label, flags, offset, length, check))
    ordered = sorted((s for s in sections if s.size), key=lambda s: s.offset)
    for left, right in pairwise(ordered):
        if left.offset + left.size > right.offset:
            raise FormatError("container.section", f"overlaps section {right.name}", section=left.name,
                              offset=left.offset, file=name)
    return Header(version, size, target, digest.hex()), sections, data


def load(path: str | os.PathLike[str], *, verify: bool = True) -> Program:
    """Read a container. FormatError (code, section, offset) for anything that is not exactly right.

    Constants stay mapped; `verify=False` skips only their checksum (they are the bulk of the file).
    """
    header, sections, data = read_sections(path)
    file = str(path)
    by_name = {s.name: s for s in sections}

    def part(name: str, check: bool = True) -> memoryview:
        section = by_name.get(name)
        if section is None:
            raise FormatError("container.missing", "the section is missing", section=name, file=file)
        content = data[section.offset:section.offset + section.size]
        if check and _digest(content) != section.checksum:
            raise FormatError("container.checksum", "the checksum is wrong", section=name, offset=section.offset,
                              file=file, hint="the file is damaged; copy or compile it again")
        return content

    try:
        text = part("text")
        if len(text) % 32:
            raise FormatError("container.text", f"{len(text)} bytes are not whole 32-byte words", section="text",
                              offset=by_name["text"].offset)
        words = np.frombuffer(text, "<u8").reshape(-1, 4)
        symbols, arena = read_symbols(part("symbols"))
        hardware = read_object(part("hardware"), "hardware")
        if hardware_digest(hardware) != header.digest:
            raise FormatError("container.hardware", "the embedded hardware description does not match the header's "
                              "digest", section="hardware", offset=by_name["hardware"].offset)
        _check_hardware(hardware, header.target, by_name["hardware"].offset)
        plan = read_object(part("plan"), "plan") if "plan" in by_name else {}
        check_plan(plan)
        meta = read_object(part("meta"), "meta") if "meta" in by_name else {}
        check_meta(meta)
        debug = read_debug(part("debug")) if "debug" in by_name else []
        index: NDArray[np.int32] | None = None
        if "debugindex" in by_name:
            raw = part("debugindex")
            if len(raw) != 4 * len(words):
                raise FormatError("container.debug", f"{len(raw)} bytes for {len(words)} instructions",
                                  section="debugindex", offset=by_name["debugindex"].offset)
            index = np.frombuffer(raw, "<i4")
        host = read_host(part("host"), part("hostmodels")) if "host" in by_name else []
        const_bytes: int | None = None
        if "const" in by_name and by_name["const"].absent:
            const, const_bytes = np.zeros(0, np.uint8), read_absent(part("const"))
        elif "const" in by_name and by_name["const"].external:
            const = _external(Path(path), part("const"), verify)
        else:
            const = np.frombuffer(part("const", verify), np.uint8)
        program = Program(words, const, symbols, arena, header.target, hardware, plan, debug, index, meta,
                          const_bytes=const_bytes, host=host)
        predecode(program)  # refuses illegal words and badly nested loops
    except FormatError as error:
        raise error if error.where.startswith(file) else FormatError(
            error.code, error.message, section=error.section, offset=error.offset, file=file, hint=error.hint) from None
    except IsaError as error:
        raise FormatError("container.program", f"{error.where + ': ' if error.where else ''}{error.message}",
                          file=file) from None
    return program


def _check_hardware(hardware: dict[str, Any], target: str, offset: int = -1) -> None:
    """FormatError unless the description is complete and valid, and that of the target."""
    from focusc.isa.machine import Machine  # pydantic: only for programs from or to a file

    try:
        name = Machine.from_dict(hardware).name
    except IsaError as error:
        raise FormatError("container.hardware", error.message, section="hardware", offset=offset,
                          hint="a program carries the description of the hardware it is for: compile for a target, or "
                          "give .hardware in assembly text") from None
    if name != target:
        raise FormatError("container.target", f"the program is for target {target!r}, its hardware description is of "
                          f"{name!r}", section="hardware", offset=offset)


def _external(path: Path, content: memoryview, verify: bool) -> NDArray[np.uint8]:
    """Constants from the file beside the container."""
    name, size, digest = read_external(content)
    beside = path.with_name(name)
    if not beside.is_file():
        raise FormatError("container.external", f"the constants' file {name} is not beside the container",
                          section="const", hint="copy it there, under this name")
    data = _open(beside)
    if len(data) != size:
        raise FormatError("container.external", f"{name} has {len(data)} bytes, expected {size}", section="const")
    if verify and _digest(data).hex() != digest:
        raise FormatError("container.checksum", f"the checksum of {name} is wrong", section="const")
    return np.frombuffer(data, np.uint8)
