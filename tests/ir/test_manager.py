"""Pipelines: options and their errors, statistics, snapshots, and a wrong pass that verify-each names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from focusc.ir import (
    Builder,
    CompileError,
    Module,
    PassManager,
    Resource,
    Rewriter,
    Stats,
    TensorType,
    defpass,
    defpipeline,
    parse_pipeline,
    read_module,
    same_module,
)
from focusc.ir.passes.manager import ALIASES, PASSES, load_all, pipeline_text
from focusc.ir.sampling import compare


@defpass("test-scale", edits="ops changed")
def scale(
    module: Module, stats: Stats, *, times: int = 2, by: float = 1.0, name: str = "tensor.exp", on: bool = True,
    layers: tuple[int, ...] = (),
) -> Module:  # fmt: skip
    """Replace every op of a name by a negation: wrong on purpose."""
    if not on:
        return module
    module = module.clone()
    rewriter = Rewriter(module)
    for op in [o for o in module.walk() if o.name == name]:
        rewriter.replace_with(op, "tensor.neg", op.operands[0])
        stats["edits"] += 1
    return module


@defpass("test-lossy", changes_values=True)
def lossy(module: Module, stats: Stats) -> Module:
    """Replace exp by neg, and say so."""
    return scale(module)


@defpass("test-broken")
def broken(module: Module, stats: Stats) -> Module:
    """Leave a module that does not verify."""
    module = module.clone()
    module.body.ops.pop()
    return module


@defpass("test-double-negation")
def double_negation(module: Module, stats: Stats) -> Module:
    """Append two negations to the first output: right."""
    module = module.clone()
    end = module.body.ops[-1]
    rewriter = Rewriter(module)
    once = rewriter.insert_before(end, "tensor.neg", end.operands[0])
    rewriter.set_operand(end, 0, rewriter.insert_before(end, "tensor.neg", once.result).result)
    return module


def sample() -> Module:
    b = Builder()
    x = b.argument("x", TensorType((8, 8), "f32"))
    w = b.constant(Resource("weights", np.eye(8, dtype=np.float32)))
    return b.module("m", {"y": b.emit("tensor.exp", b.emit("tensor.matmul", x, w))})


class TestPipelineText:
    def test_options_are_converted(self) -> None:
        ((found, options),) = parse_pipeline("test-scale{times=3, by=0.5, name=tensor.neg, on=false, layers=[1, 2]}")
        assert found.name == "test-scale"
        assert options == {"times": 3, "by": 0.5, "name": "tensor.neg", "on": False, "layers": (1, 2)}

    def test_text_reads_back(self) -> None:
        steps = parse_pipeline("test-scale{times=3,on=true,layers=[1,2]},dead-code")
        assert parse_pipeline(pipeline_text(steps)) == steps

    def test_empty_is_no_pass(self) -> None:
        assert parse_pipeline("") == []
        module = sample()
        assert PassManager("").run(module) is module

    def test_alias_stands_for_several(self) -> None:
        defpipeline("test-both", "dead-code,test-scale{times=4}")
        try:
            assert [(p.name, o) for p, o in parse_pipeline("test-both")] == [
                ("dead-code", {}),
                ("test-scale", {"times": 4}),
            ]
            with pytest.raises(CompileError, match="takes no options"):
                parse_pipeline("test-both{times=1}")
        finally:
            del ALIASES["test-both"]

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("dead-cod", r"error\[pass.unknown\]: pass 'dead-cod' is unknown\n  hint: did you mean dead-code\?"),
            (
                "test-scale{speed=1}",
                "pass test-scale has no option speed\n  hint: options: times, by, name, on, layers",
            ),
            ("dead-code{x=1}", "hint: options: none"),
            ("test-scale{times=1.5}", "option times of test-scale is '1.5', expected int"),
            ("test-scale{on=maybe}", "option on of test-scale is 'maybe', expected bool"),
            ("test-scale{times}", "option 'times' has no value"),
            ("test-scale{times=1", "a bracket is not closed"),
            ("test-scale}", "a closing bracket has no partner"),
            ("../manager", "is unknown"),
        ],
    )
    def test_errors_say_what_is_wrong(self, text: str, message: str) -> None:
        with pytest.raises(CompileError, match=message):
            parse_pipeline(text)


class TestVerifyEach:
    def test_names_the_first_pass_whose_values_differ(self) -> None:
        manager = PassManager("dead-code,test-double-negation,test-scale,dead-code", verify_each=True)
        with pytest.raises(CompileError, match="pass test-scale changes values: output 'y' differs by") as error:
            manager.run(sample())
        assert "passes before it: dead-code, test-double-negation" in error.value.render()
        assert error.value.diagnostics[0].code == "pass.values"

    def test_accepts_right_and_declared_changes(self) -> None:
        PassManager("test-double-negation,test-lossy,test-double-negation", verify_each=True).run(sample())

    def test_is_off_unless_asked_for(self) -> None:
        assert PassManager("test-scale").run(sample()).body.ops[-2].name == "tensor.neg"

    def test_given_inputs_are_used(self) -> None:
        b = Builder()
        x = b.argument("x", TensorType((2,), "f32"))
        module = b.module("m", {"y": b.emit("tensor.exp", b.emit("tensor.mul", x, x))})
        with pytest.raises(CompileError, match="output 'y' differs by inf"):
            PassManager("test-scale", verify_each=True, inputs={"x": np.full(2, 1e3, np.float32)}).run(module)

    def test_tolerance_is_relative_to_the_output(self) -> None:
        b = Builder()
        x = b.argument("x", TensorType((2,), "f32"))
        module = b.module("m", {"y": b.emit("tensor.exp", x)})
        inputs: dict[str, Any] = {"x": np.zeros(2, np.float32)}  # exp gives 1, neg gives 0
        PassManager("test-scale", verify_each=True, inputs=inputs, tolerance=1.5).run(module)
        with pytest.raises(CompileError):
            PassManager("test-scale", verify_each=True, inputs=inputs, tolerance=0.5).run(module)

    def test_small_outputs_are_compared_too(self) -> None:
        b = Builder()
        x = b.argument("x", TensorType((2,), "f32"))
        module = b.module("m", {"y": b.emit("tensor.exp", x)})
        inputs: dict[str, Any] = {"x": np.full(2, -9.0, np.float32)}  # exp gives 1.2e-4, neg gives 9
        assert compare({"y": np.float32(1e-4)}, {"y": np.float32(2e-4)}, 1e-3)
        assert not compare({"y": np.float32(1e-4)}, {"y": np.float32(1.0001e-4)}, 1e-3)
        with pytest.raises(CompileError):
            PassManager("test-scale", verify_each=True, inputs=inputs, tolerance=1e-3).run(module)


class TestRecords:
    def test_statistics_time_and_size(self) -> None:
        manager = PassManager("test-scale,dead-code")
        manager.run(sample())
        first, second = manager.records
        assert (first.stats.text(), first.ops_before, first.ops_after, first.changed) == ("edits=1", 4, 4, True)
        assert not second.changed
        assert first.seconds > 0
        assert first.text().startswith("test-scale: 4 -> 4 ops, ")
        assert manager.stats[0][1]["edits"] == 1

    def test_undeclared_counter_is_refused(self) -> None:
        with pytest.raises(KeyError, match="counter 'edit' is not declared; declared: edits"):
            Stats({"edits": ""})["edit"] = 1

    def test_callback_sees_each_result(self) -> None:
        seen: list[str] = []
        PassManager("dead-code,test-scale", on_pass=lambda r, m: seen.append(f"{r.name}:{len(m.body.ops)}")).run(
            sample()
        )
        assert seen == ["dead-code:4", "test-scale:4"]

    def test_broken_result_names_the_pass(self) -> None:
        with pytest.raises(CompileError, match="note: in pass test-broken; passes before it: dead-code"):
            PassManager("dead-code,test-broken").run(sample())


class TestSnapshots:
    def test_are_numbered_and_read_back(self, tmp_path: Path) -> None:
        module = sample()
        result = PassManager("dead-code,test-scale", dump_ir=tmp_path / "dump").run(module)
        names = sorted(p.name for p in (tmp_path / "dump").iterdir())
        assert names == ["00-input.fir", "01-dead-code.fir", "02-test-scale.fir", "resources.safetensors"]
        assert same_module(read_module(tmp_path / "dump" / names[0]), module)
        assert same_module(read_module(tmp_path / "dump" / names[2]), result)

    def test_failure_leaves_what_reproduces_it(self, tmp_path: Path) -> None:
        manager = PassManager("dead-code,test-broken,dead-code", dump_ir=tmp_path)
        with pytest.raises(
            CompileError, match=r"reproduce with .*/01-dead-code.fir and the passes test-broken,dead-code"
        ):
            manager.run(sample())
        assert same_module(read_module(tmp_path / "01-dead-code.fir"), sample())

    def test_may_go_into_the_folder_of_the_source(self, tmp_path: Path) -> None:
        PassManager("dead-code", dump_ir=tmp_path).run(sample())
        source = read_module(tmp_path / "01-dead-code.fir")  # its weights are mapped from the file that is replaced
        PassManager("test-scale", dump_ir=tmp_path).run(source)
        names = sorted(p.name for p in tmp_path.iterdir())
        assert names == ["00-input.fir", "01-test-scale.fir", "resources.safetensors"]
        assert same_module(read_module(tmp_path / names[0]), sample())

    def test_replace_those_of_an_earlier_run_and_nothing_else(self, tmp_path: Path) -> None:
        PassManager("dead-code,test-scale,dead-code", dump_ir=tmp_path).run(sample())
        others = ["1-dead-code.fir", "01-dead-code.fir.bak", "01-mine.fir", "dead-code.fir", "02-notes.txt"]
        for name in others:
            (tmp_path / name).write_text("the user's own")
        with pytest.raises(CompileError, match="in pass test-broken"):
            PassManager("test-scale,test-broken", dump_ir=tmp_path).run(sample())
        mine = ["00-input.fir", "01-test-scale.fir", "resources.safetensors"]
        assert sorted(p.name for p in tmp_path.iterdir()) == sorted(mine + others)

    def test_a_failure_while_writing_leaves_what_was_there(self, tmp_path: Path) -> None:
        PassManager("dead-code", dump_ir=tmp_path).run(sample())
        before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}

        class Unreadable(Resource):
            @property
            def array(self) -> np.ndarray:
                raise OSError("disk gone")

        b = Builder()
        x = b.argument("x", TensorType((64, 64), "f32"))
        w = b.constant(Unreadable("weights", np.zeros((64, 64), np.float32)))
        with pytest.raises(OSError, match="disk gone"):
            PassManager("test-scale", dump_ir=tmp_path).run(b.module("m", {"y": b.emit("tensor.matmul", x, w)}))
        assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_declaring_a_pass_needs_a_docstring_and_typed_options() -> None:
    def undocumented(module: Module, stats: Stats) -> Module:
        return module

    def untyped(module: Module, stats: Stats, *, x=1) -> Module:  # noqa: ANN001
        """Doc."""
        return module

    with pytest.raises(TypeError, match="has no docstring"):
        defpass("test-undocumented")(undocumented)
    with pytest.raises(TypeError, match="option x needs a default"):
        defpass("test-untyped")(untyped)
    assert "test-untyped" not in PASSES


def test_every_pass_file_declares_the_pass_of_its_name() -> None:
    folder = Path(__file__).parents[2] / "ir" / "passes"
    support = {"__init__", "manager", "registry"}
    passes = load_all()
    declared = {n.replace("-", "_") for n in {**passes, **ALIASES}}
    assert {p.stem for p in folder.glob("*.py")} - support <= declared


def test_every_pass_has_golden_texts() -> None:
    golden = Path(__file__).parents[1] / "golden" / "passes"
    passes = {n for n, p in load_all().items() if p.run.__module__.startswith("focusc.ir")}
    without = {n for n in passes - {"print"} if not list((golden / n.replace("-", "_")).glob("*.fir"))}
    assert not without


def test_print_pass_writes_the_module(capsys: pytest.CaptureFixture[str]) -> None:
    module = sample()
    assert PassManager("print{banner=here}").run(module) is module
    written = capsys.readouterr().err
    assert written.startswith('// ---- here\nmodule "m"(')
    assert written.endswith("}\n")
