"""The command line: `focusc VERB ...`. Each verb is one module; the work is in `focusc.driver`.

Nothing heavy is imported here: `focusc --help` must answer in well under 0.3 seconds.
"""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from focusc.cli import asm, compare, compile, demo, export, objdump, ops, opt, reproduce, run, simulate, trace, workload
from focusc.cli.common import guarded

if TYPE_CHECKING:
    from typer.core import TyperOption

__all__ = ["app", "main"]


class _Root(TyperGroup):
    """The group of all commands. Its own `--help` is False when it is not given: typer would load pydantic, two
    thirds of the time of `focusc VERB --help`, to find out what a missing value means."""

    def get_help_option(self, ctx: Any) -> TyperOption | None:
        option = super().get_help_option(ctx)
        if option is not None:
            option.default = False
        return option


app = typer.Typer(
    name="focusc",
    cls=_Root,
    help="Compile vision-language models for a concentrating accelerator, and run the result on its emulator.",
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    no_args_is_help=True,
    context_settings={"max_content_width": 120},
)


def _version(value: bool) -> None:
    if value:
        from focusc import __version__

        typer.echo(f"focusc {__version__}")
        raise typer.Exit


@app.callback(epilog="Exit status: 0 done, 1 bad input (the message says what and where), 2 wrong usage.")
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and leave.")
    ] = False,
) -> None:
    pass


app.command("export")(export.command)
app.command("ops")(ops.command)
app.command("compile")(compile.command)
app.command("opt")(opt.command)
app.command("run")(run.command)
app.command("simulate")(simulate.command)
app.command("objdump")(objdump.command)
app.command("asm")(asm.command)
app.command("compare")(compare.command)
app.command("demo")(demo.command)
app.command("workload")(workload.command)
app.command("reproduce")(reproduce.command)
app.add_typer(trace.app, name="trace")


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point of the `focusc` script: run the command and turn every error into its message and exit status.

    As a script it ends without a word when the reader of its output has gone (`| head`), like any other tool.
    """
    if arguments is None and hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    guarded(app, sys.argv[1:] if arguments is None else arguments)
