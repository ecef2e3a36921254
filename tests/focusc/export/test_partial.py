"""Partial evaluation: what becomes a constant, what stays in the graph, what is refused, and that patches go."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch

from focusc.export.errors import ExportError
from focusc.export.graph import _unconvertible, convert
from focusc.export.partial import DataDependent, patched
from focusc.export.prefill import Prefill
from focusc.export.vlm import _trace

Body = Callable[["Model", torch.Tensor, torch.Tensor], torch.Tensor]


class Model(torch.nn.Module):
    """A stand-in for a transformers model: `body` computes hidden rows from embedded tokens and pixels."""

    body: Body
    scale: torch.Tensor

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = torch.nn.Embedding(32, 8)
        self.project = torch.nn.Linear(4, 8)
        self.register_buffer("scale", torch.tensor([2.0]))

    def forward(self, input_ids: torch.Tensor, pixel_values: torch.Tensor, **_: object) -> SimpleNamespace:
        return SimpleNamespace(logits=type(self).body(self, input_ids, pixel_values))


IMAGE = 9
IDS = torch.tensor([[1, IMAGE, IMAGE, 2, IMAGE, 3]])
PIXELS = torch.arange(12.0).reshape(3, 4) / 10


def of(body: Body) -> Prefill:
    """A prefill whose model runs `body`."""
    return Prefill(type("Case", (Model,), {"body": body})(), {"input_ids": IDS, "pixel_values": PIXELS})


def check(body: Body) -> torch.fx.Graph:
    """Trace, and compare the graph with the eager model on the sample and on other values; return the graph."""
    prefill = of(body)
    program = prefill.trace()
    for ids, pixels in ((IDS, PIXELS), (torch.tensor([[5, IMAGE, IMAGE, 6, IMAGE, 7]]), -PIXELS)):
        inputs = {"pixel_values": pixels, "input_ids": ids}
        got = program.module()(*(inputs[name] for name in prefill.inputs))
        torch.testing.assert_close(got, prefill(*(inputs[name] for name in prefill.inputs)))
    return program.graph


def targets(graph: torch.fx.Graph) -> list[str]:
    return [str(node.target) for node in graph.nodes if node.op == "call_function"]


def test_masked_scatter_becomes_slices_and_a_concatenation() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        mask = (ids == IMAGE).unsqueeze(-1)
        return self.embed(ids).masked_scatter(mask, self.project(pixels))

    names = targets(check(body))
    assert "aten.cat.default" in names
    assert not any("scatter" in name or "nonzero" in name or "eq" in name for name in names)


def test_boolean_indices_and_assignments() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        mask = ids == IMAGE
        x = self.embed(ids)
        x[mask] = self.project(pixels)
        y = x[mask] * self.scale
        z = torch.zeros_like(x)
        z[mask, :] = z[mask, :].clone() + y
        return z + x[:, torch.argsort(mask[0].long(), stable=True)]

    assert not any("nonzero" in name or "sort" in name for name in targets(check(body)))


def test_python_values_of_ids_and_fixed_facts() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        count = int((ids == IMAGE).sum())
        lengths = torch.tensor([1, count - 1]).tolist()
        first, second = torch.split(self.project(pixels), lengths)
        if (pixels == 0).all():
            raise AssertionError("only for empty images")
        repeated = second.repeat_interleave(torch.tensor([1, 2]), dim=0)
        return self.embed(ids) + first.sum() + repeated.sum()

    check(body)


@pytest.mark.parametrize("upper", [False, True])
def test_triangular_systems_become_products(upper: bool) -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        rows = self.project(pixels).repeat_interleave(3, dim=0)
        system = torch.eye(9) + (rows @ rows.T) / 4
        solved = torch.linalg.solve_triangular(system, rows, upper=upper, unitriangular=True)
        return self.embed(ids) + solved.sum()

    assert not any("solve" in name or "repeat" in name for name in targets(check(body)))


def test_tables_computed_from_buffers_are_constants() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        table = torch.cos(torch.arange(6)[:, None] * self.scale)
        return self.embed(ids) * table + self.project(pixels).sum()

    assert not any("cos" in name or "arange" in name for name in targets(check(body)))


def test_views_of_one_table_are_one_constant() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        table = torch.cos(torch.arange(48.0).reshape(6, 8))
        x = self.embed(ids)
        for _ in range(4):
            x = x * table.unsqueeze(0) + self.project(pixels).sum()
        return x

    program = of(body).trace()
    assert len(program.constants) == 1
    check(body)


def test_a_constant_that_changes_after_its_use() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        table = torch.arange(8.0)
        x = self.embed(ids) * table
        table += 1
        return x * table + self.project(pixels).sum()

    check(body)


def test_a_constant_that_is_filled_with_traced_values() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(6, 8)
        rows[2:5] = self.project(pixels)
        rows += 1
        return self.embed(ids) + rows

    check(body)


def test_token_ids_stay_an_input_when_placeholders_are_overwritten() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        text = ids.clone()
        text[ids == IMAGE] = 0
        return self.embed(text) + self.embed(ids.masked_fill(ids == IMAGE, 4)) + self.project(pixels).mean()

    check(body)


@pytest.mark.parametrize(("name", "body"), [
    ("__bool__", lambda self, ids, pixels: self.embed(ids) if self.project(pixels).sum() > 0 else self.embed(ids) * 2),
    ("item", lambda self, ids, pixels: self.embed(ids) * self.project(pixels).max().item()),
    ("nonzero", lambda self, ids, pixels: self.embed(ids)[:, : (self.project(pixels) > 0).nonzero().shape[0]]),
    ("__getitem__", lambda self, ids, pixels: self.project(pixels)[self.project(pixels) > 0].sum() + self.embed(ids)),
])
def test_what_depends_on_the_model_is_refused_with_its_place(name: str, body: Body) -> None:
    prefill = of(body)
    with pytest.raises(DataDependent, match="depends on values that the model computes") as caught:
        prefill.trace()
    assert caught.value.function == name
    assert "test_partial.py" in caught.value.site
    assert "project(pixels)" in caught.value.site


def test_writing_into_a_view_of_a_constant_is_refused() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        rows = torch.zeros(6, 8)
        rows[0].copy_(self.project(pixels)[0])
        return self.embed(ids) + rows

    with pytest.raises(DataDependent, match="into a part of a constant"):
        of(body).trace()


def flags() -> tuple[object, ...]:
    from transformers.utils import import_utils

    return torch.compiler.is_compiling(), torch.compiler.is_exporting(), import_utils.is_fake_tensor


def test_everything_is_restored_after_success_and_after_failure() -> None:
    before = flags()
    good = of(lambda self, ids, pixels: self.embed(ids) + self.project(pixels).sum())
    good.trace()
    assert flags() == before
    assert "forward" not in vars(good.model)
    bad = of(lambda self, ids, pixels: self.embed(ids) * float(self.project(pixels).sum()))
    with pytest.raises(DataDependent):
        bad.trace()
    assert flags() == before
    assert "forward" not in vars(bad.model)
    with pytest.raises(ZeroDivisionError), patched():
        assert flags() != before
        raise ZeroDivisionError
    assert flags() == before


def test_messages(refusals: list[ExportError]) -> None:
    """A model that decides by its own arithmetic, one that fails, and one with an operator that ONNX lacks."""

    def decides(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return self.embed(ids) * float(self.project(pixels).sum())

    def fails(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        raise ValueError("the pixels are not square")

    def lacks(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        return self.embed(ids) + torch.special.bessel_j0(self.project(pixels)).sum()

    for body in (decides, fails):
        prefill = of(body)
        with pytest.raises(ExportError) as caught:
            _trace(prefill.model, "Model", {"input_ids": IDS, "pixel_values": PIXELS})
        refusals.append(caught.value)
    prefill = of(lacks)
    with pytest.raises(ExportError) as caught:
        convert(prefill.trace(), list(prefill.inputs), "logits", 20)
    refusals.append(caught.value)
    refusals.append(_unconvertible(prefill.trace(), RuntimeError("out of luck\nand a page of details")))
    assert [error.code for error in refusals] == [
        "export.data-dependent", "export.trace", "export.operator", "export.convert"]


def test_the_sample_is_not_written_to() -> None:
    def body(self: Model, ids: torch.Tensor, pixels: torch.Tensor) -> torch.Tensor:
        pixels = pixels.view(12)
        pixels += 1
        return self.embed(ids) + self.project(pixels.view(3, 4)).sum()

    kept = PIXELS.clone()
    of(body).trace()
    torch.testing.assert_close(PIXELS, kept)
