"""Host segments in a program: what the instruction `host` does, what orders it, and files that lie about them."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from focusc.isa import Fault, FormatError, Insn, IsaError, Program, Symbol, assemble, disassemble, load, save
from focusc.isa.container import read_sections
from focusc.isa.emulator import Emulator
from focusc.isa.emulator.ahead import followers
from focusc.isa.host import HostNode, HostSegment
from focusc.isa.insns import Halt, Host, LdAct, LdWgt, Mma, St, Tile, VLd
from focusc.isa.machine import Machine
from focusc.isa.objdump import objdump
from focusc.isa.sequencer import expand
from focusc.isa.stats import host_totals, stats
from focusc.isa.timing import simulate
from tests.isa.helpers import HARDWARE, Layout

Arrays = Mapping[str, NDArray[Any]]
MACHINE = Machine.from_dict(HARDWARE)


def doubled(number: int, inputs: Arrays) -> dict[str, NDArray[Any]]:
    return {"y0": inputs["x0"].astype(np.float64) * 2}


def program(text: list[Insn] | None = None, dtype: str = "f16") -> Program:
    """y = 2 x on the host, then z = y through the output buffer; x, y, z [4, 8] at 0, 64 (128), ..."""
    at = Layout()
    x, y, z = (at.add(name, kind, (4, 8), dtype) for name, kind in (("x", "input"), ("y", "scratch"), ("z", "output")))
    item = 2 if dtype == "f16" else 4
    copy = [LdAct(y, 4, 8, 8 * item, dtype=dtype), Tile(1, 0, 4, 8, 8), VLd(1), St(1, z, 8 * item, dtype=dtype)]
    nodes = (HostNode("tensor.cumsum", "scan", "m", "lower.op", "no unit for it", "do without", 7),)
    segment = HostSegment((Symbol("x0", "input", dtype, (4, 8), x),), (Symbol("y0", "output", dtype, (4, 8), y),),
                          nodes, b"model")
    return at.program([Host(0), *copy] if text is None else text, host=[segment], target="focus",
                      meta={"nodes": [{"op": "nn.linear", "macs_dense": 21}]})


X = {"x": np.arange(32, dtype=np.float32).reshape(4, 8)}


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("dtype", ["f16", "f32"])
def test_reads_its_inputs_and_writes_its_outputs(strict: bool, dtype: str) -> None:
    found = Emulator(program(dtype=dtype), strict, host=doubled).run(X).outputs["z"]
    np.testing.assert_array_equal(found, X["x"] * 2)


def test_a_program_without_a_host_stops_with_the_reason() -> None:
    with pytest.raises(Fault) as caught:
        Emulator(program()).run(X)
    assert caught.value.render() == (
        "pc 0: host 0: error[run.host]: segment 0 is the host's to run (1 nodes), and nothing here runs it\n"
        "  hint: `focusc run` and `focusc.run` bring onnxruntime; Emulator takes it as `host`")
    bare = program()
    bare.host = [replace(bare.host[0], model=b"")]
    with pytest.raises(Fault, match="compiled without weights"):
        Emulator(bare, host=doubled).run(X)


def test_no_fence_is_needed_around_a_host_segment() -> None:
    """Stores before it, loads behind it: strict emulation finds nothing to complain about."""
    base = program()
    x, y, z = (s.address for s in base.symbols)
    store = [LdAct(x, 4, 8, 16), Tile(1, 0, 4, 8, 8), VLd(1), St(1, x + 512, 16)]
    load_ = [LdAct(y, 4, 8, 16), VLd(1), St(1, z, 16)]
    wide = Program([*store, Host(0), *load_, Halt()], b"", base.symbols, 2048, hardware=HARDWARE, host=[
        replace(base.host[0], inputs=(replace(base.host[0].inputs[0], address=x + 512),))])
    np.testing.assert_array_equal(Emulator(wide, True, host=doubled).run(X).outputs["z"], X["x"] * 2)
    # the same with a store in its place is a race
    raced = Program([*store, LdAct(x + 512, 4, 8, 16), VLd(1), St(1, z, 16), Halt()], b"", base.symbols, 2048,
                    hardware=HARDWARE)
    with pytest.raises(Fault, match=r"run\.race"):
        Emulator(raced, True).run(X)


def test_strict_finds_a_host_that_reads_what_nothing_wrote() -> None:
    wrong = program([Host(0)])
    wrong.host = [replace(wrong.host[0], inputs=(replace(wrong.host[0].inputs[0], address=wrong.symbols[2].address),))]
    with pytest.raises(Fault, match=r"run\.unwritten"):
        Emulator(wrong, True, host=doubled).run(X)


@pytest.mark.parametrize(("gives", "message"), [
    (lambda n, x: {}, "the host gave no y0"),
    (lambda n, x: {"y0": np.zeros((4, 7))}, "the shape [4, 7], expected [4, 8]"),
    (lambda n, x: {"y0": np.zeros((4, 8), np.int64)}, "the type int64, expected floats"),
])
def test_outputs_of_the_host_are_checked(gives: Any, message: str) -> None:
    with pytest.raises(Fault) as caught:
        Emulator(program(), host=gives).run(X)
    assert caught.value.code == "run.host" and message in caught.value.message


def test_whole_numbers_and_values_beyond_f16() -> None:
    base = program([Host(0)])
    integer = Symbol("y0", "output", "i32", (2,), base.symbols[1].address)
    base.host = [replace(base.host[0], outputs=(integer,))]
    base.symbols = [base.symbols[0], Symbol("z", "output", "i32", (2,), integer.address)]

    def giving(value: Any) -> NDArray[Any]:
        return Emulator(base, host=lambda n, x: {"y0": np.asarray(value)}).run(X).outputs["z"]

    np.testing.assert_array_equal(giving(np.array([-5, 1 << 30])), [-5, 1 << 30])
    with pytest.raises(Fault, match="which i32 does not hold"):
        giving(np.array([0, 1 << 40]))
    with pytest.raises(Fault, match="expected whole numbers"):
        giving(np.array([0.5, 1]))
    large = Emulator(program(), host=lambda n, x: {"y0": np.full((4, 8), -3.4e38)}).run(X).outputs["z"]
    assert (large == np.float16(-65504)).all(), "the fill of a mask stays finite"
    some = np.zeros((4, 8), np.float32)
    some[0, :3] = 7e4, -1e9, np.finfo(np.float32).min
    clipped = Emulator(program(), host=lambda n, x: {"y0": some}).run(X)
    assert clipped.clipped == 2 and clipped.outputs["z"][0, :3].tolist() == [65504, -65504, -65504]
    with pytest.raises(Fault) as caught:
        Emulator(program(), True, host=lambda n, x: {"y0": some}).run(X)
    assert caught.value.render().startswith("pc 0: host 0: error[run.nonfinite]: the host gave y0 2 finite values "
                                            "beyond f16, up to ")
    fill = np.full((4, 8), np.finfo(np.float32).min)
    masked = Emulator(program(), True, host=lambda n, x: {"y0": fill}).run(X)
    assert masked.clipped == 0 and (masked.outputs["z"] == np.float16(-65504)).all()
    endless = Emulator(program(), host=lambda n, x: {"y0": np.full((4, 8), np.inf)}).run(X).outputs["z"]
    assert np.isposinf(endless).all()


def test_what_is_issued_behind_it_waits_for_what_was_issued_before() -> None:
    base = program()
    x, y, z = (s.address for s in base.symbols)
    load_ = [LdAct(x, 4, 8, 16), Tile(1, 0, 4, 8, 8), VLd(1), St(1, y + 1024, 16)]
    again = [LdAct(x, 4, 8, 16), Tile(2, 4096, 4, 8, 8), VLd(2), St(2, z, 16)]
    free, held = (Program([*load_, *middle, *again, Halt()], b"", base.symbols, 4096, hardware=HARDWARE, host=base.host)
                  for middle in ([], [Host(0)]))
    timings = [simulate(p, MACHINE) for p in (free, held)]
    assert timings[0].cycles < timings[1].cycles
    at = int(np.flatnonzero(timings[1].trace.op == Host.opcode)[0])
    t = timings[1]
    assert (t.start[at + 1:] >= t.end[:at].max()).all(), "a later command starts before an earlier one is complete"
    assert t.stalls["seq"]["fence"] > 0
    pieces = simulate(held, MACHINE, detail=False)
    assert (pieces.cycles, pieces.stalls, pieces.busy) == (t.cycles, t.stalls, t.busy)
    for engine in t.busy:
        assert t.busy[engine] + sum(t.stalls[engine].values()) == t.cycles


def test_no_product_is_computed_ahead_across_a_host_segment() -> None:
    base = program()
    x, y, _ = (s.address for s in base.symbols)

    def product(tile: int, weights: int) -> list[Insn]:
        return [LdAct(x, 4, 8, 16), LdWgt(weights, 8, 8, 16), Tile(tile, 512 * tile, 4, 8, 8), Mma(tile, 8)]

    def ahead(middle: list[Insn]) -> int:
        text = [*product(1, y + 512), *middle, *product(2, y + 1024), Halt()]
        trace = expand(Program(text, b"", base.symbols, 4096, hardware=HARDWARE, host=base.host))
        return sum(map(len, followers(trace, (0, 0)).values()))

    assert (ahead([]), ahead([Host(0)])) == (1, 0)


def test_statistics_say_what_the_host_does() -> None:
    found = stats(program(), MACHINE, None, simulate(program(), MACHINE))
    assert found["host"] == host_totals(program()) == {
        "segments": 1, "nodes": 1, "macs": 7, "share": 0.25, "bytes": {"in": 64, "out": 64}, "seconds": None,
        "clipped": None}
    assert host_totals(Program([Halt()]))["share"] == 0.0


def test_text_and_listing() -> None:
    text = disassemble(program())
    assert assemble(text) == program() and disassemble(assemble(text)) == text
    assert '.host_model "bW9kZWw="' in text and "    host 0\n" in text


def test_objdump_lists_segments_and_reasons(tmp_path: Path) -> None:
    save(program(), tmp_path / "p.fbin")
    listing = objdump(tmp_path / "p.fbin")
    assert "host       1 segments, 1 nodes, 7 MACs, models of 5 bytes" in listing
    assert listing.split("host\n\n")[1] == (
        "segment 0: 1 nodes, 7 MACs, 5 bytes of ONNX\n"
        "  input   x0  f16[4, 8] at 0x0\n"
        "  output  y0  f16[4, 8] at 0x40\n"
        "  m [scan] tensor.cumsum: no unit for it (lower.op)\n")


@pytest.mark.parametrize(("change", "message"), [
    ({"address": 1 << 20}, "lies outside the arena"),
    ({"address": 1}, "not aligned"),
    ({"dtype": "u8"}, "expected f16, f32, i32 or i8"),
    ({"name": "y0"}, "named twice"),
])
def test_tensors_are_checked_when_a_program_is_made(change: dict[str, Any], message: str) -> None:
    base = program()
    base.host = [replace(base.host[0], inputs=(replace(base.host[0].inputs[0], **change),))]
    with pytest.raises(IsaError, match=message):
        base.check()


def test_the_instruction_names_a_segment_that_there_is() -> None:
    with pytest.raises(IsaError, match="there is no such segment, the program has 1"):
        Emulator(program([Host(1)]), host=doubled).run(X)


def rewritten(path: Path, **parts: bytes) -> None:
    """The container with some sections replaced, all checksums right."""
    import hashlib
    import struct

    _, sections, data = read_sections(path)
    bodies = {s.name: parts.get(s.name, bytes(data[s.offset:s.offset + s.size])) for s in sections
              if parts.get(s.name) != b"gone"}
    flags = {s.name: s.flags for s in sections}
    head, entry = struct.Struct("<8sIIQ16s16s8x64s"), struct.Struct("<16sIIQQ16s8x")
    at = -(-(head.size + entry.size * len(bodies)) // 64) * 64
    table, places = b"", []
    for name, body in bodies.items():
        checksum = hashlib.blake2b(body, digest_size=16).digest()
        table += entry.pack(name.encode(), flags[name], 0, at, len(body), checksum)
        places.append((at, body))
        at = -(-(at + len(body)) // 64) * 64
    magic, version, _, _, _, digest, target = head.unpack_from(data, 0)
    end = places[-1][0] + len(places[-1][1])
    bare = head.pack(magic, version, len(bodies), end, bytes(16), digest, target)
    whole = bytearray(head.pack(magic, version, len(bodies), end,
                                hashlib.blake2b(bare + table, digest_size=16).digest(), digest, target) + table)
    for start, body in places:
        whole += bytes(start - len(whole)) + body
    path.write_bytes(whole)


def index(**changes: Any) -> bytes:
    """The section `host` of the program with some values changed."""
    row = {"inputs": [["x0", "input", "f16", [4, 8], 0]], "outputs": [["y0", "output", "f16", [4, 8], 64]],
           "nodes": [{"op": "o", "node": "n", "path": "", "code": "", "message": "", "hint": "", "macs": 0}]}
    whole = {"segments": [{**row, **{k: v for k, v in changes.items() if k in row}}], "bytes": [5]}
    return json.dumps({**whole, **{k: v for k, v in changes.items() if k in whole}}).encode()


@pytest.mark.parametrize(("parts", "message"), [
    ({"host": b"[]"}, "expected an object"),
    ({"host": b'{"segments": 1, "bytes": []}'}, "both lists"),
    ({"host": index(bytes=[])}, "1 segments with 0 models"),
    ({"host": index(bytes=[4])}, "the models have 4 bytes, section hostmodels has 5"),
    ({"host": index(bytes=[-1])}, "expected an integer"),
    ({"hostmodels": b""}, "the models have 5 bytes, section hostmodels has 0"),
    ({"hostmodels": b"gone"}, "the section is missing"),
    ({"host": index(segments=[3])}, "is not an object with inputs, outputs and nodes"),
    ({"host": index(inputs=3)}, "inputs of host segment 0 is 3, expected a list"),
    ({"host": index(inputs=[["x0", "output", "f16", [4, 8], 0]])}, "is of kind output, expected input"),
    ({"host": index(inputs=[["x0", "input", "f16", [1 << 40], 0]])}, "lies outside the arena"),
    ({"host": index(inputs=[["x0", "input", "f16", [4] * 17, 0]])}, "17 dimensions"),
    ({"host": index(nodes=[{"op": 3}])}, "has no field node"),
    ({"host": index(nodes=[{"op": 3, "node": "", "path": "", "code": "", "message": "", "hint": "", "macs": 0}])},
     "expected text"),
    ({"host": index(segments=[])}, "1 models"),
    ({"host": b"gone", "hostmodels": b"gone"}, "there is no such segment, the program has 0"),
])
def test_sections_that_lie(parts: dict[str, bytes], message: str, tmp_path: Path) -> None:
    path = tmp_path / "p.fbin"
    save(program(), path)
    rewritten(path, host=index())
    assert load(path).host[0].model == b"model"
    rewritten(path, **parts)
    with pytest.raises(FormatError) as caught:
        load(path)
    assert message in caught.value.render()


