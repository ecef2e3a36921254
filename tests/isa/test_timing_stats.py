"""stats.json: the keys that scripts rely on, and sums that must agree."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from focusc.isa import DebugEntry, Program
from focusc.isa.program import Symbol
from focusc.isa.stats import site_table, stats
from focusc.isa.timing import ENGINES, simulate
from tests.isa.timing_programs import concentrated, counts, gemm, machine

KEYS = {
    "cycles",
    "time_s",
    "energy_mj",
    "dram_bytes",
    "macs_dense",
    "macs",
    "sparsity",
    "engines",
    "stalls",
    "sites",
    "nodes",
    "digests",
    "array",
    "macs_array",
    "macs_decoder_array",
    "scatter_adds",
    "tensors",
    "buffer_bytes",
}


def annotated() -> Program:
    """Two nodes: gathering belongs to the first, the products to the second."""
    found = concentrated(64, 2, 40, 3)
    found.debug += [
        DebugEntry("nn.rms_norm", "/norm", "layers.0.norm", "nn.rms_norm"),
        DebugEntry("nn.linear", "/q", "layers.0.q", "nn.linear"),
    ]
    split = next(pc for pc, insn in enumerate(found.insns) if insn.mnemonic == "ld.conc")
    found.debug_index[:split], found.debug_index[split:] = 0, 1
    found.meta["nodes"] = [
        {
            "node": "/norm",
            "path": "layers.0.norm",
            "op": "nn.rms_norm",
            "region": "other",
            "macs_dense": 0,
            "useful": 1.0,
        },
        {
            "node": "/q",
            "path": "layers.0.q",
            "op": "nn.linear",
            "region": "decoder",
            "macs_dense": 64 * 64 * 40 * 3,
            "useful": 0.5,
        },
    ]
    found.meta["sites"] = [{"layer": 0, "site": "qkv_in", "tokens": 64, "retained": 64, "slots": 2}]
    found.symbols.append(Symbol("weights", "input", "f16", (64, 40), 2 * (64 + 128 + 4096)))
    return found


def measured(**options: Any) -> dict[str, Any]:
    found, recorded = annotated(), counts(64, 10, 20)
    return stats(found, machine(), recorded, simulate(found, machine(), recorded, **options))


@pytest.mark.parametrize("array", ["scalesim", "pipelined"])
def test_the_contract_holds(array: str) -> None:
    got = measured(array=array)
    assert set(got) >= KEYS
    assert json.loads(json.dumps(got))["array"] == array
    assert set(got["energy_mj"]) == {"dram", "sram", "core", "total"} and set(got["dram_bytes"]) == {"read", "write"}
    assert set(got["engines"]) == set(got["stalls_by_engine"]) == set(ENGINES)
    assert got["time_s"] == got["cycles"] / 500e6
    assert set(got["digests"]) == {"program", "hardware"}


def test_array_time_and_its_stalls_sum_to_the_cycles() -> None:
    got = measured()
    assert got["engines"]["mxu"] + sum(got["stalls"].values()) == got["cycles"]


def test_sparsity_counts_useful_array_work_of_the_decoder() -> None:
    got = measured()
    macs = 3 * (10 + 20) * 32 * 40
    assert got["macs_array"] == macs
    assert got["macs"] == macs // 2
    assert got["macs_decoder_array"] == macs  # nothing but the decoder multiplies here
    assert got["macs_dense"] == 64 * 64 * 40 * 3
    assert got["sparsity"] == pytest.approx(1 - got["macs"] / got["macs_dense"])


def test_nodes_share_out_cycles_bytes_macs_and_energy() -> None:
    got = measured()
    nodes = got["nodes"]
    assert {node["path"] for node in nodes} >= {"layers.0.norm", "layers.0.q"}
    assert sum(node["cycles"] for node in nodes) == pytest.approx(got["cycles"])
    assert sum(node["energy_mj"] for node in nodes) == pytest.approx(got["energy_mj"]["total"])
    for way in ("read", "write"):
        assert sum(node["dram_bytes"][way] for node in nodes) == got["dram_bytes"][way]
        assert sum(tensor[way] for tensor in got["tensors"]) == got["dram_bytes"][way]
    product = next(node for node in nodes if node["path"] == "layers.0.q")
    assert product["macs_array"] == got["macs_array"] and 0 < product["occupancy"] <= 1
    assert [node["cycles"] for node in nodes] == sorted((node["cycles"] for node in nodes), reverse=True)


def test_tensors_are_named_by_symbol() -> None:
    weights = next(tensor for tensor in measured()["tensors"] if tensor["name"] == "weights")
    assert weights == {"name": "weights", "kind": "input", "read": 3 * 2 * 64 * 40, "write": 0}


def test_sites_report_unique_of_visual_vectors() -> None:
    site = measured()["sites"][0]
    given = {"layer": 0, "site": "qkv_in", "tokens": 64, "retained": 64, "slots": 2, "unique": 30, "vectors": 128}
    assert {key: site[key] for key in given} == given
    found, recorded = annotated(), counts(64, 34, 44)
    recorded.linked[0] = 40  # 24 rows are text: unique by definition
    got = stats(found, machine(), recorded, simulate(found, machine(), recorded))
    assert (got["sites"][0]["unique"], got["sites"][0]["vectors"]) == (30, 80)


def test_sites_report_their_tiles() -> None:
    found, recorded = annotated(), counts(64, 6, 64)  # 64 rows: occupancy 0.09 and 1
    recorded.add(np.array([32, 7, 31], np.int32), 0, 64, 40)  # 0.5, 0.11, 0.48; text rows are part of a tile
    recorded.add(np.array([5], np.int32), 3, 64, 40)  # another site
    site = site_table(found, recorded)[0]
    assert site["tiles"] == 5 and site["tile_unique"] == {"mean": 28.0, "min": 6, "max": 64}
    assert site["tile_occupancy"] == [1, 1, 0, 0, 1, 1, 0, 0, 0, 1]
    assert site["compression"] == 5 * 64 / 140
    idle = site_table(found, None)[0]
    assert idle["tiles"] == 0 and idle["compression"] == 1.0 and idle["tile_occupancy"] == [0] * 10
    assert json.loads(json.dumps([site, idle])) == [site, idle]


def test_a_program_without_notes_still_has_statistics() -> None:
    found = gemm(64, 64, 64, store=True)
    got = stats(found, machine(), None, simulate(found, machine()))
    assert got["sites"] == [] and got["sparsity"] == 0.0
    assert [node["op"] for node in got["nodes"]] == ["(no source)"]
    assert got["macs"] == got["macs_array"] == 64**3
