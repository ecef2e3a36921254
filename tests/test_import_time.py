"""`focusc --help` answers at once, and commands that need no model framework do not load one."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from focusc.cli import app

HEAVY = (
    "torch",
    "onnxruntime",
    "transformers",
    "matplotlib",
    "onnx",
    "numba",
    "scipy",
    "pydantic",
    "numpy",
    "networkx",
)


def _printed(code: str, names: tuple[str, ...]) -> str:
    """What `code` prints, and on the last line the modules among `names` that it has loaded."""
    probe = f"import sys\n{code}\nprint(*[m for m in {names!r} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    return done.stdout.removesuffix("\n")


def _loaded(code: str, names: tuple[str, ...]) -> list[str]:
    return _printed(code, names).split()


def _cpu_seconds(*arguments: str) -> float:
    """User and system time of one run: what it costs, whatever else the machine is doing."""
    process = subprocess.Popen([sys.executable, "-m", "focusc", *arguments], stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    return usage.ru_utime + usage.ru_stime


COMMANDS = ("export", "ops", "compile", "opt", "run", "simulate", "objdump", "asm", "compare", "demo", "workload",
            "reproduce")
ANSWERS = [("--help",), ("--version",), *((command, "--help") for command in COMMANDS)]


def test_every_command_is_timed() -> None:
    assert {command.name for command in app.registered_commands} == set(COMMANDS)


@pytest.mark.parametrize("arguments", ANSWERS, ids=" ".join)
def test_help_takes_under_300_ms(arguments: tuple[str, ...]) -> None:
    best = 1.0
    for _ in range(12):  # a busy machine makes single runs dearer; the cheapest says what the command costs
        best = min(best, _cpu_seconds(*arguments))
        if best < 0.3:
            break
    assert best < 0.3, f"focusc {' '.join(arguments)} took {best:.2f} s"


@pytest.mark.parametrize("command", COMMANDS)
def test_help_loads_nothing_heavy(command: str) -> None:
    """The cause behind the time, free of the machine's mood."""
    code = f"from focusc.cli import main\ntry:\n    main([{command!r}, '--help'])\nexcept SystemExit:\n    pass"
    usage, _, loaded = _printed(code, HEAVY).rpartition("\n")
    assert usage.startswith(f"Usage: focusc {command}")
    assert loaded == ""


def test_the_command_line_loads_nothing_heavy() -> None:
    assert _loaded("import focusc.cli", HEAVY) == []


def test_the_package_loads_nothing() -> None:
    assert _loaded("import focusc", (*HEAVY, "typer", "rich", "focusc.ir", "focusc.isa", "focusc.driver")) == []


@pytest.mark.parametrize("module", ["focusc.isa", "focusc.ir", "focusc.driver"])
def test_importing_a_layer_loads_no_framework(module: str) -> None:
    assert _loaded(f"import {module}", ("torch", "onnxruntime", "transformers", "matplotlib", "onnx")) == []
