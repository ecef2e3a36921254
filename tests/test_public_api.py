"""What a user imports is listed, documented and annotated."""

from __future__ import annotations

import importlib
import inspect

import pytest

PACKAGES = ("focusc", "focusc.ir", "focusc.isa", "focusc.backends", "focusc.driver")


def _public() -> list[tuple[str, str]]:
    return [(package, name) for package in PACKAGES for name in importlib.import_module(package).__all__]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_public_names_once_and_in_full(package: str) -> None:
    names = importlib.import_module(package).__all__
    assert names, f"{package} lists no public names"
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("package", "name"), _public())
def test_a_public_name_is_documented_and_annotated(package: str, name: str) -> None:
    value = getattr(importlib.import_module(package), name)
    if not (inspect.isclass(value) or inspect.isfunction(value)):
        return  # a table or a constant: its module documents it
    assert (inspect.getdoc(value) or "").strip(), f"{package}.{name} has no docstring"
    if inspect.isfunction(value):
        signature = inspect.signature(value)
        bare = [p.name for p in signature.parameters.values() if p.annotation is inspect.Parameter.empty]
        assert not bare, f"{package}.{name}: no annotation on {bare}"
        assert signature.return_annotation is not inspect.Signature.empty, f"{package}.{name}: no return annotation"


def test_an_unknown_name_is_an_attribute_error() -> None:
    focusc = importlib.import_module("focusc")
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = focusc.nothing
