"""The contract of the command line: exit status 2 for wrong usage, help for every command, the documented flags."""

from __future__ import annotations

import pytest

from .conftest import Cli

COMMANDS = {
    "export": ["-o", "--opset", "--json"],
    "ops": ["--json", "--sites"],
    "compile": ["-o", "--target", "--concentrate", "--config", "--dump-ir", "--verify-each", "--no-weights", "--json"],
    "opt": ["-p", "-o", "--json"],
    "run": ["--inputs", "-o", "--stats", "--timeline", "--record-trace", "--array", "--json"],
    "simulate": ["--trace", "--stats", "--json"],
    "workload": ["-o", "--frames", "--variant", "--layers", "--json"],
    "objdump": ["-h", "-d", "-S", "-t", "--json"],
    "asm": ["-o", "--json"],
    "compare": ["--samples", "--json"],
    "demo": ["--json"],
}


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_every_documented_flag(cli: Cli, command: str) -> None:
    found = cli(command, "--help")
    assert found.status == 0
    for flag in COMMANDS[command]:
        assert flag in found.out, f"{command} --help does not show {flag}"


def test_help_lists_every_command(cli: Cli) -> None:
    found = cli("--help")
    for command in COMMANDS:
        assert f"\n  {command}" in found.out


@pytest.mark.parametrize(
    "arguments",
    [
        ("frobnicate",),
        ("compile",),
        ("compile", "m.onnx"),
        ("compile", "m.onnx", "-o", "p.fbin", "--concentrate", "most"),
        ("compile", "m.onnx", "-o", "p.fbin", "--frobnicate"),
        ("run", "p.fbin", "--inputs", "in.npz", "-o", "out.npz", "--array", "fast"),
        ("compare", "m.onnx", "--samples", "0"),
        ("compare", "m.onnx", "--samples", "many"),
    ],
)
def test_wrong_usage_is_status_2(cli: Cli, arguments: tuple[str, ...]) -> None:
    found = cli(*arguments)
    assert found.status == 2
    assert "Usage: focusc" in found.err
    assert found.out == ""


def test_version(cli: Cli) -> None:
    from focusc import __version__

    assert cli("--version").out == f"focusc {__version__}\n"


def test_no_command_shows_help_and_is_wrong_usage(cli: Cli) -> None:
    found = cli()
    assert "Commands:" in found.out + found.err
    assert found.status == 2


def test_a_bug_is_called_a_bug(cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: object) -> None:
    import focusc.driver

    def broken(*arguments: object, **options: object) -> None:
        raise RuntimeError("an assumption of ours does not hold")

    monkeypatch.setattr(focusc.driver, "ops", broken, raising=False)
    found = cli("ops", "m.onnx")
    assert found.status == 1
    assert found.err.startswith("error[bug]: this is a bug in focusc")
    report = found.err.split("the traceback is in ")[1].split(";")[0]
    with open(report) as file:
        text = file.read()
    assert "focusc ops m.onnx" in text
    assert "RuntimeError: an assumption of ours does not hold" in text


def test_json_errors_are_json(cli: Cli) -> None:
    import json

    found = cli("compile", "nothing.onnx", "-o", "p.fbin", "--json")
    assert found.status == 1
    assert json.loads(found.out)["error"]["code"] == "file.missing"
    assert "nothing.onnx" in found.err
