"""The graph: use lists, clone, Builder and Rewriter, declarations, verifier."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from focusc.ir import (
    Block,
    Builder,
    CompileError,
    Loc,
    Module,
    Op,
    Resource,
    Rewriter,
    TensorType,
    Value,
    attr,
    defop,
    operand,
    operands,
    print_module,
    result,
    same_module,
    verify,
)
from focusc.ir.declare import OPS
from focusc.ir.ops.nn import Linear
from focusc.ir.ops.tensor_shape import Concat

F = TensorType((2, 3), "f32")


def chain(count: int = 3) -> Module:
    """x -> exp -> exp -> ..."""
    b = Builder()
    value = b.argument("x", F)
    for i in range(count):
        value = b.emit("tensor.exp", value, loc=Loc(node=f"/exp{i}", module_path=f"model.layers.{i}"))
    return b.module("chain", {"y": value})


def code_of(error: pytest.ExceptionInfo[CompileError]) -> str:
    return error.value.diagnostics[0].code


class TestUses:
    def test_users_are_distinct_and_in_order(self) -> None:
        b = Builder()
        x = b.argument("x", F)
        first, second = b.create("tensor.add", x, x), b.create("tensor.exp", x)
        assert x.users == [first, second]
        assert x.use_count == 3

    def test_set_operand_moves_the_use(self) -> None:
        b = Builder()
        x, y = b.argument("x", F), b.argument("y", F)
        op = b.create("tensor.add", x, x)
        op.set_operand(1, y)
        assert (x.use_count, y.use_count) == (1, 1)
        op.set_operand(0, y)
        assert x.users == []

    def test_fields_read_operands_attributes_and_results(self) -> None:
        b = Builder()
        x, w = b.argument("x", F), b.argument("w", TensorType((3, 4), "f32"))
        op = b.create("nn.linear", x, w)
        assert isinstance(op, Linear)
        assert op.x is x
        assert op.w is w
        assert op.bias is None
        assert op.epilogue == "none"
        assert op.operands == [x, w, None]
        assert op.result.type == TensorType((2, 4), "f32")
        assert op.result.owner is op

    def test_variadic_operands_are_a_tuple(self) -> None:
        b = Builder()
        x, y = b.argument("x", F), b.argument("y", F)
        op = b.create("tensor.concat", x, y, x, axis=0)
        assert isinstance(op, Concat) and op.xs == (x, y, x)


class TestClone:
    def test_is_equal_and_separate(self) -> None:
        module = chain()
        clone = module.clone()
        assert same_module(clone, module)
        assert not set(module.walk()) & set(clone.walk())
        rewriter = Rewriter(clone)
        first = clone.body.ops[0]
        rewriter.replace(first, clone.args[0])
        verify(clone)
        verify(module)
        assert len(module.body.ops) == len(clone.body.ops) + 1

    def test_shares_weights(self) -> None:
        b = Builder()
        weights = Resource("w", np.zeros((64, 64), np.float32))
        module = b.module("m", {"y": b.constant(weights)})
        assert module.clone().body.ops[0].attrs["value"] is weights

    def test_map_leads_to_new_values(self) -> None:
        module = chain()
        clone, values = module.clone_with_map()
        assert values[module.args[0]] is clone.args[0]
        assert values[module.body.ops[1].result] is clone.body.ops[1].result


class TestRewriter:
    def test_replacement_takes_name_and_location(self) -> None:
        module = chain()
        rewriter = Rewriter(module)
        op = module.body.ops[1]
        op.result.name = "middle"
        assert not rewriter.changed
        new = rewriter.replace_with(op, "tensor.neg", op.operands[0])
        verify(module)
        assert rewriter.changed
        assert new.loc == op.loc
        assert new.result.name == "middle"
        assert [o.name for o in module.body.ops] == ["tensor.exp", "tensor.neg", "tensor.exp", "return"]

    def test_insert_after_the_last_op_appends(self) -> None:
        block = Block([F])
        first = Builder(block).create("tensor.exp", block.args[0])
        module = Module("m", block)
        Rewriter(module).insert_after(first, "tensor.neg", first.result)
        assert [o.name for o in block.ops] == ["tensor.exp", "tensor.neg"]

    def test_refuses_to_erase_a_used_op(self) -> None:
        module = chain()
        with pytest.raises(CompileError, match=r"tensor.exp is erased while tensor.exp still reads") as error:
            Rewriter(module).erase(module.body.ops[0])
        assert code_of(error) == "rewrite.erase"

    def test_refuses_a_replacement_of_other_length(self) -> None:
        module = chain()
        with pytest.raises(CompileError) as error:
            Rewriter(module).replace(module.body.ops[0], [])
        assert code_of(error) == "rewrite.results"

    def test_refresh_infers_again(self) -> None:
        b = Builder()
        op = b.create("tensor.reshape", b.argument("x", F), shape=[6])
        module = b.module("m", {"y": op.result})
        rewriter = Rewriter(module)
        rewriter.set_attr(op, shape=[3, 2])
        with pytest.raises(CompileError, match="result type is"):
            verify(module)
        rewriter.refresh(op)
        verify(module)
        assert op.result.type == TensorType((3, 2), "f32")

    def test_partial_replacement_leaves_other_users(self) -> None:
        b = Builder()
        x = b.argument("x", F)
        first, second = b.create("tensor.exp", x), b.create("tensor.neg", x)
        module = b.module("m", {"a": first.result, "b": second.result})
        Rewriter(module).replace_uses(x, first.result, only=[second])
        assert second.operands == [first.result]
        assert first.operands == [x]

    def test_moves_an_op(self) -> None:
        b = Builder()
        x = b.argument("x", F)
        first, second = b.create("tensor.exp", x), b.create("tensor.neg", x)
        module = b.module("m", {"a": first.result, "b": second.result})
        Rewriter(module).move_before(second, first)
        verify(module)
        assert module.body.ops[:2] == [second, first]


class TestVerifier:
    def test_accepts_a_built_module(self) -> None:
        verify(chain())

    @pytest.mark.parametrize(
        ("harm", "code"),
        [
            (lambda m: m.body.ops.reverse(), "module.return"),
            (lambda m: m.body.ops.insert(0, m.body.ops.pop(1)), "value.undefined"),
            (lambda m: m.body.ops[0].operands.append(m.args[0]), "op.operands"),
            (lambda m: m.body.ops[1].result.__setattr__("type", TensorType((1,), "f32")), "type.result"),
            (lambda m: m.body.ops[1].attrs.update(axis=1), "attr.unknown"),
            (lambda m: m.body.ops[1].__setattr__("parent", None), "op.parent"),
            (lambda m: m.args[0].drop_use(m.body.ops[0]), "value.uses"),
            (lambda m: m.outputs.append("z"), "module.return"),
            (lambda m: m.args[0].__setattr__("name", ""), "module.args"),
        ],
    )
    def test_finds_harm(self, harm: Any, code: str) -> None:
        module = chain()
        harm(module)
        with pytest.raises(CompileError) as error:
            verify(module)
        assert code in [d.code for d in error.value.diagnostics]

    def test_names_the_place_in_the_model(self) -> None:
        module = chain()
        module.body.ops[1].result.type = TensorType((7,), "f32")
        with pytest.raises(CompileError, match=r"from: model.layers.1 \(/exp1\)"):
            verify(module)

    def test_reports_at_most_twenty(self) -> None:
        module = chain(50)
        for i, op in enumerate(module.body.ops[:-1]):
            op.result.type = TensorType((i,), "f32")
        with pytest.raises(CompileError) as error:
            verify(module)
        assert len(error.value.diagnostics) == 20


class TestDeclaration:
    def declare(self, body: dict[str, Any], name: str = "test.declared") -> type[Op]:
        base: dict[str, Any] = {
            "__slots__": (), "__doc__": "Doc.", "infer": staticmethod(lambda *t, **a: ()),
            "evaluate": staticmethod(lambda *t, **a: ()),
        }  # fmt: skip
        try:
            return defop(name)(type("Declared", (Op,), {k: v for k, v in {**base, **body}.items() if v is not None}))
        finally:
            OPS.pop(name, None)

    @pytest.mark.parametrize(
        ("body", "message"),
        [
            ({"__doc__": ""}, "has no docstring"),
            ({"infer": None}, "has no infer"),
            ({"evaluate": None}, "has no evaluate"),
            ({"loc": operand()}, "collides with Op.loc"),
            ({"a": operands(), "b": operand()}, "only the last operand can be variadic"),
        ],
    )
    def test_refuses(self, body: dict[str, Any], message: str) -> None:
        with pytest.raises(TypeError, match=message):
            self.declare(body)

    def test_refuses_a_second_op_of_a_name(self) -> None:
        with pytest.raises(TypeError, match="declared twice"):
            defop("tensor.add")(type("Other", (Op,), dict(vars(OPS["tensor.sub"]))))

    def test_counts_operands(self) -> None:
        cls = self.declare({"a": operand(), "b": operand(optional=True), "c": operands(), "out": result()})
        x = Value(F)
        assert cls.arrange([x]) == [x, None]
        assert cls.arrange([x, None, x, x]) == [x, None, x, x]
        with pytest.raises(CompileError, match="has 0 operands, expected at least 1"):
            cls.arrange([])
        with pytest.raises(CompileError, match="a variadic operand is absent"):
            cls.arrange([x, x, None])

    def test_attributes_are_canonical(self) -> None:
        cls = self.declare({
            "f": attr(float), "t": attr(tuple, (), of=float), "n": attr(int, None), "u": attr((int, float), 0),
            "d": attr(dict, {}),
        })  # fmt: skip
        full = cls.complete({"f": 1, "t": [1, np.float32(0.5)], "u": np.int64(3), "d": {"k": [True, "s"]}})
        assert full == {"f": 1.0, "t": (1.0, 0.5), "u": 3, "d": {"k": (True, "s")}}
        assert type(full["f"]) is float
        assert [type(v) for v in full["t"]] == [float, float]

    @pytest.mark.parametrize(
        ("kind", "options", "value", "message"),
        [
            (int, {}, True, "is True, expected int"),
            (int, {}, 1.0, "is 1.0, expected int"),
            (bool, {}, 1, "is 1, expected bool"),
            ((int, float), {}, "1", "is '1', expected int or float"),
            (tuple, {"of": int}, [1, 2.5], "holds 2.5, expected int elements"),
            (int, {"minimum": 1}, 0, "is 0, expected at least 1"),
            (str, {"one_of": ("a", "b")}, "c", "is 'c', expected one of 'a', 'b'"),
            (dict, {}, {1: 2}, "keys that are not strings"),
            (tuple, {}, [object()], "has type object"),
        ],
    )
    def test_attribute_errors(self, kind: Any, options: dict[str, Any], value: Any, message: str) -> None:
        cls = self.declare({"a": attr(kind, **options)})
        with pytest.raises(CompileError, match=message):
            cls.complete({"a": value})

    def test_nesting_of_attributes_is_bounded(self) -> None:
        value: Any = 1
        for _ in range(20):
            value = [value]
        with pytest.raises(CompileError, match="nested more than 8 deep"):
            self.declare({"a": attr(tuple)}).complete({"a": value})


def test_builder_gives_locations() -> None:
    b = Builder()
    x = b.argument("x", F)
    with b.at(Loc(node="/n", module_path="a.b")):
        op = b.create("tensor.exp", x)
    with b.from_op(op):
        second = b.create("tensor.neg", op.result)
    assert second.loc == op.loc == Loc(node="/n", module_path="a.b")
    assert b.create("tensor.neg", op.result).loc == Loc()


def test_error_in_a_built_op_has_its_location() -> None:
    b = Builder(loc=Loc(node="/bad", module_path="model.bad"))
    x = b.argument("x", F)
    with pytest.raises(CompileError) as error:
        b.create("tensor.transpose", x, perm=[0, 0])
    assert error.value.render().splitlines() == [
        "error[type.axis]: tensor.transpose: perm [0, 0] is not a permutation of the 2 axes of x",
        "  from: model.bad (/bad)",
    ]


def test_value_and_op_show_themselves() -> None:
    module = chain(1)
    assert repr(module.args[0]) == "%x: tensor<2x3xf32>"
    assert repr(module.body.ops[0]) == "<tensor.exp at model.layers.0 (/exp0)>"
    assert str(module) == print_module(module)
