"""`focusc workload`, `compile --no-weights`, `trace synth|import|info` and `simulate`, from TOML to statistics."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusc.backends.trace import SITES
from tests.arrays import save_arrays
from tests.backends.test_workload import SMALL

from .conftest import Cli

LONG = ("--frames", "20")


@pytest.fixture
def chain(cli: Cli) -> Cli:
    """A workload file in the empty folder; its program and a trace of it."""
    Path("mine.toml").write_text(SMALL)
    for arguments in (
        ("workload", "mine.toml", *LONG, "-o", "w.fir"),
        ("compile", "w.fir", "--no-weights", "-o", "w.fbin"),
        ("trace", "synth", "--workload", "mine.toml", *LONG, "--compression", "2", "-o", "t.npz"),
    ):
        found = cli(*arguments)
        assert found.status == 0, found
    return cli


def printed(cli: Cli, *arguments: str) -> Any:
    found = cli(*arguments, "--json")
    assert found.status == 0, found
    return json.loads(found.out)


def test_from_a_toml_file_to_statistics(chain: Cli) -> None:
    stats = printed(chain, "simulate", "w.fbin", "--trace", "t.npz", "--stats", "s.json", "--timeline", "t.json")
    written = json.loads(Path("s.json").read_text())
    assert written["cycles"] == stats["cycles"] > 0 and Path("t.json").stat().st_size > 1000
    assert {row["retained"] for row in stats["sites"]} == {240, 120}
    again = printed(chain, "simulate", "w.fbin", "--trace", "t.npz")
    assert again == stats
    assert sorted(p.name for p in Path().iterdir()) == ["mine.toml", "s.json", "t.json", "t.npz", "w.fbin", "w.fir"]


def test_what_the_commands_print(chain: Cli) -> None:
    assert "llava-video-7b" in chain("workload").out
    text = chain("workload", "mine.toml").out
    assert "2x3x4" in text and "layer 1: 12" in text
    shown = chain("trace", "info", "t.npz", "--layers").out
    assert "2.00x" in shown and "down_proj" in shown and "0: 240, 1: 120" in shown
    assert "absent" in chain("objdump", "w.fbin", "-h").out
    facts = printed(chain, "trace", "info", "t.npz")
    assert facts["compression"] == pytest.approx(2.0) and len(facts["sites"]) == 2 * len(SITES)
    assert sum(facts["sites"][0]["occupancy"]) == facts["sites"][0]["tiles"] * facts["sites"][0]["slots"]


@pytest.mark.parametrize("ending", ["png", "svg"])
def test_a_plot_is_drawn(chain: Cli, ending: str) -> None:
    assert chain("trace", "info", "t.npz", "--plot", f"t.{ending}").status == 0
    head = Path(f"t.{ending}").read_bytes()[:200]
    assert head.startswith(b"\x89PNG") or b"<?xml" in head


def test_masks_become_a_trace(chain: Cli) -> None:
    masks = {}
    for site, slots in zip(SITES, (2, 2, 2, 2, 3), strict=True):
        masks[f"{site}.mask_zero"] = np.zeros((2, 1, 240, slots), bool)
        masks[f"{site}.mask_similar"] = np.arange(240)[None, None, :, None] % 4 > np.zeros((2, 1, 1, slots), int)
    save_arrays("m.npz", masks)
    facts = printed(chain, "trace", "import", "m.npz", "--workload", "mine", "-o", "i.npz")
    assert facts["compression"] == pytest.approx(4.0) and facts["workload"] == "mine"
    refused = chain("simulate", "w.fbin", "--trace", "i.npz")
    assert refused.status == 1
    assert "i.npz: error[trace.program]: retained[layer 1, gate_proj]: found 240 tokens, the program has 120" in (
        refused.err
    )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("run", "w.fbin", "--inputs", "x.npz", "-o", "y.npz"), "error[program.constants]: the program was compiled"),
        (("compile", "w.fir", "-o", "x.fbin"), "error[codegen.weights]: constant"),
        (("simulate", "w.fbin"), "error[timing.counts]: the program concentrates"),
        (("simulate", "w.fbin", "--trace", "no.npz"), "no.npz: error[file.missing]"),
        (("workload", "llava"), "error[workload.unknown]: no workload 'llava'"),
        (("workload", "mine.toml", "-o", "w.txt"), "w.txt: error[file.suffix]"),
        (("workload", "qwen2-7b", "--frames", "3"), "error[workload.frames]"),
        (("trace", "synth", "--workload", "qwen2-7b", "--compression", "2", "-o", "x.npz"), "no visual tokens"),
        (("trace", "synth", "--workload", "mine.toml", "--compression", "0", "-o", "x.npz"), "compression is 0"),
        (("trace", "synth", "--workload", "mine.toml", "--compression", "2", "-o", "x.np"), "x.np: error[file.suffix]"),
        (("trace", "info", "t.npz", "--plot", "t.gif"), "t.gif: error[trace.plot]"),
        (("trace", "info", "t.npz", "--workload", "mine.toml"), "t.npz: error[trace.workload]: tokens: found 240"),
        (("trace", "info", "w.fir"), "w.fir: error[trace.format]: not a trace"),
        (("trace", "import", "t.npz", "-o", "x.npz"), "error[trace.masks]: q_proj.mask_zero: the array is missing"),
    ],
)
def test_bad_input_is_one_message(chain: Cli, arguments: tuple[str, ...], message: str) -> None:
    np.savez("x.npz", x=np.zeros(1))
    before = sorted(p.name for p in Path().iterdir())
    found = chain(*arguments)
    assert found.status == 1 and message in found.err, found
    assert sorted(p.name for p in Path().iterdir()) == before
