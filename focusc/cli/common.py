"""What every command shares: exit status, errors as messages, `--json`, progress bars, options of several commands."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

if TYPE_CHECKING:
    from rich.console import RenderableType

    from focusc.driver import Progress

Array = Literal["scalesim", "pipelined"]
Method = Literal["none", "sec", "sic", "focus"]

HostOption = Annotated[
    Literal["auto", "none"] | None,
    typer.Option("--host", help="What the target refuses: leave it to the host (auto), or stop (none). Default: auto."),
]
Json = Annotated[bool, typer.Option("--json", help="Print one JSON object instead of text.")]
ArrayOption = Annotated[
    Array, typer.Option("--array", help="How the array is timed: published passes, or overlapped ones.")
]
Target = Annotated[
    str | None, typer.Option(help="focus, systolic, or a hardware description (.toml). Default: focus.")
]
Config = Annotated[Path | None, typer.Option(metavar="FILE.toml", help="Options from a file; flags win over it.")]
Visual = Annotated[
    str | None, typer.Option("--visual", metavar="START,LENGTH", help="Visual span, if the model does not say.")
]
Grid = Annotated[str | None, typer.Option("--grid", metavar="F,H,W", help="Grid of the visual tokens.")]
Strides = Annotated[str | None, typer.Option("--strides", metavar="F,H,W", help="Linear strides; H*W,W,1 if left out.")]
Query = Annotated[int | None, typer.Option("--query", metavar="N", help="Text tokens after the visual span that ask.")]
LayoutFile = Annotated[
    Path | None, typer.Option("--layout", metavar="FILE.toml", help="The four values above from a [layout] table.")
]


def guarded(app: Callable[..., object], arguments: Sequence[str]) -> None:
    """Run `app`; bad input becomes a message and status 1, a bug of ours says so and leaves its traceback in a file."""
    try:
        app(args=list(arguments), prog_name="focusc")
    except BrokenPipeError:  # the reader of our output (head, less) has gone: nothing is wrong
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except Exception as error:
        if os.environ.get("FOCUSC_DEBUG"):
            raise
        code, text = explain(error, arguments)
        print(text, file=sys.stderr)
        if "--json" in arguments:
            print(json.dumps({"error": {"code": code, "text": text}}))
        sys.exit(1)


def explain(error: Exception, arguments: Sequence[str] = ()) -> tuple[str, str]:
    """(stable code, message for people) of any exception; what is not bad input is called a bug of ours."""
    render = getattr(error, "render", None)
    if callable(render):
        return _code(error), str(render())
    if isinstance(error, OSError) and error.filename is not None:
        return "file.system", f"{error.filename}: error[file.system]: {error.strerror}"
    if isinstance(error, MemoryError):
        return "memory", f"error[memory]: this needs more memory than there is ({error})"
    if isinstance(error, ModuleNotFoundError) and (extra := _extra(error.name or "")):
        return "install.extra", (
            f"error[install.extra]: this command needs the package {error.name}\n"
            f"  hint: python -m pip install 'focusc[{extra}]'"
        )
    return "bug", _bug(error, arguments)


def _code(error: Exception) -> str:
    diagnostics = getattr(error, "diagnostics", None)
    return str(getattr(diagnostics[0] if diagnostics else error, "code", "error"))


def _extra(module: str) -> str:
    """The optional extra of pyproject.toml that brings a module, or nothing."""
    extras = {
        "demo": {"torch", "onnxscript", "matplotlib", "skimage", "sklearn"},
        "hf": {"transformers", "tokenizers", "torchvision", "av", "PIL"},
        "gguf": {"gguf", "accelerate"},
    }
    return next((extra for extra, modules in extras.items() if module.split(".")[0] in modules), "")


def _bug(error: Exception, arguments: Sequence[str]) -> str:
    import tempfile
    import traceback

    with tempfile.NamedTemporaryFile("w", prefix="focusc-bug-", suffix=".txt", delete=False) as file:
        file.write(f"focusc {' '.join(arguments)}\n\n")
        traceback.print_exception(error, file=file)
    return (
        f"error[bug]: this is a bug in focusc, not in your input: {type(error).__name__}: {error}\n"
        f"  the traceback is in {file.name}; FOCUSC_DEBUG=1 prints it here"
    )


def emit(data: object, as_json: bool, text: Callable[[], None]) -> None:
    """Print `data` as JSON on stdout, or call `text`, which prints for people."""
    if as_json:
        print(json.dumps(plain(data), indent=2))
    else:
        text()


def show(*parts: RenderableType) -> None:
    """Print tables and text for people: in colour on a terminal, plain and wide elsewhere."""
    from rich.console import Console, Group
    from rich.text import Text

    console = Console(highlight=False, markup=False)
    if not console.is_terminal:
        console = Console(highlight=False, markup=False, width=160, color_system=None)
    for part in parts:
        if isinstance(part, Group):
            show(*part.renderables)
        else:
            console.print(part, soft_wrap=isinstance(part, (str, Text)))


def plain(value: Any) -> Any:
    """`value` with numpy scalars, tuples, paths and dataclasses turned into what JSON knows."""
    import dataclasses

    if isinstance(value, dict):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return plain({field.name: getattr(value, field.name) for field in dataclasses.fields(value)})
    if isinstance(value, Path):
        return str(value)
    to_list = getattr(value, "tolist", None)  # numpy arrays and scalars
    return plain(to_list()) if callable(to_list) else value


@contextmanager
def progress(quiet: bool = False) -> Iterator[Progress]:
    """A bar on stderr for work of known length: call the yielded function with (what, done, total).

    Nothing is drawn when stderr is not a terminal or `quiet` is set, so that logs and pipes stay clean.
    """
    if quiet or not sys.stderr.isatty():
        yield lambda what, done, total: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=None)

        def report(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done, total=total)

        yield report
