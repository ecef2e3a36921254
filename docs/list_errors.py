"""Writes docs/errors.md from the sources: `python docs/list_errors.py`. A test checks that no code is missing there."""

from __future__ import annotations

import ast
import re
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parent.parent
FOLDERS = ("focusc", "ir", "isa", "backends")
CODE = re.compile(r"^[a-z]+\.[a-z][a-z0-9-]*$")
RAISERS = {
    "AsmError",
    "CompileError",
    "Diagnostic",
    "ExportError",
    "Fault",
    "FormatError",
    "InferError",
    "InputError",
    "IsaError",
    "Unsupported",
    "_error",
    "_fail",
    "_refuse",
    "_report",
    "bad_model",
    "fail",
}
AREAS = {
    "asm": "assembly text (`focusc asm`)",
    "attr": "attributes of IR ops",
    "block": "structure of the IR",
    "codegen": "code generation; most of these are limits of the instruction set that no mapping of ours reaches",
    "compare": "`focusc compare`",
    "concentrate": "the pass `concentrate`",
    "config": "the options file (`--config`)",
    "container": "program files (`.fbin`)",
    "cost": "the cost models (`focusc.backends.cost`)",
    "counts": "counts of a run in a trace file (`--record-trace`, `--trace`)",
    "export": "`focusc export`",
    "file": "files in general",
    "hardware": "hardware descriptions",
    "host": "what the host runs of a model (`focusc compile --host auto`)",
    "input": "arrays given to a program",
    "inputs": "files of arrays (`.npz`)",
    "insn": "instructions",
    "layout": "the token layout",
    "lower": "tiling: an op or a shape that the target cannot run",
    "model": "model files",
    "module": "structure of the IR",
    "onnx": "ONNX models",
    "op": "IR ops",
    "parse": "IR text",
    "pass": "passes and pipelines",
    "patches": "the picture of patches",
    "program": "programs",
    "reproduce": "`focusc reproduce`",
    "resource": "weights of IR files",
    "rewrite": "rewriting the IR from Python",
    "run": "execution, by the interpreter or the emulator",
    "tile": "tile sizes and buffers",
    "trace": "traces (`focusc trace`, `--trace`)",
    "timeline": "timelines",
    "timing": "timing",
    "target": "targets",
    "text": "text files",
    "type": "types of IR values",
    "value": "values of the IR",
    "workload": "workloads (`focusc workload`)",
}


def calls() -> Iterator[tuple[str, str]]:
    """(code, message as written in the source) of every place that raises a coded error."""
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if any(parent.is_symlink() for parent in path.parents):
                continue
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Call):
                    yield from _coded(node)
                elif isinstance(node, ast.FunctionDef):
                    yield from _defaults(node)


def _defaults(node: ast.FunctionDef) -> Iterator[tuple[str, str]]:
    """Codes that a parameter `code` has where none is given."""
    for parameter, value in zip(node.args.kwonlyargs, node.args.kw_defaults, strict=True):
        if parameter.arg == "code" and isinstance(value, ast.Constant) and CODE.match(str(value.value)):
            yield str(value.value), ""


def _coded(node: ast.Call) -> Iterator[tuple[str, str]]:
    name = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
    if name not in RAISERS:
        return
    written = [*node.args, *(keyword.value for keyword in node.keywords if keyword.arg == "code")]
    given = [branch for value in written for branch in _branches(value)]
    for argument in given:
        if isinstance(argument, ast.Constant) and isinstance(argument.value, str) and CODE.match(argument.value):
            rest = [other for other in node.args if other is not argument]
            yield argument.value, next((text for other in rest if (text := _text(other))), "")


def _branches(node: ast.expr) -> list[ast.expr]:
    """Both values of `a if c else b`, else the expression itself."""
    return [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]


def _text(node: ast.expr) -> str:
    """A string or f-string with its values as dots."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, str) else ""
    if isinstance(node, ast.JoinedStr):
        return "".join(_text(part) if isinstance(part, ast.Constant) else "…" for part in node.values)
    if isinstance(node, ast.BinOp):
        return _text(node.left) + (_text(node.right) or "…")
    return ""


def page() -> str:
    """The page."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for code, message in calls():
        found[code].add(" ".join(message.split()))
    lines = [
        "# Errors",
        "",
        "Bad input ends a command with status 1 and one message: where, `error[code]`, what was found and what was",
        "expected, and a hint if there is something to do. Codes are stable. This page is written by",
        "`docs/list_errors.py` from the sources; `…` stands for the value at hand.",
        "",
        "`bug` is not in the list: it is what a fault of ours says, and the message names the file with the traceback.",
    ]
    area = ""
    for code in sorted(found):
        if code.split(".")[0] != area:
            area = code.split(".")[0]
            lines += ["", f"## {area}: {AREAS.get(area, area)}", "", "| code | message |", "|---|---|"]
        texts = sorted(text for text in found[code] if text.strip("… "))
        shown = "<br>".join(text.replace("|", "\\|") for text in texts[:4])
        lines.append(f"| `{code}` | {shown} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    (ROOT / "docs" / "errors.md").write_text(page())
