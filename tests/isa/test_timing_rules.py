"""Every instruction has a timing rule, every vector operation a cost; streams, windows, ledger and lookups."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from focusc.backends.hardware import TARGETS, load_hardware
from focusc.isa import IsaError, conc_block, expand
from focusc.isa.dynamic import DynamicCounts
from focusc.isa.insns import (
    INSNS,
    CfgLayout,
    CfgPos,
    CfgSic,
    Fence,
    Insn,
    LdAct,
    LdConc,
    LdIdx,
    LdWgt,
    Mma,
    SecInit,
    Sic,
    St,
    Tile,
    VAdd,
    VLd,
)
from focusc.isa.timing import simulate
from focusc.isa.timing_ledger import TICKS, book, moving, new_ledger
from focusc.isa.timing_rules import RULES, Col, lower, rule_of
from focusc.isa.timing_streams import windows
from tests.isa.timing_programs import concentrated, counts, fast, gemm, machine, program

COMMANDS = [cls for cls in INSNS.values() if cls.engine != "seq" or cls.mnemonic.startswith("cfg.") or cls is Fence]


@pytest.mark.parametrize("cls", COMMANDS, ids=lambda cls: cls.mnemonic)
def test_every_command_has_a_rule(cls: type[Insn]) -> None:
    assert callable(rule_of(cls))


def test_no_rule_is_left_without_an_instruction() -> None:
    assert set(RULES) - {"v.*"} <= {cls.mnemonic for cls in INSNS.values()}


@pytest.mark.parametrize("target", TARGETS)
def test_every_vector_operation_has_its_units_and_none_is_left_over(target: str) -> None:
    expected = {cls.mnemonic.removeprefix("v.") for cls in INSNS.values() if cls.engine == "vec"}
    assert set(load_hardware(target).sfu.uses) == expected


@pytest.mark.parametrize(
    "name", sorted({cls.mnemonic for cls in INSNS.values() if cls.engine == "vec"} - {"v.ld", "fwd"})
)
def test_a_vector_command_takes_its_slowest_unit_and_the_pipeline(name: str) -> None:
    cls = next(c for c in INSNS.values() if c.mnemonic == name)
    values = {
        operand: 0 if item.kind == "tile" else 2 if operand == "width" else 0 for operand, item in cls.fields.items()
    }
    timing = simulate(program([Tile(t=0, off=0, rows=100, cols=36, pitch=36), cls(**values)]), machine())
    sfu = machine().sfu
    uses = sfu.uses[name.removeprefix("v.")]
    slowest = max(3600 * getattr(uses, unit) / getattr(sfu, unit) for unit in ("exp", "mul", "add", "recip", "sqrt"))
    assert timing.busy["vec"] == int(np.ceil(slowest - 1e-9)) + sfu.pipeline_cycles


def test_a_stream_cannot_be_taken_before_it_is_fed() -> None:
    tile = Tile(t=0, off=0, rows=4, cols=4, pitch=4)
    load = LdAct(addr=0, rows=4, cols=4, stride=8)
    programs: tuple[list[Insn], ...] = (
        [tile, VLd(d=0)],
        [tile, VLd(d=0), load],
        [tile, load, VAdd(d=0, a="s", b="s")],
        [tile, load, Mma(t=0, k=4)],
    )
    for text in programs:
        with pytest.raises(IsaError, match="takes from the"):
            simulate(program(text), machine())


@pytest.mark.parametrize(("rows", "k", "n"), [(5, 32, 32), (4, 31, 32), (4, 32, 31)])
def test_shapes_that_do_not_meet_are_named(rows: int, k: int, n: int) -> None:
    text = [
        Tile(t=0, off=0, rows=4, cols=32, pitch=32),
        LdAct(addr=0, rows=rows, cols=k, stride=64),
        LdWgt(addr=0, k=32, n=n, stride=64),
        Mma(t=0, k=32),
    ]
    with pytest.raises(IsaError, match="mma of 4 x 32, k=32 takes activations of"):
        simulate(program(text), machine())


def test_what_the_machine_lacks_is_named() -> None:
    with pytest.raises(IsaError, match=r"sec.init needs a concentrator; 'systolic' has none"):
        simulate(program([SecInit(n=4)]), load_hardware("systolic"))
    with pytest.raises(IsaError, match=r"sfu\.uses\.add: missing"):
        uses = {name: value for name, value in machine().to_dict()["sfu"]["uses"].items() if name != "add"}
        simulate(program([Tile(t=0, off=0, rows=1, cols=1, pitch=1), VAdd(d=0, a=0, b=0)]), machine(sfu={"uses": uses}))
    with pytest.raises(IsaError, match="the output buffer, which has 196608"):
        simulate(
            gemm(1024, 32, 96),
            machine(buffers={"output": {**machine().to_dict()["buffers"]["output"], "bytes": 196608}}),
        )


def test_a_command_without_its_configuration_is_named() -> None:
    text = [Tile(t=0, off=0, rows=8, cols=32, pitch=32), Sic(a=0, addr=0, cap=8, row0=0)]
    with pytest.raises(IsaError, match=r"needs `cfg\.pos`, which was not executed before"):
        simulate(program(text), machine(), counts(8, 4))


def test_a_concentrating_program_needs_counts() -> None:
    with pytest.raises(IsaError, match="depends on unique counts"):
        simulate(concentrated(8, 1, 8), machine())


def test_a_block_that_no_sic_wrote_has_no_count() -> None:
    text = [
        Tile(t=0, off=0, rows=8, cols=32, pitch=32),
        LdConc(addr=0, rows=8, slots=1, cap=8),
        LdWgt(addr=0, k=32, n=32, stride=64),
        Mma(t=0, k=32),
    ]
    with pytest.raises(IsaError, match="unknown count"):
        simulate(program(text), machine(), DynamicCounts())


def test_a_partial_load_takes_its_recorded_count() -> None:
    found = concentrated(64, 2, 32)
    text = [insn for insn in found.insns if insn.mnemonic not in ("ld.conc", "halt", "mma", "ld.wgt")]
    text += [
        LdConc(addr=0, rows=16, slots=2, cap=64),
        Tile(t=2, off=0, rows=16, cols=32, pitch=32),
        LdWgt(addr=1 << 20, k=64, n=32, stride=64),
        Mma(t=2, k=64),
    ]
    recorded = counts(64, 40, 50)
    with pytest.raises(IsaError, match="unknown count"):
        simulate(program(text), fast(), recorded)
    recorded.add_partial(np.array([3, 5], np.int32))
    timing = simulate(program(text), fast(), recorded)
    assert timing.busy["mxu"] == 3 + 5
    recorded.add_partial(np.array([3, 5], np.int32))
    with pytest.raises(IsaError, match="2 partial loads were recorded, the program does 1"):
        simulate(program(text), fast(), recorded)


def test_lists_are_read_before_the_rows_they_choose() -> None:
    text = [
        Tile(t=0, off=0, rows=64, cols=32, pitch=32),
        LdIdx(addr=0, list=1 << 20, rows=64, cols=32, stride=64, limit=100),
        VLd(d=0),
    ]
    hardware = machine()
    timing = simulate(program(text), hardware)
    moved = 64 * 4 + 64 * 64
    assert timing.end[0] - timing.start[0] == pytest.approx(
        moved / hardware.bytes_per_cycle + hardware.dram.latency_cycles
    )


def test_a_position_list_is_read_once() -> None:
    found = concentrated(8, 1, 8)
    text = [
        insn if insn.mnemonic != "cfg.pos" else CfgPos(addr=1 << 20, count=8, visual_start=0)
        for insn in found.insns[:-1]
    ]
    sic = next(insn for insn in text if insn.mnemonic == "sic")
    recorded = counts(8, 4)
    recorded.add(np.array([4], np.int32), 0, 8, 8)
    work = lower(expand(program([*text, sic])), machine(), recorded)
    assert sorted(work.column(Col.LEAD).tolist())[-2:] == [0, 32]


def test_a_block_is_clipped_to_the_grid() -> None:
    config = [CfgPos(addr=0, count=16, visual_start=0, identity=1), CfgSic(bf=2, bh=3, bw=2, threshold=0.5)]
    tile = [Tile(t=0, off=0, rows=16, cols=32, pitch=32), Sic(a=0, addr=0, cap=16, row0=0)]
    for f, h, w, block in ((1, 4, 4, 6), (2, 8, 1, 6), (4, 2, 2, 8), (1, 16, 1, 3)):
        text = [CfgLayout(f=f, h=h, w=w, sf=h * w, sh=w, sw=1), *config, *tile]
        work = lower(expand(program(text)), machine(), counts(16, 5))
        assert work.column(Col.DEPTH)[-1] == block and work.cost[-1] == 16 * block


def test_an_importance_vector_must_fit_its_buffer() -> None:
    hardware = machine(sec={"importance_entries": 100})
    simulate(program([SecInit(n=100)]), hardware)
    with pytest.raises(IsaError) as caught:
        simulate(program([SecInit(n=100), SecInit(n=101)]), hardware)
    assert caught.value.code == "timing.buffer" and "sec.importance_entries" in caught.value.message


WINDOW = st.tuples(st.integers(0, 12), st.integers(1, 5), st.integers(1, 24), st.sampled_from([0, 0, 8, 16]))


@settings(max_examples=80, deadline=None)
@given(st.lists(WINDOW, min_size=1, max_size=6))
def test_overlapping_windows_are_found(found: list[tuple[int, int, int, int]]) -> None:
    tiles = np.array([(64 * off, rows, cols, cols + extra) for off, rows, cols, extra in found], np.int64)
    got = windows(tiles)
    cells = [
        {off // 4 + r * pitch + c for r in range(rows) for c in range(cols)}
        for off, rows, cols, pitch in tiles.tolist()
    ]
    for i in range(len(tiles)):
        w = got.of[i]
        others = set(got.others[got.start[w] : got.start[w + 1]].tolist())
        for j in range(len(tiles)):
            if cells[i] & cells[j]:
                assert got.of[j] in others
            elif tiles[i, 3] == tiles[j, 3]:
                assert got.of[j] not in others  # exact where the pitch is the same


def test_a_lone_transfer_takes_bytes_over_rate() -> None:
    busy, many = new_ledger()
    assert book(busy, many, 37.5, moving(100.0, 1e6)) == 37.5 + 1e4
    assert book(busy, many, 50_000.0, moving(100.0, 25.0)) == 50_000.25
    assert moving(3.0, 1.0) == round(TICKS / 3) / TICKS


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 3000), st.integers(1, 700)), min_size=1, max_size=40))
def test_the_channel_moves_one_transfer_at_a_time_and_leaves_no_gap(requests: list[tuple[int, int]]) -> None:
    """Held against a channel that is a list of cycles, each free or taken."""
    busy, many = new_ledger()
    taken: set[int] = set()
    for time, length in requests:
        free, at = length, time
        while free:
            free -= at not in taken
            taken.add(at)
            at += 1
        assert book(busy, many, float(time), float(length)) == at
    spans = busy[:, : int(many[0])]
    assert sorted(taken) == [i for start, end in spans.T.tolist() for i in range(int(start), int(end))]
    assert bool((spans[0, 1:] > spans[1, :-1]).all())  # apart: what touches is one interval


def test_a_full_ledger_forgets_its_oldest_intervals() -> None:
    busy, many = new_ledger()
    room = busy.shape[1]
    for i in range(room + 1):
        assert book(busy, many, 10.0 * i, 1.0) == 10.0 * i + 1
    assert int(many[0]) == room // 2 + 1
    assert book(busy, many, 10.0 * room - 5, 1.0) == 10.0 * room - 4  # a gap that is remembered
    assert book(busy, many, 5.0, 1.0) > 10.0 * (room // 2)  # what came before counts as busy


def test_conc_loads_move_map_and_unique_vectors() -> None:
    timing = simulate(concentrated(64, 2, 32), fast(), counts(64, 10, 20))
    work = timing.work
    loads = np.flatnonzero(timing.trace.op == LdConc.opcode)
    assert work.unique[work.column(Col.UNIQUE)[loads[0]] :][:2].tolist() == [10, 20]
    assert conc_block(64) == 64 + 128 + 64 * 64
    assert St.engine == "st"
