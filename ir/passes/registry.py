"""Declaring passes: `@defpass`, options, counters, aliases, and pipeline text. `manager.py` runs pipelines."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import pkgutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from focusc.ir.attributes import is_sequence
from focusc.ir.core import Module
from focusc.ir.diagnostics import fail, suggest


class Stats:
    """Counters of one pass run. Only declared names can be counted, so that a misspelt one is found."""

    def __init__(self, declared: Mapping[str, str] | None = None) -> None:
        self.declared = dict(declared or {})
        self.counts: dict[str, float] = dict.fromkeys(self.declared, 0)

    def __getitem__(self, key: str) -> float:
        return self.counts[key]

    def __setitem__(self, key: str, value: float) -> None:
        if key not in self.declared:
            raise KeyError(f"counter {key!r} is not declared; declared: {', '.join(self.declared) or 'none'}")
        self.counts[key] = value

    def text(self) -> str:
        """`a=1 b=2`, in the order of declaration."""
        return " ".join(f"{k}={v:g}" for k, v in self.counts.items())


@dataclass(frozen=True, slots=True)
class Option:
    """A pass option, derived from a keyword-only parameter."""

    name: str
    kind: type
    default: Any


@dataclass(frozen=True)
class Pass:
    """A declared pass."""

    name: str
    run: Callable[..., Module]
    counters: dict[str, str]
    options: dict[str, Option]
    doc: str
    changes_values: bool = False
    tolerance: float = 0.0

    def __call__(self, module: Module, stats: Stats | None = None, **options: Any) -> Module:
        """Run the pass by itself; unknown options are refused."""
        unknown = set(options) - set(self.options)
        if unknown:
            raise unknown_option(self, sorted(unknown)[0])
        return self.run(module, stats if stats is not None else Stats(self.counters), **options)


@dataclass(frozen=True)
class Alias:
    """A pipeline alias: one name for several passes."""

    name: str
    pipeline: str
    doc: str = field(default="")


PASSES: dict[str, Pass] = {}
"""Passes loaded so far."""

ALIASES: dict[str, Alias] = {}
"""Pipeline aliases."""

PACKAGES: list[str] = ["focusc.ir.passes"]
"""Packages whose modules are searched for a pass by its name; a driver may append its own."""

_KINDS: dict[str, type] = {"int": int, "float": float, "str": str, "bool": bool, "tuple": tuple}

F = TypeVar("F", bound=Callable[..., Module])


def defpass(name: str, *, changes_values: bool = False, tolerance: float = 0.0, **counters: str) -> Callable[[F], Pass]:
    """Declare a pass; keyword arguments declare counters with their meaning.

    `changes_values` says that outputs may differ afterwards on purpose (pruning, merging): `--verify-each` then runs
    the result, but does not compare it with what was before. `tolerance` is the relative difference that a pass may
    cause by rounding to a narrower storage type. The function takes the module and
    `Stats`, and options as annotated keyword-only parameters with defaults.
    """

    def register(fn: F) -> Pass:
        if not (fn.__doc__ or "").strip():
            raise TypeError(f"pass {name!r} has no docstring")
        options: dict[str, Option] = {}
        for p in inspect.signature(fn).parameters.values():
            if p.kind is not p.KEYWORD_ONLY:
                continue
            text = p.annotation if isinstance(p.annotation, str) else getattr(p.annotation, "__name__", "")
            kind = _KINDS.get(text.split("[")[0].split("|")[0].strip())
            if kind is None or p.default is p.empty:
                raise TypeError(f"pass {name!r}: option {p.name} needs a default and one of {', '.join(_KINDS)}")
            options[p.name] = Option(p.name, kind, p.default)
        if name in PASSES and PASSES[name].run.__module__ != fn.__module__:
            raise TypeError(f"pass {name!r} is declared twice")
        made = Pass(name, fn, dict(counters), options, inspect.cleandoc(fn.__doc__ or ""), changes_values, tolerance)
        PASSES[name] = made
        return made

    return register


def defpipeline(name: str, pipeline: str, doc: str = "") -> Alias:
    """Declare a pipeline alias, for example `defpipeline("fuse-nn", "fuse-linear,fuse-attention")`."""
    ALIASES[name] = Alias(name, pipeline, doc)
    return ALIASES[name]


def load_pass(name: str) -> Pass | Alias:
    """The pass or alias of that name; its file is imported if need be. CompileError if there is none."""
    if name not in PASSES and name not in ALIASES:
        module = name.replace("-", "_")
        for package in PACKAGES:
            if module.isidentifier() and importlib.util.find_spec(f"{package}.{module}") is not None:
                importlib.import_module(f"{package}.{module}")
                break
        if name not in PASSES and name not in ALIASES:
            load_all()
    found = PASSES.get(name) or ALIASES.get(name)
    if found is None:
        known = sorted({**PASSES, **ALIASES})
        hint = suggest(name, known) or suggest(name, known, "known:")
        raise fail("pass.unknown", f"pass {name!r} is unknown", hint=hint)
    return found


def load_all() -> dict[str, Pass]:
    """Import every pass file and return all passes."""
    for package in PACKAGES:
        for found in pkgutil.iter_modules(importlib.import_module(package).__path__):
            importlib.import_module(f"{package}.{found.name}")
    return PASSES


def unknown_option(p: Pass, name: str) -> Exception:
    """The error for an option that the pass does not have."""
    return fail("pass.option", f"pass {p.name} has no option {name}", hint=suggest(name, p.options, "options:"))


def parse_pipeline(text: str) -> list[tuple[Pass, dict[str, Any]]]:
    """`a,b{x=1,y=abc},c` as passes with converted options; aliases are expanded."""
    steps: list[tuple[Pass, dict[str, Any]]] = []
    for item in _split(text):
        name, brace, rest = item.partition("{")
        found = load_pass(name.strip())
        if brace and not rest.rstrip().endswith("}"):
            raise fail("pass.pipeline", f"in {text!r}: {item!r} has no closing brace")
        given: dict[str, str] = {}
        for pair in _split(rest.rstrip()[:-1]) if brace else []:
            key, equals, value = pair.partition("=")
            if not equals:
                raise fail("pass.pipeline", f"in {text!r}: option {pair!r} has no value", hint="write name=value")
            given[key.strip().replace("-", "_")] = value.strip()
        if isinstance(found, Alias):
            if given:
                raise fail(
                    "pass.option",
                    f"{found.name} is a pipeline alias and takes no options",
                    hint=f"it stands for {found.pipeline}",
                )
            steps += parse_pipeline(found.pipeline)
        else:
            steps.append((found, {k: convert(found, k, v) for k, v in given.items()}))
    return steps


def _split(text: str) -> list[str]:
    """Cut at commas outside braces and brackets."""
    parts, depth = [""], 0
    for c in text:
        depth += (c in "{[(") - (c in "}])")
        if depth < 0:
            raise fail("pass.pipeline", f"in {text!r}: a closing bracket has no partner")
        if c == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += c
    if depth:
        raise fail("pass.pipeline", f"in {text!r}: a bracket is not closed")
    return [p.strip() for p in parts if p.strip()]


def convert(p: Pass, name: str, text: str) -> Any:
    """An option's value from pipeline text, by the declared kind."""
    option = p.options.get(name)
    if option is None:
        raise unknown_option(p, name)
    try:
        if option.kind is bool:
            return {"true": True, "false": False, "1": True, "0": False}[text.lower()]
        if option.kind is tuple:
            return tuple(_number(v.strip()) for v in text.strip("[]()").split(",") if v.strip())
        return option.kind(text)
    except (KeyError, ValueError):
        raise fail("pass.option", f"option {name} of {p.name} is {text!r}, expected {option.kind.__name__}") from None


def _number(text: str) -> int | float | str:
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def pipeline_text(steps: list[tuple[Pass, dict[str, Any]]]) -> str:
    """Steps as text that `parse_pipeline` reads back."""
    return ",".join(
        p.name + (f"{{{','.join(f'{k}={_text(v)}' for k, v in o.items())}}}" if o else "") for p, o in steps
    )


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if is_sequence(value):
        return f"[{','.join(map(str, value))}]"
    return str(value)
