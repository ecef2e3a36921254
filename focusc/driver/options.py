"""What a compilation can be told, from flags, from Python and from a TOML file, in one validated record."""

from __future__ import annotations

import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from focusc.backends.toml_text import key_lines
from focusc.driver.errors import InputError
from focusc.driver.files import existing
from focusc.isa.errors import suggest

METHODS = ("none", "sec", "sic", "focus")
HOSTS = ("auto", "none")

Scalar = bool | int | float | str


class CompileOptions(BaseModel):
    """Options of one compilation; an unknown key is an error that names the file and line.

    target = "focus"                 # or "systolic", or the path of a hardware description
    host = "auto"                    # or "none": refuse what the target cannot run, instead of leaving it to the host
    pipeline = "..."                 # passes to run instead of the usual ones, up to tiling
    [concentrate]                    # options of the pass `concentrate`
    method = "focus"
    threshold = 0.9
    [tiling]                         # options of the backend's tiling
    [layout]                         # the token layout, if the model's metadata does not have it
    visual = [4, 288]
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    target: str = "focus"
    host: str = "auto"
    concentrate: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    tiling: dict[str, Scalar | list[Scalar]] = Field(default_factory=dict)
    layout: dict[str, int | str | list[int]] | None = None
    pipeline: str | None = None

    @field_validator("concentrate")
    @classmethod
    def _known_method(cls, value: dict[str, Any]) -> dict[str, Any]:
        method = value.get("method")
        if method is not None and method not in METHODS:
            raise ValueError(f"method is {method!r}, expected one of {', '.join(METHODS)}")
        return value

    @field_validator("host")
    @classmethod
    def _known_host(cls, value: str) -> str:
        if value not in HOSTS:
            raise ValueError(f"is {value!r}, expected one of {', '.join(HOSTS)}")
        return value

    @classmethod
    def load(cls, file: str | os.PathLike[str] | None = None, **flags: Any) -> Self:
        """Options from a TOML file (if any), overridden by the flags that are not None.

        `concentrate` may be given as a method name. Raises InputError with file, line and key.
        """
        table = _read(file) if file is not None else {}
        given = {key: value for key, value in flags.items() if value is not None}
        method = given.get("concentrate")
        if isinstance(method, str):
            given["concentrate"] = {**table.get("concentrate", {}), "method": method}
        if "layout" in given and isinstance(table.get("layout"), dict):
            given["layout"] = {**table["layout"], **given["layout"]}
        try:
            options = cls.model_validate({**table, **given})
        except ValidationError as error:
            raise _invalid(error, file) from None
        if file is not None:
            _check_passes(options, file)
            if "layout" in table and options.layout is not None:
                _check_layout(options.layout, file)
        return options

    @property
    def method(self) -> str | None:
        """The concentration method that was asked for, or None if it is left to the target."""
        method = self.concentrate.get("method")
        return str(method) if method is not None else None


def layout_facts(file: str | os.PathLike[str] | None = None, **flags: str | int | None) -> dict[str, Any] | None:
    """The token layout from the table [layout] of a TOML file (if any), overridden by the flags that are not None.

    None if nothing is given. Raises InputError or, for flags alone, CompileError `layout.*`.
    """
    from focusc.ir.concentration.layout import Layout

    given = {fact: value for fact, value in flags.items() if value is not None}
    if file is None:
        if given:
            Layout.parse(given)
        return given or None
    table = _read(file).get("layout")
    if not isinstance(table, dict):
        raise InputError(
            "layout.file",
            "there is no table [layout]",
            where=os.fspath(file),
            hint="write [layout] with visual = [start, length], grid = [f, h, w] and query = n",
        )
    _check_layout({**table, **given}, file)
    return {**table, **given}


def pipeline_options(options: dict[str, Any]) -> str:
    """Options as pipeline text: {method=focus,layers=[1,2]}; nothing if there are none."""
    if not options:
        return ""

    def text(value: Any) -> str:
        if isinstance(value, bool):
            return str(value).lower()
        if isinstance(value, (list, tuple)):
            return "[" + ",".join(text(item) for item in value) + "]"
        if isinstance(value, str) and "," in value and not value.lstrip().startswith("["):
            return f"[{value}]"  # a comma would end the option: "0:0.5,1:0.2"
        return str(value)

    return "{" + ",".join(f"{key}={text(value)}" for key, value in options.items()) + "}"


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    file = existing(path, "TOML file")
    try:
        return tomllib.loads(file.read_text("utf-8"))
    except tomllib.TOMLDecodeError as error:
        raise InputError("config.syntax", f"not TOML: {error}", where=str(file)) from None
    except UnicodeDecodeError:
        raise InputError("config.syntax", "not TOML: it is not text", where=str(file)) from None


def _check_passes(options: CompileOptions, file: str | os.PathLike[str]) -> None:
    """Let the passes judge their options one by one, so that the error can name the line of the file."""
    from focusc.driver.passes import register_backend_passes
    from focusc.ir import CompileError, parse_pipeline

    register_backend_passes()
    for table, name, values in (
        ("concentrate", "concentrate", options.concentrate),
        ("tiling", "tile", options.tiling),
    ):
        for key, value in values.items():
            try:
                parse_pipeline(name + pipeline_options({key: value}))
            except CompileError as error:
                first = error.diagnostics[0]
                where = f"{os.fspath(file)}:{_line_of(Path(file), [table, key])}"
                raise InputError("config.option", first.message, where=where, hint=first.hint) from None


def _check_layout(facts: Mapping[str, Any], file: str | os.PathLike[str]) -> None:
    """Let the layout judge its facts, so that the error can name the line of the file."""
    from focusc.ir import CompileError
    from focusc.ir.concentration.layout import Layout

    try:
        Layout.parse(facts)
    except CompileError as error:
        first = error.diagnostics[0]
        fact = first.message.split()[0]  # every message begins with the fact
        line = _line_of(Path(file), ["layout", fact]) or _line_of(Path(file), ["layout"])
        raise InputError(first.code, first.message, where=f"{os.fspath(file)}:{line}", hint=first.hint) from None


def _invalid(error: ValidationError, file: str | os.PathLike[str] | None) -> InputError:
    """The first finding of pydantic, in our words and with the line of its key."""
    finding = error.errors()[0]
    keys = [str(key) for key in finding["loc"] if not _is_union_branch(key)]
    place = ".".join(keys[:2]) or "the options"
    where = ""
    if file is not None:
        line = _line_of(Path(file), keys)
        where = f"{os.fspath(file)}:{line}" if line else os.fspath(file)
    if finding["type"] == "extra_forbidden":
        hint = suggest(keys[0], CompileOptions.model_fields, "there are")
        return InputError("config.key", f"{place} is not an option", where=where, hint=hint)
    message = finding["msg"].removeprefix("Value error, ")
    if finding["type"] == "value_error":
        return InputError("config.value", f"{place}: {message}", where=where)
    return InputError(
        "config.value", f"{place} is {finding['input']!r}: {message[0].lower()}{message[1:]}", where=where
    )


def _is_union_branch(key: str | int) -> bool:
    """True for the parts of a pydantic location that name a type instead of a key."""
    return isinstance(key, int) or key in ("bool", "int", "float", "str") or key.startswith("list[")


def _line_of(file: Path, keys: list[str]) -> int:
    """Line of the table or the key in its table, or 0; enough for hand-written files."""
    return key_lines(file.read_text("utf-8")).get(".".join(keys[:2]), 0)
