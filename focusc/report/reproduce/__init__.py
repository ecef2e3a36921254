"""The published tables and figures, ours beside them: computed here, printed, and written as CSV, PNG and SVG.

The only part of `focusc.report` that computes: ratios and means of what `focusc.backends.cost` returns.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Final

from focusc.driver.errors import InputError
from focusc.isa.errors import suggest

if TYPE_CHECKING:
    from focusc.report.reproduce.figures import Table
    from focusc.report.reproduce.runs import Runs

__all__ = ["TABLES", "reproduce", "write"]

TABLES: Final[Mapping[str, str]] = {
    "results": "results:results",
    "headline": "ratios:headline",
    "speedup": "ratios:speedup",
    "ablation": "ratios:ablation",
    "traffic": "ratios:traffic",
    "accuracy": "results:accuracy",
    "int8": "results:int8",
    "images": "results:images",
    "tile-rows": "design:tile_rows",
    "vector-size": "design:vectors",
    "block-size": "design:blocks",
    "accumulators": "design:accumulators",
    "utilisation": "hardware:utilisation",
    "area-power": "hardware:area",
}
"""Tables by name: the module and function that make each."""


def reproduce(names: Sequence[str] = (), accountings: Sequence[str] = ("published",)) -> list[Table]:
    """The named tables, or all, in the order of `TABLES`. Raises InputError(`reproduce.table`) for an unknown name."""
    for name in names:
        if name not in TABLES:
            raise InputError("reproduce.table", f"there is no table {name!r}", hint=suggest(name, TABLES, "tables are"))
    from focusc.report.reproduce.runs import Runs

    runs = Runs(accountings)
    return [_maker(home)(runs) for name, home in TABLES.items() if name in names or not names]


def _maker(home: str) -> Callable[[Runs], Table]:
    module, _, function = home.partition(":")
    return getattr(import_module(f"focusc.report.reproduce.{module}"), function)


def write(tables: Sequence[Table], folder: str | os.PathLike[str]) -> list[Path]:
    """Write NAME.csv, .png and .svg of each table into `folder`; everything is made before the first is written.

    Raises InputError(`file.write`) if the folder cannot be made or written to.
    """
    from focusc.driver.files import atomic_writer, write_error

    target = Path(folder)
    try:
        target.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise write_error(target, error) from error
    if not os.access(target, os.W_OK | os.X_OK):
        raise InputError("file.write", "no permission to write into this folder", where=str(target),
                         hint="choose another place with -o")
    from focusc.report.reproduce.plots import draw

    files: dict[Path, bytes] = {}
    for table in tables:
        files[target / f"{table.name}.csv"] = table.csv().encode()
        for suffix, picture in draw(table).items():
            files[target / f"{table.name}.{suffix}"] = picture
    for path, data in files.items():
        with atomic_writer(path) as file:
            file.write(data)
    return list(files)
