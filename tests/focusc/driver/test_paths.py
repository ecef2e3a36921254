"""The whole path on a small decoder: compile, run, simulate, opt, compare, objdump, asm; through files and Python."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

import focusc
from benchmarks.synthetic import Decoder
from focusc.driver import CompileOptions, InputError, compare, compile_model, load_model, objdump, opt
from focusc.driver.comparison import reference, top1
from focusc.driver.compiler import FRONT
from focusc.driver.execution import Runner
from focusc.driver.patches import patch_flow
from focusc.isa import IsaError
from focusc.isa.timing import ArrayModel
from tests.arrays import save_arrays

DECODER = Decoder(prefix=2, query=3)
SCHEDULE = "[0:0.6,1:0.3]"
CONTRACT = {
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
}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return DECODER.write(tmp_path_factory.mktemp("model") / "decoder.onnx")


@pytest.fixture(scope="module")
def programs(model: Path) -> dict[str, focusc.Program]:
    config = model.with_name("schedule.toml")
    config.write_text(f"[concentrate]\nschedule = '{SCHEDULE}'\n")
    return {name: focusc.compile(model, concentrate=name, config=config) for name in ("none", "sec", "sic", "focus")}


def test_the_dense_program_computes_what_onnxruntime_computes(model: Path, programs: dict[str, focusc.Program]) -> None:
    inputs = DECODER.inputs(3)
    expected = reference(model)(inputs)["logits"]
    result = focusc.run(programs["none"], inputs, strict=True)
    assert result.outputs["logits"].shape == expected.shape
    error = np.linalg.norm(result.outputs["logits"] - expected) / np.linalg.norm(expected)
    assert error < 1e-2
    assert result.stats["sparsity"] == 0


def test_arrays_for_inputs_that_nothing_reads_are_left_out(tmp_path: Path) -> None:
    """`mask` never reaches the module, and `none` has no elements: the concatenation does without it."""
    x, mask, none, y = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [rows, 4])
        for name, rows in (("x", 3), ("mask", 7), ("none", 0), ("y", 3))
    )
    graph = helper.make_graph([helper.make_node("Concat", ["x", "none"], ["y"], axis=0)], "m", [x, mask, none], [y])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)]), str(tmp_path / "m.onnx"))
    focusc.compile(tmp_path / "m.onnx", concentrate="none").save(tmp_path / "m.fbin")
    inputs = {"x": np.ones((3, 4), np.float32), "mask": np.ones((7, 4), bool), "none": np.ones((0, 4), np.float32)}
    found = focusc.run(tmp_path / "m.fbin", inputs).outputs["y"]
    np.testing.assert_array_equal(found, inputs["x"])
    with pytest.raises(IsaError, match="the program has no input 'other'"):
        focusc.run(tmp_path / "m.fbin", {**inputs, "other": inputs["x"]})


def test_concentration_saves_work_and_runs_strictly(programs: dict[str, focusc.Program]) -> None:
    inputs = DECODER.inputs(3)
    stats = {name: focusc.run(program, inputs, strict=True).stats for name, program in programs.items()}
    assert 0 < stats["sec"]["sparsity"] < stats["focus"]["sparsity"] < 1
    assert 0.3 < stats["sic"]["sparsity"] < 1
    assert stats["focus"]["macs_dense"] == stats["none"]["macs_dense"]
    retained = {(site["layer"], site["site"]): site["retained"] for site in stats["focus"]["sites"]}
    assert retained[0, "qkv_in"] == 32
    assert retained[0, "mlp_in"] == 19  # floor(0.6 * 32)
    assert retained[1, "down_in"] == 9


def test_stats_hold_the_contract_and_are_json(programs: dict[str, focusc.Program], tmp_path: Path) -> None:
    result = focusc.run(programs["focus"], DECODER.inputs())
    result.save_stats(tmp_path / "stats.json")
    found = json.loads((tmp_path / "stats.json").read_text())
    assert found.keys() >= CONTRACT
    assert found["energy_mj"].keys() == {"dram", "sram", "core", "total"}
    assert found["dram_bytes"].keys() == {"read", "write"}
    assert sum(node["cycles"] for node in found["nodes"]) == pytest.approx(found["cycles"], rel=1e-6)
    assert found["digests"]["hardware"] == programs["focus"].hardware_digest


@pytest.mark.parametrize("array", ["scalesim", "pipelined"])
def test_a_recorded_trace_times_the_same(
    programs: dict[str, focusc.Program], tmp_path: Path, array: ArrayModel
) -> None:
    runner = Runner(programs["focus"])
    result = runner.run(DECODER.inputs(), array=array)
    result.save_trace(tmp_path / "t.npz")
    programs["focus"].save(tmp_path / "p.fbin")
    again = focusc.simulate(tmp_path / "p.fbin", tmp_path / "t.npz", array=array)
    assert again == result.stats


def test_a_program_saved_and_loaded_computes_the_same(programs: dict[str, focusc.Program], tmp_path: Path) -> None:
    programs["focus"].save(tmp_path / "p.fbin")
    loaded = focusc.load_program(tmp_path / "p.fbin")
    assert loaded == programs["focus"]
    inputs = DECODER.inputs(1)
    np.testing.assert_array_equal(
        focusc.run(loaded, inputs).outputs["logits"], focusc.run(programs["focus"], inputs).outputs["logits"]
    )


def test_the_same_input_gives_the_same_binary(model: Path, tmp_path: Path) -> None:
    for name in ("a", "b"):
        focusc.compile(model, concentrate="focus").save(tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()


def test_assembly_goes_there_and_back(programs: dict[str, focusc.Program], tmp_path: Path) -> None:
    from focusc.driver import assemble_file

    programs["focus"].save(tmp_path / "p.fbin")
    objdump(tmp_path / "p.fbin").write_assembly(tmp_path / "p.fasm")
    assemble_file(tmp_path / "p.fasm", tmp_path / "again.fbin")
    assert (tmp_path / "again.fbin").read_bytes() == (tmp_path / "p.fbin").read_bytes()


def test_any_snapshot_goes_on_to_the_same_program(model: Path, tmp_path: Path) -> None:
    options = CompileOptions.load(concentrate="focus")
    whole = compile_model(model, options, dump_ir=tmp_path / "ir").program
    snapshots = sorted((tmp_path / "ir").glob("*.fir"))
    concentrated = next(path for path in snapshots if path.stem.endswith("concentrate"))
    again = compile_model(concentrated, CompileOptions.load(pipeline="", concentrate="focus")).program
    np.testing.assert_array_equal(again.text, whole.text)
    for number, snapshot in enumerate(snapshots):
        assert snapshot.name.startswith(f"{number:02}-")
        load_model(snapshot)


def test_verify_each_passes_on_every_level(model: Path) -> None:
    compile_model(model, CompileOptions.load(concentrate="focus"), verify_each=True)


def test_opt_writes_text_and_weights_together(model: Path, tmp_path: Path) -> None:
    done = opt(model, "fuse-nn,dead-code", output=tmp_path / "o.fir")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["o.fir", "o.safetensors"]
    assert "nn.attention" in (tmp_path / "o.fir").read_text()
    assert done.steps[-1]["name"] == "dead-code"


def test_systolic_runs_dense_only(model: Path) -> None:
    program = focusc.compile(model, target="systolic")
    assert program.target == "systolic"
    assert program.meta["concentrate"] == "none"
    with pytest.raises(InputError, match="no unit"):
        focusc.compile(model, target="systolic", concentrate="focus")


def test_compare_on_given_samples(model: Path, tmp_path: Path) -> None:
    samples = [DECODER.inputs(seed)["embeddings"] for seed in range(3)]
    answers = [int(reference(model)({"embeddings": x})["logits"].argmax()) for x in samples]
    np.savez(tmp_path / "s.npz", embeddings=np.stack(samples), answer=np.array(answers))
    found = compare(model, samples=3, inputs=tmp_path / "s.npz", methods=["none", "focus"])
    rows = {row["method"]: row for row in found["rows"]}
    assert list(rows) == ["onnxruntime", "dense", "focus"]
    assert rows["onnxruntime"]["accuracy"] == 1
    assert rows["dense"]["accuracy"] == 1
    assert rows["dense"]["speedup"] == 1
    assert rows["focus"]["sparsity"] > 0.3


E = DECODER.inputs()["embeddings"][None]


@pytest.mark.parametrize(
    ("arrays", "code"),
    [
        ({"embedings": E}, "input.missing"),
        ({"embeddings": E, "zzz": E}, "input.unknown"),
        ({"embeddings": E[:0]}, "compare.samples"),
        ({}, "compare.samples"),
        ({"embeddings": E[..., :63]}, "input.shape"),
        ({"embeddings": E.astype(np.int64)}, "input.type"),
        ({"embeddings": np.full_like(E, np.nan)}, "input.value"),
        ({"embeddings": E, "answer": np.array(["cat"])}, "compare.samples"),
        ({"embeddings": E, "answer": np.array([99])}, "compare.samples"),
    ],
)
def test_compare_refuses_unfit_samples_before_compiling(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arrays: dict[str, np.ndarray], code: str
) -> None:
    def compiled(*_: object) -> None:
        raise AssertionError("compiled before the samples were checked")

    monkeypatch.setattr("focusc.driver.comparison.compile_model", compiled)
    save_arrays(tmp_path / "s.npz", arrays)
    with pytest.raises(InputError) as caught:
        compare(model, inputs=tmp_path / "s.npz")
    assert caught.value.code == code


def test_onnxruntime_refusals_are_messages(model: Path, capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(InputError, match="onnxruntime refuses the inputs"):
        reference(model)({"embeddings": E[0, :, :3]})
    assert capfd.readouterr().err == ""


def test_the_answer_is_read_from_logits() -> None:
    hidden, logits = np.zeros((1, 2)), np.array([[0.0, 0, 1], [0, 1, 0]])
    assert top1({"hidden": hidden, "logits": logits}) == 1
    assert top1({"scores": logits}) == 1
    with pytest.raises(InputError, match="outputs are hidden, scores; expected one named logits"):
        top1({"hidden": hidden, "scores": logits})


def test_a_concentrated_snapshot_is_compiled_as_it_is(model: Path, tmp_path: Path) -> None:
    opt(model, f"{FRONT},concentrate{{method=sec}}", output=tmp_path / "c.fir")
    done = compile_model(tmp_path / "c.fir", CompileOptions())
    assert done.method == "sec"
    assert done.program.meta["concentrate"] == "sec"
    with pytest.raises(InputError, match="concentrated already with method sec, but concentrate=focus"):
        focusc.compile(tmp_path / "c.fir", concentrate="focus")
    with pytest.raises(InputError, match="no unit"):
        focusc.compile(tmp_path / "c.fir", target="systolic")


def test_pipeline_and_method_must_agree(model: Path) -> None:
    text = f"{FRONT},concentrate{{method=sic}}"
    done = compile_model(model, CompileOptions(pipeline=text, concentrate={"method": "sic"}))
    assert done.program.meta["concentrate"] == "sic"
    with pytest.raises(InputError, match="pipeline concentrates with method sic, but concentrate=sec"):
        compile_model(model, CompileOptions(pipeline=text, concentrate={"method": "sec"}))


@pytest.mark.parametrize("schedule", ["0:0.6,1:0.3", "[0:0.6,1:0.3]", "0:0.6 1:0.3"])
def test_a_schedule_needs_no_brackets(model: Path, tmp_path: Path, schedule: str) -> None:
    (tmp_path / "c.toml").write_text(f"[concentrate]\nschedule = '{schedule}'\n")
    done = compile_model(model, CompileOptions.load(tmp_path / "c.toml"))
    assert [tuple(pair) for pair in done.concentrated.attrs["concentrate"]["schedule"]] == [(0, 0.6), (1, 0.3)]


def test_compare_without_questions_says_so(model: Path) -> None:
    with pytest.raises(InputError, match="no questions to ask"):
        compare(model, samples=1)


def test_patch_flow_follows_sec_and_sic(model: Path) -> None:
    options = CompileOptions.load(concentrate="focus")
    options = options.model_copy(update={"concentrate": {"method": "focus", "schedule": SCHEDULE}})
    flow = patch_flow(compile_model(model, options).concentrated, DECODER.inputs())
    assert [len(stage.positions) for stage in flow.stages] == [32, 19, 9]
    for before, after in zip(flow.stages, flow.stages[1:], strict=False):
        assert np.isin(after.positions, before.positions).all()
    assert all(share.min() >= 0 and share.max() <= 1 for stage in flow.stages if (share := stage.merged) is not None)
    assert flow.cells().shape == flow.grid


def test_a_hardware_description_from_a_file(model: Path, tmp_path: Path) -> None:
    from importlib import resources

    text = resources.files("focusc.backends").joinpath("focus/focus.toml").read_text()
    slow = text.replace("bytes_per_s = 68_719_476_736", "bytes_per_s = 6_871_947_673")
    assert slow != text
    (tmp_path / "slow.toml").write_text(slow)
    inputs = DECODER.inputs()
    usual = focusc.run(focusc.compile(model), inputs).stats["cycles"]
    assert focusc.run(focusc.compile(model, target=str(tmp_path / "slow.toml")), inputs).stats["cycles"] > 1.5 * usual


def test_counts_of_another_program_name_both_files(monkeypatch: pytest.MonkeyPatch) -> None:
    from focusc.driver.execution import simulate_files
    from focusc.isa.errors import IsaError

    def foreign(*_: object, **__: object) -> None:
        raise IsaError("counts.program", "recorded from another program")

    monkeypatch.setattr("focusc.driver.execution.simulate", foreign)
    with pytest.raises(IsaError) as caught:
        simulate_files("p.fbin", "t.npz")
    assert caught.value.where == "t.npz (with p.fbin)"
